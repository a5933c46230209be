import FastJSON
package import LinuxSystem
package import Logging
package import MessageStore
package import NIOCore
package import RemotingProtocol
package import RemotingTransport
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
    package let filters: FilterLink
    var statistics: BrokerStatistics
    let stats: StatsTable
    private(set) lazy var kinds = MessageKinds(self)
    /// Where work on timer files is done, set before `open`; nil: on a thread of its own.
    var timerFileWork: (any TimerFileWork)?
    var schedule: ScheduleMessageService { kinds.schedule }
    var timerMessages: TimerMessageStore { kinds.timers }
    var transactions: TransactionalMessageService { kinds.transactions }
    let timerSettings: TimerSettings
    /// `storeReplyMessageEnable`.
    let storesReplies: Bool
    private(set) lazy var registration = NameserverRegistration(self)

    private(set) lazy var send = SendMessageProcessor(self)
    private lazy var reply = ReplyMessageProcessor(self)
    private lazy var recall = RecallMessageProcessor(self)
    private lazy var endTransaction = EndTransactionProcessor(self)
    private lazy var pull = PullMessageProcessor(self)
    private lazy var sendBack = SendBackProcessor(self)
    private lazy var clients = ClientManageProcessor(self)
    private lazy var queues = QueueProcessor(self)
    private lazy var queries = QueryMessageProcessor(self)
    private lazy var admin = AdminBrokerProcessor(self)
    private lazy var relay = ClientRelayProcessor(self)

    var timers: [RepeatedTask] = []
    private var notices = MembershipNotices()
    private var noticesTask: Scheduled<Void>?
    var isDraining = false
    /// Why this broker leaves although nobody asked it to stop, in words for senders.
    var withdrawal: String?
    /// Topics clients' messages have made here or at another broker of this platform: those all of its brokers have.
    var autoCreated = AutoCreatedTopics()
    /// A client's message has made this topic: tell the other brokers of the platform.
    package var topicCreated: (AutoCreatedTopic) -> Void = { _ in }
    /// By address: clients whose connections were handed over and are about to be opened.
    var expected: [String: ClientContext.Heartbeat] = [:]
    /// Tables whose last write failed.
    var unwritten: Set<ConfigurationFile> = []
    /// Counts changes of the settings (25).
    var configurationVersion: DataVersion
    /// Settings operators have changed while the broker runs.
    var changedSettings: ChangedSettings

    /// Makes the transport end a tick after what runs now.
    package var requestTick: () -> Void = {}
    /// The log's end moved: publish it to replication and filter.
    package var writtenMoved: ((PhysicalOffset) -> Void)?
    package var flushedMoved: ((PhysicalOffset) -> Void)?
    package var minimumMoved: ((PhysicalOffset) -> Void)?
    /// Connected slaves and how far the best one is, from the segment `replication`.
    package var slaves: () -> (count: UInt64, ackOffset: Int64) = { (0, 0) }

    /// - Parameter now: milliseconds since 1970.
    package init(
        configuration: BrokerConfiguration, store: MessageStore, disk: any Disk, eventLoop: any EventLoop,
        logger: Logger, now: @escaping () -> Int64 = Clock.nowMillis
    ) throws(BrokerError) {
        guard
            let address = RemotingProtocol.HostAddress(
                ipv4Text: "\(configuration.brokerIP1):\(configuration.listenPort)")
        else {
            throw BrokerError.configuration(
                "brokerIP1=\(configuration.brokerIP1) is no IPv4 address; set it to the one clients reach this broker at"
            )
        }
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
        storesReplies = configuration.raw("storeReplyMessageEnable") != "false"
        sendResponseFields = [
            ("MSG_REGION", configuration.regionId), ("TRACE_ON", configuration.traceOn ? "true" : "false"),
        ]
        topics = TopicConfigManager(configuration, now: now)
        groups = SubscriptionGroupManager(configuration, now: now)
        let isUsual = configuration.regionId == "DefaultRegion" && configuration.traceOn
        gate = AckGate(
            conditions: AckGate.Conditions(configuration), storeHost: address,
            responseFields: isUsual ? nil : sendResponseFields, eventLoop: eventLoop, now: now)
        hold = PullRequestHold(eventLoop: eventLoop, now: now)
        filters = FilterLink(eventLoop: eventLoop, now: now)
        statistics = BrokerStatistics(bootMillis: now())
        stats = StatsTable(now: now())
        configurationVersion = DataVersion(timestamp: now(), counter: 0)
        changedSettings = ChangedSettings(file: configuration.pairs.map { ($0.key, $0.value) })
        wire()
    }

    private func wire() {
        store.arrival = { [unowned self] queue, arrival in hold.arrived(queue, arrival) }
        store.written = { [unowned self] offset in writtenMoved?(offset) }
        store.flushed = { [unowned self] offset in
            flushedMoved?(offset)
            gate.flushed(to: offset.rawValue)
            kinds.flushed()
        }
        store.neededFrom = { [unowned self] in kinds.neededFrom }
        store.makeRoom = { [unowned self] place in transactions.move(before: place) }
        store.minimumMoved = { [unowned self] offset in
            pull.transfer.release(below: offset)
            minimumMoved?(offset)
        }
        store.flushFailed = { [unowned self] error in
            logger.error("flush failed: \(error)")
            gate.flushFailed()
        }
        gate.requestFlush = { [unowned self] in store.requestFlush() }
        gate.slaves = { [unowned self] in slaves() }
        hold.findQueue = { [unowned self] pull in
            store.findConsumeQueue(topic: pull.topic.name, queueId: pull.queueId)
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
        topics.changed = { [unowned self] _ in registration.topicsChanged() }
        consumers.disagreed = { [unowned self] group, conflict in
            logger.warning(
                "consumer group \(group.name) is inconsistent: \(conflict); each is served what it asks for, but only from the queues it is assigned: let all clients of a group subscribe to the same",
                metadata: ["consumerGroup": "\(group.name)"])
        }
        consumers.notify = { [unowned self] group, _ in
            // Connections that end with this broker are no change of the group.
            guard !isDraining else { return }
            notices.changed(group)
            scheduleTick()
        }
    }

    /// Why messages are refused at the moment, in words for the sender; `nil` when they are not.
    var reasonNotToTakeMessages: String? {
        if let withdrawal { return "service not available now. \(withdrawal)" }
        if isDraining {
            return "service not available now. the broker \(configuration.brokerName) is being stopped; "
                + "the client will find another one"
        }
        if configuration.isSlave {
            return "service not available now. this broker is a slave (brokerRole=SLAVE) and takes no messages; "
                + "send to the master of \(configuration.brokerName)"
        }
        return nil
    }

    /// The operator wants no messages before a moment that has not come.
    var reasonToBeEarly: String? {
        guard configuration.startAcceptSendRequestTimeStamp > 0, now() < configuration.startAcceptSendRequestTimeStamp
        else { return nil }
        return "broker unable to service, until \(configuration.startAcceptSendRequestTimeStamp) "
            + "(startAcceptSendRequestTimeStamp, milliseconds since 1970)"
    }

    /// Why messages are refused for a while: more wait for disk or slave than may. Connections have been held back before
    /// that (`AckGate.waitingPerConnectionMax`), so there are very many of them.
    var reasonToBeBusy: String? {
        guard gate.waitingCount >= configuration.sendsWaitingMax else { return nil }
        let remedy =
            configuration.syncFlush
            ? "the disk is slower than the producers (flushDiskType=SYNC_FLUSH): send more slowly, or give it a faster disk"
            : "the slave is slower than the producers (brokerRole=SYNC_MASTER): send more slowly, or see what holds the slave up"
        return "[OVERLOAD]system busy, start flow control for a while: \(gate.waitingCount) messages wait to be "
            + "acknowledged (sendThreadPoolQueueCapacity=\(configuration.sendsWaitingMax)); \(remedy)"
    }

    func filter(type: String, expression: String) -> SubscriptionFilter {
        let isTag = Subscription.isTagType(type)
        if isTag, expression.isEmpty || expression == "*" { return .all }
        return .compiled(filters.subscription(type: isTag ? "TAG" : type, expression: expression))
    }

    // MARK: Frames

    package func connectionOpened(_ connection: RemotingConnection) {
        let client = ClientContext(connection)
        connection.context = client
        guard let said = expected.removeValue(forKey: connection.remoteAddress.text) else { return }
        do throws(RemotingDecodeError) {
            // The group is what it was before: nobody needs to be told.
            try clients.register(said, client, notifies: false)
        } catch {
            logger.error("what \(client.address) said before the restart is not understood any more: \(error)")
        }
    }

    package func connectionClosed(_ connection: RemotingConnection) {
        guard let client = connection.context as? ClientContext else { return }
        hold.connectionClosed(client)
        producers.connectionClosed(client)
        consumers.connectionClosed(client) { [groups] group in
            groups[group]?.config.notifyConsumerIDsChangedEnable ?? true
        }
        connection.context = nil
    }

    package func received(_ frame: RemotingFrame, on connection: RemotingConnection) {
        guard let context = connection.context else { return }
        let client = unsafeDowncast(context, to: ClientContext.self)
        do throws(RemotingDecodeError) {
            try dispatch(frame, client)
        } catch {
            client.answer(frame.returnAddress, .systemError, remark: "\(error)")
        }
    }

    private func dispatch(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        switch RequestCode(rawValue: frame.code) {
        case .sendMessage, .sendMessageV2, .sendBatchMessage: try send.process(frame, client)
        case .pullMessage, .litePullMessage: try pull.process(frame, client)
        case .consumerSendMessageBack: try sendBack.process(frame, client)
        case .endTransaction, .resumeCheckHalfMessage: try endTransaction.process(frame, client)
        case .sendReplyMessage, .sendReplyMessageV2: try reply.process(frame, client)
        case .recallMessage: try recall.process(frame, client)
        case .heartBeat, .unregisterClient, .checkClientConfig, .getConsumerListByGroup, .lockBatchMQ, .unlockBatchMQ:
            try clients.process(frame, client)
        case .queryConsumerOffset, .updateConsumerOffset, .searchOffsetByTimestamp, .getMaxOffset, .getMinOffset,
            .getEarliestMessageStoreTime:
            try queues.process(frame, client)
        case .queryMessage, .viewMessageByID: try queries.process(frame, client)
        case .invokeBrokerToResetOffset, .invokeBrokerToGetConsumerStatus, .getConsumerRunningInfo,
            .consumeMessageDirectly:
            try relay.process(frame, client)
        default:
            if try !admin.process(frame, client) {
                client.answer(
                    frame.returnAddress, .requestCodeNotSupported,
                    remark: " request type \(frame.code) not supported")
            }
        }
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
        let next = notices.tell(now: time) { group in
            guard isEnabled, let members = consumers[group]?.clients else { return 0 }
            // The same bytes for everybody: nobody answers, so that the number of the request means nothing.
            var notice = RemotingCommand(.notifyConsumerIDsChanged, extFields: ["consumerGroup": group])
            notice.flag = RemotingFrame.onewayFlag
            var frame = ByteBuffer()
            notice.encode(into: &frame)
            for member in members { member.client.connection.write { $0.writeImmutableBuffer(frame) } }
            return members.count
        }
        noticesTask?.cancel()
        noticesTask = next.map { next in
            let this = NIOLoopBound(self, eventLoop: eventLoop)
            return eventLoop.scheduleTask(in: .milliseconds(max(1, next - time))) { this.value.scheduleTick() }
        }
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
            let level = min(wanted, delayLevels.count)
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
        return Array(topic.utf8).withUnsafeBytes { topic in
            properties.bytes.withUnsafeBytes { properties in
                var draft = MessageDraft(copyOf: record, topic: topic, queueId: queueId, properties: properties)
                adjust(&draft)
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
