package import StoreFormat

/// The outcome of a read from a queue, named and numbered as RocketMQ's `GetMessageStatus`.
package enum GetMessageStatus: Sendable {
    /// Messages are in the answer.
    case found
    /// Some were looked at, none was wanted.
    case noMatchedMessage
    /// The log files they lay in were deleted.
    case messageWasRemoving
    /// The queue's file that should hold the offset was deleted.
    case offsetFoundNull
    /// Beyond the queue's end by more than one.
    case offsetOverflowBadly
    /// Just the queue's end: the next message goes there.
    case offsetOverflowOne
    /// Before the queue's first entry.
    case offsetTooSmall
    /// There is no such queue.
    case noMatchedLogicQueue
    /// The queue has never had a message.
    case noMessageInQueue
}

/// What a read found out besides the messages (`GetMessageResult`).
package struct GetMessageResult: Sendable {
    /// What was found, or why nothing.
    package var status: GetMessageStatus
    /// Where the consumer goes on.
    package var nextBeginOffset: QueueOffset
    /// The queue's first entry at the time of the read.
    package var minOffset: QueueOffset
    /// Behind the queue's last entry at the time of the read.
    package var maxOffset: QueueOffset
    /// Messages found.
    package var messageCount: Int
    /// Bytes of the messages.
    package var bytes: Int
    /// The messages are so far behind the log's end that a slave should serve them.
    package var suggestPullingFromSlave: Bool
}

/// Whole records that lie one after the other in one log file.
package struct LogRange: Equatable, Sendable {
    /// Where the first of them begins.
    package var start: PhysicalOffset
    /// Bytes.
    package var length: Int
    /// Records in it.
    package var count: Int

    /// `count` records of `length` bytes from `start` on.
    package init(start: PhysicalOffset, length: Int, count: Int) {
        self.start = start
        self.length = length
        self.count = count
    }
}

/// A message that has just become readable, as dispatch reports it.
package struct MessageArrival: Sendable {
    /// Where its record begins.
    package let physicalOffset: PhysicalOffset
    /// Bytes of the record.
    package let size: Int
    /// The queue's end after this message.
    package let maxOffset: QueueOffset
    /// Of its tag (`TagsCode`).
    package let tagsCode: Int64
    /// Milliseconds since 1970.
    package let storeTimestamp: Int64
}

/// What `findMessage` knows.
package enum MessageSearch: Sendable {
    case none
    case found
    /// Not all could be looked at: there is no index, it cannot be read, or too many messages have the key.
    case unknown
}

/// What a key query found (`QueryMessageResult`).
package struct QueryResult: Sendable {
    /// Newest first, as the index finds them.
    package var records: [LogRange] = []
    /// Milliseconds since 1970.
    package var indexLastUpdateTimestamp: Int64 = 0
    /// Of the newest message in the index.
    package var indexLastUpdatePhyoffset = PhysicalOffset(0)
}
