import StoreFormat

/// The bytes of this tick: grown when needed, then reused. It holds a sequence of chunks, each for one range of one log
/// file.
struct HotBuffer {
    /// Bytes for one range of the log.
    struct Chunk {
        /// Physical offset of the first byte.
        var start: PhysicalOffset
        /// Where its bytes begin in the buffer.
        var position: Int
        var count: Int
        /// Nothing may be added: the file ends here.
        var isClosed = false

        var end: PhysicalOffset { start + Int64(count) }
    }

    private(set) var chunks: [Chunk] = []
    private(set) var count = 0
    private var storage: UnsafeMutableRawBufferPointer
    private let initialCapacity: Int

    init(capacity: Int) {
        initialCapacity = capacity
        storage = .allocate(byteCount: capacity, alignment: 16)
    }

    func deallocate() {
        storage.deallocate()
    }

    var isEmpty: Bool { chunks.isEmpty }

    /// Room for `size` bytes that belong at `offset`. The pointer is valid until the next call.
    @inline(__always)
    mutating func reserve(_ size: Int, at offset: PhysicalOffset) -> UnsafeMutableRawPointer {
        if count + size > storage.count { grow(count + size) }
        let last = chunks.count - 1
        if last >= 0, chunks[last].end == offset, !chunks[last].isClosed {
            chunks[last].count += size
        } else {
            chunks.append(Chunk(start: offset, position: count, count: size))
        }
        guard let base = storage.baseAddress else { fatalError("the hot buffer has no memory") }
        let pointer = base + count
        count += size
        return pointer
    }

    /// The next reserve begins a new chunk even if it continues here: it belongs to another file.
    mutating func closeChunk() {
        if !chunks.isEmpty { chunks[chunks.count - 1].isClosed = true }
    }

    func bytes(of chunk: Chunk) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: storage[chunk.position..<(chunk.position + chunk.count)])
    }

    mutating func removeAll() {
        chunks.removeAll(keepingCapacity: true)
        count = 0
        // One large message must not keep its memory for ever.
        if storage.count > 4 * initialCapacity {
            storage.deallocate()
            storage = .allocate(byteCount: initialCapacity, alignment: 16)
        }
    }

    private mutating func grow(_ needed: Int) {
        var capacity = max(storage.count, 4096)
        while capacity < needed { capacity *= 2 }
        let larger = UnsafeMutableRawBufferPointer.allocate(byteCount: capacity, alignment: 16)
        larger.copyMemory(from: UnsafeRawBufferPointer(rebasing: storage[0..<count]))
        storage.deallocate()
        storage = larger
    }
}
