/// Java's byte order: everything in RocketMQ's files is big-endian and unaligned.
///
/// Public although only this package uses it. The compiler specializes generic functions across modules when they are
/// public and inlinable, not when they have package access. These run dozens of times per message.
public enum BigEndian {
    /// The number at `offset` bytes after `pointer`.
    @inlinable @inline(__always)
    public static func load<T: FixedWidthInteger>(_ pointer: UnsafeRawPointer, _ offset: Int, as: T.Type) -> T {
        T(bigEndian: pointer.loadUnaligned(fromByteOffset: offset, as: T.self))
    }

    /// Puts a number `offset` bytes after `pointer`.
    @inlinable @inline(__always)
    public static func store<T: FixedWidthInteger>(_ value: T, _ pointer: UnsafeMutableRawPointer, _ offset: Int) {
        pointer.storeBytes(of: value.bigEndian, toByteOffset: offset, as: T.self)
    }
}
