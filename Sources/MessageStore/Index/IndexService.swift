import Glibc
import LinuxSystem
import Logging
import StoreFormat

/// The index files, `index/YYYYMMDDHHMMSSmmm`. Keys of dispatched messages wait in memory and are put into the newest
/// file in batches.
final class IndexService {
    private struct Pending {
        var keyHash: Int32
        var physicalOffset: PhysicalOffset
        var storeTimestamp: Int64
    }

    private let directory: String
    private let disk: any Disk
    let layout: IndexLayout
    private let logger: Logger
    /// Oldest first; only the last one is written.
    private(set) var files: [IndexFile] = []
    private var pending: [Pending] = []
    private let maximumPending = 16_384
    /// Records before this one are in the index already, and so are the first `coveredKeys` keys of this one: replay
    /// skips them.
    private(set) var coveredOffset = PhysicalOffset(-1)
    private var coveredKeys = 0
    /// Files written since the last checkpoint.
    private var touched: [IndexFile] = []
    private var idleCalls = 0
    /// A put failed: the index lags until it can be rebuilt; reported once.
    private(set) var failure: SystemError?

    init(directory: String, disk: any Disk, layout: IndexLayout, logger: Logger) {
        self.directory = directory
        self.disk = disk
        self.layout = layout
        self.logger = logger
    }

    /// A key of a record; put into a file later. Calls come in the order of the log.
    @inline(__always)
    func add(javaHash: Int32, physicalOffset: PhysicalOffset, storeTimestamp: Int64) {
        if physicalOffset <= coveredOffset {
            if physicalOffset < coveredOffset { return }
            if coveredKeys > 0 {
                coveredKeys -= 1
                return
            }
        }
        pending.append(
            Pending(
                keyHash: IndexLayout.keyHash(javaHash), physicalOffset: physicalOffset, storeTimestamp: storeTimestamp))
    }

    var needsApply: Bool { pending.count >= maximumPending }

    /// Moves the waiting keys into files (in memory).
    func apply() {
        guard !pending.isEmpty, failure == nil else { return }
        idleCalls = 0
        var done = 0
        do throws(SystemError) {
            for key in pending {
                let file = try current(forRecordStoredAt: key.storeTimestamp)
                try file.put(
                    keyHash: key.keyHash, physicalOffset: key.physicalOffset, storeTimestamp: key.storeTimestamp)
                done += 1
            }
        } catch {
            failure = error
            logger.error("index stopped: keys of new messages are not searchable until the broker restarts: \(error)")
        }
        pending.removeFirst(done)
        if pending.isEmpty { pending.removeAll(keepingCapacity: true) }
    }

    private func current(forRecordStoredAt time: Int64) throws(SystemError) -> IndexFile {
        if let last = files.last, !last.isFull { return last }
        var header = IndexHeader()
        if let full = files.last {
            touch(full)
            full.forgetPass()
            while full.hasUnwritten { _ = try full.write(maximumPages: .max) }
            full.releaseMemory()
            // As RocketMQ initializes a follow-up file: the first entry's seconds count from the previous file's end.
            header.beginPhyOffset = full.header.endPhyOffset
            header.endPhyOffset = full.header.endPhyOffset
            header.beginTimestamp = full.header.endTimestamp
            header.endTimestamp = full.header.endTimestamp
        }
        // Named by the first record's time instead of the clock: a rebuilt index has the same names.
        var name = Self.name(milliseconds: time)
        // The next number, whatever the clock has done meanwhile: names show the order, no time is read from them.
        if let last = files.last, name <= last.name { name = Self.padded((Int(last.name) ?? 0) + 1, Self.nameLength) }
        try disk.createDirectory(directory)
        let file = try disk.open(directory + "/" + name, .replace)
        try file.truncate(to: layout.fileSize)
        let index = IndexFile(name: name, layout: layout, file: file, header: header)
        files.append(index)
        touched.append(index)
        return index
    }

    /// `UtilAll.timeMillisecondsToHumanString`: local time.
    static func name(milliseconds: Int64) -> String {
        var seconds = time_t(milliseconds / 1000)
        var local = tm()
        // The time in a damaged record may be no time of this calendar.
        guard milliseconds >= 0, localtime_r(&seconds, &local) != nil, local.tm_year < 9999 - 1900 else {
            return padded(1, nameLength)
        }
        return padded(Int(local.tm_year) + 1900, 4) + padded(Int(local.tm_mon) + 1, 2) + padded(Int(local.tm_mday), 2)
            + padded(Int(local.tm_hour), 2) + padded(Int(local.tm_min), 2) + padded(Int(local.tm_sec), 2)
            + padded(Int(milliseconds % 1000), 3)
    }

    /// Digits of a name.
    private static let nameLength = 17

    private static func padded(_ value: Int, _ width: Int) -> String {
        let text = String(value)
        return String(repeating: "0", count: max(0, width - text.utf8.count)) + text
    }

    // MARK: - Writing

    /// What is written from here on counts from here on; a pass that failed half-way is forgotten.
    func beginPass() { files.last?.forgetPass() }

    var hasUnwritten: Bool { files.last?.hasUnwritten ?? false }

    /// Writes a bounded part; true when everything put before the pass began is on disk.
    func write(maximumPages: Int) throws(SystemError) -> Bool {
        guard let last = files.last, last.hasUnwritten else { return true }
        touch(last)
        return try last.write(maximumPages: maximumPages)
    }

    /// As `write`, for another thread to do: `join` it there, then `end` it here. Nil when a pass is done.
    func beginWrite(maximumPages: Int) -> (file: IndexFile, write: IndexWrite)? {
        guard let last = files.last, last.hasUnwritten, let write = last.beginWrite(maximumPages: maximumPages) else {
            return nil
        }
        touch(last)
        return (last, write)
    }

    private func touch(_ file: IndexFile) {
        if touched.last !== file { touched.append(file) }
    }

    /// The next checkpoint synchronizes all files.
    func touchEverything() { touched = files }

    /// What to synchronize for a checkpoint.
    func takeTouched() -> [any DiskFile] {
        defer { touched = [] }
        return touched.map { $0.diskFile }
    }

    /// Called now and then while nothing happens: releases memory.
    func idle() {
        idleCalls += 1
        if idleCalls > 3, pending.isEmpty {
            files.last?.releaseMemory()
            if pending.capacity > 1024 { pending = [] }
        }
    }

    // MARK: - Loading

    /// Opens the index files. Those with another size (other `maxHashSlotNum` or `maxIndexNum`) are left alone and not
    /// used.
    /// - Parameter keepingUpTo: files with a later name are removed; nil keeps all.
    func load(keepingUpTo last: Int64?) throws(SystemError) {
        for name in try disk.list(directory).sorted() {
            guard name.utf8.count == Self.nameLength, let number = Int64(name), number > 0 else { continue }
            let path = directory + "/" + name
            if let last, number > last {
                try disk.remove(path)
                continue
            }
            let file = try disk.open(path, .readWrite)
            let size = try file.size()
            guard size == layout.fileSize else {
                if size == 0 {
                    try disk.remove(path)
                } else {
                    logger.warning(
                        """
                        index file \(path) has \(size) bytes instead of \(layout.fileSize): not used; set \
                        maxHashSlotNum and maxIndexNum to what it was made with, or delete it
                        """
                    )
                }
                continue
            }
            let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: IndexLayout.headerSize, alignment: 8)
            defer { buffer.deallocate() }
            let got = try file.read(into: buffer, at: 0)
            guard let header = IndexHeader(UnsafeRawBufferPointer(rebasing: buffer[0..<got])),
                Int(header.indexCount) <= layout.entries
            else {
                logger.warning("index file \(path) has a damaged header: removed, its keys are indexed again")
                try disk.remove(path)
                continue
            }
            files.append(IndexFile(name: name, layout: layout, file: file, header: header))
        }
        try updateCovered()
    }

    /// After a kill: see `IndexFile.repairSlots`.
    func repairLast() throws(SystemError) { try files.last?.repairSlots() }

    private func updateCovered() throws(SystemError) {
        coveredOffset = PhysicalOffset(-1)
        if let last = files.last(where: { $0.header.indexCount > 1 }) {
            // RocketMQ counts an entry before it notes the record: a kill in between leaves the header behind by one.
            let newest = try last.entry(last.header.indexCount - 1)?.physicalOffset ?? PhysicalOffset(-1)
            coveredOffset = max(last.header.endPhyOffset, newest)
        }
        coveredKeys = 0
        // The keys of one record may be spread over two files, of which a crash left one.
        for file in files.reversed() {
            var number = file.header.indexCount - 1
            while number > 0 {
                guard try file.entry(number)?.physicalOffset == coveredOffset else { return }
                coveredKeys += 1
                number -= 1
            }
        }
    }

    /// The first file whose header, which has no checksum, is not what its entries and their messages show; nil when
    /// all agree.
    /// - Parameters:
    ///   - end: no message lies behind it.
    ///   - storeTime: of the message at a physical offset; nil when there is none (any more).
    func firstDamagedHeader(
        logEnd end: PhysicalOffset, storeTime: (PhysicalOffset) -> Int64?
    ) throws(SystemError) -> Int? {
        for (number, file) in files.enumerated() {
            let header = file.header
            guard header.indexCount > 1 else { continue }
            // A file that is followed by another one is full.
            if number + 1 < files.count, !file.isFull { return number }
            for (entry, physical, time) in [
                (Int32(1), header.beginPhyOffset, header.beginTimestamp),
                (header.indexCount - 1, header.endPhyOffset, header.endTimestamp),
            ] {
                // An entry that is damaged alike would have all keys count as indexed.
                if physical.rawValue < 0 || physical >= end { return number }
                if try file.entry(entry)?.physicalOffset != physical { return number }
                if let stored = storeTime(physical), stored != time { return number }
            }
        }
        return nil
    }

    /// Removes the files from `index` on; their keys are indexed again by dispatch.
    func remove(from index: Int) throws(SystemError) {
        while files.count > index {
            try disk.remove(files[files.count - 1].diskFile.path)
            files.removeLast()
        }
        try updateCovered()
    }

    /// RocketMQ's checkpoint covers index files up to a time, hardly ever the newest. After a power cut the others are
    /// repaired from what is left, so that not the whole log has to be read for them. Keys after `coveredOffset` are
    /// indexed again by dispatch.
    /// - Parameters:
    ///   - time: files that end later are not covered.
    ///   - limit: keys of records from here on are dispatched anyway.
    ///   - storeTime: of the message at a physical offset; nil when there is none.
    func salvage(
        notBefore time: Int64, below limit: PhysicalOffset, storeTime: (PhysicalOffset) -> Int64?
    ) throws(SystemError) {
        guard
            var number = files.firstIndex(where: { $0.header.endTimestamp > time || $0.header.indexCount <= 1 })
        else { return }
        while number < files.count {
            let isKept = try files[number].salvage(below: limit, storeTime: storeTime)
            if isKept { number += 1 }
            // Behind a file that is not full none can be right.
            if !isKept || !files[number - 1].isFull { break }
        }
        try remove(from: number)
    }

    /// Drops what points past the end of the log.
    func cut(to physical: PhysicalOffset) throws(SystemError) {
        pending.removeAll { $0.physicalOffset >= physical }
        if let first = files.firstIndex(where: { $0.header.indexCount > 1 && $0.header.endPhyOffset >= physical }) {
            try remove(from: first)
        }
    }

    /// Brings the last file back to a synchronized state.
    func rewindLast(to header: IndexHeader) throws(SystemError) {
        try files.last?.rewind(to: header)
        try updateCovered()
    }

    /// Deletes files none of whose messages is in the log any more (`IndexService.deleteExpiredFile`).
    func expire(before physical: PhysicalOffset) throws(SystemError) {
        while files.count > 1, files[0].header.endPhyOffset < physical {
            try disk.remove(files[0].diskFile.path)
            files.removeFirst()
        }
    }

    // MARK: - Reading

    /// Looks for a key, newest first; hashes collide, the caller looks at the messages.
    func search(javaHash: Int32, maxCount: Int, begin: Int64, end: Int64) -> IndexSearch {
        apply()
        return IndexSearch(
            files: files, keyHash: IndexLayout.keyHash(javaHash), maxCount: maxCount, begin: begin, end: end)
    }

    /// Of the newest entry.
    var lastUpdate: (timestamp: Int64, physicalOffset: PhysicalOffset) {
        files.last.map { ($0.header.endTimestamp, $0.header.endPhyOffset) } ?? (0, PhysicalOffset(0))
    }

    /// End time of the newest full file: RocketMQ's checkpoint covers full files only.
    var fullFileTimestamp: Int64 { files.last(where: { $0.isFull })?.header.endTimestamp ?? 0 }
}
