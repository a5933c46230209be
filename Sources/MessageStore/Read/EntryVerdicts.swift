import StoreFormat

/// Which messages of a range of a queue are wanted, as a filter that knows their properties has decided.
package struct EntryVerdicts {
    /// Offset in the queue of the first entry decided about.
    package let start: Int64
    /// Entries decided about.
    package let count: Int
    /// Bit i % 64 of number i / 64 stands for entry `start + i`; bits from `count` on are 0.
    private let chunks: [UInt64]
    /// The entries from `start` on as they are stored, `count` of them at least: then they are not read once more. Nil:
    /// they are.
    package var entries: KeptEntries?

    /// Behind the last entry decided about.
    package var end: Int64 { start + Int64(count) }

    /// - Parameter bitmap: bit i % 8 of byte i / 8 stands for entry `start + i`; what is missing is not wanted.
    package init(start: Int64, count: Int, bitmap: [UInt8]) {
        precondition(count >= 0, "a range has a length")
        self.start = start
        self.count = count
        var chunks = [UInt64](repeating: 0, count: (count + 63) / 64)
        chunks.withUnsafeMutableBytes { target in
            bitmap.withUnsafeBytes { target.copyBytes(from: $0.prefix(target.count)) }
        }
        for index in chunks.indices { chunks[index] = UInt64(littleEndian: chunks[index]) }
        if count % 64 != 0 { chunks[chunks.count - 1] &= (1 << UInt64(count % 64)) - 1 }
        self.chunks = chunks
    }

    /// - Parameters:
    ///   - asked: the entries `bitmap` is about, as distances from `start`; no other is wanted.
    package init(start: Int64, count: Int, asked: [Int32], bitmap: [UInt8]) {
        var spread = [UInt8](repeating: 0, count: (count + 7) / 8)
        for (index, place) in asked.prefix(bitmap.count * 8).enumerated() where place >= 0 && Int(place) < count {
            if bitmap[index >> 3] & (1 << UInt8(index & 7)) != 0 { spread[Int(place) >> 3] |= 1 << UInt8(place & 7) }
        }
        self.init(start: start, count: count, bitmap: spread)
    }

    /// Whether the message of the entry `position` is wanted; no other than those decided about is.
    package func wants(_ position: Int64) -> Bool {
        position >= start && position < end && reading { $0.next(from: position) } == position
    }

    /// The verdicts as plain memory, for loops over many entries: each look at an array would be counted.
    struct Reader {
        let start: Int64
        let count: Int
        let chunks: UnsafeBufferPointer<UInt64>
        let entries: UnsafeRawBufferPointer?

        /// The first wanted entry from `position` on; after the last one decided about when there is none.
        @inline(__always)
        func next(from position: Int64) -> Int64 {
            let index = Int(position - start)
            guard index >= 0, index < count else { return start + Int64(count) }
            var chunk = index >> 6
            var bits = chunks[chunk] & (~0 &<< UInt64(index & 63))
            while bits == 0 {
                chunk += 1
                guard chunk < chunks.count else { return start + Int64(count) }
                bits = chunks[chunk]
            }
            return start + Int64(chunk << 6 + bits.trailingZeroBitCount)
        }

        /// What was kept of a range of entries, all of it.
        @inline(__always)
        func entries(_ range: Range<Int64>) -> UnsafeRawBufferPointer? {
            guard let entries, range.lowerBound >= start else { return nil }
            let from = Int(range.lowerBound - start) &* ConsumeQueueEntry.size
            let end = Int(range.upperBound - start) &* ConsumeQueueEntry.size
            return end <= entries.count ? UnsafeRawBufferPointer(rebasing: entries[from..<end]) : nil
        }

        /// Entries from `position` on among which `wanted` wanted ones are, or all that are left. They are up to 63
        /// more than it takes, and `limit` at most.
        @inline(__always)
        func rangeLength(from position: Int64, wanted: Int, atMost limit: Int) -> Int {
            let index = Int(position - start)
            guard index >= 0, index < count else { return 0 }
            var chunk = index >> 6
            var found = (chunks[chunk] & (~0 &<< UInt64(index & 63))).nonzeroBitCount
            chunk += 1
            while found < wanted, chunk < chunks.count, chunk << 6 - index < limit {
                found += chunks[chunk].nonzeroBitCount
                chunk += 1
            }
            return min(chunk << 6, count, index + limit) - index
        }
    }

    @inline(__always)
    func reading<R>(_ body: (Reader) -> R) -> R {
        chunks.withUnsafeBufferPointer { chunks in
            guard let entries else {
                return body(Reader(start: start, count: count, chunks: chunks, entries: nil))
            }
            return entries.bytes.withUnsafeBytes {
                body(Reader(start: start, count: count, chunks: chunks, entries: $0))
            }
        }
    }
}
