package import LinuxSystem

/// A small file that is replaced as a whole and must always be loadable: `config/*.json`. The last good state is kept
/// beside it as `.bak`, as RocketMQ does (`MixAll.string2File`), and checksums of both in a file of ours
/// (`MetadataChecksums`).
package struct MetadataFile {
    /// Of the file; its backup is beside it.
    package let path: String
    private let disk: any Disk
    private let bytesMax: Int64

    /// The file at `path`; reads nothing yet.
    /// - Parameter bytesMax: of a file; one that states more is damaged, and is not read.
    package init(path: String, disk: any Disk, bytesMax: Int64 = Self.bytesMax) {
        self.path = path
        self.disk = disk
        self.bytesMax = bytesMax
    }

    /// Bytes of a table, as its readers take them. A hole of a terabyte costs nothing.
    package static let bytesMax: Int64 = 1 << 30

    /// How much of a file's bytes is what it should be.
    package enum Quality: Sendable {
        case good
        /// It is the table, but some of its entries are none.
        case usable
        case unusable
    }

    /// What `load` found.
    package enum Loaded: Sendable {
        case absent
        /// The file is empty, and nothing shows that it ever was otherwise. Report `reason`.
        case empty(reason: String)
        case current([UInt8])
        /// The file itself was unusable; these are the bytes of `.bak`. Report `reason`, then `restore`.
        case backup([UInt8], reason: String)
    }

    /// As below, for files that are good or not.
    /// - Throws: as below.
    package func load(isGood: ([UInt8]) -> Bool) throws(MetadataError) -> Loaded {
        try load { isGood($0) ? .good : .unusable }
    }

    /// Reads the file, or its backup when the file is missing, is not what was written, or not good. A file with bad
    /// entries is preferred to its backup when the checksums show that they were written so: then no bit has flipped.
    /// - Throws: `damaged` when there is something, or was, but nothing usable: starting with nothing would throw it
    ///   away.
    package func load(quality: ([UInt8]) -> Quality) throws(MetadataError) -> Loaded {
        let checksums = try onDisk { () throws(SystemError) in try readChecksums() }
        let found = try onDisk { () throws(SystemError) in try look(path) }
        let current = found.bytes
        var reason = found.sizeBeyond.map { text(path, $0) } ?? "\(path) is missing"
        var usable: [UInt8]?
        if let current {
            if try isWhole(path, current, checksums) {
                switch quality(current) {
                case .good: return .current(current)
                case .usable where checksums?.know(current) == true: return .current(current)
                case .usable: usable = current
                case .unusable: break
                }
                reason = current.isEmpty ? "\(path) is empty" : "\(path) is not readable as what it should be"
            } else {
                reason = "\(path) does not hold what was written to it: its checksum is another"
            }
        }
        let foundBackup = try onDisk { () throws(SystemError) in try look(path + ".bak") }
        let backup = foundBackup.bytes
        if let backup, try isWhole(path + ".bak", backup, checksums) {
            switch quality(backup) {
            case .good: return .backup(backup, reason: reason)
            case .usable where usable == nil: return .backup(backup, reason: reason)
            case .usable, .unusable: break
            }
        }
        if let usable { return .current(usable) }
        let isBeyond = found.sizeBeyond != nil || foundBackup.sizeBeyond != nil
        if current == nil, backup == nil, !isBeyond { return .absent }
        // What a crash in the very first save of RocketMQ leaves; unless the checksums show more.
        if !isBeyond, current?.isEmpty ?? true, backup?.isEmpty ?? true,
            checksums?.contents.contains(where: { $0.size > 0 }) != true
        {
            return .empty(reason: reason)
        }
        throw .damaged(
            path: path,
            reason:
                """
                \(reason), and its .bak is no better; restore one of them (and delete \
                \(MetadataChecksums.path(of: path))), or move both away to begin without
                """
        )
    }

    private func isWhole(_ path: String, _ bytes: [UInt8], _ checksums: MetadataChecksums?) throws(MetadataError)
        -> Bool
    {
        guard let checksums else { return true }
        let information = try onDisk { () throws(SystemError) in try disk.information(path) }
        return !checksums.objects(to: bytes, modified: information?.modified ?? 0)
    }

    /// Puts what was loaded from the backup in the file's place; the unusable file is kept as `.damaged`, the backup
    /// stays.
    /// - Throws: `disk`.
    package func restore(_ bytes: [UInt8]) throws(MetadataError) {
        try onDisk { () throws(SystemError) in
            if try disk.information(path) != nil { try disk.rename(path, to: path + ".damaged") }
        }
        try save(bytes)
    }

    /// Replaces the file: temporary file, synchronize, checksums, old one to `.bak`, rename, synchronize the folder.
    /// After a power cut either the old or the new bytes are loadable.
    ///
    /// There is a `.bak` after every save: where no good old file can become it, it holds the new bytes. RocketMQ has
    /// none after the first save (`MixAll.string2File`), and starts with an empty table when that file is damaged.
    /// - Throws: `disk`; the old bytes are loadable then.
    package func save(_ bytes: [UInt8]) throws(MetadataError) {
        try onDisk { () throws(SystemError) in
            let directory = String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)])
            try disk.createDirectory(directory)
            let written = try writeBeside(path, bytes)
            // The checksums cover the new bytes and whatever lies under the two names now, so that they are right at
            // every moment in between.
            let known = try readChecksums()
            let current = try content(path, known)
            let backup = try content(path + ".bak", known)
            let lacksBackup = current?.content == nil && backup == nil
            let copy = lacksBackup ? try writeBeside(path + ".bak", bytes) : nil
            let contents = [written] + [copy, current?.content, backup?.content].compactMap { $0 }
            try write(MetadataChecksums(contents).encoded, MetadataChecksums.path(of: path), .replace)
            // Renaming keeps the old bytes under a name at every moment; between the two renames `.bak` is the good
            // one. Damaged bytes never take the place of a good backup.
            if current?.content != nil { try disk.rename(path, to: path + ".bak") }
            try disk.rename(path + ".tmp", to: path)
            if copy != nil { try disk.rename(path + ".bak.tmp", to: path + ".bak") }
            try disk.synchronizeDirectory(directory)
        }
    }

    /// Writes what is to be renamed to `path`.
    private func writeBeside(_ path: String, _ bytes: [UInt8]) throws(SystemError) -> MetadataChecksums.Content {
        try write(bytes, path + ".tmp", .replace)
        return MetadataChecksums.Content(bytes, modified: try disk.information(path + ".tmp")?.modified ?? 0)
    }

    private struct FoundContent {
        var content: MetadataChecksums.Content?
    }

    /// The content of a file as it is; none of a damaged one. Nil when there is no file.
    private func content(_ path: String, _ known: MetadataChecksums?) throws(SystemError) -> FoundContent? {
        let found = try look(path)
        guard let bytes = found.bytes else {
            return found.sizeBeyond == nil ? nil : FoundContent(content: nil)
        }
        let modified = try disk.information(path)?.modified ?? 0
        if let known, known.objects(to: bytes, modified: modified) { return FoundContent(content: nil) }
        return FoundContent(content: MetadataChecksums.Content(bytes, modified: modified))
    }

    func readChecksums() throws(SystemError) -> MetadataChecksums? {
        try read(MetadataChecksums.path(of: path)).flatMap { MetadataChecksums($0) }
    }

    private func write(_ bytes: [UInt8], _ path: String, _ mode: DiskOpenMode) throws(SystemError) {
        let file = try disk.open(path, mode)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: max(1, bytes.count), alignment: 1)
        defer { buffer.deallocate() }
        buffer.copyBytes(from: bytes)
        try file.write(UnsafeRawBufferPointer(rebasing: buffer[0..<bytes.count]), at: 0)
        try file.synchronize()
    }

    /// A file there may be.
    private struct Found {
        /// Nil: there is none, or it is not read.
        var bytes: [UInt8]?
        /// The size of one that is not read: more than `bytesMax`.
        var sizeBeyond: Int64?
    }

    private func text(_ path: String, _ size: Int64) -> String {
        "\(path) has \(size) bytes, no table has more than \(bytesMax)"
    }

    /// Nil: there is none, or it has more than `bytesMax`.
    func read(_ path: String) throws(SystemError) -> [UInt8]? { try look(path).bytes }

    private func look(_ path: String) throws(SystemError) -> Found {
        guard try disk.information(path) != nil else { return Found() }
        let file = try disk.open(path, .read)
        let stated = Int64(try file.size())
        guard stated <= bytesMax else { return Found(sizeBeyond: stated) }
        let size = Int(stated)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: max(1, size), alignment: 1)
        defer { buffer.deallocate() }
        let got = try file.read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[0..<size]), at: 0)
        return Found(bytes: Array(buffer[0..<got]))
    }
}

extension MetadataFile {
    /// Whether Apus wrote the bytes the file has now. Nil: it never wrote this file.
    /// - Throws: the file cannot be read.
    package func isOurs() throws(SystemError) -> Bool? {
        guard let checksums = try readChecksums() else { return nil }
        guard let bytes = try read(path) else { return false }
        return checksums.know(bytes)
    }
}
