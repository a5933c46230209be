import LinuxSystem
import MessageModel
import StoreFormat

/// One index file. Slots are scattered writes, so their pages are held in memory while the file grows and written in
/// runs; entries are one sequential stream. Written in the order entries, slots, header: after a kill the header never
/// promises what is not there.
final class IndexFile {
    let name: String
    let layout: IndexLayout
    private let file: any DiskFile
    /// As of the newest entry in memory.
    private(set) var header: IndexHeader

    /// Pages of the slot table, loaded on first touch.
    private var slotMemory: AnonymousMemory?
    private var slotPages: UnsafeMutableRawPointer? { slotMemory?.bytes.baseAddress }
    private var loaded: [Bool] = []
    private var dirty: [Bool] = []
    private var dirtyCount = 0
    private static let pageSize = 4096

    /// A write that is under way; it has the entries from `writtenCount` on.
    private var leaving: IndexWrite?
    /// The entries after those, up to `header.indexCount`, encoded.
    private var pending = GrowableBytes()
    private let small = UnsafeMutableRawBufferPointer.allocate(byteCount: IndexLayout.headerSize, alignment: 8)
    private var writtenCount: Int32

    /// A running write: header as of its beginning, next page to write.
    private var pass: (header: IndexHeader, nextPage: Int)?
    /// The header on disk.
    private(set) var writtenHeader: IndexHeader

    init(name: String, layout: IndexLayout, file: any DiskFile, header: IndexHeader) {
        self.name = name
        self.layout = layout
        self.file = file
        self.header = header
        writtenHeader = header
        writtenCount = header.indexCount
    }

    deinit {
        pending.deallocate()
        small.deallocate()
    }

    var diskFile: any DiskFile { file }
    var isFull: Bool { Int(header.indexCount) >= layout.entries }
    var hasUnwritten: Bool { leaving != nil || header != writtenHeader || dirtyCount > 0 || pending.count > 0 }

    private var slotBytes: Int { layout.slots * IndexLayout.slotSize }

    // MARK: - Adding

    /// Adds a key; the caller has checked `isFull`.
    func put(keyHash: Int32, physicalOffset: PhysicalOffset, storeTimestamp: Int64) throws(SystemError) {
        let slot = Int(keyHash) % layout.slots
        let place = try slotPointer(slot)
        var previous = BigEndian.load(place, 0, as: Int32.self)
        if previous <= 0 || previous > header.indexCount { previous = 0 }

        var seconds = (storeTimestamp -| header.beginTimestamp) / 1000
        if header.beginTimestamp <= 0 || seconds < 0 { seconds = 0 }
        if seconds > Int64(Int32.max) { seconds = Int64(Int32.max) }

        IndexEntry(
            keyHash: keyHash, physicalOffset: physicalOffset, seconds: Int32(seconds), previous: previous
        ).encode(pending.extend(IndexLayout.entrySize))
        BigEndian.store(header.indexCount, place, 0)
        markDirty(slot * IndexLayout.slotSize / Self.pageSize)

        if header.indexCount <= 1 {
            header.beginPhyOffset = physicalOffset
            header.beginTimestamp = storeTimestamp
        }
        // No search needs the count. A damaged one wraps, as RocketMQ's does, and is no reason to make the file anew.
        if previous == 0 { header.hashSlotCount &+= 1 }
        header.indexCount += 1
        header.endPhyOffset = physicalOffset
        header.endTimestamp = storeTimestamp
    }

    private func markDirty(_ page: Int) {
        if !dirty[page] {
            dirty[page] = true
            dirtyCount += 1
        }
    }

    private func slotPointer(_ slot: Int) throws(SystemError) -> UnsafeMutableRawPointer {
        let position = slot * IndexLayout.slotSize
        let page = position / Self.pageSize
        if slotPages == nil {
            let pages = (slotBytes + Self.pageSize - 1) / Self.pageSize
            slotMemory = try AnonymousMemory(byteCount: pages * Self.pageSize)
            loaded = Array(repeating: false, count: pages)
            dirty = Array(repeating: false, count: pages)
        }
        guard let slotPages else { fatalError("index slots have no memory") }
        if !loaded[page] {
            let target = UnsafeMutableRawBufferPointer(
                start: slotPages + page * Self.pageSize, count: min(Self.pageSize, slotBytes - page * Self.pageSize))
            let got = try file.read(into: target, at: Int64(IndexLayout.headerSize + page * Self.pageSize))
            if got < target.count {
                UnsafeMutableRawBufferPointer(rebasing: target[got...]).initializeMemory(as: UInt8.self, repeating: 0)
            }
            loaded[page] = true
        }
        return slotPages + position
    }

    /// After a kill a slot may name an entry the header does not count yet. Such entries were written before the slot,
    /// so their `previous` leads back to the newest one that counts. To be done before anything is put, which would
    /// overwrite those entries.
    func repairSlots() throws(SystemError) {
        let chunk = 1 << 20
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: chunk, alignment: 16)
        defer { buffer.deallocate() }
        var start = 0
        while start < slotBytes {
            // Holes are zeros.
            guard let data = file.firstData(from: Int64(IndexLayout.headerSize + start)) else { return }
            let skipped = (Int(data) - IndexLayout.headerSize - start) / chunk
            start += skipped * chunk
            guard start < slotBytes else { return }
            let target = UnsafeMutableRawBufferPointer(rebasing: buffer[0..<min(chunk, slotBytes - start)])
            let got = try file.read(into: target, at: Int64(IndexLayout.headerSize + start))
            guard let base = target.baseAddress else { return }
            for position in stride(from: 0, to: got - 3, by: IndexLayout.slotSize) {
                let value = BigEndian.load(base, position, as: Int32.self)
                if value >= header.indexCount { try repairSlot((start + position) / IndexLayout.slotSize, value) }
            }
            start += chunk
        }
    }

    private func repairSlot(_ slot: Int, _ stored: Int32) throws(SystemError) {
        var value = stored
        while value >= header.indexCount {
            guard let entry = try writtenEntry(value), entry.previous < value else {
                value = 0
                break
            }
            value = entry.previous
        }
        BigEndian.store(max(0, value), try slotPointer(slot), 0)
        markDirty(slot * IndexLayout.slotSize / Self.pageSize)
    }

    // MARK: - Writing

    /// The next `write` begins anew; what is dirty still is.
    func forgetPass() { if leaving == nil { pass = nil } }

    /// Takes at most `maximumPages` pages of slots and all entries for a write on another thread; nil when a whole pass
    /// is on disk. `endWrite` must follow before the next one.
    func beginWrite(maximumPages: Int) -> IndexWrite? {
        precondition(leaving == nil, "an index file has one write at a time")
        if pass == nil {
            guard hasUnwritten else { return nil }
            pass = (header, 0)
        }
        guard let running = pass else { return nil }
        let write = IndexWrite(
            file: file, entries: pending, entryPosition: layout.entryPosition(Int(writtenCount)),
            entryCount: header.indexCount - writtenCount)
        pending = GrowableBytes()
        var budget = maximumPages
        var page = running.nextPage
        while dirtyCount > 0, page < dirty.count, budget > 0, let slotPages {
            guard dirty[page] else {
                page += 1
                continue
            }
            var end = page + 1
            while end < dirty.count, dirty[end], end - page < budget { end += 1 }
            let start = page * Self.pageSize
            let count = min(end * Self.pageSize, slotBytes) - start
            write.add(
                pages: page..<end, UnsafeRawBufferPointer(start: slotPages + start, count: count),
                at: Int64(IndexLayout.headerSize + start))
            for index in page..<end { dirty[index] = false }
            dirtyCount -= end - page
            budget -= end - page
            page = end
        }
        if dirtyCount > 0, page < dirty.count {
            pass = (running.header, page)
        } else {
            write.header = running.header
        }
        leaving = write
        return write
    }

    /// What a write has left over: to be called when it is done, and again without effect.
    func endWrite(_ write: IndexWrite) throws(SystemError) {
        guard leaving === write else { return }
        leaving = nil
        if let failure = write.failure {
            for range in write.pages {
                for page in range { markDirty(page) }
            }
            // What is not on disk goes first again.
            write.entries.append(pending.bytes)
            pending.deallocate()
            pending = write.takeEntries()
            pass = nil
            throw failure
        }
        writtenCount += write.entryCount
        if let header = write.header {
            writtenHeader = header
            pass = nil
        }
    }

    /// Writes at most `maximumPages` pages of slots and all entries; true when a whole pass is done and the header is
    /// on disk.
    func write(maximumPages: Int) throws(SystemError) -> Bool {
        if let leaving {
            leaving.join()
            try endWrite(leaving)
        }
        guard let write = beginWrite(maximumPages: maximumPages) else { return true }
        write.join()
        try endWrite(write)
        return pass == nil
    }

    /// Releases the slot pages; they are read again when needed.
    func releaseMemory() {
        guard !hasUnwritten, pass == nil else { return }
        slotMemory = nil
        loaded = []
        dirty = []
        pending.release()
    }

    // MARK: - Reading

    private func writtenEntry(_ index: Int32) throws(SystemError) -> IndexEntry? {
        guard index > 0, Int(index) < layout.entries else { return nil }
        let buffer = UnsafeMutableRawBufferPointer(rebasing: small[0..<IndexLayout.entrySize])
        let got = try file.read(into: buffer, at: layout.entryPosition(Int(index)))
        guard got == IndexLayout.entrySize, let base = buffer.baseAddress else { return nil }
        return IndexEntry(UnsafeRawPointer(base))
    }

    func entry(_ index: Int32) throws(SystemError) -> IndexEntry? {
        if index >= writtenCount, index < header.indexCount {
            let start = Int(index - writtenCount) * IndexLayout.entrySize
            if let leaving, start < leaving.entries.count {
                return leaving.entries.bytes.baseAddress.map { IndexEntry($0 + start) }
            }
            return pending.bytes.baseAddress.map { IndexEntry($0 + start - (leaving?.entries.count ?? 0)) }
        }
        return try writtenEntry(index)
    }

    private func slotValue(_ slot: Int) throws(SystemError) -> Int32 {
        if slotPages != nil || header.indexCount > writtenCount {
            return BigEndian.load(try slotPointer(slot), 0, as: Int32.self)
        }
        let buffer = UnsafeMutableRawBufferPointer(rebasing: small[0..<IndexLayout.slotSize])
        let got = try file.read(into: buffer, at: Int64(IndexLayout.headerSize + slot * IndexLayout.slotSize))
        guard got == IndexLayout.slotSize, let base = buffer.baseAddress else { return 0 }
        return BigEndian.load(base, 0, as: Int32.self)
    }

    /// Physical offsets stored under a key hash within a time window, newest first (`IndexFile.selectPhyOffset`).
    /// Hashes collide: the caller looks at the messages.
    func select(
        keyHash: Int32, begin: Int64, end: Int64, maxCount: Int, into found: inout [PhysicalOffset]
    ) throws(SystemError) {
        var next: Int32?
        var steps = Int.max
        try select(
            keyHash: keyHash, begin: begin, end: end, maxCount: maxCount, at: &next, steps: &steps, into: &found)
    }

    /// As above, but at most so many steps along the chain, and on from where it stopped.
    /// - Parameters:
    ///   - next: nil at first, and when the chain has ended; otherwise the entry to go on with, also when there are
    ///     enough.
    ///   - steps: entries that may still be looked at.
    func select(
        keyHash: Int32, begin: Int64, end: Int64, maxCount: Int, at next: inout Int32?, steps: inout Int,
        into found: inout [PhysicalOffset]
    ) throws(SystemError) {
        var index: Int32
        if let known = next { index = known } else { index = try slotValue(Int(keyHash) % layout.slots) }
        next = nil
        if header.indexCount <= 1 { return }
        // A damaged chain could lead in circles: every step must lead to an older entry.
        while index > 0, index < header.indexCount, found.count < maxCount {
            guard steps > 0 else {
                next = index
                return
            }
            steps -= 1
            guard let entry = try entry(index), entry.seconds >= 0 else { return }
            let time = header.beginTimestamp +| Int64(entry.seconds) * 1000
            if entry.keyHash == keyHash, time >= begin, time <= end { found.append(entry.physicalOffset) }
            if entry.previous >= index || time < begin { return }
            index = entry.previous
        }
        if index > 0, index < header.indexCount { next = index }
    }

    // MARK: - Recovery

    /// Goes back to an older state: entries after `header` are dropped. The slot table is made again from the entries
    /// that remain, which are trusted (they were synchronized).
    func rewind(to header: IndexHeader) throws(SystemError) {
        self.header = header
        writtenHeader = header
        writtenCount = header.indexCount
        pending.removeAll()
        pass = nil
        let pages = (slotBytes + Self.pageSize - 1) / Self.pageSize
        let fresh = try AnonymousMemory(byteCount: pages * Self.pageSize)
        slotMemory = fresh
        guard let memory = fresh.bytes.baseAddress else { return }
        loaded = Array(repeating: true, count: pages)
        dirty = Array(repeating: true, count: pages)
        dirtyCount = pages
        let chunk = 50_000
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: chunk * IndexLayout.entrySize, alignment: 8)
        defer { buffer.deallocate() }
        var used: Int32 = 0
        var index = 1
        while index < Int(header.indexCount) {
            let count = min(chunk, Int(header.indexCount) - index)
            let target = UnsafeMutableRawBufferPointer(rebasing: buffer[0..<(count * IndexLayout.entrySize)])
            _ = try file.read(into: target, at: layout.entryPosition(index))
            guard let base = target.baseAddress else { break }
            for offset in 0..<count {
                let hash = BigEndian.load(base, offset * IndexLayout.entrySize, as: Int32.self)
                let place = memory + Int(max(0, hash)) % layout.slots * IndexLayout.slotSize
                if BigEndian.load(place, 0, as: Int32.self) == 0 { used += 1 }
                BigEndian.store(Int32(index + offset), place, 0)
            }
            index += count
        }
        self.header.hashSlotCount = used
    }

    /// Makes header and slots anew from the entries that are there. An entry is written once, into zeros, and in the
    /// order of the log. So what a power cut left of them is good up to the first one that was not written. False when
    /// nothing can be kept.
    /// - Parameters:
    ///   - limit: only entries of records below are kept.
    ///   - storeTime: of the message at a physical offset; nil when there is none.
    func salvage(below limit: PhysicalOffset, storeTime: (PhysicalOffset) -> Int64?) throws(SystemError) -> Bool {
        let chunk = 50_000
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: chunk * IndexLayout.entrySize, alignment: 8)
        defer { buffer.deallocate() }
        var count: Int32 = 1
        var first: IndexEntry?
        var last: IndexEntry?
        var beforeLast: IndexEntry?
        var isAtEnd = false
        while !isAtEnd, Int(count) < layout.entries {
            let wanted = min(chunk, layout.entries - Int(count))
            let target = UnsafeMutableRawBufferPointer(rebasing: buffer[0..<(wanted * IndexLayout.entrySize)])
            let got = try file.read(into: target, at: layout.entryPosition(Int(count))) / IndexLayout.entrySize
            guard let base = target.baseAddress else { break }
            isAtEnd = got < wanted
            for place in 0..<got {
                let entry = IndexEntry(UnsafeRawPointer(base) + place * IndexLayout.entrySize)
                guard entry.keyHash >= 0, entry.seconds >= 0, entry.previous >= 0, entry.previous < count,
                    entry.physicalOffset >= last?.physicalOffset ?? PhysicalOffset(0), entry.physicalOffset < limit,
                    entry.keyHash != 0 || entry.physicalOffset.rawValue != 0
                else {
                    isAtEnd = true
                    break
                }
                if first == nil { first = entry }
                beforeLast = last
                last = entry
                count += 1
            }
        }
        // The last one may lie half in a block that was not written.
        if Int(count) < layout.entries {
            count -= 1
            last = beforeLast
        }
        guard count > 1, let first, let last, let begin = storeTime(first.physicalOffset),
            let end = storeTime(last.physicalOffset)
        else { return false }
        var header = IndexHeader()
        header.beginTimestamp = begin
        header.endTimestamp = end
        header.beginPhyOffset = first.physicalOffset
        header.endPhyOffset = last.physicalOffset
        header.indexCount = count
        try rewind(to: header)
        return true
    }
}
