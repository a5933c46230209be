import Claims
import MessageModel
import MessageStore
import RemotingProtocol
import RemotingTransport
import StoreFormat

/// APUS_GET_MESSAGE_STATUS (31001, Apus's own): what has become of a message for each group, and what it has been
/// through. Confined to the broker's event loop.
final class MessageStatusProcessor {
    private let environment: BrokerEnvironment
    private let tables: BrokerTables
    private let storage: StoreAccess
    private let claims: GroupClaims
    private let kinds: MessageKinds

    init(
        _ environment: BrokerEnvironment, _ tables: BrokerTables, _ storage: StoreAccess, _ claims: GroupClaims,
        _ kinds: MessageKinds
    ) {
        self.environment = environment
        self.tables = tables
        self.storage = storage
        self.claims = claims
        self.kinds = kinds
    }

    /// Fields: `offset`, where the record begins in the commit log; or `topic` and `msgId`, the ID its producer
    /// made; or `topic`, `queueId` and `queueOffset`. `group`: this group only. The body is JSON, whose members are in
    /// `MessageStatusInquiry.body`.
    func status(_ request: borrowing Request) throws(RemotingDecodeError) {
        let fields = request.extFields
        let wanted = fields.string("group")
        if let offset = try fields.int64("offset") {
            guard let found = storage.store.storedMessage(at: offset) else {
                return request.answer(
                    .queryNotFound,
                    remark: "no message begins at \(offset) of the commit log: it has expired, or the offset is wrong")
            }
            return inquire(found, wanted, request.asker)
        }
        let topic = try fields.required("topic")
        if let key = fields.string("msgId") { return search(topic, key, wanted, request.asker) }
        let queueID = try fields.requiredInt32("queueId")
        let offset = try fields.requiredInt64("queueOffset")
        guard let found = try look(topic, queueID, offset, request) else { return }
        inquire(found, wanted, request.asker)
    }

    /// Looks for a message by its unique key, in its topic and where messages wait for their time. Of several, as a
    /// producer makes that sends again after a time-out, the first.
    private func search(_ topic: String, _ key: String, _ wanted: String?, _ asker: Asker) {
        var topics = [topic, TopicNames.schedule, TopicNames.timer, TopicNames.half][...]
        var query: KeyQuery?
        var found: StoredMessage?
        environment.slices.work(for: asker.client) { [self] in
            guard var present = query else {
                guard found == nil, let next = topics.popFirst() else { return false }
                query = storage.store.beginQuery(
                    topic: next, key: key, maxCount: MessageStatusInquiry.copiesMax, begin: 0, end: .max)
                return true
            }
            storage.store.advance(
                &present, steps: QueryMessageProcessor.stepsPerSlice, bytes: QueryMessageProcessor.bytesPerSlice)
            query = present
            guard present.isDone else { return true }
            query = nil
            found = storage.store.result(of: present).records.lazy.compactMap { self.storage.store.storedMessage($0) }
                .first { $0.uniqueKey == key && ($0.topic == topic || $0.realTopic == topic) }
            return true
        } then: { [self] in
            if let found { return inquire(found, wanted, asker) }
            asker.answer(.queryNotFound, remark: "topic \(topic) has no message with the id \(key) here")
        }
    }

    private func inquire(_ message: StoredMessage, _ wanted: String?, _ asker: Asker) {
        let inquiry = MessageStatusInquiry(environment, tables, storage, claims, kinds.schedule, message)
        environment.slices.work(for: asker.client) {
            inquiry.advance()
        } then: { [self] in
            lookAtGroups(inquiry, wanted, asker)
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
            let entry = storage.store.entries(queue, from: QueueOffset(offset), maxCount: 1).first,
            let found = storage.store.storedMessage(at: entry.physicalOffset.rawValue)
        else {
            request.answer(
                .queryNotFound,
                remark: "message \(offset) of topic \(topic) queue \(queueID) has expired: the queue begins at "
                    + "\(queue.minOffset)")
            return nil
        }
        return found
    }

    private func lookAtGroups(_ inquiry: MessageStatusInquiry, _ wanted: String?, _ asker: Asker) {
        if let wanted {
            inquiry.begin([wanted] as Set)
            return lookOn(inquiry, asker)
        }
        let topic = inquiry.waits ? inquiry.message.realTopic ?? "" : inquiry.message.topic
        asker.client.connection.awaitsAnswer = true
        tables.consumers.groups(subscribedTo: topic, in: environment.slices) { [self] online in
            asker.client.connection.awaitsAnswer = false
            inquiry.begin(Set(online).union(tables.offsets.groups(of: topic)))
            lookOn(inquiry, asker)
        }
    }

    private func lookOn(_ inquiry: MessageStatusInquiry, _ asker: Asker) {
        environment.slices.work(for: asker.client) {
            inquiry.advance()
        } then: { [self] in
            guard inquiry.rows.contains(where: { $0.mode == .pop }), !inquiry.waits else {
                return asker.answer(.success, body: inquiry.body(nil))
            }
            let message = inquiry.message
            asker.client.connection.awaitsAnswer = true
            let groups = inquiry.rows.filter { $0.mode == .pop }.map(\.group)
            let isAsked = claims.trail(of: message.topic, groups, message.queueID, message.queueOffset) { trail in
                asker.client.connection.awaitsAnswer = false
                inquiry.add(trail)
                asker.answer(.success, body: inquiry.body(trail))
            }
            if !isAsked {
                asker.client.connection.awaitsAnswer = false
                asker.answer(
                    .systemBusy, remark: "too many clients ask for the trails of messages; ask again in a moment")
            }
        }
    }
}
