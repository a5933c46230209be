import MessageStore
import RemotingProtocol
import StoreFormat

/// QUERY_MESSAGE (12) by key or unique key, VIEW_MESSAGE_BY_ID (33) by physical offset.
final class QueryMessageProcessor {
    private unowned let broker: Broker

    init(_ broker: Broker) { self.broker = broker }

    func process(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        if frame.code == RequestCode.viewMessageByID.rawValue {
            try view(frame, client)
        } else {
            try query(frame, client)
        }
    }

    private func query(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let fields = frame.extFields
        let isUniqueKey = fields.string("_UNIQUE_KEY_QUERY") == "true"
        let maxNum = Int(try fields.requiredInt32("maxNum"))
        let result = broker.store.queryMessage(
            topic: try fields.required("topic"), key: try fields.required("key"),
            maxCount: isUniqueKey ? broker.configuration.defaultQueryMaxNum : maxNum,
            begin: try fields.requiredInt64("beginTimestamp"), end: try fields.requiredInt64("endTimestamp"))
        let answerFields = [
            ("indexLastUpdatePhyoffset", String(result.indexLastUpdatePhyoffset.rawValue)),
            ("indexLastUpdateTimestamp", String(result.indexLastUpdateTimestamp)),
        ]
        var body: [UInt8] = []
        for range in result.records { _ = broker.store.withBytes(range) { body.append(contentsOf: $0) } }
        guard !body.isEmpty else {
            return client.answer(
                frame.returnAddress, .queryNotFound,
                remark: "can not find message, maybe time range not correct", fields: answerFields)
        }
        client.answer(frame.returnAddress, .success, fields: answerFields, body: body)
    }

    private func view(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let offset = try frame.extFields.requiredInt64("offset")
        guard let range = broker.store.lookMessage(at: PhysicalOffset(offset)),
            let body = broker.store.withBytes(range, { Array($0) })
        else {
            return client.answer(
                frame.returnAddress, .systemError, remark: "can not find message by the offset, \(offset)")
        }
        client.answer(frame.returnAddress, .success, body: body)
    }
}
