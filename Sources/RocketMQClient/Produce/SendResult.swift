/// How a broker stored a message. All four mean that it is stored.
public enum SendStatus: String, Sendable, Hashable {
    /// Stored as safely as the broker is configured to.
    case ok = "SEND_OK"
    /// The master has not flushed it to disk in time.
    case flushDiskTimeout = "FLUSH_DISK_TIMEOUT"
    /// No slave has it in time.
    case flushSlaveTimeout = "FLUSH_SLAVE_TIMEOUT"
    /// No slave is connected, or all are far behind.
    case slaveNotAvailable = "SLAVE_NOT_AVAILABLE"
}

/// A message that was stored.
public struct SendResult: Sendable, Hashable {
    /// How safely.
    public let status: SendStatus
    /// The ID this client made for it.
    public let messageID: String
    /// The ID of its position, given by the broker.
    public let offsetMessageID: String
    /// The queue it lies in: of a topic with shards (`apus.shard`) the broker's choice.
    public let queue: MessageQueue
    /// Its position there; -1 when the broker did not report it.
    public let queueOffset: Int64
    /// The broker's ID of the transaction; nil for other messages.
    public let transactionID: String?

    package init(
        status: SendStatus, messageID: String, offsetMessageID: String, queue: MessageQueue, queueOffset: Int64,
        transactionID: String? = nil
    ) {
        self.status = status
        self.messageID = messageID
        self.offsetMessageID = offsetMessageID
        self.queue = queue
        self.queueOffset = queueOffset
        self.transactionID = transactionID
    }
}

/// What becomes of a transaction.
public enum TransactionState: Int, Sendable, Hashable {
    /// Not known yet: the broker asks later.
    case unknown = 0
    /// Consumers get the message.
    case commit = 8
    /// Consumers never see the message.
    case rollback = 12
}
