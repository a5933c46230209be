import LinuxSystem
import Logging
import MessageModel
package import StoreFormat

/// The record that stands for a message.
package struct StoredVersion: Equatable, Sendable {
    /// Where it begins.
    package let physicalOffset: PhysicalOffset
    /// Bytes of it.
    package let size: Int
    /// It is the mark that the message is deleted.
    package let isDeleted: Bool
}

/// Newer versions of messages. The log is only appended to, and queue entries stay. A record of its own kind
/// (`EditNote`) stands for the message at its place from then on.
extension MessageStore {
    /// Appends a newer version of the message at `offset` of a queue, in this tick. It stands for the message when the
    /// tick is written, for all who read it then; acknowledgements wait as for a message.
    /// - Parameters:
    ///   - draft: the version: topic and queue of the message, body (none for a deletion), properties with an
    ///     `EditNote`. Its transaction type and prepared transaction offset are set here.
    ///   - current: the version it replaces, as `currentVersion` gives it.
    ///   - deletes: the message is not delivered any more.
    package func replace(
        _ draft: MessageDraft, at offset: QueueOffset, replacing current: PhysicalOffset, deletes: Bool
    ) -> AppendOutcome {
        if let refusal = gate.refusal(mayUseReserve: draft.mayUseReserve) { return .refused(refusal) }
        if let refusal = refusalToReplace(
            topic: draft.topic, queueID: draft.queueID, at: offset, replacing: current)
        {
            return .refused(refusal)
        }
        guard let queue = table.find(draft.topic, draft.queueID) else { return .refused(.noSuchMessage(offset)) }
        var draft = draft
        draft.sysFlag |= SysFlag.transactionRollbackType
        draft.preparedTransactionOffset = current.rawValue
        let properties = storedProperties(draft.properties, draft.propertiesSuffix, draft)
        let growth = deletes ? 0 : draft.growth ?? 0
        if let refusal = checkSizes(draft, body: draft.body.count, properties: properties.count + growth) {
            return .refused(refusal)
        }
        let note =
            MessageProperties.value(of: PropertyName.edit, in: properties.second)
            ?? MessageProperties.value(of: PropertyName.edit, in: properties.first)
        precondition(
            note.flatMap { EditNote.deletes($0) } == deletes && (!deletes || draft.body.isEmpty),
            "a version brings a note that says whether it deletes the message")
        let sysFlag = familyFlags(draft)
        let size = CommitLogRecord.size(
            sysFlag: sysFlag, body: draft.body.count, topic: draft.topic.count, properties: properties.count)
        // As large as a waiting message may become when it is delivered under another topic.
        let largest = size + (draft.growth ?? 0) + CommitLogRecord.topicLengthMax - draft.topic.count
        guard Int64(largest + CommitLogRecord.blankSize) <= logFiles.fileSize else {
            return .refused(.messageTooLarge(limit: Int(logFiles.fileSize) - CommitLogRecord.blankSize))
        }
        let result = appendRecord(
            draft, sysFlag: sysFlag, size: size, queueOffset: offset, properties: properties)
        edits.noteAppended(queue, offset, at: result.physicalOffset, deletes: deletes)
        return .appended(result)
    }

    /// Why `replace` would not take a version of the message now, apart from its size and the disk; nil when it would.
    package func refusalToReplace(
        topic: UnsafeRawBufferPointer, queueID: Int32, at offset: QueueOffset, replacing current: PhysicalOffset
    ) -> AppendRefusal? {
        guard let queue = table.find(topic, queueID), let version = currentVersion(queue, at: offset),
            !version.isDeleted, edits.appended(queue, offset)?.isDeleted != true
        else { return .noSuchMessage(offset) }
        let present = edits.appended(queue, offset)?.physicalOffset ?? version.physicalOffset
        guard present == current else { return .editedMeanwhile(present: present) }
        if edits.total.versions + edits.appendedCount >= edits.total.versionsMax {
            removeFormerVersions()
            guard edits.total.versions + edits.appendedCount < edits.total.versionsMax else {
                return .tooManyEdits(limit: edits.total.versionsMax)
            }
        }
        return nil
    }

    /// The record that stands for a message: physical offset, size, whether deleted. Nil when the queue has no such
    /// entry, or it cannot be read, which is logged.
    package func currentVersion(_ queue: ConsumeQueue, at offset: QueueOffset) -> StoredVersion? {
        guard let first = firstEntry(queue, at: offset) else { return nil }
        guard let version = queue.edits?[offset] else {
            return StoredVersion(
                physicalOffset: first.physicalOffset, size: Int(first.recordSize), isDeleted: false)
        }
        return StoredVersion(
            physicalOffset: version.physicalOffset, size: Int(version.recordSize), isDeleted: version.isDeleted)
    }

    /// Where the message at an offset of a queue was stored first, whatever stands for it now. Its queue holds it as
    /// long as the log goes back to there. Nil when the queue has no such entry.
    package func firstPlace(_ queue: ConsumeQueue, at offset: QueueOffset) -> PhysicalOffset? {
        firstEntry(queue, at: offset)?.physicalOffset
    }

    /// The entry as it lies in the queue.
    private func firstEntry(_ queue: ConsumeQueue, at offset: QueueOffset) -> ConsumeQueueEntry? {
        do throws(SystemError) {
            guard let entry = try queueFiles.entry(queue, at: offset), entry != .preBlank, !entry.isEmpty else {
                return nil
            }
            return entry
        } catch {
            logger.error(
                """
                reading consume queue \(queue.topic)-\(queue.queueID) failed, its messages are not delivered \
                meanwhile: \(error)
                """
            )
            return nil
        }
    }

    /// Whether a record is what is delivered of its message: no version that was replaced, and no deletion.
    func standsForItself(_ record: CommitLogRecordView) -> Bool {
        let isEdit = record.isEdit
        guard isEdit || SysFlag.entersConsumeQueue(record.sysFlag),
            let queue = table.find(record.topic, record.queueID),
            let present = queue.edits?[record.queueOffset]
        else { return !isEdit }
        return present.physicalOffset == record.physicalOffset && !present.isDeleted
    }

    // MARK: - From the log

    /// Enters a newer version of a message, or a deletion.
    /// - Returns: whether the record is one.
    @inline(never)
    func dispatchEdit(_ record: CommitLogRecordView, _ tagsCode: Int64, _ mode: DispatchMode) -> Bool {
        guard let deletes = record.deletesMessage else { return false }
        guard !deleted.hides(record.topic, at: record.physicalOffset),
            let queue = table.find(record.topic, record.queueID)
        else { return true }
        enter(
            EditsState.Waiting(
                queue: queue, offset: record.queueOffset,
                version: QueueEdits.Version(
                    physicalOffset: record.physicalOffset, recordSize: Int32(truncatingIfNeeded: record.totalSize),
                    tagsCode: tagsCode, isDeleted: deletes),
                replaced: PhysicalOffset(record.preparedTransactionOffset)),
            mayWait: !mode.contains(.announce))
        return true
    }

    /// The replay has come to its end.
    func applyWaitingEdits() { applyWaitingEdits(.max) }

    /// A pass begins: some of those that wait for a queue that could not be read.
    func applySomeWaitingEdits() { applyWaitingEdits(Self.waitingPerPass) }

    /// Each may read a block of a disk.
    private static var waitingPerPass: Int { 64 }

    private func applyWaitingEdits(_ count: Int) {
        var hasFailed = false
        for edit in edits.takeWaiting(count) {
            // One that fails shows enough: a disk may take seconds to say so.
            if hasFailed {
                edits.wait(edit)
            } else {
                let before = edits.waiting.count
                enter(edit, mayWait: false)
                hasFailed = edits.waiting.count > before
            }
        }
        if !edits.queuesAreReadable, edits.waiting.isEmpty {
            edits.queuesAreReadable = true
            logger.notice("the newer versions of messages are entered that waited for queues to be readable")
        }
    }

    /// The background check has met a version in the log: a log that another release copied holds some that were never
    /// entered.
    /// - Returns: whether it was missing.
    func enterFound(
        topic: UnsafeRawBufferPointer, queueID: Int32, at offset: QueueOffset, _ version: QueueEdits.Version,
        replaced: PhysicalOffset
    ) -> Bool {
        guard !deleted.hides(topic, at: version.physicalOffset), let queue = table.find(topic, queueID),
            (queue.edits?[offset]).map({ $0.physicalOffset < version.physicalOffset }) ?? true
        else { return false }
        let before = edits.total.versions
        enter(
            EditsState.Waiting(queue: queue, offset: offset, version: version, replaced: replaced), mayWait: false)
        return edits.total.versions > before
    }

    /// Another message may have the offset by now: only what is newer than the entry can have been edited.
    private func enter(_ edit: EditsState.Waiting, mayWait: Bool) {
        let queue = edit.queue
        guard !queue.isRemoved, edit.offset >= queue.minOffset else { return }
        guard edit.offset < queue.maxOffset else {
            // Its entry waits for the queue's next record.
            if mayWait { edits.wait(edit) }
            return
        }
        var version = edit.version
        let entry: ConsumeQueueEntry?
        do throws(SystemError) {
            entry = try queueFiles.entry(queue, at: edit.offset)
        } catch {
            return wait(edit, error)
        }
        guard let first = entry, first != .preBlank, !first.isEmpty, first.physicalOffset <= edit.replaced,
            edit.replaced < version.physicalOffset
        else { return }
        if queue.storedTopic.isSchedule {
            // The time it is due: the queue is in the order of these.
            version = QueueEdits.Version(
                physicalOffset: version.physicalOffset, recordSize: version.recordSize, tagsCode: first.tagsCode,
                isDeleted: version.isDeleted)
        }
        enter(version, at: edit.offset, queue)
    }

    /// The queue cannot be read: its versions are entered when it can, and until then no recovery point counts.
    private func wait(_ edit: EditsState.Waiting, _ error: SystemError) {
        edits.wait(edit)
        guard edits.queuesAreReadable else { return }
        edits.queuesAreReadable = false
        logger.error(
            """
            reading consume queue \(edit.queue.topic)-\(edit.queue.queueID) failed: the newer version of message \
            \(edit.offset), and those of others, are entered when it can be read: \(error)
            """
        )
    }

    private func enter(_ version: QueueEdits.Version, at offset: QueueOffset, _ queue: ConsumeQueue) {
        let edits = queue.edits ?? QueueEdits(self.edits.total)
        guard edits.add(version, at: offset) else { return }
        if queue.edits == nil { queue.edits = edits } else { queue.editChanges += 1 }
    }

    // MARK: - The file

    var editFile: EditFile {
        EditFile(path: configuration.consumeQueuePath + "/" + EditFile.fileName, disk: disk)
    }

    private func removeFormerVersions() {
        for queue in table.queues { queue.edits?.removeFormer(below: log.flushed) }
    }

    /// Whether an edit has deleted a queue's message, or taken it to another time. Without edits it costs one look.
    package func isDeleted(_ queue: ConsumeQueue, at offset: QueueOffset) -> Bool {
        queue.edits?[offset]?.isDeleted == true
    }

    /// What the pass has to write of edits; nil when it is in the file.
    func beginEditsWork() -> EditsWork? {
        guard edits.isWriteDue else { return nil }
        removeFormerVersions()
        return EditsWork(
            editFile, sequence: edits.nextSequence, changes: edits.total.changes, covered: log.dispatched,
            queues: table.queues.compactMap { queue in
                queue.edits.map { (topic: queue.topic, queueID: queue.queueID, blocks: $0.blocks) }
            })
    }

    func endEditsWork(_ work: EditsWork) throws(SystemError) {
        if let failure = work.failure { throw failure }
        edits.noteWritten(work.sequence, changes: work.changes)
    }

    /// Takes over what the file holds of the part of the log a start trusts; what lies behind is dispatched again. The
    /// queues have been loaded.
    func loadEdits(_ plan: inout RecoveryPlan, first: PhysicalOffset) throws(StoreError) {
        let counted = plan.point?.edits ?? 0
        removeLeftover()
        let loaded = try onDisk { () throws(SystemError) in try editFile.load() }
        // The point was made by a release that knows no edits, or by a slave that has not met all of its log. Whatever
        // this broker is now, its log may have been copied from a master that made edits.
        if counted == 0 { edits.noteUnknown() }
        let table: EditFile.Table
        switch loaded {
        case .absent where counted == 0 || counted == EditFile.noFile: return
        case .absent: return readEditsFromLog("\(editFile.path) is missing", &plan, counted, first)
        case .damaged(let reason): return readEditsFromLog(reason, &plan, counted, first)
        case .table(let found): table = found
        }
        // RocketMQ wrote last, the file was put back from a copy, or a release that knows no edits made the point.
        let isOlder =
            counted == 0 || (table.sequence &- counted) & EditFile.sequenceMask > EditFile.sequenceMask / 2
        if plan.point == nil || isOlder {
            let covered = table.covered >= first && table.covered <= logFiles.end ? table.covered : first
            if covered < plan.dispatchFrom { plan.dispatchFrom = min(plan.dispatchFrom, replayStart(covered)) }
        }
        edits.noteLoaded(isOlder && counted != 0 && counted != EditFile.noFile ? counted : table.sequence)
        var isComplete = !isOlder
        for found in table.queues {
            let queue = found.topic.withUnsafeBytes { self.table.find($0, found.queueID) }
            for row in found.rows {
                let version = row.version
                guard let queue, version.physicalOffset >= first, version.end <= plan.dispatchFrom,
                    row.offset >= queue.minOffset, row.offset < queue.maxOffset,
                    !found.topic.withUnsafeBytes({ deleted.hides($0, at: version.physicalOffset) }),
                    plan.point != nil || isVersion(row, of: queue)
                else {
                    isComplete = false
                    continue
                }
                let before = edits.total.changes
                // A topic that RocketMQ deleted and made again has other messages there: newer ones.
                enter(
                    EditsState.Waiting(
                        queue: queue, offset: row.offset, version: version, replaced: version.physicalOffset - 1),
                    mayWait: false)
                if edits.total.changes == before { isComplete = false }
            }
        }
        edits.noteLoaded(edits.sequence)
        if !isComplete { edits.total.noteChange() }
    }

    private func removeLeftover() {
        do throws(SystemError) {
            try editFile.removeLeftover()
        } catch {
            logger.warning("what a kill left of writing \(editFile.path) stays until it is written again: \(error)")
        }
    }

    private func readEditsFromLog(
        _ reason: String, _ plan: inout RecoveryPlan, _ counted: Int32, _ first: PhysicalOffset
    ) {
        logger.warning("\(reason): which messages were edited is read from the commit log again")
        plan.dispatchFrom = first
        edits.noteLoaded(counted == EditFile.noFile ? 0 : counted)
        edits.total.noteChange()
    }

    /// Whether the version lies where the file says.
    private func isVersion(_ row: EditFile.Row, of queue: ConsumeQueue) -> Bool {
        windows.withBytes(at: row.version.physicalOffset, size: Int(row.version.recordSize)) { bytes in
            guard case .record(let record) = CommitLogRecord.parse(bytes) else { return false }
            return record.physicalOffset == row.version.physicalOffset && record.queueID == queue.queueID
                && record.queueOffset == row.offset && record.deletesMessage == row.version.isDeleted
                && MessageProperties.equal(record.topic, queue.storedTopic.bytes)
        } ?? false
    }
}
