import MessageModel
import MessageStore
import RemotingProtocol
import StoreFormat

/// Finds the message a request names, and what stands for it now. One of three sets of fields names it:
///
/// * `offset`, where a record begins in the commit log, with or without its `topic`
/// * `topic` and `msgId`, the ID its producer made
/// * `topic`, `queueId` and `queueOffset`
///
/// Confined to the broker's event loop.
final class MessageFinder {
    /// Where messages wait for their time or their outcome.
    static let waitingTopics: Set<String> = [TopicNames.schedule, TopicNames.timer, TopicNames.half]

    /// Gets the message, and others with the same ID that are live.
    typealias Then = (_ message: StoredMessage, _ others: [StoredMessage]) -> Void

    private let environment: BrokerEnvironment
    private let storage: StoreAccess

    init(_ environment: BrokerEnvironment, _ storage: StoreAccess) {
        self.environment = environment
        self.storage = storage
    }

    /// Calls `then` with the message, perhaps later; answers itself when there is none.
    /// - Parameter isLive: whether something can become of a message still. Then all messages with the ID are looked
    ///   for, wherever they wait; nil: the first that is not deleted will do.
    func find(
        _ request: borrowing Request, among isLive: ((StoredMessage) -> Bool)? = nil, then: @escaping Then
    ) throws(RemotingDecodeError) {
        let fields = request.extFields
        if let offset = try fields.int64("offset") {
            guard let found = storage.store.storedMessage(at: offset) else {
                return request.answer(
                    .queryNotFound,
                    remark: "no message begins at \(offset) of the commit log: it has expired, or the offset is wrong")
            }
            if let topic = fields.string("topic"), found.topic != topic, found.realTopic != topic {
                return request.answer(
                    .illegalOperation,
                    remark: "the message at \(offset) of the commit log is one of topic \(found.topic), not of \(topic)"
                )
            }
            return lookForTwins(storage.store.present(found), request.asker, isLive, then)
        }
        let topic = try fields.required("topic")
        if let key = fields.string("msgId") {
            let asker = request.asker
            return search(
                topic, key, [topic, TopicNames.schedule, TopicNames.timer, TopicNames.half], asker,
                findsAll: isLive != nil
            ) { [self] candidates in
                guard let first = candidates.first(where: { $0.note?.deletes != true }) ?? candidates.first else {
                    return asker.answer(.queryNotFound, remark: "topic \(topic) has no message with the id \(key) here")
                }
                guard let isLive else { return then(first, []) }
                let live = withoutRolled(candidates.filter(isLive))
                then(live.first ?? first, Array(live.dropFirst()))
            }
        }
        let queueID = try fields.requiredInt32("queueId")
        let offset = try fields.requiredInt64("queueOffset")
        guard let found = try look(topic, queueID, offset, request) else { return }
        lookForTwins(found, request.asker, isLive, then)
    }

    /// A timer message is stopped by its key and its time: another one with both would be stopped with it.
    private func lookForTwins(
        _ message: StoredMessage, _ asker: Asker, _ isLive: ((StoredMessage) -> Bool)?, _ then: @escaping Then
    ) {
        guard let isLive, message.topic == TopicNames.timer, isLive(message), let key = message.uniqueKey,
            let topic = message.realTopic
        else { return then(message, []) }
        search(topic, key, [TopicNames.timer], asker, findsAll: true) { [self] candidates in
            var message = message
            message.isRecalled = candidates.contains { $0.place == message.place && $0.isRecalled }
            let twins = candidates.filter { $0.timerDue == message.timerDue && isLive($0) }
            guard twins.contains(where: { $0.place != message.place }), withoutRolled(twins).count > 1 else {
                return then(message, [])
            }
            then(message, twins.filter { $0.place != message.place })
        }
    }

    /// Of the copies RocketMQ has made of one timer message, because its wheel is too short, the last.
    private func withoutRolled(_ messages: [StoredMessage]) -> [StoredMessage] {
        guard let last = messages.filter(\.isRolled).max(by: { $0.physicalOffset < $1.physicalOffset }) else {
            return messages
        }
        return messages.filter {
            $0.topic != TopicNames.timer || $0.timerDue != last.timerDue || $0.place == last.place
        }
    }

    /// Whether one of the cancellations a search has met stops a timer message. For long times they lie in files of the
    /// timer, not in memory. What an edit has stored after it, it does not stop (`TimerCancellation`).
    private static func isRecalled(_ message: StoredMessage, by recalls: [StoredMessage]) -> Bool {
        guard message.topic == TopicNames.timer, let due = message.timerDue else { return false }
        return recalls.contains { recall in
            guard let named = recall.timerDue, named == due || named == due +| 1 else { return false }
            return message.note == nil || recall.queueOffset > message.queueOffset
        }
    }

    /// Looks for messages by their unique key, in their topic and where messages wait for it: each once, as it is now.
    /// - Parameter findsAll: also in further topics when one has a message that is not deleted.
    private func search(
        _ topic: String, _ key: String, _ topics: [String], _ asker: Asker, findsAll: Bool,
        _ then: @escaping ([StoredMessage]) -> Void
    ) {
        var topics = topics[...]
        var query: KeyQuery?
        var found: [StoredMessage] = []
        var recalls: [StoredMessage] = []
        var places: Set<StoredMessage.Place> = []
        environment.slices.work(for: asker.client) { [self] in
            guard var present = query else {
                guard findsAll || !found.contains(where: { $0.note?.deletes != true }), let next = topics.popFirst()
                else { return false }
                query = storage.store.beginQuery(
                    topic: next, key: key, maxCount: MessageStatusInquiry.copiesMax, begin: 0, end: .max,
                    allVersions: true)
                return true
            }
            storage.store.advance(
                &present, steps: QueryMessageProcessor.stepsPerSlice, bytes: QueryMessageProcessor.bytesPerSlice)
            query = present
            guard present.isDone else { return true }
            query = nil
            for range in storage.store.result(of: present).records {
                guard let one = storage.store.storedMessage(range), one.uniqueKey == key,
                    one.topic == topic || one.realTopic == topic
                else { continue }
                guard !one.isCancellation else {
                    recalls.append(one)
                    continue
                }
                let present = storage.store.present(one)
                if places.insert(present.place).inserted { found.append(present) }
            }
            return true
        } then: {
            for index in found.indices { found[index].isRecalled = Self.isRecalled(found[index], by: recalls) }
            then(found)
        }
    }

    /// Nil when it was answered.
    private func look(
        _ topic: String, _ queueID: Int32, _ offset: Int64, _ request: borrowing Request
    ) throws(RemotingDecodeError) -> StoredMessage? {
        guard let queue = storage.store.consumeQueue(topic: topic, queueID: queueID),
            offset >= 0, offset < queue.maxOffset.rawValue
        else {
            request.answer(.queryNotFound, remark: "topic \(topic) queue \(queueID) has no message \(offset)")
            return nil
        }
        guard
            let version = storage.store.currentVersion(queue, at: QueueOffset(offset)),
            let found = storage.store.storedMessage(at: version.physicalOffset.rawValue)
        else {
            request.answer(
                .queryNotFound,
                remark: "message \(offset) of topic \(topic) queue \(queueID) has expired: the queue begins at "
                    + "\(queue.minOffset)")
            return nil
        }
        return found
    }
}
