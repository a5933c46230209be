import Glibc
import LinuxSystem
import StoreFormat

/// The blocking part of a checkpoint, run on the `flush` thread. It synchronizes log, queues and index in this order,
/// then writes RocketMQ's checkpoint and our recovery point, which cover them.
struct Checkpoint: Sendable {
    enum Failure: Error, Sendable {
        /// Messages may be lost from the log: nothing is taken until they are verified.
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
    let checksums: [any DiskFile]
    /// Some of the above: a synchronization of them failed before, so they are written again first.
    let unverified: [any DiskFile]
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
            for file in unverified { try rewriteData(file) }
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
        for file in indexes + checksums { try file.synchronize() }
        var folders: Set<String> = [configuration.consumeQueuePath, configuration.storePathRootDir]
        for file in queues {
            let folder = parent(file.path)
            folders.insert(folder)
            folders.insert(parent(folder))
        }
        if !indexes.isEmpty { folders.insert(configuration.indexPath) }
        if !checksums.isEmpty { folders.insert(configuration.recordChecksumPath) }
        for folder in folders { try synchronizeIfThere(folder) }
    }

    /// A topic's folder may be moved away at any moment (`FolderRemoval`, another thread).
    private func synchronizeIfThere(_ folder: String) throws(SystemError) {
        do throws(SystemError) {
            try disk.synchronizeDirectory(folder)
        } catch {
            guard error.errno == ENOENT else { throw error }
        }
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
