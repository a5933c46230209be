package import StoreFormat

/// The outcome of a read from a queue, named and numbered as RocketMQ's `GetMessageStatus`.
package enum GetMessageStatus: Sendable {
    case found
    case noMatchedMessage
    case messageWasRemoving
    case offsetFoundNull
    case offsetOverflowBadly
    case offsetOverflowOne
    case offsetTooSmall
    case noMatchedLogicQueue
    case noMessageInQueue
}

/// What a read found out besides the messages (`GetMessageResult`).
package struct GetMessageResult: Sendable {
    package var status: GetMessageStatus
    /// Where the consumer goes on.
    package var nextBeginOffset: QueueOffset
    package var minOffset: QueueOffset
    package var maxOffset: QueueOffset
    package var messageCount: Int
    /// Bytes of the messages.
    package var bytes: Int
    /// The messages are so far behind the log's end that a slave should serve them.
    package var suggestPullingFromSlave: Bool
}

/// A run of whole records that lie one behind the other in one log file.
package struct LogRange: Equatable, Sendable {
    package var start: PhysicalOffset
    /// Bytes.
    package var length: Int
    /// Records in it.
    package var count: Int

    package init(start: PhysicalOffset, length: Int, count: Int) {
        self.start = start
        self.length = length
        self.count = count
    }
}

/// What dispatch tells about a message that has just become readable.
package struct MessageArrival: Sendable {
    package let physicalOffset: PhysicalOffset
    /// Bytes of the record.
    package let size: Int
    /// The queue's end behind this message.
    package let maxOffset: QueueOffset
    package let tagsCode: Int64
    /// Milliseconds since 1970.
    package let storeTimestamp: Int64
}

/// What a key query found (`QueryMessageResult`).
package struct QueryResult: Sendable {
    package var records: [LogRange] = []
    /// Milliseconds since 1970.
    package var indexLastUpdateTimestamp: Int64 = 0
    package var indexLastUpdatePhyoffset = PhysicalOffset(0)
}
