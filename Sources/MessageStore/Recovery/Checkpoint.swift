import LinuxSystem
import StoreFormat

/// Makes the log durable, on the flush thread.
struct LogSynchronization: Sendable {
    /// The files with anything in them that is not durable.
    let files: [(base: PhysicalOffset, file: any DiskFile)]
    let fileSize: Int64
    /// Written again first: pages there may be called clean by the kernel without having reached the disk.
    let doubtful: Range<PhysicalOffset>
    /// What is written below is durable afterwards.
    let target: PhysicalOffset

    func run() throws(SystemError) {
        for (base, file) in files {
            let from = max(doubtful.lowerBound - base, 0)
            let to = min(doubtful.upperBound - base, fileSize)
            if from < to { try rewrite(file, from: from, to: to) }
            try file.synchronize()
        }
    }
}

/// How a job of the flush thread ended: set there before the owner is told, read by the owner when it is told or when the thread has ended.
final class FlushOutcome<Failure>: @unchecked Sendable {
    var failure: Failure?
}

/// The blocking part of a checkpoint, run on the flush thread: synchronizes in the order log, queues, index, then writes RocketMQ's checkpoint and
/// our recovery point, which vouch for them.
struct Checkpoint: Sendable {
    enum Failure: Error, Sendable {
        /// Messages may be lost from the log: nothing may be taken until they are verified.
        case log(SystemError)
        case other(SystemError)

        var error: SystemError {
            switch self {
            case .log(let error), .other(let error): error
            }
        }
    }

    let disk: any Disk
    let configuration: StoreConfiguration
    let log: LogSynchronization
    /// Nil: too many to name, the whole filesystem is synchronized.
    let queues: [any DiskFile]?
    let indexes: [any DiskFile]
    let sums: [any DiskFile]
    /// Some of the above: a synchronization failed before, so they are written again first.
    let suspects: [any DiskFile]
    let checkpoint: [UInt8]
    let checkpointFile: any DiskFile
    let writePoint: @Sendable () throws(SystemError) -> Void

    func run() -> Failure? {
        do throws(SystemError) {
            try log.run()
        } catch {
            return .log(error)
        }
        do throws(SystemError) {
            for file in suspects { try rewriteData(file) }
            try synchronizeQueues()
            let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: checkpoint.count, alignment: 8)
            defer { buffer.deallocate() }
            buffer.copyBytes(from: checkpoint)
            try checkpointFile.write(UnsafeRawBufferPointer(buffer), at: 0)
            try checkpointFile.synchronize()
            try writePoint()
            return nil
        } catch {
            return .other(error)
        }
    }

    private func synchronizeQueues() throws(SystemError) {
        guard let queues else { return try disk.synchronizeAll(configuration.storePathRootDir) }
        for file in queues { try file.synchronize() }
        for file in indexes + sums { try file.synchronize() }
        var folders: Set<String> = [configuration.consumeQueuePath, configuration.storePathRootDir]
        for file in queues {
            let folder = parent(file.path)
            folders.insert(folder)
            folders.insert(parent(folder))
        }
        if !indexes.isEmpty { folders.insert(configuration.indexPath) }
        if !sums.isEmpty { folders.insert(configuration.recordSumPath) }
        for folder in folders where try disk.information(folder) != nil { try disk.synchronizeDirectory(folder) }
    }

    /// Writes what is written again, leaving holes holes.
    private func rewriteData(_ file: any DiskFile) throws(SystemError) {
        let size = try file.size()
        var position: Int64 = 0
        while position < size, let data = file.firstData(from: position), data < size {
            let hole = min(size, file.firstHole(from: data))
            try rewrite(file, from: data, to: hole)
            position = max(hole, data + 1)
        }
    }
}

private func parent(_ path: String) -> String {
    String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)])
}
