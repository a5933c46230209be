import LinuxSystem
import StoreFormat

/// Runs file work and turns its error into the store's.
@inline(__always)
func onDisk<T>(_ body: () throws(SystemError) -> T) throws(StoreError) -> T {
    do {
        return try body()
    } catch {
        throw .disk(error)
    }
}

/// The commit log's files as their writer sees them: equal in size, without gaps, the last one being written.
final class CommitLogFiles {
    let directory: String
    let fileSize: Int64
    private let disk: any Disk
    private(set) var files: [(base: PhysicalOffset, file: any DiskFile)] = []
    let preparer = FilePreparer()

    init(directory: String, fileSize: Int, disk: any Disk) {
        self.directory = directory
        self.fileSize = Int64(fileSize)
        self.disk = disk
    }

    /// Physical offset of the first byte; nil while there is no file.
    var first: PhysicalOffset? { files.first?.base }
    /// Behind the last file.
    var end: PhysicalOffset { files.last.map { $0.base + fileSize } ?? PhysicalOffset(0) }

    /// Where the file that holds `offset` begins.
    @inline(__always)
    func base(of offset: PhysicalOffset) -> PhysicalOffset {
        PhysicalOffset(offset.rawValue / fileSize * fileSize)
    }

    @inline(__always)
    func file(base: PhysicalOffset) -> (any DiskFile)? {
        guard let first = files.first?.base, base >= first else { return nil }
        let index = Int((base - first) / fileSize)
        return index < files.count ? files[index].file : nil
    }

    func path(base: PhysicalOffset) -> String { directory + "/" + StoreFileName.of(offset: base.rawValue) }

    /// Opens what is there. Names that are no numbers are left alone.
    /// - Parameter wasClean: the last process stopped by itself.
    /// - Returns: names of numbers no log comes to; they are left alone, too.
    @discardableResult
    func load(wasClean: Bool) throws(StoreError) -> [String] {
        try onDisk { () throws(SystemError) in try disk.createDirectory(directory) }
        let names = try onDisk { () throws(SystemError) in try disk.list(directory) }
        let bases = names.compactMap { StoreFileName.offset(of: $0) }.sorted().map { PhysicalOffset($0) }
        for base in bases {
            let path = path(base: base)
            if let last = files.last, base != last.base + fileSize {
                throw .damaged(
                    path: self.path(base: last.base + fileSize),
                    reason: "the file is missing but later ones exist; put it back or move the later ones away")
            }
            let file = try onDisk { () throws(SystemError) in try disk.open(path, .readWrite) }
            let size = try onDisk { () throws(SystemError) in try file.size() }
            if size != fileSize {
                // A crash while the rest of a file was made zero leaves it short; anything else is a wrong setting.
                guard !wasClean, size < fileSize, base == self.base(of: base) else {
                    throw .damaged(
                        path: path,
                        reason:
                            """
                            it has \(size) bytes but mappedFileSizeCommitLog is \(fileSize); set it to the size the \
                            store was made with
                            """
                    )
                }
                try onDisk { () throws(SystemError) in try file.truncate(to: fileSize) }
            }
            files.append((base, file))
        }
        return names.filter { StoreFileName.isBeyondAll($0) }
    }

    /// The file the log continues in; takes the prepared one when it is the right one.
    func append(base: PhysicalOffset) throws(SystemError) -> any DiskFile {
        precondition(files.isEmpty || base == end, "log files have no gaps")
        let file: any DiskFile
        if let prepared = preparer.take(base: base) {
            file = prepared
        } else {
            file = try Self.create(path(base: base), size: fileSize, allocate: 0, disk: disk)
        }
        files.append((base, file))
        return file
    }

    /// Creates a file of the full length under a temporary name and renames it. RocketMQ refuses to open a folder with
    /// a log file of another length.
    static func create(
        _ path: String, size: Int64, allocate: Int64, disk: any Disk
    ) throws(SystemError) -> any DiskFile {
        let directory = String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)])
        if try disk.information(path) != nil {
            let existing = try disk.open(path, .readWrite)
            if try existing.size() != size { try existing.truncate(to: size) }
            // Left by an attempt that failed half-way, perhaps before its name was durable.
            try existing.synchronize()
            try disk.synchronizeDirectory(directory)
            return existing
        }
        let temporary = directory + ".next"
        let file = try disk.open(temporary, .replace)
        try file.truncate(to: size)
        if allocate > 0 { _ = try file.allocate(from: 0, length: min(allocate, size)) }
        // The length must not come after the name.
        try file.synchronize()
        try disk.rename(temporary, to: path)
        try disk.synchronizeDirectory(directory)
        return try disk.open(path, .readWrite)
    }

    /// Makes everything from `offset` on zero, durably: later files are deleted, the rest of this one is cut off and
    /// extended again. So no bytes of an abandoned write can be taken for a message later.
    func truncate(to offset: PhysicalOffset) throws(SystemError) {
        while let last = files.last, last.base > offset, files.count > 1 {
            try disk.remove(last.file.path)
            files.removeLast()
        }
        if let last = files.last, offset < last.base + fileSize {
            try last.file.truncate(to: max(0, offset - last.base))
            try last.file.truncate(to: fileSize)
            try last.file.synchronize()
        }
        try disk.synchronizeDirectory(directory)
    }

    /// Deletes the oldest file.
    func removeFirst() throws(SystemError) {
        guard let first = files.first else { return }
        try disk.remove(first.file.path)
        files.removeFirst()
    }

    func closeAll() {
        files.removeAll()
    }
}
