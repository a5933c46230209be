import Logging
import MessageStore
import RemotingProtocol
import StoreFormat

/// APUS_EDIT_MESSAGE (31002, Apus's own): changes, withdraws, postpones or repeats one message. Confined to the
/// broker's event loop.
final class EditMessageProcessor {
    private let environment: BrokerEnvironment
    private let storage: StoreAccess
    private let finder: MessageFinder
    private let editor: MessageEditor

    init(_ environment: BrokerEnvironment, _ storage: StoreAccess, _ editor: MessageEditor) {
        self.environment = environment
        self.storage = storage
        self.editor = editor
        finder = MessageFinder(environment, storage)
    }

    /// Fields: those of `MessageFinder` for the message, those of `EditRequest` for what is to be done. The answer's
    /// fields name the version that was made: `version`, `topic`, `queueId`, `queueOffset`, `commitLogOffset`, `msgId`,
    /// `uniqueKey`, `deliverAt` where it waits for a time, and `consumedBy`: groups that have consumed the version
    /// before, separated by commas.
    func process(_ request: borrowing Request) throws(RemotingDecodeError) {
        let edit: EditRequest
        switch try EditRequest.parse(request) {
        case .refused(let reason): return request.answer(.systemError, remark: reason)
        case .request(let parsed): edit = parsed
        }
        let asker = request.asker
        try finder.find(request) { [self] message in carryOut(edit, message, asker) }
    }

    private func carryOut(_ edit: EditRequest, _ message: StoredMessage, _ asker: Asker) {
        switch editor.carryOut(edit, message) {
        case .refused(let code, let reason):
            environment.logger.info("\(edit.operation.rawValue) of a message by \(edit.by) was refused: \(reason)")
            asker.answer(code, remark: reason)
        case .done(let done):
            environment.logger.notice(
                "message edited",
                metadata: [
                    "operation": "\(edit.operation.rawValue)", "by": "\(edit.by)", "topic": "\(message.topic)",
                    "queue": "\(message.queueID)", "offset": "\(message.queueOffset)",
                    "from": "\(message.physicalOffset)", "to": "\(done.physicalOffset)",
                ])
            var fields: [(String, String)] = [
                ("version", String(done.version)), ("topic", done.topic), ("queueId", String(done.queueID)),
                ("queueOffset", String(done.queueOffset)), ("commitLogOffset", String(done.physicalOffset)),
                (
                    "msgId",
                    OffsetMessageID.text(host: environment.storeHost, physicalOffset: done.physicalOffset)
                ),
            ]
            if let key = done.uniqueKey { fields.append(("uniqueKey", key)) }
            if let due = done.deliverAt { fields.append(("deliverAt", String(due))) }
            if !done.consumedBy.isEmpty {
                fields.append(("consumedBy", done.consumedBy.prefix(256).joined(separator: ",")))
            }
            storage.scheduleTick()
            storage.gate.add(
                PendingAck(
                    client: asker.client, address: asker.address, kind: .fields(fields), queueID: done.queueID,
                    queueOffset: done.queueOffset, physicalOffset: done.physicalOffset, end: done.end, waits: true,
                    topicMadeAt: done.topicMadeAt))
        }
    }
}
