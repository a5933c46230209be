import Glibc

/// A growing run of bytes that is filled at its end and emptied from its front.
///
/// Confined to the generator's one thread. The bytes move to the front of the allocation only when room is short. So a
/// frame handed out by its owner stays valid until the next `reserve`.
struct WireBuffer: ~Copyable {
    private var base: UnsafeMutableRawPointer
    private var capacity: Int
    private var start = 0
    private var end = 0

    init(capacity: Int) {
        precondition(capacity > 0, "an empty buffer cannot grow by doubling")
        self.capacity = capacity
        base = .allocate(byteCount: capacity, alignment: 16)
    }

    deinit {
        base.deallocate()
    }

    var count: Int { end - start }
    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: base + start, count: end - start) }

    /// Room for `byteCount` bytes after the present ones; they count only after `commit`.
    mutating func reserve(_ byteCount: Int) -> UnsafeMutableRawBufferPointer {
        if capacity - end < byteCount {
            makeRoom(byteCount)
        }
        return UnsafeMutableRawBufferPointer(start: base + end, count: capacity - end)
    }

    mutating func commit(_ byteCount: Int) {
        precondition(byteCount <= capacity - end, "more bytes committed than reserved")
        end += byteCount
    }

    mutating func consume(_ byteCount: Int) {
        precondition(byteCount <= count, "more bytes consumed than there are")
        start += byteCount
        if start == end {
            start = 0
            end = 0
        }
    }

    mutating func removeAll() {
        start = 0
        end = 0
    }

    private mutating func makeRoom(_ byteCount: Int) {
        let present = count
        if capacity - present >= byteCount, start >= capacity / 2 {
            memmove(base, base + start, present)
        } else {
            var grown = capacity * 2
            while grown - present < byteCount { grown *= 2 }
            let fresh = UnsafeMutableRawPointer.allocate(byteCount: grown, alignment: 16)
            memcpy(fresh, base + start, present)
            base.deallocate()
            base = fresh
            capacity = grown
        }
        start = 0
        end = present
    }
}
