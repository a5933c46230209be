package import RemotingProtocol
package import RemotingTransport

/// Requests come in here; `RequestTable` says what becomes of each.
extension Broker {
    package func isLight(code: Int32) -> Bool {
        code == RequestCode.sendMessageV2.rawValue || code == RequestCode.sendMessage.rawValue
    }

    package func received(_ frame: RemotingFrame, on connection: RemotingConnection) {
        guard let context = connection.context else { return }
        let client = unsafeDowncast(context, to: ClientContext.self)
        tables.creations.requester = client
        do throws(RemotingDecodeError) {
            try dispatch(frame, client)
        } catch {
            client.answer(frame.returnAddress, .systemError, remark: "\(error)")
        }
        tables.creations.requester = nil
    }

    private func dispatch(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        guard let row = requests[frame.code] else {
            return client.answer(
                frame.returnAddress, .requestCodeNotSupported, remark: " request type \(frame.code) not supported")
        }
        guard frame.body.count <= row.bodyBytesMax else {
            return client.answer(
                frame.returnAddress, .systemError,
                remark: ControlBody.refusal(
                    code: frame.code, bytes: frame.body.count, bytesMax: row.bodyBytesMax))
        }
        if let refusal = storage.admission.refusal(of: row) {
            return client.answer(frame.returnAddress, refusal.code, remark: refusal.remark, fields: refusal.fields)
        }
        switch row.code {
        // Those that are many, without an allocation for each.
        case .sendMessageV2, .sendMessage, .sendBatchMessage: try processors.send.process(frame, client)
        case .pullMessage, .litePullMessage: try processors.pull.process(frame, client)
        case .updateConsumerOffset: try processors.queues.commit(frame, client)
        case .consumerSendMessageBack: try processors.sendBack.process(frame, client)
        case .endTransaction: try processors.endTransaction.process(frame, client)
        default: try row.processor(processors)(frame, client)
        }
    }
}
