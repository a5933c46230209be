import Claims
import MessageModel
import MessageStore
import RemotingProtocol
import StoreFormat

/// Carries edits out, each in the turn of the loop that decides about it: no client takes the message in between. That
/// turn is the end of a tick (`EditMessageProcessor.carryOutWaiting`). Confined to the broker's event loop.
final class MessageEditor {
    struct Done {
        var version: Int64
        var topic: String
        var queueID: Int32
        var queueOffset: Int64
        var physicalOffset: Int64
        /// The answer waits until the log is safe up to here.
        var end: Int64
        var uniqueKey: String?
        var deliverAt: Int64?
        var consumedBy: [String] = []
        var topicMadeAt: Int64 = 0
        /// Of the message as it was.
        var bytesRead = 0
    }

    enum Outcome {
        case done(Done)
        case refused(ResponseCode, String)
    }

    let environment: BrokerEnvironment
    let tables: BrokerTables
    let storage: StoreAccess
    private let claims: GroupClaims
    private let kinds: MessageKinds
    private let deadLetters: PopDeadLetters

    init(
        _ environment: BrokerEnvironment, _ tables: BrokerTables, _ storage: StoreAccess, _ claims: GroupClaims,
        _ kinds: MessageKinds, _ deadLetters: PopDeadLetters
    ) {
        self.environment = environment
        self.tables = tables
        self.storage = storage
        self.claims = claims
        self.kinds = kinds
        self.deadLetters = deadLetters
    }

    private var store: MessageStore { storage.store }

    func refused(_ reason: String) -> Outcome { .refused(.illegalOperation, reason) }

    func refused(_ refusal: AppendRefusal) -> Outcome {
        .refused(refusal.isPassing ? .serviceNotAvailable : .systemError, "\(refusal)")
    }

    /// Whether an edit could change what becomes of a message: it is not deleted and, where it waits, neither delivered
    /// nor ended.
    func isLive(_ message: StoredMessage) -> Bool {
        guard message.note?.deletes != true, !message.isRecalled else { return false }
        switch message.topic {
        case TopicNames.schedule:
            return !kinds.schedule.hasDelivered(queueID: message.queueID, offset: message.queueOffset)
        case TopicNames.half: return kinds.transactions.open?.find(message.queueOffset) != nil
        case TopicNames.timer:
            guard let due = message.timerDue, let key = message.uniqueKey, let topic = message.realTopic else {
                return true
            }
            return kinds.timers.standing(due: due, sequence: message.queueOffset) != .delivered
                && !kinds.timers.isStopped(
                    topic: topic, uniqueKey: key, due: due, sequence: message.queueOffset,
                    isEdited: message.note != nil)
        default: return true
        }
    }

    /// - Parameters:
    ///   - found: the version that stood for the message when it was looked for.
    ///   - audience: the groups that pull, at that time.
    func carryOut(_ edit: EditRequest, _ found: StoredMessage, _ audience: PullingAudience) -> Outcome {
        var message = store.present(found)
        message.isRecalled = found.isRecalled
        if let seen = edit.version, seen != message.note?.version ?? 1 {
            return refused(
                "version \(message.note?.version ?? 1) stands for the message, not \(seen): look at it (apus message "
                    + "show) and try again")
        }
        guard message.note?.deletes != true else {
            return refused("the message is deleted, by \(message.note?.by ?? "?"): send it anew")
        }
        guard let range = store.lookMessage(at: PhysicalOffset(message.physicalOffset)),
            let bytes = store.withBytes(range, { Array($0) })
        else {
            return .refused(.queryNotFound, "the log does not hold the message any more, or it is damaged there")
        }
        return bytes.withUnsafeBytes { bytes in
            guard case .record(let record) = CommitLogRecord.parse(bytes) else {
                return .refused(.queryNotFound, "no record begins at \(message.physicalOffset)")
            }
            let outcome =
                edit.operation == .resend
                ? resend(edit, message, record) : change(edit, message, record, audience)
            guard case .done(var done) = outcome else { return outcome }
            done.bytesRead = bytes.count
            return .done(done)
        }
    }

    // MARK: - In its place

    private func change(
        _ edit: EditRequest, _ message: StoredMessage, _ record: CommitLogRecordView, _ audience: PullingAudience
    ) -> Outcome {
        guard SysFlag.entersConsumeQueue(record.sysFlag) || record.isEdit else {
            return refused("the record is in no queue: nothing delivers it")
        }
        switch message.topic {
        case TopicNames.schedule: return changeDelayed(edit, message, record)
        case TopicNames.timer: return changeTimer(edit, message, record)
        case TopicNames.half: return changeHalf(edit, message, record)
        default: break
        }
        guard !tables.topics.isSystemTopic(message.topic) else {
            return refused("topic \(message.topic) is the broker's own: its messages stay as they are")
        }
        guard edit.operation != .cancel else {
            return refused("the message waits for nothing, consumers can have it: delete it instead")
        }
        let consumption = consumption(of: message, audience)
        if let (code, reason) = consumption.refusal { return .refused(code, reason) }
        if edit.operation == .retries, let reason = consumption.refusalOfRetries(message) { return refused(reason) }
        if !consumption.consumed.isEmpty, !consumption.hasOthers {
            return refused(
                "every group has consumed it already (\(consumption.consumed.prefix(16).joined(separator: ", "))): "
                    + "send it anew (resend)")
        }
        var outcome =
            edit.operation == .reschedule
            ? postpone(edit, message, record, to: message.topic, queueID: message.queueID)
            : replace(edit, message, record)
        if case .done(var done) = outcome {
            done.consumedBy = consumption.consumed
            outcome = .done(done)
        }
        return outcome
    }

    private struct Consumption {
        /// Why it cannot be changed now.
        var refusal: (ResponseCode, String)?
        var consumed: [String] = []
        /// Groups that have not consumed it.
        var hasOthers = false
        /// That one of them pops.
        var popping: String?

        /// What counts for groups that pop are their claims.
        func refusalOfRetries(_ message: StoredMessage) -> String? {
            guard let popping, !message.topic.hasPrefix(TopicNames.retryPrefix) else { return nil }
            return "\(popping): deliveries are counted in claims then, and the number in the message has no effect; "
                + "retryMaxTimes of the group or apus.retry.count of the topic allow more"
        }
    }

    /// The claims of this turn, and what is known of groups without claims.
    private func consumption(of message: StoredMessage, _ audience: PullingAudience) -> Consumption {
        var found = Consumption(consumed: audience.consumed, hasOthers: audience.hasOthers)
        let time = claims.time
        for table in claims.store.tables(of: message.topic, queueID: message.queueID) {
            let group = table.group.text
            switch table.state(of: message.queueOffset, at: time) {
            case .claimed(let client, _, let until, let attempt):
                let name = claims.store.name(of: client) ?? "a client"
                found.refusal = (
                    .illegalOperation,
                    "group \(group) consumes it at the moment: \(name) has it until \(until) (milliseconds since 1970, "
                        + "delivery \(attempt)); try again when that is over"
                )
            case .finished: found.consumed.append(group)
            case .new, .failed, .due:
                found.hasOthers = true
                found.popping = "group \(group) pops it"
                if deadLetters.isTaking(message.queueOffset, from: table) {
                    found.refusal = (
                        .illegalOperation,
                        "group \(group) gives it up at the moment: edit or resend its dead letter"
                    )
                } else if table.isBeingRead {
                    // It may have been read already, by a pop that waits for its filter or for another queue.
                    found.refusal = (
                        .systemBusy, "a client of group \(group) is about to get it: try again in a moment"
                    )
                }
            }
        }
        if found.popping == nil, tables.topics[message.topic]?.policy.isPoppedOnly == true {
            found.popping = "the topic is popped only (apus.mode)"
        }
        found.consumed.sort()
        return found
    }

    private func changeDelayed(_ edit: EditRequest, _ message: StoredMessage, _ record: CommitLogRecordView) -> Outcome
    {
        guard !kinds.schedule.hasDelivered(queueID: message.queueID, offset: message.queueOffset) else {
            return refused("its delay is over and it has been delivered: name it by its topic and its producer's id")
        }
        guard edit.operation == .reschedule else { return replace(edit, message, record) }
        guard let topic = message.realTopic, let queueID = realQueueID(record) else {
            return refused("the waiting message does not say where it belongs")
        }
        return postpone(edit, message, record, to: topic, queueID: queueID)
    }

    private func changeHalf(_ edit: EditRequest, _ message: StoredMessage, _ record: CommitLogRecordView) -> Outcome {
        guard let half = kinds.transactions.open?.find(message.queueOffset) else {
            return refused(
                "its transaction has had its outcome, or its producer is asked for it with a newer copy: name the "
                    + "message by its topic and its producer's id")
        }
        switch edit.operation {
        case .reschedule:
            return refused("it waits for the outcome of its transaction, which has no time: reschedule it after that")
        case .cancel, .delete:
            let outcome = replace(edit, message, record)
            guard case .done(var done) = outcome else { return outcome }
            // As if its producer had rolled it back; one that was parked before has no later outcome then.
            let late = message.uniqueKey.map { LateOutcome(uniqueKey: $0, origin: half.origin) }
            done.end = max(done.end, kinds.transactions.storeOp(message.queueOffset, late: late))
            return .done(done)
        default: return replace(edit, message, record)
        }
    }

    func realQueueID(_ record: CommitLogRecordView) -> Int32? {
        record.property(PropertyName.realQueueID).flatMap { Int32(String(decoding: $0, as: UTF8.self)) }
    }

    private func note(_ edit: EditRequest, _ message: StoredMessage, deletes: Bool) -> EditNote {
        EditNote(
            version: (message.note?.version ?? 1) +| 1, deletes: deletes, action: edit.operation.action ?? .edit,
            at: environment.now(), by: edit.by)
    }

    /// By which a deleted message is found, and told from others; the rest of it is not kept any longer than its log
    /// file.
    private static let keptByDeletion = [
        PropertyName.uniqueKey, PropertyName.realTopic, PropertyName.realQueueID, PropertyName.retryTopic,
        PropertyName.originMessageID,
    ]

    /// A newer version under the same offset.
    private func replace(_ edit: EditRequest, _ message: StoredMessage, _ record: CommitLogRecordView) -> Outcome {
        let deletes = edit.operation.deletes
        let note = note(edit, message, deletes: deletes)
        var properties = PropertyList(record.properties)
        if deletes { properties.keep(Self.keptByDeletion) } else { edit.apply(to: &properties) }
        properties[PropertyName.edit] = note.text
        let body: [UInt8]? = deletes ? [] : edit.body
        let outcome = properties.bytes.withUnsafeBytes { properties in
            (body ?? []).withUnsafeBytes { bytes in
                var draft = MessageDraft(
                    copyOf: record, topic: record.topic, queueID: record.queueID, properties: properties)
                Self.put(body == nil ? nil : bytes, into: &draft)
                if let retries = edit.retries, edit.operation == .retries { draft.reconsumeTimes = retries }
                if message.topic == TopicNames.half { draft.growth = HalfMessage.growth }
                draft.mayUseReserve = deletes
                return store.replace(
                    draft, at: QueueOffset(message.queueOffset), replacing: PhysicalOffset(message.physicalOffset),
                    deletes: deletes)
            }
        }
        switch outcome {
        case .refused(let refusal): return refused(refusal)
        case .appended(let result):
            return .done(
                Done(
                    version: note.version, topic: message.topic, queueID: message.queueID,
                    queueOffset: message.queueOffset, physicalOffset: result.physicalOffset.rawValue,
                    end: result.end.rawValue, uniqueKey: message.uniqueKey))
        }
    }

    /// A new body is not compressed.
    static func put(_ body: UnsafeRawBufferPointer?, into draft: inout MessageDraft) {
        guard let body else { return }
        draft.body = body
        draft.isCopy = false
        draft.sysFlag &= ~(SysFlag.compressed | SysFlag.compressionTypeMask)
    }

    // MARK: - For another time

    /// Why nothing can be stored for a time; nil when it can.
    private func problem(with due: Int64) -> String? {
        let now = environment.now()
        guard due > now else { return "deliverAt is over: it is \(now), milliseconds since 1970" }
        guard due - now <= environment.timerSettings.maxDelay else {
            return "deliverAt is further away than timerMaxDelaySec allows, \(environment.timerSettings.maxDelay) ms"
        }
        return nil
    }

    /// Stores the message as a timer message, and deletes it where it was. Both go in one tick, the new one first, so
    /// that a kill in between leaves both and loses none.
    private func postpone(
        _ edit: EditRequest, _ message: StoredMessage, _ record: CommitLogRecordView, to topic: String, queueID: Int32
    ) -> Outcome {
        guard let due = edit.deliverAt else { return refused("deliverAt is missing") }
        if let problem = problem(with: due) { return refused(problem) }
        if let refusal = store.refusalToReplace(
            topic: record.topic, queueID: record.queueID, at: QueueOffset(message.queueOffset),
            replacing: PhysicalOffset(message.physicalOffset))
        {
            return refused(refusal)
        }
        let stored = storeTimer(edit, message, record, due: due, to: topic, queueID: queueID)
        guard case .done(var done) = stored else { return stored }
        let deletion = replace(edit, message, record)
        guard case .done(let deleted) = deletion else { return deletion }
        done.end = max(done.end, deleted.end)
        return .done(done)
    }

    private func storeTimer(
        _ edit: EditRequest, _ message: StoredMessage, _ record: CommitLogRecordView, due: Int64, to topic: String,
        queueID: Int32
    ) -> Outcome {
        var properties = PropertyList(record.properties)
        edit.apply(to: &properties)
        for name in TimerProperties.requests { properties["\(name)"] = nil }
        properties[PropertyName.delayLevel] = nil
        properties.makeTimer(due: due, topic: topic, queueID: queueID)
        let note = note(edit, message, deletes: false)
        properties[PropertyName.edit] = note.text
        guard properties.bytes.count + TimerProperties.reservedBytes <= Int(Int16.max) else {
            return refused(.propertiesTooLarge)
        }
        let made = kinds.timers.makeTopic()
        let outcome = made.nameBytes.withUnsafeBytes { name in
            properties.bytes.withUnsafeBytes { properties in
                (edit.body ?? []).withUnsafeBytes { body in
                    var draft = MessageDraft(copyOf: record, topic: name, queueID: 0, properties: properties)
                    Self.put(edit.body == nil ? nil : body, into: &draft)
                    draft.preparedTransactionOffset = message.physicalOffset
                    draft.growth = 0
                    return store.append(draft)
                }
            }
        }
        switch outcome {
        case .refused(let refusal): return refused(refusal)
        case .appended(let result):
            made.count(1, bytes: result.size, in: storage.stats)
            return .done(
                Done(
                    version: note.version, topic: made.name, queueID: 0, queueOffset: result.queueOffset.rawValue,
                    physicalOffset: result.physicalOffset.rawValue, end: result.end.rawValue,
                    uniqueKey: message.uniqueKey, deliverAt: due, topicMadeAt: made.madeAt))
        }
    }

    /// A timer message is in the wheel's files already: it is stopped there by a cancellation, and stored anew unless
    /// it is deleted. The new one comes first: the cancellation names it as the first that it does not stop.
    private func changeTimer(_ edit: EditRequest, _ message: StoredMessage, _ record: CommitLogRecordView) -> Outcome {
        guard !message.isCancellation else { return refused("the record stops a timer message, and is none") }
        guard let key = message.uniqueKey, let topic = message.realTopic, let due = message.timerDue,
            let queueID = realQueueID(record)
        else {
            return refused("the timer message has no id of its producer (UNIQ_KEY), by which it could be stopped")
        }
        switch kinds.timers.standing(due: due, sequence: message.queueOffset) {
        case .waits: break
        case .delivered:
            return refused("its time is over and it has been delivered: name it by its topic and its producer's id")
        case .unknown: return .refused(.serviceNotAvailable, "timer messages are not delivered here now")
        }
        let isStopped = kinds.timers.isStopped(
            topic: topic, uniqueKey: key, due: due, sequence: message.queueOffset, isEdited: message.note != nil)
        guard !isStopped, !message.isRecalled else {
            return refused("its producer has recalled the timer message: it will not be delivered")
        }
        guard edit.operation != .retries else { return refused("a timer message has not been delivered yet") }
        if let refusal = store.refusalToReplace(
            topic: record.topic, queueID: record.queueID, at: QueueOffset(message.queueOffset),
            replacing: PhysicalOffset(message.physicalOffset))
        {
            return refused(refusal)
        }
        var done: Done?
        if edit.operation == .edit || edit.operation == .reschedule {
            let next = edit.operation == .reschedule ? edit.deliverAt ?? due : due
            // An overdue one that is edited stays overdue.
            if edit.operation == .reschedule, let problem = problem(with: next) { return refused(problem) }
            let stored = storeTimer(edit, message, record, due: next, to: topic, queueID: queueID)
            guard case .done(let new) = stored else { return stored }
            done = new
        }
        let stopped = kinds.timers.stop(
            topic: topic, uniqueKey: key, due: due, bornHost: record.bornHost, replacedBy: done?.queueOffset)
        if case .refused(let refusal) = stopped { return refused(refusal) }
        // What reads the timer's queue from its beginning finds it no more.
        var mark = edit
        if edit.operation == .edit { mark.operation = .reschedule }
        let deletion = replace(mark, message, record)
        guard case .done(var deleted) = deletion else { return deletion }
        guard var done else { return .done(deleted) }
        deleted.end = max(done.end, deleted.end)
        done.end = deleted.end
        return .done(done)
    }
}
