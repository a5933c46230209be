import Logging
import RemotingProtocol
import StoreFormat

/// END_TRANSACTION (37): commit or roll back a prepared message; and RESUME_CHECK_HALF_MESSAGE (323).
final class EndTransactionProcessor {
    private let environment: BrokerEnvironment
    private let storage: StoreAccess
    private let transactions: TransactionalMessageService

    init(_ environment: BrokerEnvironment, _ storage: StoreAccess, _ transactions: TransactionalMessageService) {
        self.environment = environment
        self.storage = storage
        self.transactions = transactions
    }

    func process(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let group = try frame.extFields.required("producerGroup")
        let queueOffset = try frame.extFields.requiredInt64("tranStateTableOffset")
        let physicalOffset = try frame.extFields.requiredInt64("commitLogOffset")
        let outcome = try frame.extFields.requiredInt32("commitOrRollback")
        let address = frame.returnAddress
        guard transactions.isRunning else {
            return client.answer(
                address, .serviceNotAvailable, remark: "this broker ends no transactions at the moment")
        }
        // Neither committed nor rolled back: the producer does not know yet and will be asked.
        guard outcome == SysFlag.transactionCommitType || outcome == SysFlag.transactionRollbackType else {
            return client.answer(address, .success)
        }
        let isCommit = outcome == SysFlag.transactionCommitType
        switch transactions.end(
            producerGroup: group, physicalOffset: physicalOffset, queueOffset: queueOffset, isCommit: isCommit)
        {
        case .done(let end):
            if isCommit { storage.statistics.put(messages: 1) }
            storage.gate.add(
                PendingAck(
                    client: client, address: address, kind: .sendBack, queueId: 0, queueOffset: 0, physicalOffset: 0,
                    end: end, waits: false))
        case .endedBefore: client.answer(address, .success)
        case .refused(let code, let remark):
            environment.logger.warning(
                "the end of the transaction at \(physicalOffset), said by \(client.address) of \(group), was refused: \(remark)"
            )
            client.answer(address, code, remark: remark)
        }
    }

    func resumeCheck(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let id = try frame.extFields.required("msgId")
        if let (_, offset) = OffsetMessageID.parse(id), transactions.resumeCheck(physicalOffset: offset) {
            client.answer(frame.returnAddress, .success)
        } else {
            client.answer(
                frame.returnAddress, .systemError, remark: "Put message back to RMQ_SYS_TRANS_HALF_TOPIC failed.")
        }
    }
}
