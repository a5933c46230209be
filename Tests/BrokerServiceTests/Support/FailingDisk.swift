import Foundation
import LinuxSystem

/// The real disk, on which writes to the commit log (or to `failing`) fail while `error` is set, and synchronizing it
/// takes as long as `isStuck`.
final class FailingDisk: Disk {
    private let real = RealDisk()
    private let lock = NSLock()
    nonisolated(unsafe) private var current: Int32?

    /// The errno of failing writes; nil lets them through.
    var error: Int32? {
        get { lock.withLock { current } }
        set { lock.withLock { current = newValue } }
    }

    nonisolated(unsafe) private var failingPart = "/commitlog/"
    /// Only files whose path has this in it fail.
    var failing: String {
        get { lock.withLock { failingPart } }
        set { lock.withLock { failingPart = newValue } }
    }

    nonisolated(unsafe) private var unreadablePart: String?
    /// Files whose path has this in it cannot be read; nil: all can.
    var unreadable: String? {
        get { lock.withLock { unreadablePart } }
        set { lock.withLock { unreadablePart = newValue } }
    }

    nonisolated(unsafe) private var ratio: Double?
    /// How full it says it is, 0...1; nil: as full as it is.
    var usedRatio: Double? {
        get { lock.withLock { ratio } }
        set { lock.withLock { ratio = newValue } }
    }

    private let condition = NSCondition()
    nonisolated(unsafe) private var stuck = false
    var isStuck: Bool {
        get { condition.withLock { stuck } }
        set {
            condition.withLock {
                stuck = newValue
                condition.broadcast()
            }
        }
    }

    fileprivate func waitWhileStuck() {
        condition.withLock { while stuck { condition.wait() } }
    }

    func open(_ path: String, _ mode: DiskOpenMode) throws(SystemError) -> any DiskFile {
        FailingFile(try real.open(path, mode), of: self)
    }
    func information(_ path: String) throws(SystemError) -> DiskFileInformation? { try real.information(path) }
    func list(_ directory: String) throws(SystemError) -> [String] { try real.list(directory) }
    func createDirectory(_ path: String) throws(SystemError) { try real.createDirectory(path) }
    func remove(_ path: String) throws(SystemError) { try real.remove(path) }
    func rename(_ source: String, to target: String) throws(SystemError) { try real.rename(source, to: target) }
    func synchronizeDirectory(_ path: String) throws(SystemError) { try real.synchronizeDirectory(path) }
    func synchronizeAll(_ path: String) throws(SystemError) { try real.synchronizeAll(path) }
    func space(_ path: String) throws(SystemError) -> DiskSpace {
        guard let ratio = usedRatio else { return try real.space(path) }
        return DiskSpace(total: 1 << 40, available: Int64(Double(1 << 40) * (1 - ratio)))
    }
    func lock(_ path: String) throws(SystemError) -> (any DiskFile)? { try real.lock(path) }
}

private final class FailingFile: DiskFile {
    private let real: any DiskFile
    private unowned let disk: FailingDisk

    init(_ real: any DiskFile, of disk: FailingDisk) {
        self.real = real
        self.disk = disk
    }

    var path: String { real.path }
    var descriptor: Int32 { real.descriptor }
    func write(_ bytes: UnsafeRawBufferPointer, at offset: Int64) throws(SystemError) {
        if let error = disk.error, path.contains(disk.failing) {
            throw SystemError(errno: error, call: "pwrite", subject: path)
        }
        try real.write(bytes, at: offset)
    }
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int64) throws(SystemError) -> Int {
        if let unreadable = disk.unreadable, path.contains(unreadable) {
            throw SystemError(errno: EIO, call: "pread", subject: path)
        }
        return try real.read(into: buffer, at: offset)
    }
    func synchronize() throws(SystemError) {
        if path.contains("/commitlog/") { disk.waitWhileStuck() }
        try real.synchronize()
    }
    func startWriteback(from offset: Int64, length: Int64) { real.startWriteback(from: offset, length: length) }
    func size() throws(SystemError) -> Int64 { try real.size() }
    func firstHole(from offset: Int64) -> Int64 { real.firstHole(from: offset) }
    func firstData(from offset: Int64) -> Int64? { real.firstData(from: offset) }
    func truncate(to size: Int64) throws(SystemError) { try real.truncate(to: size) }
    func allocate(from offset: Int64, length: Int64) throws(SystemError) -> Bool {
        try real.allocate(from: offset, length: length)
    }
    func map(from offset: Int64, length: Int) throws(SystemError) -> MappedRegion {
        try real.map(from: offset, length: length)
    }
}
