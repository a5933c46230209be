import LinuxSystem
import Logging
import StoreFormat
import StoreReader

extension MessageStore {
    /// Writes and synchronizes everything, removes `abort`, releases the lock. When something cannot be made durable it
    /// throws, and `abort` stays: the next start is one after a kill.
    /// - Throws: what could not be made durable.
    package func close() throws(StoreError) {
        guard isOpen else { return }
        if !hot.isEmpty { try commitTick() }
        isOpen = false
        background.stop()
        defer {
            windows.reset()
            logFiles.closeAll()
            recoveryPoint.close()
            lockFile = nil
        }
        try takeOverFlushes()
        cleanTail()
        if gate.tailIsDirty || flush.isBroken {
            throw .notWritable(reason: "a failed write could not be undone; the next start does that")
        }
        finishRemovals()
        decideWithoutNext()
        try onDisk { () throws(SystemError) in
            try writeEverything()
            try noteCheckpointUnderWay()
            if let failure = try makeCheckpoint(dispatched: log.dispatched).run() { throw failure.error }
            recoveryPoint.hardWritten()
            log.flush(to: log.written)
            try disk.remove(abortPath)
            try disk.synchronizeDirectory(configuration.storePathRootDir)
        }
    }

    /// The `flush` thread has ended; what it met last may not have been taken over. After a failed synchronization only
    /// what is written again is durable.
    private func takeOverFlushes() throws(StoreError) {
        takeOverCheckpoint()
        if let failure = flush.end() { flushFailure(failure) }
        if flush.isBroken {
            flush.markUnverified(upTo: log.written)
            let from = log.flushed
            try onDisk { () throws(SystemError) in try logSynchronization(to: log.written).run() }
            windows.reset()
            guard recordsAreIntact(from: from, to: log.dispatched) else {
                throw .damaged(
                    path: configuration.commitLogPath,
                    reason: "bytes behind \(from) were lost after a failed synchronization")
            }
            flush.noteVerified()
        }
        if checkpoint.anyFileIsUnverified {
            noteFailedSynchronization()
            throw .notWritable(
                reason:
                    """
                    a synchronization of the filesystem of \(configuration.storePathRootDir) had failed; the next \
                    start makes its queues durable again
                    """
            )
        }
    }

    /// Releases everything without writing anything, as a kill would: for tests that go on in the same process.
    func abandon() {
        isOpen = false
        background.stop()
        windows.reset()
        logFiles.closeAll()
        recoveryPoint.close()
        lockFile = nil
    }
}
