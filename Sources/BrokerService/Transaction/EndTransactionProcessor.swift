import Logging
import MessageModel
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

    func process(_ request: borrowing Request) throws(RemotingDecodeError) {
        let group = try request.extFields.required("producerGroup")
        let queueOffset = try request.extFields.requiredInt64("tranStateTableOffset")
        let physicalOffset = try request.extFields.requiredInt64("commitLogOffset")
        let outcome = try request.extFields.requiredInt32("commitOrRollback")
        let asker = request.asker
        guard transactions.isRunning else {
            return asker.answer(.serviceNotAvailable, remark: "this broker ends no transactions at the moment")
        }
        // Neither committed nor rolled back: the producer does not know yet and will be asked.
        guard outcome == SysFlag.transactionCommitType || outcome == SysFlag.transactionRollbackType else {
            return asker.answer(.success)
        }
        let isCommit = outcome == SysFlag.transactionCommitType
        switch transactions.end(
            producerGroup: group, physicalOffset: physicalOffset, queueOffset: queueOffset, isCommit: isCommit)
        {
        case .done(let end):
            if isCommit { storage.statistics.put(messages: 1) }
            storage.gate.add(
                PendingAck(
                    client: request.client, address: request.returnAddress, kind: .sendBack, queueID: 0, queueOffset: 0,
                    physicalOffset: 0,
                    end: end, waits: false))
        case .endedBefore: asker.answer(.success)
        case .refused(let code, let remark):
            environment.logger.warning(
                """
                the outcome of the transaction at \(physicalOffset), from \(request.client.address) of producer group \
                \(group), was refused: \(remark)
                """
            )
            asker.answer(code, remark: remark)
        }
    }

    func resumeCheck(_ request: borrowing Request) throws(RemotingDecodeError) {
        let id = try request.extFields.required("msgId")
        if let (_, offset) = OffsetMessageID.parse(id), transactions.resumeCheck(physicalOffset: offset) {
            request.answer(.success)
        } else {
            request.answer(.systemError, remark: "Put message back to \(KnownTopic.half) failed.")
        }
    }
}
