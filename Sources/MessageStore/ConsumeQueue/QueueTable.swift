import MessageModel
import StoreFormat

/// A topic's name, once for all its queues.
final class StoredTopic {
    let topic: TopicName
    let name: String
    /// The name's UTF-8, allocated once: lookups compare against it without making a String.
    let bytes: UnsafeRawBufferPointer
    /// `String.hashCode` of `name#`, the prefix of every index key of the topic.
    let keyHashPrefix: Int32
    let isSchedule: Bool
    /// Numbers of the topic's queues, in the order of their creation. `QueueTable` alone changes them.
    fileprivate(set) var queueIDs: [Int32] = []

    init(_ topic: TopicName) {
        self.topic = topic
        name = topic.text
        let utf8 = name.utf8
        let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: max(1, utf8.count), alignment: 8)
        copy.copyBytes(from: utf8)
        bytes = UnsafeRawBufferPointer(rebasing: copy[0..<utf8.count])
        keyHashPrefix = JavaHash.hash(bytes, continuing: 0) &* 31 &+ 35
        isSchedule = topic == .schedule
    }

    deinit {
        bytes.deallocate()
    }
}

/// Finds a queue by topic bytes and queue id: open addressing, one probe in the common case, no String, no allocation
/// on lookup.
struct QueueTable {
    private(set) var queues: [ConsumeQueue] = []
    private var topics: [TopicName: StoredTopic] = [:]
    /// Index into `queues` plus one, 0 for free; and the hash beside it.
    private var slots: [(index: Int32, hash: UInt32)] = Array(repeating: (0, 0), count: 64)
    private var last: ConsumeQueue?
    private let hashing = BytesHash()

    @inline(__always)
    mutating func find(_ topic: UnsafeRawBufferPointer, _ queueID: Int32) -> ConsumeQueue? {
        if let last, last.queueID == queueID, MessageProperties.equal(last.storedTopic.bytes, topic) { return last }
        let hash = self.hash(topic, queueID)
        var slot = Int(hash) & (slots.count - 1)
        while slots[slot].index != 0 {
            if slots[slot].hash == hash {
                let queue = queues[Int(slots[slot].index) - 1]
                if queue.queueID == queueID, MessageProperties.equal(queue.storedTopic.bytes, topic) {
                    last = queue
                    return queue
                }
            }
            slot = (slot + 1) & (slots.count - 1)
        }
        return nil
    }

    /// Adds a queue that is not in the table. Its folder gets the topic's name, so only a checked one makes a queue.
    mutating func make(_ topic: TopicName, _ queueID: Int32, entriesPerFile: Int) -> ConsumeQueue {
        precondition(queueID >= 0, "queues are numbered from 0")
        let stored = topics[topic] ?? StoredTopic(topic)
        topics[topic] = stored
        let queue = ConsumeQueue(topic: stored, queueID: queueID, entriesPerFile: entriesPerFile)
        insert(queue)
        return queue
    }

    /// Every topic that has queues, in no order.
    var topicNames: [TopicName] { Array(topics.keys) }

    /// Removes the queues of a topic. Costs what they cost, however many others there are.
    mutating func remove(_ topic: TopicName) -> [ConsumeQueue] {
        guard let stored = topics.removeValue(forKey: topic) else { return [] }
        last = nil
        defer { stored.queueIDs = [] }
        return stored.queueIDs.compactMap { remove(stored.bytes, $0) }
    }

    private mutating func remove(_ topic: UnsafeRawBufferPointer, _ queueID: Int32) -> ConsumeQueue? {
        let hash = self.hash(topic, queueID)
        let found = slot(hash) {
            queues[$0].queueID == queueID && MessageProperties.equal(queues[$0].storedTopic.bytes, topic)
        }
        guard let found else { return nil }
        let index = Int(slots[found].index) - 1
        let queue = queues[index]
        let moved = queues.removeLast()
        if moved !== queue {
            let movedSlot = slot(self.hash(moved.storedTopic.bytes, moved.queueID)) { $0 == queues.count }
            guard let movedSlot else { preconditionFailure("every queue has a slot") }
            slots[movedSlot].index = Int32(index + 1)
            queues[index] = moved
        }
        closeGap(found)
        return queue
    }

    /// The slot of a queue, by its hash and its index in `queues`.
    private func slot(_ hash: UInt32, where isIt: (Int) -> Bool) -> Int? {
        var slot = Int(hash) & (slots.count - 1)
        while slots[slot].index != 0 {
            if slots[slot].hash == hash, isIt(Int(slots[slot].index) - 1) { return slot }
            slot = (slot + 1) & (slots.count - 1)
        }
        return nil
    }

    /// Moves entries a search would not reach any more into the freed slot.
    private mutating func closeGap(_ freed: Int) {
        let mask = slots.count - 1
        var free = freed
        var slot = (free + 1) & mask
        while slots[slot].index != 0 {
            let home = Int(slots[slot].hash) & mask
            if (slot - home) & mask >= (slot - free) & mask {
                slots[free] = slots[slot]
                free = slot
            }
            slot = (slot + 1) & mask
        }
        slots[free] = (0, 0)
    }

    mutating func removeAll() {
        self = QueueTable()
    }

    private mutating func insert(_ queue: ConsumeQueue) {
        queues.append(queue)
        queue.storedTopic.queueIDs.append(queue.queueID)
        if queues.count * 2 > slots.count {
            slots = Array(repeating: (0, 0), count: slots.count * 4)
            for (index, queue) in queues.enumerated() { place(queue, index) }
        } else {
            place(queue, queues.count - 1)
        }
    }

    private mutating func place(_ queue: ConsumeQueue, _ index: Int) {
        let hash = self.hash(queue.storedTopic.bytes, queue.queueID)
        var slot = Int(hash) & (slots.count - 1)
        while slots[slot].index != 0 { slot = (slot + 1) & (slots.count - 1) }
        slots[slot] = (Int32(index + 1), hash)
    }

    /// Of a queue of a topic: topics come from clients.
    @inline(__always)
    private func hash(_ topic: UnsafeRawBufferPointer, _ queueID: Int32) -> UInt32 {
        UInt32(truncatingIfNeeded: hashing.hash(topic, and: UInt64(UInt32(bitPattern: queueID))))
    }
}
