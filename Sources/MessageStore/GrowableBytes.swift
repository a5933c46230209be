/// Raw memory that grows and is reused. Its owner calls `deallocate`.
struct GrowableBytes {
    private var storage: UnsafeMutableRawBufferPointer
    private(set) var count = 0

    init(capacity: Int = 0) {
        storage = .allocate(byteCount: capacity, alignment: 16)
    }

    /// Room for `size` more bytes; the pointer is valid until the next call.
    @inline(__always)
    mutating func extend(_ size: Int) -> UnsafeMutableRawPointer {
        if count + size > storage.count { grow(count + size) }
        guard let base = storage.baseAddress else { fatalError("a buffer has no memory") }
        let pointer = base + count
        count += size
        return pointer
    }

    mutating func append(_ bytes: UnsafeRawBufferPointer) {
        guard let base = bytes.baseAddress, !bytes.isEmpty else { return }
        extend(bytes.count).copyMemory(from: base, byteCount: bytes.count)
    }

    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: storage[0..<count]) }

    mutating func removeAll() { count = 0 }

    mutating func release() {
        storage.deallocate()
        storage = .allocate(byteCount: 0, alignment: 16)
        count = 0
    }

    func deallocate() { storage.deallocate() }

    private mutating func grow(_ needed: Int) {
        let larger = UnsafeMutableRawBufferPointer.allocate(
            byteCount: max(needed, storage.count * 2, 256), alignment: 16)
        larger.copyMemory(from: bytes)
        storage.deallocate()
        storage = larger
    }
}
