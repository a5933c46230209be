package import LinuxSystem

/// A small file that is replaced as a whole and must always be loadable: `config/*.json`. The last good state is kept beside it as
/// `.bak`, as RocketMQ does (`MixAll.string2File`).
package struct MetadataFile {
    package let path: String
    private let disk: any Disk

    package init(path: String, disk: any Disk) {
        self.path = path
        self.disk = disk
    }

    /// What `load` found.
    package enum Loaded: Sendable {
        case absent
        case current([UInt8])
        /// The file itself was unusable; these are the bytes of `.bak`. Report `reason`.
        case backup([UInt8], reason: String)
    }

    /// Reads the file, or its backup when the file is missing or `isGood` refuses its bytes.
    /// - Throws: `damaged` when there is something but neither is good: starting with nothing would throw away what is there.
    package func load(isGood: ([UInt8]) -> Bool) throws(StoreError) -> Loaded {
        let current = try onDisk { () throws(SystemError) in try read(path) }
        if let current, isGood(current) { return .current(current) }
        let reason = current == nil ? "\(path) is missing" : "\(path) is not readable as what it should be"
        let backup = try onDisk { () throws(SystemError) in try read(path + ".bak") }
        if let backup, isGood(backup) { return .backup(backup, reason: reason) }
        if current == nil, backup == nil { return .absent }
        // An empty file beside no backup is what a crash in the very first save of RocketMQ leaves.
        if current?.isEmpty ?? true, backup?.isEmpty ?? true { return .absent }
        throw .damaged(
            path: path,
            reason: "neither it nor its .bak can be read; restore one of them, or move both away to begin without")
    }

    /// Replaces the file: temporary file, synchronize, old one to `.bak`, rename, synchronize the folder. After a power cut either the old or
    /// the new bytes are loadable.
    package func save(_ bytes: [UInt8]) throws(StoreError) {
        try onDisk { () throws(SystemError) in
            let directory = String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)])
            try disk.createDirectory(directory)
            try write(bytes, path + ".tmp")
            // Renaming keeps the old bytes under a name at every moment; between the two renames `.bak` is the good one.
            if try disk.information(path) != nil { try disk.rename(path, to: path + ".bak") }
            try disk.rename(path + ".tmp", to: path)
            try disk.synchronizeDirectory(directory)
        }
    }

    private func write(_ bytes: [UInt8], _ path: String) throws(SystemError) {
        let file = try disk.open(path, .replace)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: max(1, bytes.count), alignment: 1)
        defer { buffer.deallocate() }
        buffer.copyBytes(from: bytes)
        try file.write(UnsafeRawBufferPointer(rebasing: buffer[0..<bytes.count]), at: 0)
        try file.synchronize()
    }

    private func read(_ path: String) throws(SystemError) -> [UInt8]? {
        guard try disk.information(path) != nil else { return nil }
        let file = try disk.open(path, .read)
        let size = Int(try file.size())
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: max(1, size), alignment: 1)
        defer { buffer.deallocate() }
        let got = try file.read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[0..<size]), at: 0)
        return Array(buffer[0..<got])
    }
}
