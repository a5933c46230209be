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
        requester = client
        do throws(RemotingDecodeError) {
            try dispatch(frame, client)
        } catch {
            client.answer(frame.returnAddress, .systemError, remark: "\(error)")
        }
        requester = nil
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
        if let refusal = admission.refusal(of: row) {
            return client.answer(frame.returnAddress, refusal.code, remark: refusal.remark, fields: refusal.fields)
        }
        switch row.code {
        // Those that are many, without an allocation for each.
        case .sendMessageV2, .sendMessage, .sendBatchMessage: try send.process(frame, client)
        case .pullMessage, .litePullMessage: try pull.process(frame, client)
        case .updateConsumerOffset: try queues.commit(frame, client)
        case .consumerSendMessageBack: try sendBack.process(frame, client)
        case .endTransaction: try endTransaction.process(frame, client)
        default: try row.processor(self)(frame, client)
        }
    }
}
