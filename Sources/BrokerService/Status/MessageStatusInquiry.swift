import Claims
import FastJSON
import MessageModel
import MessageStore
import RemotingProtocol
import StoreFormat

/// Finds out what has become of one message, in slices: each looks at a bounded part of the index or at one group.
/// Confined to the broker's event loop.
final class MessageStatusInquiry {
    /// Groups in an answer.
    static let groupsMax = 256
    /// Copies of a message that are looked at, the newest, of each topic.
    static let copiesMax = 64

    private let environment: BrokerEnvironment
    private let tables: BrokerTables
    private let storage: StoreAccess
    private let claims: GroupClaims
    private let schedule: ScheduleMessageService

    /// The message; the delivered one, once a copy that waited has been delivered.
    private(set) var message: StoredMessage
    /// Of a message that waits: until when, milliseconds since 1970; nil when that is not known.
    private(set) var waitsUntil: Int64?
    private(set) var waits = false
    /// It waited and will not come: it was deleted there. A message that was rescheduled waits in another place.
    private var isWithdrawn = false
    /// IDs of all its versions, and where the first one lies.
    private var ids: Set<String> = []
    private var firstPlace: Int64 = 0
    private(set) var rows: [GroupStatus] = []
    private(set) var groupsLeftOut = 0
    private var groups: [String] = []
    private var nextGroup = 0

    private enum Search {
        case delivered
        case delayed
        case retries(group: String)
        case deadLetters(group: String)
    }

    private var searches: [(search: Search, query: KeyQuery)] = []
    /// Copies consumers sent back, that wait or have waited for their delay.
    private var delayed: [StoredMessage] = []
    private var retries: [StoredMessage] = []
    private var deadLetters: [StoredMessage] = []

    init(
        _ environment: BrokerEnvironment, _ tables: BrokerTables, _ storage: StoreAccess, _ claims: GroupClaims,
        _ schedule: ScheduleMessageService, _ message: StoredMessage
    ) {
        self.environment = environment
        self.tables = tables
        self.storage = storage
        self.claims = claims
        self.schedule = schedule
        self.message = message
        lookAtWaiting()
    }

    // MARK: - Does it wait?

    /// The topic whose groups are asked about.
    var topicOfGroups: String { waits || isWithdrawn ? message.realTopic ?? "" : message.topic }

    private func lookAtWaiting() {
        guard MessageFinder.waitingTopics.contains(message.topic), let real = message.realTopic else { return }
        guard message.note?.deletes != true else {
            isWithdrawn = true
            return
        }
        waits = true
        waitsUntil = due(message)
        guard message.topic != TopicNames.schedule || isDelivered(message), let key = message.uniqueKey else { return }
        searches.append((.delivered, query(real, key)))
    }

    /// When a message that waits is due, milliseconds since 1970; nil of a prepared one.
    private func due(_ message: StoredMessage) -> Int64? {
        message.topic == TopicNames.timer ? message.timerDue : delayDue(message)
    }

    /// When a message of the schedule topic is due; milliseconds since 1970.
    private func delayDue(_ message: StoredMessage) -> Int64? {
        guard message.topic == TopicNames.schedule,
            let queue = storage.store.consumeQueue(topic: message.topic, queueID: message.queueID)
        else { return nil }
        return storage.store.entries(queue, from: QueueOffset(message.queueOffset), maxCount: 1).first
            .flatMap { $0 == .deleted ? nil : $0.tagsCode }
    }

    private func isDelivered(_ message: StoredMessage) -> Bool {
        let levels = schedule.committedOffsets
        guard let level = Int(exactly: message.queueID), levels.indices.contains(level) else { return false }
        return message.queueOffset < levels[level]
    }

    // MARK: - Groups

    /// The topic's groups are known. To be called once, after `advance` has found where the message is.
    func begin(_ names: Set<String>) {
        // Of very many any: sorting all names would take long.
        groups = names.count > 4 * Self.groupsMax ? names.prefix(Self.groupsMax).sorted() : names.sorted()
        groups = Array(groups.prefix(Self.groupsMax))
        groupsLeftOut = names.count - groups.count
        noteVersions()
        guard !waits, !isWithdrawn, let key = message.uniqueKey else { return }
        // A delayed copy may have been given another time.
        for topic in [TopicNames.schedule, TopicNames.timer] { searches.append((.delayed, query(topic, key))) }
    }

    /// Groups have made their copies of whichever version stood then.
    private func noteVersions() {
        ids = [message.messageID]
        firstPlace = message.physicalOffset
        var newer = message
        for _ in 0..<MessageEdits.versionsMax {
            guard newer.note != nil, newer.previous < newer.physicalOffset,
                let older = storage.store.storedMessage(at: newer.previous), older.place == message.place
            else { return }
            ids.insert(older.messageID)
            firstPlace = older.physicalOffset
            newer = older
        }
        // More than are looked at: the queue knows the first.
        guard let queue = storage.store.consumeQueue(topic: message.topic, queueID: message.queueID),
            let first = storage.store.firstPlace(queue, at: QueueOffset(message.queueOffset))
        else { return }
        firstPlace = min(firstPlace, first.rawValue)
        if let one = storage.store.storedMessage(at: first.rawValue) { ids.insert(one.messageID) }
    }

    private func query(_ topic: String, _ key: String) -> KeyQuery {
        storage.store.beginQuery(topic: topic, key: key, maxCount: Self.copiesMax, begin: 0, end: .max)
    }

    /// One slice; true when there is more to do.
    func advance() -> Bool {
        guard searches.isEmpty else {
            storage.store.advance(
                &searches[0].query, steps: QueryMessageProcessor.stepsPerSlice,
                bytes: QueryMessageProcessor.bytesPerSlice)
            if searches[0].query.isDone {
                let (search, query) = searches.removeFirst()
                take(search, storage.store.result(of: query).records.compactMap { storage.store.storedMessage($0) })
            }
            return true
        }
        guard nextGroup < groups.count else { return false }
        let group = groups[nextGroup]
        nextGroup += 1
        look(group)
        return true
    }

    private func look(_ group: String) {
        if isWithdrawn {
            rows.append(GroupStatus(group: group, mode: mode(group), state: .deleted))
            return
        }
        if waits {
            rows.append(GroupStatus(group: group, mode: mode(group), state: .waiting, until: waitsUntil))
            return
        }
        retries = []
        deadLetters = []
        let name = try? GroupName(existing: group)
        guard let key = message.uniqueKey, let retry = name?.retryTopic, let dead = name?.deadLetterTopic else {
            rows.append(row(group))
            return
        }
        searches.append((.retries(group: group), query(retry.text, key)))
        searches.append((.deadLetters(group: group), query(dead.text, key)))
    }

    private func take(_ search: Search, _ found: [StoredMessage]) {
        switch search {
        case .delivered:
            guard
                let delivered = found.first(where: { $0.physicalOffset > message.physicalOffset && !$0.isCancellation })
            else { return }
            message = delivered
            waits = false
            waitsUntil = nil
        case .delayed: delayed += found.filter(isCopy)
        case .retries: retries = found.filter(isCopy)
        case .deadLetters(let group):
            deadLetters = found.filter(isCopy)
            rows.append(row(group))
        }
    }

    /// Others may have the same unique key: producers that send again after a time-out.
    private func isCopy(_ other: StoredMessage) -> Bool {
        other.physicalOffset > firstPlace && other.place != message.place
            && other.originID.map { ids.contains($0) } != false
    }

    // MARK: - A group's row

    private func mode(_ group: String) -> GroupStatus.Mode {
        if claims.store.table(group: group, topic: message.topic, queueID: message.queueID) != nil { return .pop }
        return tables.consumers[group]?.messageModel == "BROADCASTING" ? .broadcasting : .pull
    }

    private func row(_ group: String) -> GroupStatus {
        let mode = mode(group)
        var row = GroupStatus(group: group, mode: mode, state: .unknown)
        // What is sent back by a group that pulls knows the group's number alone.
        row.attemptsMax =
            (mode == .pop ? tables.topics[message.topic]?.policy.retryCount : nil)
            ?? tables.groups[group]?.config.retryMaxTimes
        switch mode {
        case .broadcasting: return row
        case .pop: addClaim(&row)
        case .pull: addOffsets(&row)
        }
        addDeletion(&row)
        if let letter = deadLetters.last {
            row.state = .fail
            row.deadLetter = (letter.topic, letter.queueID, letter.queueOffset)
            row.attempts = letter.reconsumeTimes
            row.until = nil
            row.trail.append(MessageStep(kind: .deadLetter, at: letter.storeTimestamp))
        }
        return row
    }

    /// A deleted message becomes of no group what it had not become before.
    private func addDeletion(_ row: inout GroupStatus) {
        guard message.note?.deletes == true else { return }
        switch row.state {
        case .new, .fail:
            // A copy the group has sent back is a message of its own.
            guard row.state == .new || row.mode == .pop else { return }
            row.state = .deleted
            row.client = nil
            row.until = nil
        // Consumed, or passed by since: claims' trails know.
        case .success where row.trail.isEmpty: row.state = .unknown
        default: break
        }
    }

    private func addClaim(_ row: inout GroupStatus) {
        guard
            let table = claims.store.table(group: row.group, topic: message.topic, queueID: message.queueID)
        else { return }
        switch table.state(of: message.queueOffset, at: claims.time) {
        case .new: row.state = .new
        case .claimed(let client, let since, let until, let attempt):
            row.state = .ing
            row.client = claims.store.name(of: client)
            row.since = since
            row.until = until
            row.attempts = attempt
        case .failed(let until, let attempts):
            row.state = .fail
            row.attempts = attempts
            row.until = until
        case .due(let attempts):
            // Given back by all that had it: it is as one that was never handed out.
            row.state = attempts > 0 ? .fail : .new
            row.attempts = attempts
        case .finished: row.state = .success
        }
    }

    private func addOffsets(_ row: inout GroupStatus) {
        let committed = tables.offsets.offset(topic: message.topic, group: row.group, queueID: message.queueID) ?? 0
        let queue = MessageQueue(
            topic: message.topic, brokerName: environment.configuration.brokerName, queueID: message.queueID)
        let copies = (delayed.filter { $0.realTopic == TopicName.retryPrefix + row.group } + retries)
            .sorted { $0.physicalOffset < $1.physicalOffset }
        for copy in copies {
            let isBack = MessageFinder.waitingTopics.contains(copy.topic)
            row.trail.append(
                MessageStep(
                    kind: isBack ? .sentBack : .retried, at: copy.storeTimestamp, until: isBack ? due(copy) : nil))
        }
        guard let last = copies.last else {
            row.state = committed > message.queueOffset ? .success : .new
            if row.state == .new {
                row.client = tables.locks.owner(group: row.group, queue: queue, now: environment.now())
            }
            return
        }
        row.attempts = last.reconsumeTimes
        row.state = .fail
        if MessageFinder.waitingTopics.contains(last.topic) {
            row.until = due(last)
        } else {
            let consumed = tables.offsets.offset(topic: last.topic, group: row.group, queueID: last.queueID) ?? 0
            if consumed > last.queueOffset { row.state = .success } else { row.until = last.storeTimestamp }
        }
    }

    // MARK: - The answer

    /// Puts the claims' trails into the rows.
    func add(_ trail: ClaimTrail) {
        for part in trail.groups {
            guard let index = rows.firstIndex(where: { $0.group == part.group.text }) else { continue }
            rows[index].trail = part.events.map { MessageStep($0) } + rows[index].trail
            rows[index].stepsLeftOut = part.leftOut
            // Messages below the floor look alike in memory; how they came there, the trail knows.
            let last = part.events.last?.kind
            switch (rows[index].state, last) {
            case (.success, .expired): rows[index].state = .expired
            // Given up, or not readable any more. Its dead letter is found by its unique key alone.
            case (.success, .withdrawn): rows[index].state = .fail
            default: break
            }
            if message.note?.deletes == true, rows[index].state == .unknown, rows[index].mode == .pop {
                let isConsumed = part.events.contains { $0.kind == .acknowledged }
                rows[index].state = isConsumed ? .success : part.events.isEmpty ? .unknown : .deleted
            }
        }
    }

    /// The topic whose mode it is delivered by.
    private var realTopic: String { waits ? message.realTopic ?? message.topic : message.topic }

    func body(_ trail: ClaimTrail?) -> [UInt8] {
        JSONValue.fields([
            ("topic", .string(message.topic)), ("queueId", .integer(message.queueID)),
            ("queueOffset", .integer(message.queueOffset)), ("commitLogOffset", .integer(message.physicalOffset)),
            ("msgId", .string(message.messageID)), ("uniqueKey", message.uniqueKey.map { .string($0) }),
            ("storeTimestamp", .integer(message.storeTimestamp)), ("waits", .bool(waits)),
            ("realTopic", waits ? message.realTopic.map { .string($0) } : nil),
            ("until", waitsUntil.map { .integer($0) }), ("trailBegins", trail?.begins.map { .integer($0) }),
            ("trailFailure", trail?.failure.map { .string($0) }), ("groupsLeftOut", .integer(groupsLeftOut)),
            ("topicMode", tables.topics[realTopic].map { .string($0.policy.mode.rawValue) }),
            ("groups", .array(rows.map(\.json))),
            ("version", message.note.map { .integer($0.version) }), ("deleted", .bool(message.note?.deletes == true)),
            ("edits", .array(MessageEdits(of: message, in: storage.store).steps.map(\.json))),
        ]).bytes()
    }
}
