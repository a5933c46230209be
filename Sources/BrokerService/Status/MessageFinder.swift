import MessageModel
import MessageStore
import RemotingProtocol
import StoreFormat

/// Finds the message a request names, and what stands for it now. Fields: `offset`, where a record begins in the commit
/// log; or `topic` and `msgId`, the ID its producer made; or `topic`, `queueId` and `queueOffset`. Confined to the
/// broker's event loop.
final class MessageFinder {
    private let environment: BrokerEnvironment
    private let storage: StoreAccess

    init(_ environment: BrokerEnvironment, _ storage: StoreAccess) {
        self.environment = environment
        self.storage = storage
    }

    /// Calls `then` with the message, perhaps later; answers itself when there is none.
    func find(
        _ request: borrowing Request, then: @escaping (StoredMessage) -> Void
    ) throws(RemotingDecodeError) {
        let fields = request.extFields
        if let offset = try fields.int64("offset") {
            guard let found = storage.store.storedMessage(at: offset) else {
                return request.answer(
                    .queryNotFound,
                    remark: "no message begins at \(offset) of the commit log: it has expired, or the offset is wrong")
            }
            return then(storage.store.present(found))
        }
        let topic = try fields.required("topic")
        if let key = fields.string("msgId") { return search(topic, key, request.asker, then) }
        let queueID = try fields.requiredInt32("queueId")
        let offset = try fields.requiredInt64("queueOffset")
        guard let found = try look(topic, queueID, offset, request) else { return }
        then(found)
    }

    /// Looks for a message by its unique key, in its topic and where messages wait for their time. Of several, as a
    /// producer makes that sends again after a time-out, the first that is not deleted.
    private func search(
        _ topic: String, _ key: String, _ asker: Asker, _ then: @escaping (StoredMessage) -> Void
    ) {
        var topics = [topic, TopicNames.schedule, TopicNames.timer, TopicNames.half][...]
        var query: KeyQuery?
        var found: StoredMessage?
        environment.slices.work(for: asker.client) { [self] in
            guard var present = query else {
                guard found == nil || found?.note?.deletes == true, let next = topics.popFirst() else { return false }
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
            let all = storage.store.result(of: present).records.compactMap { storage.store.storedMessage($0) }
                .filter { $0.uniqueKey == key && ($0.topic == topic || $0.realTopic == topic) && !$0.isCancellation }
                .map { storage.store.present($0) }
            let first = all.first { $0.note?.deletes != true } ?? all.first
            if let first, found == nil || first.note?.deletes != true { found = first }
            return true
        } then: {
            if let found { return then(found) }
            asker.answer(.queryNotFound, remark: "topic \(topic) has no message with the id \(key) here")
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
