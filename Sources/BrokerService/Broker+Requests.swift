package import RemotingProtocol
package import RemotingTransport

/// Requests come in here; `RequestTable` decides what becomes of each.
extension Broker {
    /// The two codes of a send; SEND_BATCH_MESSAGE is not one of them.
    package func isLight(code: Int32) -> Bool {
        code == RequestCode.sendMessageV2.rawValue || code == RequestCode.sendMessage.rawValue
    }

    /// Refuses the request by its row of `RequestTable`, or calls its processor.
    /// A header that cannot be decoded is answered with SYSTEM_ERROR and the reason.
    package func received(_ frame: RemotingFrame, on connection: RemotingConnection) {
        guard let context = connection.context else { return }
        let client = unsafeDowncast(context, to: ClientContext.self)
        tables.creations.requester = connection.remoteAddress
        do throws(RemotingDecodeError) {
            try dispatch(Request(frame, client))
        } catch {
            client.answer(frame.returnAddress, .systemError, remark: "\(error)")
        }
        tables.creations.requester = nil
    }

    private func dispatch(_ request: borrowing Request) throws(RemotingDecodeError) {
        guard let row = requests[request.frame.code] else {
            return request.answer(.requestCodeNotSupported, remark: " request type \(request.frame.code) not supported")
        }
        guard request.body.count <= row.bodyBytesMax else {
            return request.answer(
                .systemError,
                remark: ControlBody.refusal(
                    code: request.frame.code, bytes: request.body.count, bytesMax: row.bodyBytesMax))
        }
        guard request.frame.header.count <= row.headerBytesMax else {
            return request.answer(
                .systemError,
                remark: ControlBody.refusal(code: request.frame.code, headerBytes: request.frame.header.count))
        }
        if let refusal = storage.admission.refusal(of: row.refusal, in: row.refusedIn) {
            return request.answer(refusal.code, remark: refusal.remark, fields: refusal.fields)
        }
        switch row.code {
        // Those that are many, without an allocation for each.
        case .sendMessageV2, .sendMessage, .sendBatchMessage: try processors.send.process(request)
        case .pullMessage, .litePullMessage: try processors.pull.process(request)
        case .updateConsumerOffset: try processors.queues.commit(request)
        case .consumerSendMessageBack: try processors.sendBack.process(request)
        case .endTransaction: try processors.endTransaction.process(request)
        default: try row.processor(processors)(request)
        }
    }
}
