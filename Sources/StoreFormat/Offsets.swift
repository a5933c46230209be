/// A byte position in the commit log, counted over all its files since the broker's first message. Public for the reason `BigEndian` is.
public struct PhysicalOffset: RawRepresentable, Comparable, Hashable, Sendable, CustomStringConvertible {
    /// The position itself.
    public var rawValue: Int64

    /// As `init(_:)`.
    @inlinable
    public init(rawValue: Int64) {
        self.rawValue = rawValue
    }

    /// Any number: what is read from a damaged file may be negative.
    @inlinable
    public init(_ rawValue: Int64) {
        self.rawValue = rawValue
    }

    /// By place.
    @inlinable
    public static func < (left: PhysicalOffset, right: PhysicalOffset) -> Bool {
        left.rawValue < right.rawValue
    }

    /// So many bytes further on.
    @inlinable
    public static func + (left: PhysicalOffset, bytes: Int) -> PhysicalOffset {
        PhysicalOffset(left.rawValue + Int64(bytes))
    }

    /// The number.
    public var description: String { String(rawValue) }
}

/// The number of an entry in one consume queue, counted since the queue's first message.
package struct QueueOffset: RawRepresentable, Comparable, Hashable, Sendable, CustomStringConvertible {
    package var rawValue: Int64

    @inlinable
    package init(rawValue: Int64) {
        self.rawValue = rawValue
    }

    @inlinable
    package init(_ rawValue: Int64) {
        self.rawValue = rawValue
    }

    @inlinable
    package static func < (left: QueueOffset, right: QueueOffset) -> Bool {
        left.rawValue < right.rawValue
    }

    @inlinable
    package static func + (left: QueueOffset, entries: Int) -> QueueOffset {
        QueueOffset(left.rawValue + Int64(entries))
    }

    package var description: String { String(rawValue) }
}

/// File names of the commit log and the consume queues: the offset of the first byte in 20 decimal digits.
package enum StoreFileName {
    package static func of(offset: Int64) -> String {
        let digits = String(offset)
        return String(repeating: "0", count: max(0, 20 - digits.utf8.count)) + digits
    }

    /// Nil when the name is not one of ours (a temporary or foreign file).
    package static func offset(of name: String) -> Int64? {
        guard name.utf8.count == 20, name.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }) else { return nil }
        return Int64(name)
    }
}
