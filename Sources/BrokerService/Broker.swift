import FastJSON
package import LinuxSystem
package import Logging
package import MessageStore
package import NIOCore
import RemotingProtocol
package import RemotingTransport
import SettingTable
package import StoreFormat
package import WorkerProtocol

/// One broker: its store, its tables and its processors, wired together on one event loop that owns all of them.
///
/// A tick: every frame of one epoll round goes through `received`, which answers at once, holds the request, or puts a
/// message into the store's write buffer; `endOfTick` then writes all of it with one call, releases what waited for
/// that and wakes held pulls; then the transport flushes each connection once.
package final class Broker: RemotingService {
    package internal(set) var configuration: BrokerConfiguration
    package let store: MessageStore
    package let eventLoop: any EventLoop
    package let logger: Logger
    let disk: any Disk
    let now: () -> Int64
    let storeHost: StoreFormat.HostAddress
    let delayLevels: [Int64]
    /// Region and trace switch, which every answer to a send carries.
    let sendResponseFields: [(String, String)]

    let topics: TopicConfigManager
    let groups: SubscriptionGroupManager
    let offsets = ConsumerOffsetManager()
    let consumers = ConsumerManager()
    let producers = ProducerManager()
    var locks: RebalanceLockManager
    let gate: AckGate
    let hold: PullRequestHold
    let slices: SlicedWork
    package let filters: FilterLink
    var statistics: BrokerStatistics
    let stats: StatsTable
    private(set) lazy var kinds = MessageKinds(self)
    /// Where work on timer files and tables is done, set before `open`; nil: on threads of their own.
    var timerFileWork: (any TimerFileWork)?
    var schedule: ScheduleMessageService { kinds.schedule }
    var timerMessages: TimerMessageStore { kinds.timers }
    var transactions: TransactionalMessageService { kinds.transactions }
    var undeliverable: UndeliverableMessages { kinds.undeliverable }
    let timerSettings: TimerSettings
    /// `storeReplyMessageEnable`.
    let storesReplies: Bool
    private(set) lazy var registration = NameserverRegistration(self)

    /// Where the table of offsets is written: it may be large, and nobody waits for it.
    private(set) lazy var offsetWork: any TimerFileWork = timerFileWork ?? TimerFileThread(eventLoop: eventLoop)
    /// Tables of the master that are being read on another thread.
    var replicaTablesInWork = 0
    /// Where texts of large tables are made: apart from the files, so that a slow disk keeps nobody's answer.
    private(set) lazy var textWork: any TimerFileWork = timerFileWork ?? TimerFileThread(eventLoop: eventLoop)
    private(set) lazy var tableAnswers = TableAnswers(self, work: textWork)

    private(set) lazy var send = SendMessageProcessor(self)
    private(set) lazy var reply = ReplyMessageProcessor(self)
    private(set) lazy var recall = RecallMessageProcessor(self)
    private(set) lazy var endTransaction = EndTransactionProcessor(self)
    private(set) lazy var pull = PullMessageProcessor(self)
    private(set) lazy var sendBack = SendBackProcessor(self)
    private(set) lazy var clients = ClientManageProcessor(self)
    private(set) lazy var queues = QueueProcessor(self)
    private(set) lazy var queries = QueryMessageProcessor(self)
    private(set) lazy var admin = AdminBrokerProcessor(self)
    private(set) lazy var consumeStats = ConsumeStatsProcessor(self)
    private(set) lazy var relay = ClientRelayProcessor(self)

    /// By request code.
    let requests = RequestTable.byCode

    /// Whose request was handled last; it is still there while its request is handled.
    unowned(unsafe) var requester: ClientContext?
    /// Connections there have been.
    private var connectionCount = 0
    /// When the topics were last written because of a send that was refused (`reasonNotKept`); milliseconds since 1970.
    var topicsTriedMillis: Int64 = 0
    var timers: [RepeatedTask] = []
    var isLookingForPluginSubscriptions = false
    private var notices = MembershipNotices()
    var consumerNotices = ConsumerNotices()
    private var noticesTask: Scheduled<Void>?
    /// When `brokerPermission` lost its write; 0 when it started without.
    var writeWithdrawnMillis: Int64 = 0
    var isDraining: Bool {
        get { admission.isDraining }
        set { admission.isDraining = newValue }
    }
    /// What is refused at the moment, and why.
    var admission: Admission
    /// Topics clients' messages have made here or at another broker of this platform: those all of its brokers have.
    var autoCreated = AutoCreatedTopics()
    /// A client's message has made this topic: tell the other brokers of the platform.
    package var topicCreated: (AutoCreatedTopic) -> Void = { _ in }
    /// By address: clients whose connections were handed over and are about to be opened.
    var expected: [String: ClientContext.Heartbeat] = [:]
    private(set) lazy var keeper = TableKeeper(self, work: timerFileWork ?? TimerFileThread(eventLoop: eventLoop))
    /// Counts changes of the settings (25).
    var configurationVersion: DataVersion
    /// Settings operators have changed while the broker runs.
    var changedSettings: ChangedSettings

    /// Work of the broker's own, by name, took longer than a millisecond of the event loop.
    package var workTookLong: (String, TimeAmount) -> Void = { _, _ in }
    /// The longest turn of the event loop since the start, and of the last minute.
    package var longestTurns: () -> (ever: TimeAmount, lastMinute: TimeAmount) = { (.zero, .zero) }
    /// Makes the transport end a tick after what runs now.
    package var requestTick: () -> Void = {}
    /// The log's end moved: publish it to replication and filter.
    package var writtenMoved: ((PhysicalOffset) -> Void)?
    package var flushedMoved: ((PhysicalOffset) -> Void)?
    package var minimumMoved: ((PhysicalOffset) -> Void)?
    /// Asks the replication worker who follows; nil without one.
    package var askForSlaves: ((UInt64) -> Void)?
    var replica = ReplicaStatus()
    /// Connected slaves and how far the best one is, from the segment `replication`.
    package var slaves: () -> (count: UInt64, ackOffset: Int64) = { (0, 0) }

    /// - Parameter now: milliseconds since 1970.
    package init(
        configuration: BrokerConfiguration, store: MessageStore, disk: any Disk, eventLoop: any EventLoop,
        logger: Logger, now: @escaping () -> Int64 = Clock.nowMillis
    ) throws(BrokerError) {
        let address = try Self.storeHost(configuration)
        self.configuration = configuration
        self.store = store
        self.disk = disk
        self.eventLoop = eventLoop
        self.logger = logger
        self.now = now
        storeHost = StoreFormat.HostAddress(address)
        delayLevels = configuration.delayLevels
        timerSettings = TimerSettings(configuration)
        locks = RebalanceLockManager(maxLiveMillis: configuration.rebalanceLockMaxLiveTime)
        storesReplies = configuration.flag("storeReplyMessageEnable") ?? true
        sendResponseFields = [
            ("MSG_REGION", configuration.regionId), ("TRACE_ON", configuration.traceOn ? "true" : "false"),
        ]
        topics = try TopicConfigManager(configuration, now: now)
        groups = SubscriptionGroupManager(configuration, now: now)
        let isUsual = configuration.regionId == "DefaultRegion" && configuration.traceOn
        gate = AckGate(
            conditions: AckGate.Conditions(configuration), storeHost: address,
            responseFields: isUsual ? nil : sendResponseFields, eventLoop: eventLoop, now: now)
        admission = Admission(configuration, gate: gate, sendResponseFields: sendResponseFields, now: now)
        slices = SlicedWork(eventLoop: eventLoop)
        hold = PullRequestHold(eventLoop: eventLoop, slices: slices, now: now)
        filters = FilterLink(eventLoop: eventLoop, now: now)
        statistics = BrokerStatistics(bootMillis: now())
        stats = StatsTable(now: now())
        configurationVersion = DataVersion(timestamp: now(), counter: 0)
        changedSettings = ChangedSettings(
            file: configuration.pairs.map { ($0.key, $0.value) },
            standard: (configuration.listing + store.configuration.listing).map { ($0.key, $0.value) })
        wire()
    }

    /// The host in message identifiers, which has room for IPv4 addresses. Of a host name the address it has now, for the life of this
    /// process: identifiers lead back here, and clients are told the name itself.
    private static func storeHost(
        _ configuration: BrokerConfiguration
    ) throws(BrokerError) -> RemotingProtocol.HostAddress {
        let name = configuration.brokerIP1
        let address: String
        do throws(HostName.Failure) {
            address = try HostName.ipv4(of: name)
        } catch {
            throw .configuration(
                "brokerIP1 = \(name): \(error); set it to the address clients reach this broker at, or give the name an address "
                    + "(DNS, /etc/hosts)")
        }
        guard let host = RemotingProtocol.HostAddress(ipv4Text: "\(address):\(configuration.listenPort)") else {
            throw .configuration(
                "brokerIP1 = \(name), listenPort = \(configuration.listenPort) are no IPv4 address and port")
        }
        return host
    }

    /// What the store reports once it is open.
    var storeEvents: StoreEvents {
        StoreEvents(
            arrival: { [unowned self] queue, arrival in hold.arrived(queue, arrival) },
            written: { [unowned self] offset in writtenMoved?(offset) },
            flushed: { [unowned self] offset in
                flushedMoved?(offset)
                gate.flushed(to: offset.rawValue)
                kinds.flushed()
            },
            flushFailed: { [unowned self] error in
                logger.error("flush failed: \(error)")
                gate.flushFailed()
            },
            minimumMoved: { [unowned self] offset in
                pull.transfer.release(below: offset)
                minimumMoved?(offset)
            })
    }

    private func wire() {
        slices.run = { [unowned self] slice in measured("a slice of long work", slice) }
        gate.requestFlush = { [unowned self] in store.requestFlush() }
        gate.slaves = { [unowned self] in slaves() }
        hold.findQueue = { [unowned self] pull in
            store.findConsumeQueue(topic: pull.topic.topicName, queueId: pull.queueId)
        }
        hold.run = { [unowned self] pull, expired in self.pull.run(pull, expired: expired) }
        filters.available = { [unowned self] in
            // Whatever waits for more than tags goes on with the new worker.
            hold.wakeAll { pull in
                guard case .compiled(let subscription) = pull.filter else { return false }
                switch subscription.state {
                case .everything, .tagsCodes: return false
                default: return true
                }
            }
            scheduleTick()
        }
        groups.mayCreate = { [unowned self] in
            requester.map { creations.mayMakeGroup($0) } ?? true
        }
        topics.changed = { [unowned self] _ in registration.topicsChanged() }
        consumers.disagreed = { [unowned self] group, conflict in
            logger.warning(
                "consumer group \(group.name) is inconsistent: \(conflict); each is served what it asks for, but only from the queues it is assigned: let all clients of a group subscribe to the same",
                metadata: ["consumerGroup": "\(group.name)"])
        }
        consumers.left = { [unowned self] group, client, remaining in
            // All of them end with this broker.
            guard !isDraining else { return }
            consumerNotices.left(group: group, client: client, remaining: remaining, now: now(), logger)
        }
        consumers.notify = { [unowned self] group, _ in
            // Connections that end with this broker are no change of the group.
            guard !isDraining else { return }
            notices.changed(group)
            scheduleTick()
        }
    }

    /// Routes have been without `brokerPermission`'s write for so long that every producer that follows them is gone.
    ///
    /// RocketMQ refuses messages for ordered topics only, and trusts in the routes for the others. Refusing those at once would have
    /// operators who drain a broker cause errors at its producers; never refusing them would leave the setting without effect for
    /// producers that do not ask for routes.
    var refusesWrites: Bool { now() - writeWithdrawnMillis >= Self.routesSpreadMillis }

    /// Twice the time between two looks of a client at its routes.
    static let routesSpreadMillis: Int64 = 60_000

    /// Bounds on what is made because a client named it, by its address.
    private(set) lazy var creations = CreationRates(now: now)

    func filter(type: String, expression: String) -> SubscriptionFilter {
        let isTag = Subscription.isTagType(type)
        if isTag, expression.isEmpty || expression == "*" { return .all }
        return .compiled(filters.subscription(type: isTag ? "TAG" : type, expression: expression))
    }

    /// Runs a piece of work and tells of it if it takes long.
    func measured<Result>(_ name: @autoclosure () -> String, _ work: () -> Result) -> Result {
        let began = NIODeadline.now()
        let result = work()
        let took = NIODeadline.now() - began
        if took > .milliseconds(1) { workTookLong(name(), took) }
        return result
    }

    // MARK: Frames

    package func connectionOpened(_ connection: RemotingConnection) {
        let client = ClientContext(connection, number: connectionCount)
        connectionCount += 1
        connection.context = client
        guard let said = expected.removeValue(forKey: connection.remoteAddress.text) else { return }
        do throws(RemotingDecodeError) {
            // The group is what it was before: nobody needs to be told.
            try clients.takeOver(said, client)
        } catch {
            logger.error("what \(client.address) said before the restart is not understood any more: \(error)")
        }
    }

    package func connectionClosed(_ connection: RemotingConnection) {
        guard let client = connection.context as? ClientContext else { return }
        client.closedBefore = connectionCount
        hold.connectionClosed(client)
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

    // MARK: Ticks

    func scheduleTick() { requestTick() }

    /// The transport calls it once a tick, before it flushes the connections.
    package func endOfTick() {
        persistConfigurationChanges()
        commit()
        hold.runWoken()
        tellMembers()
        // What a woken pull has stored itself (OFFSET_MOVED_EVENT) is written with the next tick.
    }

    /// Has the members of a group look anew at what they own: a queue one of them waits for is free.
    func rebalance(_ group: String) {
        guard groups[group]?.config.notifyConsumerIDsChangedEnable ?? true else { return }
        notices.changed(group)
        scheduleTick()
    }

    /// Members of groups that have changed are told so, by one notice for all changes of a while.
    private func tellMembers() {
        guard !notices.isEmpty else { return }
        let isEnabled = configuration.notifyConsumerIdsChangedEnable
        let time = now()
        // Of all groups together: a connection may have left two thousand.
        var mayBeToldNow = Self.noticesPerSlice
        let next = notices.tell(now: time) { group in
            guard isEnabled, let members = consumers[group]?.clients else { return 0 }
            // The same bytes for everybody: nobody answers, so that the number of the request means nothing.
            var notice = RemotingCommand(.notifyConsumerIDsChanged, extFields: ["consumerGroup": group])
            notice.flag = RemotingFrame.onewayFlag
            var frame = ByteBuffer()
            notice.encode(into: &frame)
            tell(members, frame, isLater: mayBeToldNow <= 0)
            mayBeToldNow -= members.count
            return members.count
        }
        noticesTask?.cancel()
        noticesTask = next.map { next in
            let this = NIOLoopBound(self, eventLoop: eventLoop)
            return eventLoop.scheduleTask(in: .milliseconds(max(1, next - time))) { this.value.scheduleTick() }
        }
    }

    /// Members told in one slice: each is a write and a send of its own.
    static let noticesPerSlice = 256

    /// Sends members the same frame, in slices.
    /// - Parameter isLater: the first slice is for a later turn, too.
    func tell(_ members: [ClientChannelInfo], _ frame: ByteBuffer, isLater: Bool = false) {
        var left = members[...]
        let slice = { () -> Bool in
            for member in left.prefix(Self.noticesPerSlice) {
                member.client.connection.write { $0.writeImmutableBuffer(frame) }
            }
            left = left.dropFirst(Self.noticesPerSlice)
            return !left.isEmpty
        }
        if isLater || slice() { slices.add(slice) }
    }

    private func commit() {
        do throws(StoreError) {
            let began = statistics.untimed > 0 ? now() : 0
            try store.commitTick()
            if statistics.untimed > 0 { statistics.wrote(in: max(0, now() - began)) }
            gate.committed(written: store.writtenOffset.rawValue)
            kinds.committed()
        } catch {
            logger.error("the write of a tick failed: \(error)")
            // The store's own words say which disk, how full and what frees it.
            gate.failed(store.notWritable.map { "\($0)" } ?? "\(error)")
            kinds.failed()
        }
    }

    /// Stores a message of the broker's own.
    func storeOwn(topic: String, queueId: Int32, properties: PropertyList, body: [UInt8]) {
        let time = now()
        let outcome = Array(topic.utf8).withUnsafeBytes { topic in
            properties.bytes.withUnsafeBytes { properties in
                body.withUnsafeBytes { body in
                    var draft = MessageDraft(
                        topic: topic, queueId: queueId, bornHost: storeHost, storeHost: storeHost, body: body)
                    draft.bornTimestamp = time
                    draft.properties = properties
                    return store.append(draft)
                }
            }
        }
        if case .refused(let refusal) = outcome { logger.warning("a message for \(topic) was not stored: \(refusal)") }
        scheduleTick()
    }

    /// Stores a record again under other properties, delayed if they say so.
    func append(
        _ record: CommitLogRecordView, to topic: String, queueId: Int32, properties: PropertyList,
        _ adjust: (inout MessageDraft) -> Void
    ) -> AppendOutcome {
        var topic = topic
        var queueId = queueId
        var properties = properties
        if let wanted = properties[PropertyName.delayLevel].flatMap({ Int($0) }), wanted > 0 {
            // Not 0, whatever the setting: queue -1 has no readers.
            let level = max(1, min(wanted, delayLevels.count))
            properties[PropertyName.delayLevel] = String(level)
            properties[PropertyName.realTopic] = topic
            properties[PropertyName.realQueueId] = String(queueId)
            topic = TopicNames.schedule
            queueId = Int32(level - 1)
        } else if record.topic.matches("RMQ_SYS_TRANS_HALF_TOPIC"),
            case .at(let due) = properties.timerRequest(now: now(), maxDelay: timerSettings.maxDelay)
        {
            properties.makeTimer(due: due, topic: topic, queueId: queueId)
            topic = TimerMessageStore.topic
            queueId = 0
        }
        let isDelayed = topic == TopicNames.schedule
        let waits = isDelayed || topic == TimerMessageStore.topic
        return Array(topic.utf8).withUnsafeBytes { topic in
            properties.bytes.withUnsafeBytes { properties in
                var draft = MessageDraft(copyOf: record, topic: topic, queueId: queueId, properties: properties)
                adjust(&draft)
                if waits { draft.growth = 0 }
                let outcome = store.append(draft)
                if case .appended(let result) = outcome {
                    topics[UnsafeRawBufferPointer(topic)]?.count(1, bytes: result.size, in: stats)
                    if isDelayed { stats.delayed(queueId: queueId, bytes: result.size) }
                }
                return outcome
            }
        }
    }
}

/// Why a broker cannot start; the text names cause and remedy.
package enum BrokerError: Error, CustomStringConvertible {
    case configuration(String)
    case store(StoreError)
    /// A file of the configuration cannot be read, nor its backup.
    case metadata(path: String, reason: String)

    package var description: String {
        switch self {
        case .configuration(let text): text
        case .store(let error): "\(error)"
        case .metadata(let path, let reason):
            "\(path) and its .bak are unusable: \(reason); restore one of them, or remove both to begin without"
        }
    }
}
