import LinuxSystem
import Logging
import StoreFormat
import StoreReader

/// Making the log durable, and what is done when that fails.
extension MessageStore {
    func flushIfDue(_ now: Int64) {
        guard log.flushed < log.written, !flush.isRunning else { return }
        guard
            configuration.flushDiskType == .syncFlush
                || flush.isDue(now: now, bytes: log.written - log.flushed, configuration)
        else { return }
        flush.begin(now: now)
        requestFlush()
    }

    /// Wakes the flush thread; one synchronization serves all that is written by then. `commitTick` does it by itself
    /// with synchronous flush.
    package func requestFlush() {
        guard isOpen, !flush.isRunning, !flush.isBroken, log.flushed < log.written else { return }
        let work = logSynchronization(to: log.written)
        let outcome = FlushOutcome<SystemError>()
        flush.begin(outcome)
        let executor = executor
        let liveness = liveness
        background.submit(.flush) {
            do throws(SystemError) { try work.run() } catch { outcome.failure = error }
            executor { liveness.store?.flushEnded(work, outcome.failure) }
        }
    }

    /// What makes the log durable up to `target`, which is written.
    func logSynchronization(to target: PhysicalOffset) -> LogSynchronization {
        let size = logFiles.fileSize
        return LogSynchronization(
            files: logFiles.files.filter { $0.base + size > log.flushed && $0.base < target }, fileSize: size,
            unverified: log.flushed..<max(log.flushed, min(flush.unverifiedEnd, target)), target: target)
    }

    private func flushEnded(_ work: LogSynchronization, _ failure: SystemError?) {
        flush.end()
        guard isOpen else { return }
        if let failure {
            flushFailure(failure)
            return
        }
        // A checkpoint before it on the same thread may have been refused: then this one's success proves nothing.
        guard !flush.isBroken else { return }
        logIsSynchronized(work)
        // What was written while the disk worked is next.
        if configuration.flushDiskType == .syncFlush, log.flushed < log.written { requestFlush() }
    }

    func logIsSynchronized(_ work: LogSynchronization) {
        guard work.target > log.flushed else { return }
        log.flush(to: work.target)
        events.flushed(log.flushed)
    }

    /// Bytes after `log.flushed` may be lost although the kernel calls them clean.
    func flushFailure(_ failure: SystemError) {
        flush.fail()
        noteFailedSynchronization()
        closeGate(
            .notWritable(
                remark:
                    """
                    synchronizing the commit log failed: \(failure); messages are taken again when it has been \
                    verified and written anew
                    """
            ))
        events.flushFailed(.disk(failure))
    }

    func startWriteback() {
        guard let range = flush.beginWriteback(flushed: log.flushed, written: log.written) else { return }
        let (start, end) = (range.lowerBound, range.upperBound)
        let size = logFiles.fileSize
        let files = logFiles.files.suffix(4).filter { $0.base + size > start && $0.base < end }
        let executor = executor
        let liveness = liveness
        background.submit(.flush) {
            for (base, file) in files {
                let from = max(start - base, 0)
                file.startWriteback(from: from, length: min(end - base, size) - from)
            }
            executor { liveness.store?.flush.endWriteback() }
        }
    }

    // MARK: - Verification

    /// After a failed synchronization the kernel may have dropped pages it calls clean. So this reads back what was not
    /// flushed, checks it, writes it again and synchronizes again. Only then is anything taken.
    func verifyUnflushed() {
        guard !flush.isRunning else { return }
        flush.begin(nil)
        flush.markUnverified(upTo: log.written)
        let start = log.flushed
        let work = logSynchronization(to: log.written)
        let outcome = FlushOutcome<SystemError>()
        let executor = executor
        let liveness = liveness
        background.submit(.flush) {
            do throws(SystemError) { try work.run() } catch { outcome.failure = error }
            executor { liveness.store?.verificationEnded(start, work, outcome.failure) }
        }
    }

    private func verificationEnded(_ start: PhysicalOffset, _ work: LogSynchronization, _ failure: SystemError?) {
        flush.end()
        guard isOpen else { return }
        if let failure {
            logger.error(
                """
                the commit log could not be written anew after a failed flush, tried again; no messages are taken \
                until then: \(failure)
                """
            )
            return
        }
        windows.reset()
        guard recordsAreIntact(from: start, to: min(work.target, log.dispatched)) else {
            closeGate(
                .notWritable(
                    remark:
                        """
                        the commit log lost bytes behind \(start) after a failed synchronization; restart the broker \
                        to recover what is left
                        """
                ))
            return
        }
        flush.noteVerified()
        logIsSynchronized(work)
    }

    /// Walks over whole records. `start` is where a flush ended, which on a slave may be inside a record.
    func recordsAreIntact(from start: PhysicalOffset, to end: PhysicalOffset) -> Bool {
        var position = start
        while position < end {
            guard let record = recordAt(position),
                record.isBlank || holdsRecord(at: position, size: record.size, configuration.recordCheckOnRecover)
            else {
                return configuration.isSlave && position == start
            }
            position = self.end(of: record, at: position)
        }
        return true
    }

    /// Whether a record of that size lies there and is what was written, as far as the check can show.
    func holdsRecord(at offset: PhysicalOffset, size: Int, _ check: RecordCheck) -> Bool {
        guard saysSize(size, at: offset) else { return false }
        return windows.withBytes(at: offset, size: size) { bytes in
            if case .record(let record) = CommitLogRecord.parse(bytes) {
                return record.physicalOffset == offset && record.totalSize == size
                    && record.damage(by: check) == nil && agreesWithChecksum(record)
            }
            return false
        } ?? false
    }

    /// Whether what lies there begins with that size. A damaged entry may name any: a gigabyte would be read for it.
    func saysSize(_ size: Int, at offset: PhysicalOffset) -> Bool {
        windows.withBytes(at: offset, size: 4) { bytes in
            Int(Int32(bigEndian: bytes.loadUnaligned(as: Int32.self))) == size
        } ?? false
    }
}

/// Makes pages dirty again by writing what is read.
func rewrite(_ file: any DiskFile, from start: Int64, to end: Int64) throws(SystemError) {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096)
    defer { buffer.deallocate() }
    var position = start
    while position < end {
        let part = UnsafeMutableRawBufferPointer(rebasing: buffer[0..<Int(min(Int64(buffer.count), end - position))])
        let got = try file.read(into: part, at: position)
        if got == 0 { break }
        try file.write(UnsafeRawBufferPointer(rebasing: part[0..<got]), at: position)
        position += Int64(got)
    }
}
