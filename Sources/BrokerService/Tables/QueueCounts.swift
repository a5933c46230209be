/// How many queues topics have.
enum QueueCounts {
    /// DLQ_NUMS_PER_GROUP.
    static let deadLetter: Int32 = 1
    /// Queues of one topic on this broker; RocketMQ has no bound. Its largest own topic has 1024.
    static let maximum: Int32 = 4096
}
