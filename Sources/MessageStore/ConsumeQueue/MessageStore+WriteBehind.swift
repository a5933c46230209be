import LinuxSystem
import Logging
import StoreFormat

/// What is written behind the log, in passes. Tails of queues come first, then index and record checksums, then which
/// messages were edited, then the recovery point that covers them. The owner writes queues itself: a few bytes into
/// open files. The `writeBehind` thread makes files for new queues and writes index, checksums and edits, megabytes;
/// the pass waits for it.
extension MessageStore {
    /// At most this much of the log is dispatched again after a kill, and what is written during a pass.
    private static var passBytesMax: Int64 { 64 << 20 }
    /// Pages of index slots copied for one write: a megabyte.
    private static var indexPagesMax: Int { 256 }
    /// Files made with one hop to the other thread.
    private static var newFilesMax: Int { 256 }

    func writeBehind(_ now: Int64) {
        if !queuePass.isRunning {
            let due = queuePass.millisecondsSinceBegin(now) >= Int64(configuration.flushIntervalConsumeQueue)
            // By bytes too: what lies after the last pass is what a recovery reads again.
            let much = log.dispatched - queuePass.dispatched >= Self.passBytesMax
            guard due || much || checkpoint.isRequested else { return }
            beginPass(now)
        }
        guard !queuePass.isWaiting else { return }
        do throws(SystemError) {
            try markOwned()
            guard try writeSomeQueues(now) else { return }
            if let index, index.failure == nil, let job = index.beginWrite(maximumPages: Self.indexPagesMax) {
                return submitWriteBehind(job.write) { _ throws(SystemError) in
                    try job.file.endWrite(job.write)
                }
            }
            let end = queuePass.dispatched
            if let checksums, let job = checksums.beginWork(to: end, logFiles: logFiles.files) {
                return submitWriteBehind(job) { _ in checksums.end(job, to: end) }
            }
            if let work = beginEditsWork() {
                return submitWriteBehind(work) { store throws(SystemError) in try store.endEditsWork(work) }
            }
            queuePass.end()
            blanksLeft = Self.blanksPerPass
            var point = currentPoint(dispatched: queuePass.dispatched)
            if pagesMayBeLost { point.trust = .synchronizationFailed }
            if checkpoint.isRunning {
                checkpoint.deferPoint(point)
            } else {
                try recoveryPoint.writeSoft(point)
            }
            if checkpoint.isDue(now: now, dispatched: queuePass.dispatched, configuration) { beginCheckpoint(now) }
        } catch {
            passFailed(error)
        }
    }

    private func beginPass(_ now: Int64) {
        fillWaitingGaps()
        queuePass.begin(now: now, dispatched: log.dispatched, dirty: dirtyQueues)
        dirtyQueues = []
        index?.apply()
        index?.beginPass()
        checksums?.beginPass()
        if !edits.waiting.isEmpty { applySomeWaitingEdits() }
        edits.beginPass()
    }

    /// Nothing is lost: what was not written stays dirty, the recovery point stays where it was.
    private func passFailed(_ error: SystemError) {
        dirtyQueues += queuePass.abandon().filter { !$0.isRemoved }
        if gate.isOpen { closeGate(for: error) }
    }

    /// True when the queues of the pass are written.
    private func writeSomeQueues(_ now: Int64) throws(SystemError) -> Bool {
        var budget = 512
        var withoutFile: [ConsumeQueue] = []
        while budget > 0, withoutFile.count < Self.newFilesMax, let queue = queuePass.nextQueue() {
            budget -= 1
            if budget % 8 == 0, clock() - now >= 2 { budget = 0 }
            queue.isDirty = false
            if queue.isRemoved { continue }
            if queueFiles.needsFile(queue) {
                withoutFile.append(queue)
                continue
            }
            do throws(SystemError) {
                try queueFiles.write(queue)
            } catch {
                markDirty(queue)
                for queue in withoutFile { markDirty(queue) }
                throw error
            }
            queuePass.noteWritten(queue)
        }
        guard !withoutFile.isEmpty else { return !queuePass.hasQueues }
        queuePass.waitForFiles(withoutFile)
        moveRemovedFolders(isUrgent: true)
        let job = queueFiles.makeFiles(for: withoutFile)
        submitWriteBehind(job) { store throws(SystemError) in
            let withoutFile = store.queuePass.takeWaiting()
            do throws(SystemError) {
                try store.queueFiles.adopt(job)
            } catch {
                for queue in withoutFile where !queue.isRemoved { store.markDirty(queue) }
                throw error
            }
            store.queuePass.add(withoutFile)
        }
        return false
    }

    /// Has the `writeBehind` thread do it, takes over the result, and goes on with the pass.
    private func submitWriteBehind(
        _ job: JoinableWork, _ done: @escaping QueuePass.Completion
    ) {
        queuePass.wait(done)
        let executor = executor
        let liveness = liveness
        background.submit(.writeBehind) {
            job.join()
            executor { liveness.store?.writeBehindEnded() }
        }
    }

    private func writeBehindEnded() {
        guard let done = queuePass.resume() else { return }
        guard isOpen else { return }
        do throws(SystemError) {
            try done(self)
        } catch {
            return passFailed(error)
        }
        writeBehind(clock())
    }

    /// For the end: everything, by the owner itself. The threads have ended.
    func writeEverything() throws(SystemError) {
        try markOwned()
        for queue in dirtyQueues + queuePass.close() where !queue.isRemoved { try queueFiles.write(queue) }
        dirtyQueues = []
        index?.apply()
        // A pass that was under way ends with the header it began with: only then comes the last one.
        while let index, index.hasUnwritten { _ = try index.write(maximumPages: .max) }
        checksums?.beginPass()
        while let checksums, let job = checksums.beginWork(to: log.dispatched, logFiles: logFiles.files) {
            job.join()
            checksums.end(job, to: log.dispatched)
        }
        edits.beginPass()
        if let work = beginEditsWork() {
            work.join()
            try endEditsWork(work)
        }
    }
}
