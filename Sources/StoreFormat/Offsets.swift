/// A byte position in the commit log, counted over all its files since the broker's first message.
/// Public for the reason `BigEndian` is.
@frozen
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

    /// By position.
    @inlinable
    public static func < (left: PhysicalOffset, right: PhysicalOffset) -> Bool {
        left.rawValue < right.rawValue
    }

    /// By position.
    @inlinable
    public static func <= (left: PhysicalOffset, right: PhysicalOffset) -> Bool {
        left.rawValue <= right.rawValue
    }

    /// By position.
    @inlinable
    public static func > (left: PhysicalOffset, right: PhysicalOffset) -> Bool {
        left.rawValue > right.rawValue
    }

    /// By position.
    @inlinable
    public static func >= (left: PhysicalOffset, right: PhysicalOffset) -> Bool {
        left.rawValue >= right.rawValue
    }

    /// The same position.
    @inlinable
    public static func == (left: PhysicalOffset, right: PhysicalOffset) -> Bool {
        left.rawValue == right.rawValue
    }

    /// So many bytes further on. Traps on overflow, as do the operators below.
    @inlinable
    public static func + (left: PhysicalOffset, bytes: Int) -> PhysicalOffset {
        PhysicalOffset(left.rawValue + Int64(bytes))
    }

    /// So many bytes further on.
    @inlinable
    public static func + (left: PhysicalOffset, bytes: Int64) -> PhysicalOffset {
        PhysicalOffset(left.rawValue + bytes)
    }

    /// So many bytes back.
    @inlinable
    public static func - (left: PhysicalOffset, bytes: Int64) -> PhysicalOffset {
        PhysicalOffset(left.rawValue - bytes)
    }

    /// The bytes from `right` to `left`.
    @inlinable
    public static func - (left: PhysicalOffset, right: PhysicalOffset) -> Int64 {
        left.rawValue - right.rawValue
    }

    /// Moves it on by so many bytes.
    @inlinable
    public static func += (left: inout PhysicalOffset, bytes: Int64) {
        left.rawValue += bytes
    }

    /// The number.
    public var description: String { String(rawValue) }
}

/// The number of an entry in one consume queue, counted since the queue's first message.
/// Public for the reason `BigEndian` is.
@frozen
public struct QueueOffset: RawRepresentable, Comparable, Hashable, Sendable, CustomStringConvertible {
    /// The number itself.
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

    /// By number.
    @inlinable
    public static func < (left: QueueOffset, right: QueueOffset) -> Bool {
        left.rawValue < right.rawValue
    }

    /// By number.
    @inlinable
    public static func <= (left: QueueOffset, right: QueueOffset) -> Bool {
        left.rawValue <= right.rawValue
    }

    /// By number.
    @inlinable
    public static func > (left: QueueOffset, right: QueueOffset) -> Bool {
        left.rawValue > right.rawValue
    }

    /// By number.
    @inlinable
    public static func >= (left: QueueOffset, right: QueueOffset) -> Bool {
        left.rawValue >= right.rawValue
    }

    /// The same entry.
    @inlinable
    public static func == (left: QueueOffset, right: QueueOffset) -> Bool {
        left.rawValue == right.rawValue
    }

    /// So many entries further on. Traps on overflow, as do the operators below.
    @inlinable
    public static func + (left: QueueOffset, entries: Int) -> QueueOffset {
        QueueOffset(left.rawValue + Int64(entries))
    }

    /// So many entries further on.
    @inlinable
    public static func + (left: QueueOffset, entries: Int64) -> QueueOffset {
        QueueOffset(left.rawValue + entries)
    }

    /// So many entries back.
    @inlinable
    public static func - (left: QueueOffset, entries: Int64) -> QueueOffset {
        QueueOffset(left.rawValue - entries)
    }

    /// The entries from `right` to `left`.
    @inlinable
    public static func - (left: QueueOffset, right: QueueOffset) -> Int64 {
        left.rawValue - right.rawValue
    }

    /// Moves it on by so many entries.
    @inlinable
    public static func += (left: inout QueueOffset, entries: Int64) {
        left.rawValue += entries
    }

    /// The number.
    public var description: String { String(rawValue) }
}

/// File names of the commit log and the consume queues: the offset of the first byte in 20 decimal digits.
package enum StoreFileName {
    /// Of the file whose first byte is `offset`.
    package static func of(offset: Int64) -> String {
        let digits = String(offset)
        return String(repeating: "0", count: max(0, 20 - digits.utf8.count)) + digits
    }

    /// No file of a store begins behind it, bytes: the lengths of files can be added to any offset up to here.
    package static let maximumOffset: Int64 = 1 << 60

    /// Nil when the name is not one of ours (a temporary or foreign file, or one no store comes to).
    package static func offset(of name: String) -> Int64? {
        guard isNumber(name), let offset = Int64(name), offset <= maximumOffset else { return nil }
        return offset
    }

    /// The name looks like one of ours, and no store comes to its offset.
    package static func isBeyondAll(_ name: String) -> Bool { isNumber(name) && offset(of: name) == nil }

    private static func isNumber(_ name: String) -> Bool {
        name.utf8.count == 20 && name.utf8.allSatisfy { $0 >= 0x30 && $0 <= 0x39 }
    }
}
