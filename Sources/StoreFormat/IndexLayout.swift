/// An index file (`IndexFile`, `IndexHeader`), big-endian:
///
///     begin time 8 | end time 8 | begin physical offset 8 | end physical offset 8 | used slots 4 | entries 4     (40 bytes)
///     slot 4 × maxHashSlotNum          number of the newest entry of the slot, 0 for none
///     entry 20 × maxIndexNum           key hash 4 | physical offset 8 | seconds since begin time 4 | previous entry of the slot 4
///
/// Entry 0 is never used: the count in the header is one more than there are.
package struct IndexLayout: Sendable {
    /// Bytes, as of the next two.
    @inlinable package static var headerSize: Int { 40 }
    @inlinable package static var slotSize: Int { 4 }
    @inlinable package static var entrySize: Int { 20 }

    /// Slots of a file (`maxHashSlotNum`).
    package let slots: Int
    /// Entries of a file (`maxIndexNum`).
    package let entries: Int

    /// Of files with so many slots and entries.
    package init(slots: Int, entries: Int) {
        self.slots = slots
        self.entries = entries
    }

    /// Bytes of a whole file; it has them from the start, zeros where nothing was written.
    package var fileSize: Int64 {
        Int64(Self.headerSize) + Int64(slots) * Int64(Self.slotSize) + Int64(entries) * Int64(Self.entrySize)
    }

    /// Bytes from the file's start; entry numbers count from 0, which is never used.
    package func entryPosition(_ index: Int) -> Int64 {
        Int64(Self.headerSize) + Int64(slots) * Int64(Self.slotSize) + Int64(index) * Int64(Self.entrySize)
    }

    /// `indexKeyHashMethod`: the absolute value of the Java hash of `topic#key`; the one value that has none counts as
    /// 0.
    @inlinable
    package static func keyHash(_ javaHash: Int32) -> Int32 {
        javaHash == Int32.min ? 0 : abs(javaHash)
    }
}

/// The first 40 bytes of an index file (`IndexHeader`).
package struct IndexHeader: Equatable, Sendable {
    /// Milliseconds since 1970.
    package var beginTimestamp: Int64 = 0
    /// Of the newest message in it, milliseconds since 1970.
    package var endTimestamp: Int64 = 0
    /// Physical offset of the first message in it.
    package var beginPhyOffset = PhysicalOffset(0)
    /// Physical offset of the last message in it.
    package var endPhyOffset = PhysicalOffset(0)
    /// Slots that hold an entry.
    package var hashSlotCount: Int32 = 0
    /// One more than the entries there are.
    package var indexCount: Int32 = 1

    /// Of a file without entries.
    package init() {}

    /// nil when the bytes are too few.
    package init?(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count >= IndexLayout.headerSize, let base = bytes.baseAddress else { return nil }
        beginTimestamp = BigEndian.load(base, 0, as: Int64.self)
        endTimestamp = BigEndian.load(base, 8, as: Int64.self)
        beginPhyOffset = PhysicalOffset(BigEndian.load(base, 16, as: Int64.self))
        endPhyOffset = PhysicalOffset(BigEndian.load(base, 24, as: Int64.self))
        hashSlotCount = BigEndian.load(base, 32, as: Int32.self)
        indexCount = max(1, BigEndian.load(base, 36, as: Int32.self))
    }

    /// Writes `IndexLayout.headerSize` bytes.
    package func encode(_ pointer: UnsafeMutableRawPointer) {
        BigEndian.store(beginTimestamp, pointer, 0)
        BigEndian.store(endTimestamp, pointer, 8)
        BigEndian.store(beginPhyOffset.rawValue, pointer, 16)
        BigEndian.store(endPhyOffset.rawValue, pointer, 24)
        BigEndian.store(hashSlotCount, pointer, 32)
        BigEndian.store(indexCount, pointer, 36)
    }

    /// `IndexFile.isTimeMatched`.
    package func overlaps(begin: Int64, end: Int64) -> Bool {
        (begin < beginTimestamp && end > endTimestamp) || (begin >= beginTimestamp && begin <= endTimestamp)
            || (end >= beginTimestamp && end <= endTimestamp)
    }
}

/// One entry of an index file: a key of a message, and where that lies.
package struct IndexEntry: Equatable, Sendable {
    /// `IndexLayout.keyHash` of `topic#key`: several keys may share it, so the message decides.
    package var keyHash: Int32
    /// Where the record begins in the commit log.
    package var physicalOffset: PhysicalOffset
    /// Since the file's begin time.
    package var seconds: Int32
    /// The entry before this one in the slot, 0 for none.
    package var previous: Int32

    /// An entry of these fields.
    package init(keyHash: Int32, physicalOffset: PhysicalOffset, seconds: Int32, previous: Int32) {
        self.keyHash = keyHash
        self.physicalOffset = physicalOffset
        self.seconds = seconds
        self.previous = previous
    }

    /// Reads `IndexLayout.entrySize` bytes; they need no alignment.
    @inlinable
    package init(_ pointer: UnsafeRawPointer) {
        keyHash = BigEndian.load(pointer, 0, as: Int32.self)
        physicalOffset = PhysicalOffset(BigEndian.load(pointer, 4, as: Int64.self))
        seconds = BigEndian.load(pointer, 12, as: Int32.self)
        previous = BigEndian.load(pointer, 16, as: Int32.self)
    }

    /// Writes `IndexLayout.entrySize` bytes; they need no alignment.
    @inlinable
    package func encode(_ pointer: UnsafeMutableRawPointer) {
        BigEndian.store(keyHash, pointer, 0)
        BigEndian.store(physicalOffset.rawValue, pointer, 4)
        BigEndian.store(seconds, pointer, 12)
        BigEndian.store(previous, pointer, 16)
    }
}
