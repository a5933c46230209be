import MessageModel

/// A number in a request's header that decides what is stored, or how long something is done: its name, and the values
/// it may have. They all stand here; a value outside is refused at the edge, before anything is looked up with it.
///
/// Numbers that are not here may have any value of their type, and the one that calculates with them does so without
/// overflow (`+|`, `-|`, `*|` of `MessageModel`).
package struct HeaderNumber<Value: FixedWidthInteger & Sendable>: Sendable {
    /// RocketMQ's name of the field.
    package let name: StaticString
    /// The values the broker or name server takes.
    package let bounds: ClosedRange<Value>

    init(_ name: StaticString, _ bounds: ClosedRange<Value>) {
        self.name = name
        self.bounds = bounds
    }
}

extension HeaderNumber where Value == Int32 {
    /// A queue, numbered from 0. Which ones a topic has is in its table.
    package static var queueID: Self { Self("queueId", 0...Int32.max) }
    /// A topic's queues. Tools ask for all of them at once.
    package static var readQueueNums: Self { Self("readQueueNums", 0...QueueLimits.queuesPerTopic) }
    /// As above.
    package static var writeQueueNums: Self { Self("writeQueueNums", 0...QueueLimits.queuesPerTopic) }
    /// `PermName`: inherit 1, write 2, read 4.
    package static var perm: Self { Self("perm", 0...7) }
}

extension HeaderNumber where Value == Int64 {
    /// How far a group has come in a queue; -1: nowhere.
    package static var commitOffset: Self { Self("commitOffset", QueueLimits.offsets) }
    /// Milliseconds until a name server drops a broker that sends nothing; not positive: its own time.
    package static var heartbeatTimeout: Self { Self("heartbeatTimeoutMillis", Int64.min...7 * 86_400_000) }
}

extension ExtFields {
    /// `nil`: there is no such field.
    /// - Throws: the field is no number; one out of its bounds becomes the nearest inside.
    package func clamped<Value>(_ number: HeaderNumber<Value>) throws(RemotingDecodeError) -> Value? {
        guard let value = try bytes(number.name)?.integer(number.name) else { return nil }
        return min(max(Value(clamping: value), number.bounds.lowerBound), number.bounds.upperBound)
    }

    /// - Throws: the field is missing, no number, or out of its bounds.
    package func required<Value>(_ number: HeaderNumber<Value>) throws(RemotingDecodeError) -> Value {
        guard let bytes = self.bytes(number.name) else { throw .missingField(number.name.text) }
        let value = try bytes.integer(number.name)
        guard let value = Value(exactly: value), number.bounds.contains(value) else {
            throw .outOfBounds(
                name: number.name.text, value: value,
                bounds: "\(number.bounds.lowerBound)...\(number.bounds.upperBound)")
        }
        return value
    }
}
