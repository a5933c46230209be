import Glibc
import LinuxSystem
import Logging
import StoreFormat
import StoreReader

extension MessageStore {
    /// Writes all that was appended since the last call, one `pwrite` per file, and dispatches it. When it throws
    /// nothing of it is in the log and the queue offsets are rolled back: everything appended since the last call has
    /// failed.
    /// - Throws: `disk` when writing failed.
    package func commitTick() throws(StoreError) {
        guard !hot.isEmpty else { return }
        precondition(isOpen, "commitTick on a store that is not open")
        precondition(!gate.tailIsDirty, "nothing is written behind a dirty tail")
        do throws(SystemError) {
            for chunk in hot.chunks {
                let base = logFiles.base(of: chunk.start)
                if let file = logFiles.file(base: base) {
                    try file.write(hot.bytes(of: chunk), at: chunk.start - base)
                } else {
                    try logFiles.append(base: base).write(hot.bytes(of: chunk), at: chunk.start - base)
                }
            }
        } catch {
            rollback()
            closeGate(for: error)
            throw .disk(error)
        }
        log.commit()
        endTick()
        for chunk in hot.chunks { dispatchChunk(chunk) }
        hot.removeAll()
        if log.dispatched < log.written { _ = dispatchWindows(upTo: log.written, .announce) }
        prepareAhead()
        startWriteback()
        events.written(log.written)
        if configuration.flushDiskType == .syncFlush { requestFlush() }
    }

    private func endTick() {
        tickNumber += 1
        edits.endTick()
        tickQueues.removeAll(keepingCapacity: true)
    }

    /// Dispatches a chunk straight from the buffer when it begins where dispatch stands; what is left is read back from
    /// the file.
    private func dispatchChunk(_ chunk: HotBuffer.Chunk) {
        guard chunk.start == log.dispatched else { return }
        let result = dispatch(hot.bytes(of: chunk), at: chunk.start, .announce)
        log.dispatch(to: chunk.start + Int64(result.used))
        switch result.stop {
        case .end, .needMore: break
        case .fileEnd:
            // A slave may have the blank record and not yet the zeros after it.
            let fileEnd = logFiles.base(of: log.dispatched) + logFiles.fileSize
            if fileEnd <= log.written { log.dispatch(to: fileEnd) }
        case .damaged(let damage): reportDamage(damage)
        }
    }

    func reportDamage(_ damage: CommitLogDamage) {
        guard reported.isNew(damageAt: log.dispatched) else { return }
        logger.error("commit log at \(log.dispatched): \(damage); messages from there on reach no queue")
    }

    // MARK: - When writing fails

    /// Forgets this tick: buffer, queue offsets, and whatever part of it reached the disk.
    private func rollback() {
        for queue in tickQueues where queue.tickNumber == tickNumber { queue.nextOffset = queue.rollbackOffset }
        endTick()
        hot.removeAll()
        log.rollBack()
        gate.noteDirtyTail()
        cleanTail()
    }

    // MARK: - Preparing the next file

    /// Reserves blocks ahead of the log's end and makes the next file before it is needed, on the preparing thread.
    func prepareAhead() {
        guard configuration.allocateAheadBytes > 0 else { return }
        let ahead = Int64(configuration.allocateAheadBytes)
        guard let last = logFiles.files.last else { return }
        let fileEnd = last.base + logFiles.fileSize
        if !reservation.isRunning, reservation.end < fileEnd, log.written + ahead / 2 > reservation.end {
            allocate(
                last.file, base: last.base, from: max(reservation.end, last.base), to: min(fileEnd, log.written + ahead)
            )
        }
        // From the middle of a file on: making the next one may take long on a busy disk, and the tick that needs it
        // waits.
        if log.written + logFiles.fileSize / 2 > fileEnd, logFiles.preparer.begin(base: fileEnd) {
            let preparer = logFiles.preparer
            let path = logFiles.path(base: fileEnd)
            let size = logFiles.fileSize
            let disk = disk
            let logger = logger
            background.submit(.prepare) {
                do throws(SystemError) {
                    let file = try CommitLogFiles.create(path, size: size, allocate: min(ahead, size), disk: disk)
                    preparer.finish(base: fileEnd, file: file)
                } catch {
                    preparer.finish(base: fileEnd, file: nil)
                    logger.warning(
                        """
                        the next commit log file could not be made ahead, sends wait for it when it is needed: \
                        \(error)
                        """
                    )
                }
            }
        }
    }

    private func allocate(
        _ file: any DiskFile, base: PhysicalOffset, from start: PhysicalOffset, to end: PhysicalOffset
    ) {
        guard end > start else { return }
        reservation.begin()
        let executor = executor
        let liveness = liveness
        background.submit(.prepare) {
            var failure: SystemError?
            do throws(SystemError) { _ = try file.allocate(from: start - base, length: end - start) } catch {
                failure = error
            }
            let result = failure
            executor { liveness.store?.allocationEnded(end, result) }
        }
    }

    private func allocationEnded(_ end: PhysicalOffset, _ failure: SystemError?) {
        guard isOpen else { return reservation.abandon() }
        guard let failure else { return reservation.end(end) }
        // There is still room for what was reserved before; the gate closes now, before a write fails.
        reservation.end(log.written + Int64(configuration.allocateAheadBytes) / 2)
        if gate.isOpen, failure.errno == ENOSPC || failure.errno == EDQUOT { closeGate(for: failure) }
    }
}
