package import StoreFormat

/// One queue of one topic: the positions of its messages in the log. Owned by a `MessageStore` and confined to its thread.
package final class ConsumeQueue {
    package let topic: String
    package let queueId: Int32
    /// Set by whoever waits for messages of this queue; `MessageStore.arrival` is called only then.
    package var wantsArrival = false
    /// For the owner of the store (its held pulls).
    package var context: AnyObject?

    /// First readable entry.
    package private(set) var minOffset = QueueOffset(0)
    /// Behind the last readable entry.
    package private(set) var maxOffset = QueueOffset(0)

    init(topic: String, queueId: Int32) {
        self.topic = topic
        self.queueId = queueId
    }
}
