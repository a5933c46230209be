import Logging
import MessageModel
import MessageStore
import RemotingProtocol
import StoreFormat

/// Messages that have waited, are intact, and cannot be delivered: for example, their topic was deleted and may not be
/// made again. They are stored in queue 0 of `rmq_sys_UNDELIVERABLE`, with everything they had and the reason, where
/// operators find them.
final class UndeliverableMessages {
    static let topic = TopicNames.undeliverable
    /// Milliseconds between two lines of the log; what happens in between is counted in the next one.
    static let logMilliseconds: Int64 = 1000

    private let environment: BrokerEnvironment
    private let tables: BrokerTables
    private let storage: StoreAccess
    private var loggedMilliseconds: Int64 = 0
    private var unlogged = 0

    init(_ environment: BrokerEnvironment, _ tables: BrokerTables, _ storage: StoreAccess) {
        self.environment = environment
        self.tables = tables
        self.storage = storage
    }

    /// How many of them the store holds.
    var count: Int64 {
        guard let queue = storage.store.consumeQueue(topic: Self.topic, queueID: 0) else { return 0 }
        return queue.maxOffset.rawValue - queue.minOffset.rawValue
    }

    /// Stores the record there; it must not lie in the log itself, which is written meanwhile.
    func putAside(_ record: CommitLogRecordView, because reason: String) -> AppendOutcome {
        _ = tables.topics.findOrCreate(.undeliverable, queueNums: 1, perm: Permission.read | Permission.write)
        // The reason may quote names; separators of properties must not come in by them.
        let text = reason.utf8.filter { $0 >= 32 && $0 != 127 }.prefix(512)
        let suffix = Array("\(PropertyName.undeliverableReason)\u{1}".utf8) + text
        var outcome = append(record, suffix)
        if case .refused(let refusal) = outcome, !refusal.isPassing { outcome = append(record, []) }
        if case .appended(let result) = outcome { log(record, reason, result) }
        return outcome
    }

    private func append(_ record: CommitLogRecordView, _ suffix: [UInt8]) -> AppendOutcome {
        Array(Self.topic.utf8).withUnsafeBytes { topic in
            suffix.withUnsafeBytes { suffix in
                var draft = MessageDraft(copyOf: record, topic: topic, queueID: 0, properties: record.properties)
                if !SysFlag.entersConsumeQueue(draft.sysFlag) { draft.sysFlag &= ~SysFlag.transactionRollbackType }
                draft.mayUseReserve = true
                if record.properties.count + suffix.count < Int(Int16.max) { draft.propertiesSuffix = suffix }
                return storage.store.append(draft)
            }
        }
    }

    private func log(_ record: CommitLogRecordView, _ reason: String, _ result: AppendResult) {
        let now = environment.now()
        guard now - loggedMilliseconds >= Self.logMilliseconds || now < loggedMilliseconds else {
            unlogged += 1
            return
        }
        let more = unlogged > 0 ? ", like \(unlogged) others since the last line" : ""
        loggedMilliseconds = now
        unlogged = 0
        environment.logger.error(
            """
            the message that waited at \(record.physicalOffset) cannot be delivered: \(reason); it lies at offset \
            \(result.queueOffset) of \(Self.topic) now\(more) (undeliverableMessages in the runtime information): mend \
            the cause and send it again
            """
        )
    }
}
