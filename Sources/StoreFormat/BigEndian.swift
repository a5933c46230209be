/// Java's byte order: everything in RocketMQ's files is big-endian and unaligned.
package enum BigEndian {
    @inlinable @inline(__always)
    package static func load<T: FixedWidthInteger>(_ pointer: UnsafeRawPointer, _ offset: Int, as: T.Type) -> T {
        T(bigEndian: pointer.loadUnaligned(fromByteOffset: offset, as: T.self))
    }

    @inlinable @inline(__always)
    package static func store<T: FixedWidthInteger>(_ value: T, _ pointer: UnsafeMutableRawPointer, _ offset: Int) {
        pointer.storeBytes(of: value.bigEndian, toByteOffset: offset, as: T.self)
    }
}
