import LinuxSystem
import StoreFormat

/// Three slots: one written often and never synchronized (good while the machine runs), two written in turn and
/// synchronized.
final class RecoveryPointFile {
    private let path: String
    private let disk: any Disk
    private var file: (any DiskFile)?
    private(set) var sequence: Int64 = 0
    /// Where the newest point lies that is known to be synchronized.
    private var lastHardSlot: Int64 = 8192
    /// The newest hard point as found at the start. The process that wrote it may have been killed before it was
    /// synchronized, or the synchronization failed. It is made durable before the other slot is written over.
    private var found: (slot: Int64, bytes: [UInt8])?

    init(path: String, disk: any Disk) {
        self.path = path
        self.disk = disk
    }

    /// The newest valid points of both kinds.
    func load() throws(SystemError) -> (soft: RecoveryPoint?, hard: RecoveryPoint?) {
        guard try disk.information(path) != nil else { return (nil, nil) }
        let file = try disk.open(path, .readWrite)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 3 * 4096, alignment: 16)
        defer { buffer.deallocate() }
        buffer.initializeMemory(as: UInt8.self, repeating: 0)
        _ = try file.read(into: buffer, at: 0)
        let points = (0..<3).map { slot in
            RecoveryPoint(UnsafeRawBufferPointer(rebasing: buffer[(slot * 4096)..<((slot + 1) * 4096)]))
        }
        sequence = points.compactMap { $0?.sequence }.max() ?? 0
        lastHardSlot = (points[1]?.sequence ?? 0) > (points[2]?.sequence ?? 0) ? 4096 : 8192
        let hard = [points[1], points[2]].compactMap { $0 }.max { $0.sequence < $1.sequence }
        found = hard.map { (lastHardSlot, $0.encoded()) }
        return (points[0], hard)
    }

    private func opened() throws(SystemError) -> any DiskFile {
        if let file { return file }
        let directory = String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)])
        try disk.createDirectory(directory)
        let file = try disk.open(path, .create)
        self.file = file
        return file
    }

    /// Good as long as the machine does not stop.
    func writeSoft(_ point: RecoveryPoint) throws(SystemError) {
        sequence += 1
        var point = point
        point.sequence = sequence
        let file = try opened()
        let bytes = point.encoded()
        try Self.write(bytes, file, 0)
    }

    /// Work for the `flush` thread: writes and synchronizes the point. All it covers must be synchronized before it
    /// runs. `hardWritten` is to be called when it has succeeded.
    func hardWrite(_ point: RecoveryPoint) throws(SystemError) -> @Sendable () throws(SystemError) -> Void {
        sequence += 1
        var point = point
        point.sequence = sequence
        // Never over the newest one.
        let slot = otherSlot
        let file = try opened()
        let bytes = point.encoded()
        let found = found
        return { () throws(SystemError) in
            if let found {
                try Self.write(found.bytes, file, found.slot)
                try file.synchronize()
            }
            try Self.write(bytes, file, slot)
            try file.synchronize()
        }
    }

    func hardWritten() {
        lastHardSlot = otherSlot
        found = nil
    }

    private var otherSlot: Int64 { lastHardSlot == 4096 ? 8192 : 4096 }

    private static func write(_ bytes: [UInt8], _ file: any DiskFile, _ offset: Int64) throws(SystemError) {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 8)
        defer { buffer.deallocate() }
        buffer.copyBytes(from: bytes)
        try file.write(UnsafeRawBufferPointer(buffer), at: offset)
    }

    func synchronize() throws(SystemError) { try opened().synchronize() }

    func close() { file = nil }

    /// What the points covered was deleted.
    func remove() throws(SystemError) {
        close()
        try disk.remove(path)
    }
}
