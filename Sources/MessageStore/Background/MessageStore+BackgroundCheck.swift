import LinuxSystem
import Logging
import StoreFormat

/// A start trusts the older part of the log, so that its time does not depend on the store's size. The background check
/// looks at that part afterwards, on a thread of its own: at most `backgroundCheckBytesPerSecond`, a slice with each
/// maintenance call. Damaged messages are reported; reads compare their bodies anyway and do not deliver them. Queue
/// entries that contradict the log are repaired from it.
extension MessageStore {
    func beginCheck() {
        guard let first = logFiles.first, recoveredFrom > first else { return edits.noteSearched() }
        guard configuration.backgroundCheckBytesPerSecond > 0 else { return }
        let now = clock()
        state.position = first
        state.start = first
        state.cleanEnd = first
        state.end = recoveredFrom
        state.startedAt = now
        state.reportedAt = now
        var indexFiles: (layout: IndexLayout, files: [(file: any DiskFile, count: Int32)])?
        if let index, index.failure == nil {
            indexFiles = (index.layout, index.files.map { ($0.diskFile, $0.writtenHeader.indexCount) })
        }
        state.check = LogCheck(
            disk: disk, fileSize: logFiles.fileSize, queueDirectory: configuration.consumeQueuePath,
            entriesPerFile: configuration.entriesPerConsumeQueueFile, recordCheck: configuration.recordCheck,
            checksums: checksums?.makeReader(), index: indexFiles)
        logger.info("background check of the log begins", metadata: ["from": "\(first)", "to": "\(state.end)"])
    }

    private var state: CheckState {
        get { checkState }
        _modify { yield &checkState }
    }

    /// A slice, about ten times a second.
    func checkSome() {
        guard let check = state.check, !state.isRunning else { return }
        guard state.foundEdits.isEmpty else { return enterSomeFound() }
        state.position = max(state.position, logFiles.first ?? state.end)
        guard state.position < state.end else { return endCheck() }
        state.isRunning = true
        let start = state.position
        let end = state.end
        let budget = Int64(configuration.backgroundCheckBytesPerSecond / 10)
        let files = logFiles.files
        let executor = executor
        let liveness = liveness
        background.submit(.check) {
            let findings = check.run(from: start, to: end, budget: max(budget, 1), files: files)
            executor { liveness.store?.checked(from: start, findings) }
        }
    }

    private func checked(from start: PhysicalOffset, _ findings: LogCheckFindings) {
        state.isRunning = false
        guard isOpen, state.check != nil else { return }
        // What was deleted meanwhile is no finding.
        let first = logFiles.first ?? .max
        state.records += findings.records
        report(findings, first: first)
        state.foundEdits = findings.edits[...]
        enterSomeFound()
        for wrong in findings.wrongEntries where wrong.entry.physicalOffset >= first { repair(wrong) }
        if findings.unindexedCount > 0 {
            if state.unindexed == 0, let first = findings.firstUnindexed {
                logger.error(
                    """
                    the index lacks keys of the message at \(first) and perhaps of others: they are not found by key; \
                    stop the broker, delete \(configuration.indexPath) and start it to have it made anew
                    """
                )
            }
            state.unindexed += findings.unindexedCount
        }
        if state.damaged == 0 { state.cleanEnd = findings.next }
        if let failure = findings.failure {
            if !state.readFailed {
                logger.error("checking the log at \(findings.next) failed, tried again: \(failure)")
            }
            state.readFailed = true
        } else {
            state.readFailed = false
        }
        state.position = findings.next
        let now = clock()
        if now - state.reportedAt >= 60_000 {
            state.reportedAt = now
            logger.info("background check of the log", metadata: ["at": "\(state.position)", "to": "\(state.end)"])
        }
        if state.position >= state.end, state.foundEdits.isEmpty { endCheck() }
    }

    /// Versions no overlay has: an older release copied them from its master, or RocketMQ did. Each may read a block of
    /// a queue.
    private func enterSomeFound() {
        let first = logFiles.first ?? .max
        let some = state.foundEdits.prefix(LogCheckFindings.editsMax)
        state.foundEdits = state.foundEdits.dropFirst(LogCheckFindings.editsMax)
        for edit in some where edit.version.physicalOffset >= first {
            let isNew = edit.topic.withUnsafeBytes {
                enterFound(
                    topic: $0, queueID: edit.queueID, at: edit.offset, edit.version, replaced: edit.replaced)
            }
            if isNew { state.enteredEdits += 1 }
        }
    }

    private func report(_ findings: LogCheckFindings, first: PhysicalOffset) {
        guard findings.damagedCount > 0 else { return }
        var reported = 0
        for (offset, damage) in findings.damages where offset >= first {
            if reported < 10 { logger.error("commit log at \(offset): \(damage); what lies there is not delivered") }
            reported += 1
        }
        guard reported > 0 else { return }
        let count = findings.damagedCount - (findings.damages.count - reported)
        if count > 10 { logger.error("\(count - 10) more damaged ranges in the same part of the log") }
        state.damaged += count
    }

    /// A queue's entry contradicts the log. The log is right, if the entry's neighbours agree.
    private func repair(_ wrong: LogCheckFindings.WrongEntry) {
        guard let queue = consumeQueue(topic: wrong.topic, queueID: wrong.queueID) else { return }
        let offset = wrong.queueOffset
        let physical = wrong.entry.physicalOffset
        let name = "\(wrong.topic)-\(wrong.queueID)"
        // Deleted with its topic; the queue is that of the topic made again.
        var topic = wrong.topic
        guard !topic.withUTF8({ deleted.hides(UnsafeRawBufferPointer($0), at: physical) }) else { return }
        // A queue without files has had no message: a consumer that waits for the first one made it. RocketMQ does not
        // note which topics it deleted.
        guard queue.maxOffset > QueueOffset(0) || queue.lastFile >= queue.firstFile else { return }
        guard offset >= queue.minOffset else { return }
        do throws(SystemError) {
            guard offset < queue.maxOffset else {
                // A topic made again has a shorter queue and newer messages.
                guard queue.lastPhysicalOffset < physical else { return }
                state.notRepaired += 1
                logger.error(
                    """
                    the queue \(name) ends at \(queue.maxOffset), but the log has its message \(offset) at \
                    \(physical): stop the broker, delete \(configuration.consumeQueuePath) and start it to have the \
                    queues made anew
                    """
                )
                return
            }
            let current = try queueFiles.entry(queue, at: offset)
            if current == wrong.entry { return }
            // Another message has the offset. A later one: the queue began again before it, and its producer was
            // answered this offset. An earlier one: this message's own offset or queue is a damaged number.
            if let current, current.physicalOffset != physical,
                belongs(current.physicalOffset, Int(current.recordSize), queue, offset)
            {
                return
            }
            if offset > queue.minOffset,
                let before = try queueFiles.entry(queue, at: offset - 1), before != .preBlank, !before.isEmpty,
                before.physicalOffset >= physical
            {
                return
            }
            if let after = try queueFiles.entry(queue, at: offset + 1), !after.isEmpty,
                after.physicalOffset <= physical
            {
                return
            }
            try queueFiles.overwrite(queue, at: offset, wrong.entry)
            if offset == queue.minOffset { queue.firstPhysicalOffset = physical }
            state.repaired += 1
            if state.repaired <= 100 {
                logger.error(
                    """
                    entry \(offset) of the queue \(name) did not point at its message at \(physical): repaired from \
                    the log
                    """
                )
            }
        } catch {
            state.notRepaired += 1
            logger.error(
                """
                entry \(offset) of the queue \(name) is wrong and could not be repaired, its message is not delivered: \
                \(error); stop the broker, delete \(configuration.consumeQueuePath) and start it to have the queues \
                made anew
                """
            )
        }
    }

    private func endCheck() {
        guard state.check != nil else { return }
        state.check = nil
        edits.noteSearched()
        let level: Logger.Level =
            state.damaged + state.notRepaired + state.repaired + state.unindexed > 0 ? .error : .notice
        logger.log(
            level: level, "background check of the log has ended",
            metadata: [
                "records": "\(state.records)", "bytes": "\(state.end - state.start)",
                "milliseconds": "\(clock() - state.startedAt)", "damaged": "\(state.damaged)",
                "repaired_entries": "\(state.repaired)", "wrong_entries": "\(state.notRepaired)",
                "unindexed": "\(state.unindexed)", "entered_edits": "\(state.enteredEdits)",
            ])
    }
}
