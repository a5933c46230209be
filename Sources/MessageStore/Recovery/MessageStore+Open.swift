import Glibc
import LinuxSystem
import Logging
import MessageModel
import StoreFormat
import StoreReader

extension MessageStore {
    private var lockPath: String { configuration.storePathRootDir + "/lock" }
    var abortPath: String { configuration.storePathRootDir + "/abort" }
    var checkpointPath: String { configuration.storePathRootDir + "/checkpoint" }

    /// Locks the folder, loads what is there and recovers it. Afterwards everything in the log is readable by queue.
    /// - Parameter events: what is reported from here on, on this thread.
    /// - Throws: what makes the store unusable; nothing that could be a message has been changed then.
    package func open(_ events: StoreEvents) throws(StoreError) {
        precondition(!isOpen, "a store is opened once")
        self.events = events
        try onDisk { () throws(SystemError) in
            try disk.createDirectory(configuration.storePathRootDir)
            try disk.createDirectory(configuration.consumeQueuePath)
        }
        guard let lock = try onDisk({ () throws(SystemError) in try disk.lock(lockPath) }) else {
            throw .locked(path: lockPath)
        }
        lockFile = lock
        try onDisk { () throws(SystemError) in try write("lock", to: lock) }
        try refuseEmptyLog()
        try onDisk { () throws(SystemError) in try takeBeginAnew() }
        // The file `abort` exists exactly while a broker is running.
        let wasClean = try onDisk { () throws(SystemError) in try disk.information(abortPath) == nil }
        let rocketMQKill =
            wasClean ? false : try onDisk { () throws(SystemError) in try rocketMQWasKilled() }
        if wasClean {
            try onDisk { () throws(SystemError) in
                _ = try disk.open(abortPath, .create)
                try disk.synchronizeDirectory(configuration.storePathRootDir)
            }
        }
        let odd = try logFiles.load(wasClean: wasClean)
        if let first = odd.first {
            logger.error(
                """
                \(odd.count) files in \(configuration.commitLogPath) are no part of the log and are left alone: \
                \(first), which names an offset no log comes to
                """
            )
        }
        loadDeleted()
        try recover(wasClean: wasClean, rocketMQKill: rocketMQKill)
        fitDeleted(first: logStart)
        try loadRecordChecksums()
        isOpen = true
        removeLeftFolders()
        let now = clock()
        queuePass.open(now: now, dispatched: log.dispatched)
        checkpoint.open(now: now, dispatched: log.dispatched)
        lastReleaseMilliseconds = now
        gate.begin(now: now)
        flush.begin(now: now)
        if needsCheck { beginCheck() }
        // Before the first message, not with the first maintenance: a fast sender would fill the reserve meanwhile.
        lookAtSpace()
        prepareAhead()
        requestFlush()
    }

    /// Whether RocketMQ was killed in this folder and the machine has not been restarted since. RocketMQ makes `abort`
    /// when it starts and never touches it again. Then every page it wrote still exists, as after a kill of ours, and
    /// it wrote queues in the order of the log.
    ///
    /// This can be true after a power cut, too. Then the clock was set back between two starts of the machine, or the
    /// folder was copied without its times. What is missing is then met by reads and by the background check.
    private func rocketMQWasKilled() throws(SystemError) -> Bool {
        guard machineStart > 0, let abort = try disk.information(abortPath), abort.modified > machineStart else {
            return false
        }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.ownMark.utf8.count, alignment: 1)
        defer { buffer.deallocate() }
        let got = try disk.open(abortPath, .read).read(into: buffer, at: 0)
        return !buffer[0..<got].elementsEqual(Self.ownMark.utf8)
    }

    /// What `abort` holds while Apus writes queues, which it does queue by queue and not in the order of the log.
    /// RocketMQ asks only whether it is there.
    static var ownMark: String { "apus" }

    /// To be done before queues are written.
    func markOwned() throws(SystemError) {
        guard !isMarkedOwned else { return }
        try write(Self.ownMark, to: disk.open(abortPath, .create))
        isMarkedOwned = true
    }

    private func write(_ text: String, to file: any DiskFile) throws(SystemError) {
        let bytes = Array(text.utf8)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 1)
        defer { buffer.deallocate() }
        buffer.copyBytes(from: bytes)
        try file.write(UnsafeRawBufferPointer(buffer), at: 0)
    }
}
