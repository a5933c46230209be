/// How large a topic can get.
package enum QueueLimits {
    /// RocketMQ has no limit; its own largest topic has 1024.
    package static let queuesPerTopic: Int32 = 65_536
    /// Offsets of messages in a queue, -1 meaning none. A log of 2^63 bytes has no more messages.
    package static let offsets: ClosedRange<Int64> = -1...(1 << 55)
}
