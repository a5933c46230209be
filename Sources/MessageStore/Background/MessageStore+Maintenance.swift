import Glibc
import LinuxSystem
import Logging
import StoreFormat
import StoreReader

/// What the background work remembers between calls.
struct MaintenanceState {
    var lastCheckpoint: Int64 = 0
    var checkpointDispatched = PhysicalOffset(0)
    var checkpointRunning = false
    /// The checkpoint that is running.
    var checkpoint: (work: Checkpoint, outcome: FlushOutcome<Checkpoint.Failure>)?
    /// The soft recovery point a pass made while a checkpoint was running: written when that has ended, because until then the word lies there that
    /// it has not.
    var heldPoint: RecoveryPoint?
    /// A pass and a checkpoint are due without waiting for their time.
    var recoveryPointDue = false
    var lastRelease: Int64 = 0
    var lastCleaning: Int64 = 0
    var reportedDamage: PhysicalOffset?
    /// Queues that are still to be shortened to what the log holds; then all of them once more if the log has moved meanwhile.
    var expiring: [ConsumeQueue] = []
    var expiresAgain = false
    /// Unexpired messages that a full disk has cost; reported when all queues have been shortened.
    var forced: ForcedDeletion?
    /// An operator wants expired files deleted at this hour too.
    var isDeletionWished = false
    /// Base of the log file retention would have deleted had nobody needed it.
    var heldAt: PhysicalOffset?
    /// The last one that was said about.
    var lastHeld: PhysicalOffset?
    /// Files whose synchronization failed: written again by the next checkpoint.
    var suspects: [any DiskFile] = []
    var suspectsUnknown = false
    /// Sums could not be read; said once.
    var saidSumFailure = false

    mutating func begin(now: Int64, dispatched: PhysicalOffset) {
        lastCheckpoint = now
        lastRelease = now
        checkpointDispatched = dispatched
    }
}

extension MessageStore {
    /// Bounded background work: tails of consume queues, index, recovery points, flushing, retention, release of mapped windows. The owner calls it
    /// about every 100 ms; a call takes a few milliseconds at most.
    package func runMaintenance() {
        guard isOpen else { return }
        let now = clock()
        flushIfDue(now)
        if gate.isRetryDue(now: now) { retryWriting() }
        writeBehind(now)
        cleanIfDue(now)
        checkSome()
        if now - maintenance.lastRelease >= 1000 {
            maintenance.lastRelease = now
            windows.release()
            index?.idle()
        }
    }

    // MARK: Recovery point

    /// A synchronization has failed and what it was for has not been written again yet.
    var pagesMayBeLost: Bool { flush.isBroken || maintenance.suspectsUnknown || !maintenance.suspects.isEmpty }

    /// Tells the next process, should this one be killed now, that written pages prove nothing.
    func noteDistrust() {
        maintenance.heldPoint = nil
        var point = currentPoint(dispatched: PhysicalOffset(0))
        point.doubt = .synchronizationFailed
        do throws(SystemError) {
            try recoveryPoint.writeSoft(point)
        } catch {
            logger.error("noting down the failed synchronization failed too: \(error)")
        }
    }

    func currentPoint(dispatched: PhysicalOffset) -> RecoveryPoint {
        var point = RecoveryPoint()
        point.boot = bootIdentity
        point.flushed = log.flushed
        // Keys that never got into the index must be dispatched again.
        point.dispatched = index?.failure == nil ? dispatched : PhysicalOffset(0)
        var entries: Int64 = 0
        var count: Int64 = 0
        for queue in table.queues where queue.lastFile >= queue.firstFile {
            count += 1
            entries += queue.writtenOffset
        }
        point.queues = count
        point.entries = entries
        if let last = index?.files.last {
            point.indexName = Int64(last.name) ?? 0
            point.indexHeader = last.writtenHeader
        }
        return point
    }

    // MARK: Checkpoints

    func beginCheckpoint(_ now: Int64) {
        guard !maintenance.checkpointRunning, !flush.isBroken, !flush.isRunning else { return }
        maintenance.recoveryPointDue = false
        maintenance.lastCheckpoint = now
        maintenance.checkpointDispatched = queuePass.dispatched
        // Without knowing which files a failed synchronization may have lost, none can be vouched for in this life of the process.
        if maintenance.suspectsUnknown { return }
        do throws(SystemError) {
            try noteCheckpoint()
        } catch {
            maintenance.recoveryPointDue = true
            logger.error("checkpoint failed, tried again: \(error)")
            return
        }
        maintenance.checkpointRunning = true
        let checkpoint: Checkpoint
        do throws(SystemError) {
            checkpoint = try makeCheckpoint(dispatched: queuePass.dispatched)
        } catch {
            maintenance.checkpointRunning = false
            queueFiles.touchEverything()
            maintenance.suspectsUnknown = true
            logger.error("checkpoint failed: \(error)")
            noteDistrust()
            return
        }
        let outcome = FlushOutcome<Checkpoint.Failure>()
        maintenance.checkpoint = (checkpoint, outcome)
        let executor = executor
        let liveness = liveness
        background.submit(.flush) {
            outcome.failure = checkpoint.run()
            executor { liveness.store?.checkpointEnded() }
        }
    }

    /// Tells the next process, should this one be killed before it hears how the checkpoint ended, that a synchronization may have failed. The hard
    /// point at the checkpoint's end is newer.
    func noteCheckpoint() throws(SystemError) {
        var point = currentPoint(dispatched: PhysicalOffset(0))
        point.doubt = .checkpointUnderWay
        try recoveryPoint.writeSoft(point)
    }

    private func checkpointEnded() {
        if isOpen { hearOfCheckpoint() }
    }

    /// Takes over how the checkpoint ended that was begun last.
    func hearOfCheckpoint() {
        guard let (checkpoint, outcome) = maintenance.checkpoint else { return }
        maintenance.checkpoint = nil
        maintenance.checkpointRunning = false
        guard let failure = outcome.failure else {
            recoveryPoint.hardWritten()
            if !flush.isBroken { logIsSynchronized(checkpoint.log) }
            writeHeldPoint()
            return
        }
        maintenance.recoveryPointDue = true
        switch failure {
        case .log(let error):
            flushFailure(error)
        case .other(let error):
            logger.error("checkpoint failed, tried again: \(error)")
        }
        // After a failed synchronization the kernel may call pages clean that are lost: only writing them again helps.
        if let queues = checkpoint.queues {
            maintenance.suspects = queues + checkpoint.indexes + checkpoint.sums
        } else {
            maintenance.suspectsUnknown = true
            logger.error(
                "no more checkpoints until the broker restarts: a synchronization of the whole filesystem failed")
        }
        noteDistrust()
    }

    private func writeHeldPoint() {
        guard var point = maintenance.heldPoint else { return }
        maintenance.heldPoint = nil
        point.flushed = log.flushed
        do throws(SystemError) {
            try recoveryPoint.writeSoft(point)
        } catch {
            // The hard point is newer than what lies there, so it counts.
            logger.warning("writing the recovery point failed, written with the next pass: \(error)")
        }
    }

    /// Everything a recovery point vouches for.
    func makeCheckpoint(dispatched: PhysicalOffset) throws(SystemError) -> Checkpoint {
        let work = logSynchronization(to: log.written)
        var layout = StoreCheckpointLayout()
        layout.physicMsgTimestamp = lastStoreTimestamp
        layout.logicsMsgTimestamp = lastStoreTimestamp
        layout.indexMsgTimestamp = index?.fullFileTimestamp ?? 0
        let file = try disk.open(checkpointPath, .create)
        var made = currentPoint(dispatched: dispatched)
        made.flushed = work.target
        let point = try recoveryPoint.hardWrite(made)
        let suspects = maintenance.suspects
        maintenance.suspects = []
        let queues = queueFiles.takeTouched().map { $0 + suspects }
        return Checkpoint(
            disk: disk, configuration: configuration, log: work, queues: queues, indexes: index?.takeTouched() ?? [],
            sums: sums?.takeTouched() ?? [], suspects: suspects, checkpoint: layout.encoded(), checkpointFile: file,
            writePoint: point)
    }

    // MARK: Coming back after an error
}
