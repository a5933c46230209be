import Claims
import MessageModel
import MessageStore
import RemotingProtocol
import StoreFormat

/// Messages that were popped more often than their group may try (`retryMaxTimes`) go to the group's dead-letter topic.
/// The broker must be set to do so (`popDeadLetterEnable`). RocketMQ's broker never does: a message no remoting client
/// can consume comes again for ever, or is given up by its client without a trace.
///
/// A message is finished when its dead letter is written, in the same tick. A kill in between leads to a second dead
/// letter, never to none. A power cut may leave the journal's last second and take the log's: as for any message that
/// is acknowledged before it is flushed. Confined to the broker's event loop.
final class PopDeadLetters {
    /// Bytes of dead letters a tick has, about; a test may set it.
    var bytesMax = 4 << 20
    /// Reasons that are remembered for a later try.
    private static let reasonsMax = 1024

    private struct Letter {
        let table: ClaimTable
        let offset: Int64
        let topic: TopicEntry
        let queueID: Int32
        let result: AppendResult
        let tries: Int32
        let failure: String?
    }

    private let environment: BrokerEnvironment
    private let tables: BrokerTables
    private let storage: StoreAccess
    private let keeper: TableKeeper
    private let notifier: GroupNotifier
    private let claims: GroupClaims
    private struct Place: Hashable {
        let table: ObjectIdentifier
        let offset: Int64

        init(_ table: ClaimTable, _ offset: Int64) {
            self.table = ObjectIdentifier(table)
            self.offset = offset
        }
    }

    /// Stored, and not written yet.
    private var letters: [Letter] = []
    private var places: Set<Place> = []
    /// What clients have said of messages whose dead letters could not be written yet.
    private var reasons: [Place: (table: ClaimTable, text: String)] = [:]
    /// Tables of `letters`, and of messages whose letters are left to the next tick.
    private var tablesTaking: [ObjectIdentifier: ClaimTable] = [:]
    private var bytes = 0

    init(
        _ environment: BrokerEnvironment, _ tables: BrokerTables, _ storage: StoreAccess, _ keeper: TableKeeper,
        _ notifier: GroupNotifier, _ claims: GroupClaims
    ) {
        self.environment = environment
        self.tables = tables
        self.storage = storage
        self.keeper = keeper
        self.notifier = notifier
        self.claims = claims
    }

    private var isEnabled: Bool { environment.configuration.popDeadLetterEnable }

    /// What comes of a message that is due.
    enum Outcome {
        /// Its deliveries are not over, or no dead letter can be stored now: a client may have it.
        case no
        /// Its dead letter is stored.
        case taken
        /// This tick has had enough dead letters: no client is to get it now, and who looks at it next takes it.
        case nextTick
    }

    /// Gives up a message that is due, if its deliveries are over. The topic's policy bounds them, or the group's
    /// `retryMaxTimes` where the broker is set to (`popDeadLetterEnable`).
    /// - Parameters:
    ///   - attempts: deliveries by this broker.
    ///   - kind: which of the group's topics it lies in.
    ///   - origin: the topic it was sent to.
    ///   - failure: what the client has reported, if it did; a property of the dead letter.
    func take(
        _ offset: Int64, attempts: Int32, record range: LogRange, of table: ClaimTable, _ kind: PopTopicKind,
        group: SubscriptionGroupEntry, origin: TopicEntry, failure: String? = nil
    ) -> Outcome {
        guard isEnabled || origin.policy.givesUp else { return .no }
        if places.contains(Place(table, offset)) { return .taken }
        let failure = failure ?? reasons[Place(table, offset)]?.text
        let (maximum, rule) = limit(group, origin)
        guard attempts > maximum || kind != .normal,
            // A copy: the draft must not point into the log while the log is written.
            let copy = storage.store.withBytes(range, { Array($0) })
        else { return .no }
        return copy.withUnsafeBytes { bytes in
            guard case .record(let record) = CommitLogRecord.parse(bytes) else { return .no }
            let tries =
                kind == .normal
                ? max(record.reconsumeTimes, attempts) : record.reconsumeTimes +| attempts
            guard tries > maximum else { return .no }
            // In the next tick; it stays due until then.
            guard self.bytes < bytesMax else {
                remember(failure, Place(table, offset), table)
                tablesTaking[ObjectIdentifier(table)] = table
                environment.scheduleTick()
                return .nextTick
            }
            guard let topic = topic(of: group) else { return .no }
            var properties = PropertyList(sentBack: record, from: origin.name)
            properties.waitForNothing()
            let end = failure.map { "failed (\($0)), popped \(tries) times" }
            properties[PropertyName.deadLetterReason] =
                "\(end ?? "popped \(tries) times without an acknowledgement"); \(rule)"
            let queueID = Int32.random(in: 0..<QueueCounts.deadLetter)
            let outcome = storage.append(record, to: topic.name, queueID: queueID, properties: properties) { draft in
                draft.reconsumeTimes = tries
            }
            // Refused: it is delivered once more.
            guard case .appended(let result) = outcome else { return .no }
            letters.append(
                Letter(
                    table: table, offset: offset, topic: topic, queueID: queueID, result: result, tries: tries,
                    failure: failure))
            places.insert(Place(table, offset))
            tablesTaking[ObjectIdentifier(table)] = table
            self.bytes += result.size
            storage.statistics.put(messages: 1)
            environment.scheduleTick()
            return .taken
        }
    }

    private func remember(_ failure: String?, _ place: Place, _ table: ClaimTable) {
        guard let failure else { return }
        // The oldest are not known: what is lost is a text.
        if reasons.count >= Self.reasonsMax { reasons.removeAll() }
        reasons[place] = (table, failure)
    }

    /// Whether `take` may give up a message after so many deliveries.
    func mayTake(attempts: Int32, _ kind: PopTopicKind, group: SubscriptionGroupEntry, origin: TopicEntry) -> Bool {
        (isEnabled || origin.policy.givesUp) && (kind != .normal || attempts > limit(group, origin).0)
    }

    /// Deliveries after the first, and whose rule that is.
    private func limit(_ group: SubscriptionGroupEntry, _ origin: TopicEntry) -> (Int32, rule: String) {
        if let count = origin.policy.retryCount {
            return (count, "apus.retry.count of topic \(origin.name) is \(count)")
        }
        let maximum = group.config.retryMaxTimes
        return (maximum, "retryMaxTimes of the group is \(maximum)")
    }

    /// Whether a dead letter of this table waits to be written.
    func isTaking(from table: ClaimTable) -> Bool { tablesTaking[ObjectIdentifier(table)] != nil }

    /// Whether the dead letter of a message is stored in this tick: nothing else may become of it.
    func isTaking(_ offset: Int64, from table: ClaimTable) -> Bool {
        !places.isEmpty && places.contains(Place(table, offset))
    }

    /// nil: nothing can be stored there.
    private func topic(of group: SubscriptionGroupEntry) -> TopicEntry? {
        guard environment.configuration.brokerPermission & Permission.write != 0,
            let name = group.groupName.deadLetterTopic
        else { return nil }
        let topic = tables.deadLetterTopic(name)
        guard topic.config.perm & Permission.write != 0, keeper.reasonNotKept(topic) == nil else { return nil }
        return topic
    }

    // MARK: - The tick

    /// What the tick has stored is in the log: these messages are finished.
    func committed() {
        guard !tablesTaking.isEmpty else { return }
        let (written, waiting) = (letters, tablesTaking)
        forget()
        for letter in written {
            if !reasons.isEmpty { reasons[Place(letter.table, letter.offset)] = nil }
            notifier.deadLetter(in: letter.topic, letter.queueID, letter.result, tries: letter.tries)
            // Acknowledged meanwhile, or forgotten by a reset.
            guard !letter.table.isRemoved, case .due = letter.table.state(of: letter.offset, at: claims.time) else {
                continue
            }
            letter.table.drop(due: letter.offset)
        }
        wake(waiting)
    }

    /// It is not: they are due as before.
    func failed() {
        let (unwritten, waiting) = (letters, tablesTaking)
        forget()
        for letter in unwritten { remember(letter.failure, Place(letter.table, letter.offset), letter.table) }
        wake(waiting)
    }

    /// Who waits for what comes behind the letters may have that; and what is due still.
    private func wake(_ tables: [ObjectIdentifier: ClaimTable]) {
        for table in tables.values where !table.isRemoved { claims.messagesDue(in: table) }
    }

    private func forget() {
        letters.removeAll(keepingCapacity: true)
        places.removeAll(keepingCapacity: true)
        tablesTaking.removeAll(keepingCapacity: true)
        bytes = 0
    }
}
