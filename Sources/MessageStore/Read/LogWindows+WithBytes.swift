import StoreFormat
import StoreReader

extension LogWindows {
    /// Calls `body` with the bytes `offset ..< offset + size`; nil when they are not there. Here and not in
    /// StoreReader, because generic functions of package access are not specialized across modules.
    @inline(__always)
    func withBytes<R>(
        at offset: PhysicalOffset, size: Int, _ body: (UnsafeRawBufferPointer) throws -> R
    ) rethrows -> R? {
        guard let bytes = bytes(at: offset, size: size) else { return nil }
        return try body(bytes)
    }
}
