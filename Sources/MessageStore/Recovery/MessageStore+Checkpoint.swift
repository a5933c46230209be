import LinuxSystem
import Logging
import MessageModel
import StoreFormat

/// Recovery points and checkpoints: from where on the next start reads the log again.
extension MessageStore {
    // MARK: - Recovery points

    /// A synchronization has failed and what it was for has not been written again yet.
    var pagesMayBeLost: Bool { flush.isBroken || checkpoint.filesMayBeLost }

    /// Notes for the next process, should this one be killed now, that written pages prove nothing.
    func noteFailedSynchronization() {
        _ = checkpoint.takeDeferredPoint()
        var point = currentPoint(dispatched: PhysicalOffset(0))
        point.trust = .synchronizationFailed
        do throws(SystemError) {
            try recoveryPoint.writeSoft(point)
        } catch {
            logger.error(
                """
                the failed synchronization could not be noted in the recovery point: if this process is killed now, \
                the next start may trust pages that are lost: \(error)
                """
            )
        }
    }

    func currentPoint(dispatched: PhysicalOffset) -> RecoveryPoint {
        var point = RecoveryPoint()
        point.boot = bootIdentity
        point.flushed = log.flushed
        point.edits = edits.pointSequence
        // Keys that never got into the index, and versions that are in no overlay, must be dispatched again.
        let isComplete = index?.failure == nil && !edits.isIncomplete
        point.dispatched = isComplete ? dispatched : PhysicalOffset(0)
        var entries: Int64 = 0
        var count: Int64 = 0
        for queue in table.queues where queue.lastFile >= queue.firstFile {
            count += 1
            entries = entries +| queue.writtenOffset.rawValue
        }
        point.queues = count
        point.entries = entries
        if let last = index?.files.last {
            point.indexName = Int64(last.name) ?? 0
            point.indexHeader = last.writtenHeader
        }
        return point
    }

    // MARK: - Checkpoints

    func beginCheckpoint(_ now: Int64) {
        guard !checkpoint.isRunning, !flush.isBroken, !flush.isRunning else { return }
        checkpoint.noteAttempt(now: now, dispatched: queuePass.dispatched)
        // It is not known which files a failed synchronization may have lost, so this process makes no checkpoint any
        // more.
        if checkpoint.anyFileIsUnverified { return }
        do throws(SystemError) {
            try noteCheckpointUnderWay()
        } catch {
            checkpoint.request()
            logger.error("checkpoint failed, tried again; a start until then reads more of the log: \(error)")
            return
        }
        checkpoint.begin()
        let work: Checkpoint
        do throws(SystemError) {
            work = try makeCheckpoint(dispatched: queuePass.dispatched)
        } catch {
            checkpoint.abandon()
            queueFiles.touchEverything()
            logger.error("checkpoint failed, the next one synchronizes all files: \(error)")
            noteFailedSynchronization()
            return
        }
        let outcome = FlushOutcome<Checkpoint.Failure>()
        checkpoint.submit(work, outcome)
        let executor = executor
        let liveness = liveness
        background.submit(.flush) {
            outcome.failure = work.run()
            executor { liveness.store?.checkpointEnded() }
        }
    }

    /// Notes for the next process, should this one be killed before the checkpoint's outcome is known, that a
    /// synchronization may have failed. The hard point at the checkpoint's end is newer.
    func noteCheckpointUnderWay() throws(SystemError) {
        var point = currentPoint(dispatched: PhysicalOffset(0))
        point.trust = .checkpointUnderWay
        try recoveryPoint.writeSoft(point)
    }

    private func checkpointEnded() {
        if isOpen { takeOverCheckpoint() }
    }

    /// Takes over how the checkpoint ended that was begun last.
    func takeOverCheckpoint() {
        guard let (work, result) = checkpoint.end() else { return }
        guard let failure = result else {
            recoveryPoint.hardWritten()
            if !flush.isBroken { logIsSynchronized(work.log) }
            writeDeferredPoint()
            return
        }
        checkpoint.request()
        switch failure {
        case .log(let error):
            flushFailure(error)
        case .other(let error):
            logger.error("checkpoint failed, tried again; a start until then reads more of the log: \(error)")
        }
        // After a failed synchronization the kernel may call pages clean that are lost: only writing them again helps.
        checkpoint.noteUnverified(work.queues.map { $0 + work.indexes + work.checksums })
        if work.queues == nil {
            logger.error(
                """
                no more checkpoints until the broker restarts: a synchronization of the whole filesystem failed; the \
                next start reads more of the log
                """
            )
        }
        noteFailedSynchronization()
    }

    private func writeDeferredPoint() {
        guard var point = checkpoint.takeDeferredPoint() else { return }
        point.flushed = log.flushed
        do throws(SystemError) {
            try recoveryPoint.writeSoft(point)
        } catch {
            // The hard point is newer than what lies there, so it counts.
            logger.warning("writing the recovery point failed, written with the next pass: \(error)")
        }
    }

    /// Everything a recovery point covers.
    func makeCheckpoint(dispatched: PhysicalOffset) throws(SystemError) -> Checkpoint {
        let work = logSynchronization(to: log.written)
        var layout = StoreCheckpointLayout()
        // Of a first message that could not be written there is a time and no message: a start would miss the log.
        let newest = log.written > PhysicalOffset(0) ? lastStoreTimestamp : 0
        layout.physicMsgTimestamp = newest
        layout.logicsMsgTimestamp = newest
        layout.indexMsgTimestamp = index?.fullFileTimestamp ?? 0
        let file = try disk.open(checkpointPath, .create)
        var made = currentPoint(dispatched: dispatched)
        made.flushed = work.target
        let point = try recoveryPoint.hardWrite(made)
        let unverified = checkpoint.takeUnverified()
        let queues = queueFiles.takeTouched().map { $0 + unverified }
        return Checkpoint(
            disk: disk, configuration: configuration, log: work, queues: queues, indexes: index?.takeTouched() ?? [],
            checksums: checksums?.takeTouched() ?? [], unverified: unverified, checkpoint: layout.encoded(),
            checkpointFile: file,
            writePoint: point)
    }

    // MARK: - Coming back after an error
}
