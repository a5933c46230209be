import Claims
import FastJSON
package import LinuxSystem
package import Logging
import MessageModel
package import MessageStore
package import NIOCore
import RemotingProtocol
package import RemotingTransport
import SettingTable
import StoreFormat
import WorkerProtocol

/// One broker: its store, its tables and its processors, wired together on one event loop that owns all of them.
///
/// A tick: every frame of one epoll round goes through `received`. That answers at once, suspends the request, or puts
/// a message into the store's write buffer. `endOfTick` then writes all of it with one call, releases what waited for
/// that and wakes suspended pulls. Then the transport flushes each connection once.
package final class Broker: RemotingService {
    let environment: BrokerEnvironment
    let tables: BrokerTables
    let storage: StoreAccess
    let notifier: GroupNotifier
    let kinds: MessageKinds
    let registration: NameserverRegistration
    let settings: BrokerSettings
    let files: TableFiles
    let keeper: TableKeeper
    let replica: ReplicaStatus
    let processors: Processors
    let hold: PullRequestHold
    /// The process connects filter workers to it, and gives it their messages.
    package let filters: FilterLink
    let claims: GroupClaims
    /// Nil on a master.
    let claimsReplica: ClaimsReplica?
    let popWaiters: PopWaiters

    /// By request code.
    let requests = RequestTable.byCode

    /// Connections there have been.
    private var connectionCount = 0
    var timers: [RepeatedTask] = []
    var isLookingForPluginSubscriptions = false
    /// By address: clients whose connections were handed over and are about to be opened.
    var expected: [String: ClientContext.Heartbeat] = [:]
    /// Tables of the master that are being read on another thread.
    var replicaTablesInWork = 0
    /// The store is open.
    var isOpen = false
    /// Tables of the master that arrived before: the newest of each kind.
    var earlyTables: [(kind: ReplicaMetadataKind, bytes: [UInt8])] = []

    /// - Parameters:
    ///   - store: not yet open.
    ///   - work: does all background work; `nil` starts threads as they are needed.
    ///   - now: milliseconds since 1970.
    ///   - steady: milliseconds of a clock that is never set.
    /// - Throws: `BrokerError.configuration`.
    package init(
        configuration: BrokerConfiguration, store: MessageStore, disk: any Disk, eventLoop: any EventLoop,
        logger: Logger, work: (any BackgroundWork)? = nil, now: @escaping () -> Int64 = Clock.nowMilliseconds,
        steady: @escaping () -> Int64 = Clock.steadyMilliseconds
    ) throws(BrokerError) {
        let address = try Self.storeHost(configuration)
        let environment = BrokerEnvironment(
            configuration: configuration, storeHost: address, disk: disk, eventLoop: eventLoop, logger: logger,
            work: work, now: now, steady: steady)
        let gate = AckGate(environment, store, storeHost: address)
        let admission = Admission(environment, gate)
        let notifier = GroupNotifier(environment, admission)
        let tables = try BrokerTables(environment, notifier)
        let storage = StoreAccess(environment, tables, store, gate, admission)
        let kinds = MessageKinds(environment, tables, storage)
        let registration = NameserverRegistration(environment, tables)
        let settings = BrokerSettings(environment, tables, storage, kinds.transactions, registration)
        let files = TableFiles(environment, folder: store.configuration.configPath) { file in
            switch file {
            case .changedSettings: settings
            case .topics: tables.topics
            case .subscriptionGroups: tables.groups
            case .consumerOffsets: tables.offsets
            case .delayOffsets: kinds.schedule
            case .timerMetrics: kinds.timers.metrics
            case .autoCreatedTopics: tables.autoCreated
            case .messageRequestModes: tables.requestModes
            }
        }
        (self.environment, self.tables, self.storage) = (environment, tables, storage)
        (self.notifier, self.kinds, self.registration) = (notifier, kinds, registration)
        (self.settings, self.files) = (settings, files)
        keeper = TableKeeper(environment, tables, storage, files)
        replica = ReplicaStatus(environment, storage)
        hold = PullRequestHold(environment, store)
        filters = FilterLink(eventLoop: eventLoop, observer: hold, now: now)
        popWaiters = PopWaiters(environment, store)
        claims = GroupClaims(environment, tables, store, popWaiters)
        claimsReplica =
            configuration.isSlave
            ? ClaimsReplica(environment, folder: GroupClaims.folder(store.configuration)) : nil
        processors = Processors(
            environment, tables, storage, hold: hold, filters: filters, claims: claims, waiters: popWaiters,
            kinds: kinds, keeper: keeper,
            answers: TableAnswers(environment, files), settings: settings, registration: registration,
            replica: replica, notifier: notifier)
    }

    // Short names for the broker itself and its tests.
    /// As it is now: online changes are in it.
    package var configuration: BrokerConfiguration { environment.configuration }
    /// The broker owns it; all calls come on `eventLoop`.
    package var store: MessageStore { storage.store }
    /// The one thread all of the broker runs on.
    package var eventLoop: any EventLoop { environment.eventLoop }
    /// For what concerns the whole broker.
    package var logger: Logger { environment.logger }
    var slices: SlicedWork { environment.slices }
    var topics: TopicConfigManager { tables.topics }
    var groups: SubscriptionGroupManager { tables.groups }
    var offsets: ConsumerOffsetManager { tables.offsets }
    var consumers: ConsumerManager { tables.consumers }
    var producers: ProducerManager { tables.producers }
    var gate: AckGate { storage.gate }

    /// The host in message identifiers, which has room for IPv4 addresses. Of a host name the address it has now, for
    /// as long as this process: identifiers lead back here, and clients get the name itself.
    private static func storeHost(
        _ configuration: BrokerConfiguration
    ) throws(BrokerError) -> HostAddress {
        let name = configuration.brokerIP1
        let address: String
        do throws(HostName.Failure) {
            address = try HostName.ipv4(of: name)
        } catch {
            throw .configuration(
                "brokerIP1 = \(name): \(error); set it to the address clients reach this broker at, or give the name "
                    + "an address (DNS, /etc/hosts)")
        }
        guard let host = HostAddress(ipv4Text: "\(address):\(configuration.listenPort)") else {
            throw .configuration(
                "brokerIP1 = \(name), listenPort = \(configuration.listenPort) are no IPv4 address and port")
        }
        return host
    }

    /// What the store reports once it is open.
    var storeEvents: StoreEvents {
        StoreEvents(
            arrival: { [hold] queue, arrival in hold.arrived(queue, arrival) },
            written: { [environment] offset in environment.platform.logWritten(to: offset) },
            flushed: { [environment, gate, kinds] offset in
                environment.platform.logFlushed(to: offset)
                gate.flushed(to: offset.rawValue)
                kinds.flushed()
            },
            flushFailed: { [environment, gate] error in
                environment.logger.error(
                    """
                    flushing the commit log failed, no messages are taken until it has been verified and written anew: \
                    \(error)
                    """
                )
                gate.flushFailed()
            },
            minimumMoved: { [environment, processors] offset in
                processors.sender.transfer.release(below: offset)
                environment.platform.logBegins(at: offset)
            })
    }

    // MARK: - Frames

    /// Gives the connection its context. A client that was handed over is registered by its last heartbeat.
    package func connectionOpened(_ connection: RemotingConnection) {
        let client = ClientContext(connection, number: connectionCount)
        connectionCount += 1
        connection.context = client
        guard let said = expected.removeValue(forKey: connection.remoteAddress.text) else { return }
        do throws(RemotingDecodeError) {
            // The group is what it was before: no member needs to be notified.
            try processors.clients.takeOver(said, client)
        } catch {
            logger.error(
                """
                the last heartbeat of \(client.address) before the restart cannot be decoded, the client registers \
                with its next one: \(error)
                """
            )
        }
    }

    /// Ends the client's suspended pulls, pops and leases, then takes it out of its groups, in slices.
    package func connectionClosed(_ connection: RemotingConnection) {
        guard let client = connection.context as? ClientContext else { return }
        client.closedBefore = connectionCount
        processors.clients.heartbeats.keep(nil, of: client)
        hold.connectionClosed(client)
        popWaiters.connectionClosed(client)
        claims.leases.closed(client)
        connection.context = nil
        // In slices where it was in very many groups: nothing is written to a closed connection meanwhile.
        let leave = { [unowned self] () -> Bool in
            if producers.leaveSome(client, atMost: ClientManageProcessor.groupsPerSlice) { return true }
            return consumers.leaveSome(client, atMost: ClientManageProcessor.groupsPerSlice) { group in
                groups[group]?.config.notifyConsumerIDsChangedEnable ?? true
            }
        }
        if leave() { slices.add(leave) }
    }

    // MARK: - Ticks

    func scheduleTick() { environment.scheduleTick() }

    /// The transport calls it once a tick, before it flushes the connections.
    package func endOfTick() {
        // Behind all that the tick has handed out, ended or delivered, and before all that reads what it has stored.
        processors.edits.carryOutWaiting()
        keeper.persistChanges()
        commit()
        hold.runWoken()
        popWaiters.runWoken()
        writeClaims()
        notifier.endOfTick(consumers)
        registration.registerChanges()
        // What a woken pull has stored itself (OFFSET_MOVED_EVENT) is written with the next tick.
    }

    /// Popped messages leave when it is written down who has them.
    private func writeClaims() {
        do throws(ClaimError) {
            try claims.commitTick()
            processors.pop.claimsWritten()
        } catch {
            logger.error(
                """
                the claims of popped messages were not written, their pops are refused: \(error); the messages come \
                again after their invisible time; free the disk, or look at it
                """
            )
            processors.pop.claimsNotWritten(error)
        }
    }

    private func commit() {
        do throws(StoreError) {
            let began = storage.statistics.untimed > 0 ? environment.now() : 0
            try store.commitTick()
            if storage.statistics.untimed > 0 { storage.statistics.wrote(in: max(0, environment.now() - began)) }
            gate.committed(written: store.writtenOffset.rawValue)
            kinds.committed()
            processors.pop.storeCommitted()
            processors.edits.storeCommitted()
        } catch {
            logger.error("writing to the commit log failed, the sends that waited for it are refused: \(error)")
            // The store's own text states which disk, how full and what frees it.
            gate.failed(store.notWritable.map { "\($0)" } ?? "\(error)")
            kinds.failed()
            processors.pop.storeFailed()
            processors.edits.storeFailed()
        }
    }
}
