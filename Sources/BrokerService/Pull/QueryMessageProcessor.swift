import MessageStore
import RemotingProtocol
import RemotingTransport
import StoreFormat

/// QUERY_MESSAGE (12) by key or unique key, VIEW_MESSAGE_BY_ID (33) by physical offset. Searching goes in slices of
/// several turns. The messages leave as those of a pull do, by `sendfile`, so that a client that reads nothing costs no
/// memory. Meanwhile no further request of it is handled.
final class QueryMessageProcessor {
    /// Entries of the index, or messages, that a slice looks at; a turn of well below a millisecond.
    static let stepsPerSlice = 256
    /// Bytes of messages that a slice looks at before it stops: they may have to be checked from end to end.
    static let bytesPerSlice = 1 << 20
    /// Bytes of one answer: what RocketMQ's clients take in a frame (16 MB), less its header.
    static let answerBytesMax = RemotingLimits.frameBytes - (64 << 10)

    private let environment: BrokerEnvironment
    private let storage: StoreAccess
    private let sender: RecordSender

    init(_ environment: BrokerEnvironment, _ storage: StoreAccess, _ sender: RecordSender) {
        self.environment = environment
        self.storage = storage
        self.sender = sender
    }

    func query(_ request: borrowing Request) throws(RemotingDecodeError) {
        let fields = request.extFields
        let isUniqueKey = fields.string("_UNIQUE_KEY_QUERY") == "true"
        let maxNum = Int(try fields.requiredInt32("maxNum"))
        let (topic, key) = (try fields.required("topic"), try fields.required("key"))
        let (begin, end) = (try fields.requiredInt64("beginTimestamp"), try fields.requiredInt64("endTimestamp"))
        func search(from begin: Int64) -> KeyQuery {
            storage.store.beginQuery(
                topic: topic, key: key, maxCount: isUniqueKey ? environment.configuration.defaultQueryMaxNum : maxNum,
                bytesMax: Self.answerBytesMax, begin: begin, end: end)
        }
        var query = search(from: begin)
        // Tools read the beginning from the unique key. Those of the official C++ client (2.0) have their bytes in
        // another order, and what is read there may lie days after the message
        // (findings/cpp-client-message-id-time.sh).
        var mayBeEarlier = isUniqueKey && begin > 0 && end == Int64.max
        let asker = request.asker
        // `true` when there is more to do.
        let slice = { [unowned self] () -> Bool in
            guard !asker.client.connection.isClosed else { return false }
            storage.store.advance(&query, steps: Self.stepsPerSlice, bytes: Self.bytesPerSlice)
            guard query.isDone else { return true }
            let result = storage.store.result(of: query)
            if result.records.isEmpty, mayBeEarlier {
                mayBeEarlier = false
                query = search(from: 0)
                return true
            }
            asker.client.connection.awaitsAnswer = false
            answer(result, asker)
            return false
        }
        asker.client.connection.awaitsAnswer = true
        // Most searches take two slices: one in the index, one in the log.
        if slice(), slice() { environment.slices.add(slice) }
    }

    private func answer(_ result: QueryResult, _ asker: Asker) {
        let fields = [
            ("indexLastUpdatePhyoffset", String(result.indexLastUpdatePhyoffset.rawValue)),
            ("indexLastUpdateTimestamp", String(result.indexLastUpdateTimestamp)),
        ]
        guard !result.records.isEmpty else {
            return asker.answer(
                .queryNotFound, remark: "can not find message, maybe time range not correct", fields: fields)
        }
        sender.answer(with: result.records, asker, fields: fields)
    }

    func view(_ request: borrowing Request) throws(RemotingDecodeError) {
        let offset = try request.extFields.requiredInt64("offset")
        guard let range = storage.store.lookMessage(at: PhysicalOffset(offset)) else {
            return request.answer(.systemError, remark: "can not find message by the offset, \(offset)")
        }
        sender.answer(with: [range], request.asker)
    }
}
