/// The disk seam: everything the store asks of a disk, and nothing else. `RealDisk` is the kernel; the tests have a
/// disk that loses, tears and reorders what was not synchronized. One call per tick or per file, never one per message,
/// so an existential costs nothing that can be measured.
package protocol Disk: AnyObject, Sendable {
    /// Opens a file. The handle may be used by several threads at once: all its calls take explicit offsets.
    /// - Throws: there is no such file, no permission or no free descriptor; the disk fails.
    func open(_ path: String, _ mode: DiskOpenMode) throws(SystemError) -> any DiskFile
    /// Size and last change of a file, or nil when there is nothing at `path`.
    /// - Throws: the kernel cannot report it, for want of permission or because the disk fails.
    func information(_ path: String) throws(SystemError) -> DiskFileInformation?
    /// Names in a folder without `.` and `..`, in no order; an absent folder has none.
    /// - Throws: the folder cannot be read.
    func list(_ directory: String) throws(SystemError) -> [String]
    /// Creates a folder and the missing ones above it.
    /// - Throws: the disk is full, fails or may not be written.
    func createDirectory(_ path: String) throws(SystemError)
    /// Removes a file or an empty folder; nothing there is no error.
    /// - Throws: the folder is not empty or may not be changed; the disk fails.
    func remove(_ path: String) throws(SystemError)
    /// Replaces `target` by `source` atomically (both in one filesystem).
    /// - Throws: there is no `source`, or its folder may not be changed; the disk fails.
    func rename(_ source: String, to target: String) throws(SystemError)
    /// Makes creations, removals and renames in a folder survive power loss.
    /// - Throws: the folder cannot be opened, or the disk fails.
    func synchronizeDirectory(_ path: String) throws(SystemError)
    /// Makes everything written to the filesystem that holds `path` survive power loss (`syncfs`).
    /// - Throws: `path` cannot be opened, or the disk fails.
    func synchronizeAll(_ path: String) throws(SystemError)
    /// Size and free bytes of the filesystem that holds `path`.
    /// - Throws: there is nothing at `path`, or the disk fails.
    func space(_ path: String) throws(SystemError) -> DiskSpace
    /// Takes an exclusive lock on byte 0 of the file (created when absent) that other processes' `fcntl` locks, Java's
    /// `FileChannel.tryLock` among them, conflict with. Nil when another process holds it. Released with the handle.
    /// - Throws: the file cannot be opened, or its filesystem has no locks.
    func lock(_ path: String) throws(SystemError) -> (any DiskFile)?
}

/// How `Disk.open` opens.
package enum DiskOpenMode: Sendable {
    /// Must exist; only reads.
    case read
    /// Must exist.
    case readWrite
    /// Created when absent, kept as it is when present.
    case create
    /// Created or emptied.
    case replace
}

/// What stat(2) reports of a file or folder.
package struct DiskFileInformation: Sendable {
    /// Bytes.
    package let size: Int64
    /// Milliseconds since 1970.
    package let modified: Int64
    /// A folder, not a file.
    package let isDirectory: Bool

    package init(size: Int64, modified: Int64, isDirectory: Bool) {
        self.size = size
        self.modified = modified
        self.isDirectory = isDirectory
    }
}

/// A filesystem's space, in bytes.
package struct DiskSpace: Sendable {
    /// Bytes of the file system.
    package let total: Int64
    /// What an unprivileged process may still use.
    package let available: Int64

    package init(total: Int64, available: Int64) {
        self.total = total
        self.available = available
    }

    /// Used part of the space, 0...1, as RocketMQ's `UtilAll.getDiskPartitionSpaceUsedPercent` counts it.
    package var usedRatio: Double {
        total <= 0 ? 0 : Double(total - available) / Double(total)
    }
}

/// An open file. Offsets and lengths are bytes.
package protocol DiskFile: AnyObject, Sendable {
    /// As it was opened; a later rename does not change it.
    var path: String { get }
    /// For `sendfile` and descriptor passing; -1 on a disk that is not real.
    var descriptor: Int32 { get }
    /// Writes all bytes or throws; after an error any part of them may be in the file.
    /// - Throws: the disk is full or fails; any part of the bytes may be in the file then.
    func write(_ bytes: UnsafeRawBufferPointer, at offset: Int64) throws(SystemError)
    /// Reads until `buffer` is full or the file ends; returns the bytes read.
    /// - Throws: the disk fails.
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int64) throws(SystemError) -> Int
    /// `fdatasync`: what was written before survives power loss when this returns.
    /// - Throws: the disk fails; what was written before may be lost.
    func synchronize() throws(SystemError)
    /// Asks for write-back of a range without waiting for it; only a hint.
    func startWriteback(from offset: Int64, length: Int64)
    /// - Throws: the disk fails.
    func size() throws(SystemError) -> Int64
    /// Cuts or extends (with zeros, sparse).
    /// - Throws: the disk is full or fails.
    func truncate(to size: Int64) throws(SystemError)
    /// Reserves blocks without changing the size; false when the filesystem cannot.
    /// - Throws: the disk is full or fails.
    func allocate(from offset: Int64, length: Int64) throws(SystemError) -> Bool
    /// Where the first unwritten range at or after `offset` begins; the size when there is none or the filesystem does
    /// not know.
    func firstHole(from offset: Int64) -> Int64
    /// Where written bytes begin at or after `offset`; nil when only unwritten ones follow. `offset` itself when the
    /// filesystem does not know.
    func firstData(from offset: Int64) -> Int64?
    /// Maps a range read-only and shared. `offset` is a multiple of 4096 and the range lies inside the file.
    /// - Throws: there is no memory for the mapping.
    func map(from offset: Int64, length: Int) throws(SystemError) -> MappedRegion
}
