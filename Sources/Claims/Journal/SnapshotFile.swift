import LinuxSystem
import Logging

/// Makes snapshots. Any thread: it uses nothing but files.
enum SnapshotFile {
    /// Makes the snapshot of a number out of the former one and the journals before that number, then removes those.
    /// - Parameter trailBytesMax: how much of the journals is kept for the trail.
    /// - Returns: its bytes; nil when they are damaged: then all stays.
    static func make(
        _ number: UInt32, _ folder: String, _ disk: any Disk, _ logger: Logger, trailBytesMax: Int64
    ) throws(SystemError) -> Int64? {
        let recovery = try ClaimRecovery(folder, disk, upTo: number - 1)
        guard recovery.damage.isEmpty else {
            for damage in recovery.damage {
                logger.error(
                    "no snapshot of claims was made, and after a restart messages would be delivered again: \(damage)")
            }
            return nil
        }
        let bytes = try write(recovery.registry, number, recovery.blockTime, folder, disk)
        removeFiles(before: number, folder, disk, logger, trailBytesMax: trailBytesMax)
        return bytes
    }

    /// Writes a snapshot so that it is there whole or not at all; returns its bytes. The registry loses its
    /// references to the journal.
    /// - Parameter toWall: what is added to its deadlines, so that they lie on the axis of the wall clock.
    static func write(
        _ registry: ClaimRegistry, _ number: UInt32, _ time: Int64, _ folder: String, _ disk: any Disk,
        toWall: Int64 = 0
    ) throws(SystemError) -> Int64 {
        var encoder = SnapshotEncoder(number: number, time: time, toWall: toWall)
        encoder.encode(registry)
        let path = "\(folder)/\(ClaimFile.name(.snapshot, number))"
        try disk.createDirectory(folder)
        let file = try disk.open(path + ".new", .replace)
        var failure: SystemError?
        encoder.bytes.bytes.withUnsafeBytes { buffer in
            do throws(SystemError) { try file.write(buffer, at: 0) } catch { failure = error }
        }
        if let failure { throw failure }
        try file.synchronize()
        try disk.rename(path + ".new", to: path)
        try disk.synchronizeDirectory(folder)
        return Int64(encoder.bytes.count)
    }

    /// Removes what a snapshot replaces; journals become the trail. What cannot be removed is tried again after the
    /// next one.
    /// - Parameter trailBytesMax: how much of the journals is kept for the trail, the newest; 0 for nothing.
    static func removeFiles(
        before number: UInt32, _ folder: String, _ disk: any Disk, _ logger: Logger, trailBytesMax: Int64
    ) {
        do throws(SystemError) {
            for name in try disk.list(folder).sorted() {
                let file = ClaimFile.parse(name)
                guard file.map({ $0.number < number }) ?? name.hasSuffix(".new") else { continue }
                if let file, file.kind == .journal, trailBytesMax > 0 {
                    try disk.rename("\(folder)/\(name)", to: "\(folder)/\(ClaimFile.trailName(file.number))")
                } else {
                    try disk.remove("\(folder)/\(name)")
                }
            }
            try TrailFiles(folder, disk).trim(to: trailBytesMax)
        } catch {
            logger.warning("an old journal of claims was not removed, tried again after the next snapshot: \(error)")
        }
    }
}
