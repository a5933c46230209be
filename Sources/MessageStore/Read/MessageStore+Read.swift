import LinuxSystem
import Logging
import MessageModel
package import StoreFormat
import StoreReader

extension MessageStore {
    /// Chooses messages by RocketMQ's rules (`DefaultMessageStore.getMessage`) without touching their bytes, but for
    /// messages from before the last start, whose bodies are checked. Adjacent ones become one range.
    /// - Parameters:
    ///   - maxBytes: ends the answer before a message that would exceed it, unless it is the first.
    ///   - tagsCodes: only messages whose code is among them; nil for all.
    ///   - ranges: emptied, then filled.
    package func selectMessages(
        topic: UnsafeRawBufferPointer, queueID: Int32, from offset: QueueOffset, maxCount: Int, maxBytes: Int = .max,
        tagsCodes: [Int64]? = nil, into ranges: inout [LogRange]
    ) -> GetMessageResult {
        ranges.removeAll(keepingCapacity: true)
        guard let queue = table.find(topic, queueID) else {
            return result(.noMatchedLogicQueue, next: correct(offset, to: QueueOffset(0)), nil)
        }
        return selectMessages(
            queue, from: offset, maxCount: maxCount, maxBytes: maxBytes, tagsCodes: tagsCodes, into: &ranges)
    }

    /// What `selectMessage` finds.
    package enum OneMessage {
        case found(LogRange)
        /// An edit has deleted the message, or taken it to another time.
        case deleted
        /// Reading the queue has failed; the message may be there.
        case unreadable
        /// It has expired, is damaged, or was never there.
        case gone
    }

    /// Where the message at an offset of a queue lies, as `selectMessages` finds it, and nothing behind it. On the
    /// store's thread.
    package func selectMessage(
        _ queue: ConsumeQueue, at offset: QueueOffset, into ranges: inout [LogRange]
    ) -> OneMessage {
        if isDeleted(queue, at: offset) { return .deleted }
        let result = selectMessages(queue, from: offset, maxCount: 1, into: &ranges)
        guard result.status == .found, let range = ranges.first else {
            return result.status == .offsetFoundNull ? .unreadable : .gone
        }
        // Deleted ones behind it were skipped; so were those that have expired, up to the one that was found.
        let isNext = result.nextBeginOffset == offset + 1
        return isNext || queue.edits != nil && isRecord(range, of: offset) ? .found(range) : .gone
    }

    private func isRecord(_ range: LogRange, of offset: QueueOffset) -> Bool {
        withBytes(range) { bytes in
            guard case .record(let record) = CommitLogRecord.parse(bytes) else { return false }
            return record.queueOffset == offset
        } == true
    }

    /// As above, for a queue already found.
    package func selectMessages(
        _ queue: ConsumeQueue, from offset: QueueOffset, maxCount: Int, maxBytes: Int = .max, tagsCodes: [Int64]? = nil,
        into ranges: inout [LogRange]
    ) -> GetMessageResult {
        ranges.removeAll(keepingCapacity: true)
        let minimum = queue.minOffset
        let maximum = queue.maxOffset
        if maximum.rawValue == 0 { return result(.noMessageInQueue, next: correct(offset, to: QueueOffset(0)), queue) }
        if offset < minimum { return result(.offsetTooSmall, next: correct(offset, to: minimum), queue) }
        if offset == maximum { return result(.offsetOverflowOne, next: offset, queue) }
        if offset > maximum { return result(.offsetOverflowBadly, next: correct(offset, to: maximum), queue) }

        var answer = result(.noMatchedMessage, next: offset, queue)
        let memory = memoryBytes * Int64(configuration.accessMessageInMemoryMaxRatio) / 100
        // RocketMQ scans this many entries at most per request, so that a filter that matches nothing does not hold up
        // others.
        let scanLimit = Int64(max(16_000, min(maxCount, 1 << 20) * ConsumeQueueEntry.size) / ConsumeQueueEntry.size)
        let scanEnd = min(maximum, offset + scanLimit)
        var position = offset
        var skipBelow = PhysicalOffset.min
        var lastPhysical = log.written
        let hasEdits = queue.edits != nil
        // The answer and the entry after it are enough unless some are left out: then more and more are read at once.
        var wanted = Int64(min(max(maxCount, 1), 1 << 20)) + 1
        scan: while position < scanEnd {
            let bytes: UnsafeRawBufferPointer
            do throws(SystemError) {
                bytes = try queueFiles.readPresent(
                    queue, from: position, count: Int(min(scanEnd - position, wanted)))
            } catch {
                logger.error(
                    """
                    reading consume queue \(queue.topic)-\(queue.queueID) failed, its messages are not delivered \
                    meanwhile: \(error)
                    """
                )
                break
            }
            wanted = min(wanted * 4, 1 << 20)
            guard let base = bytes.baseAddress, bytes.count >= ConsumeQueueEntry.size else { break }
            for start in stride(from: 0, to: bytes.count, by: ConsumeQueueEntry.size) {
                let entry = ConsumeQueueEntry(base + start)
                let physical = entry.physicalOffset
                let size = Int(entry.recordSize)
                if hasEdits, entry == .deleted {
                    position += 1
                    continue
                }
                lastPhysical = physical
                if physical < skipBelow {
                    position += 1
                    continue
                }
                if answer.messageCount > 0 {
                    if isFull(answer, size, maxCount, isInDisk: bytesBehind(physical) > memory)
                        || answer.bytes + size > maxBytes
                    {
                        break scan
                    }
                }
                if let tagsCodes, !tagsCodes.contains(entry.tagsCode) {
                    position += 1
                    continue
                }
                guard isReadable(physical, size, in: queue, at: position) else {
                    if answer.messageCount == 0 { answer.status = .messageWasRemoving }
                    // Messages of a deleted file. Messages that exist are not skipped because of a damaged entry.
                    let first = logStart
                    if physical < first {
                        skipBelow = min(logFiles.base(of: physical) + logFiles.fileSize, first)
                    }
                    position += 1
                    continue
                }
                add(physical, size, &ranges)
                answer.messageCount += 1
                answer.bytes += size
                answer.status = .found
                skipBelow = .min
                position += 1
            }
        }
        if position == offset, answer.messageCount == 0, answer.status == .noMatchedMessage {
            // The entries could not be read: the consumer goes on after the damaged file.
            answer.status = .offsetFoundNull
            position = queue.firstOffset(ofFile: queue.fileNumber(of: position) + 1)
            answer.nextBeginOffset = correct(offset, to: min(position, maximum))
            return answer
        }
        answer.nextBeginOffset = position
        answer.suggestPullingFromSlave = bytesBehind(lastPhysical) > memory
        statistics.gotMessages += Int64(answer.messageCount)
        return answer
    }

    /// As `selectMessages`, and hands the chosen bytes to `sink`, range by range; the pointers are valid during the
    /// call.
    package func getMessages(
        topic: UnsafeRawBufferPointer, queueID: Int32, from offset: QueueOffset, maxCount: Int, maxBytes: Int = .max,
        tagsCodes: [Int64]? = nil, into sink: (UnsafeRawBufferPointer) -> Void
    ) -> GetMessageResult {
        var ranges: [LogRange] = []
        let answer = selectMessages(
            topic: topic, queueID: queueID, from: offset, maxCount: maxCount, maxBytes: maxBytes, tagsCodes: tagsCodes,
            into: &ranges)
        for range in ranges { withBytes(range, sink) }
        return answer
    }

    /// `isTheBatchFull`, once there is a message.
    @inline(__always)
    func isFull(_ answer: GetMessageResult, _ size: Int, _ maxCount: Int, isInDisk: Bool) -> Bool {
        if maxCount <= answer.messageCount { return true }
        if isInDisk {
            return answer.bytes + size > configuration.maxTransferBytesOnMessageInDisk
                || answer.messageCount >= configuration.maxTransferCountOnMessageInDisk
        }
        return answer.bytes + size > configuration.maxTransferBytesOnMessageInMemory
            || answer.messageCount >= configuration.maxTransferCountOnMessageInMemory
    }

    /// Bytes from an offset of the log to its end. A damaged entry may hold any offset, also one before the log.
    @inline(__always)
    func bytesBehind(_ physical: PhysicalOffset) -> Int64 { physical.rawValue < 0 ? 0 : log.written - physical }

    @inline(__always)
    func add(_ physical: PhysicalOffset, _ size: Int, _ ranges: inout [LogRange]) {
        if let last = ranges.indices.last, ranges[last].start + ranges[last].length == physical,
            physical != logFiles.base(of: physical)
        {
            ranges[last].length += size
            ranges[last].count += 1
        } else {
            ranges.append(LogRange(start: physical, length: size, count: 1))
        }
    }

    /// Whether a record is there and good. What was written by this process is; what was found on the disk is looked
    /// at, so that flipped bits are never delivered.
    @inline(__always)
    func isReadable(
        _ physical: PhysicalOffset, _ size: Int, in queue: ConsumeQueue? = nil,
        at position: QueueOffset = QueueOffset(0)
    ) -> Bool {
        guard size > 0, physical >= logStart, physical.rawValue >= 0, fits(size, at: physical) else {
            if let queue, physical.rawValue != 0 || size != Int(Int32.max),
                physical.rawValue < 0 || physical >= logStart
            {
                reportStray(physical, queue, position, "no message can lie")
            }
            return false
        }
        if physical >= verifiedFrom { return true }
        // The log has been checked here; the queue's entry has not.
        if physical < checkState.cleanEnd, physical >= checkState.start {
            guard let queue, !belongs(physical, size, queue, position) else { return true }
            reportStray(physical, queue, position, "a message of another queue or offset lies")
            return false
        }
        return isIntact(physical, size, in: queue, at: position)
    }

    /// Without a checksum of the whole record (`enabledAppendPropCRC`) the body's CRC covers the body only. The record
    /// and the queue's entry name each other, which covers some of what else could have flipped.
    private func isIntact(_ physical: PhysicalOffset, _ size: Int, in queue: ConsumeQueue?, at position: QueueOffset)
        -> Bool
    {
        if holdsRecord(at: physical, size: size, configuration.recordCheck) {
            guard let queue, !belongs(physical, size, queue, position) else { return true }
            reportStray(physical, queue, position, "a message of another queue or offset lies")
            return false
        }
        if reported.isNew(damageAt: physical) {
            logger.error("the message at \(physical), \(size) bytes, is damaged: not delivered")
        }
        return false
    }

    private func reportStray(_ physical: PhysicalOffset, _ queue: ConsumeQueue, _ position: QueueOffset, _ what: String)
    {
        guard reported.isNew(damageAt: physical) else { return }
        logger.error(
            """
            entry \(position) of \(queue.topic)-\(queue.queueID) leads to \(physical), where \(what): not delivered; \
            if the log is right, stop the broker and delete the folder consumequeue, and it is built anew
            """
        )
    }

    /// Whether so much of the log is written there; no record crosses the end of a file.
    @inline(__always)
    private func fits(_ size: Int, at physical: PhysicalOffset) -> Bool {
        physical <= log.written - Int64(size)
            && physical - logFiles.base(of: physical) <= logFiles.fileSize - Int64(size)
    }

    /// Whether a message lies there that holds this queue and this queue offset.
    func belongs(_ physical: PhysicalOffset, _ size: Int, _ queue: ConsumeQueue, _ position: QueueOffset) -> Bool {
        // A damaged entry may hold any number.
        guard size > 0, physical.rawValue >= 0, fits(size, at: physical), saysSize(size, at: physical) else {
            return false
        }
        return windows.withBytes(at: physical, size: size) { bytes in
            guard case .record(let record) = CommitLogRecord.parse(bytes), record.totalSize == size,
                record.physicalOffset == physical
            else { return false }
            // RocketMQ's light queues hold messages of other topics.
            if queue.topic.hasPrefix(TopicName.lightQueuePrefix) { return true }
            return record.queueID == queue.queueID && record.queueOffset == position
                && MessageProperties.equal(record.topic, queue.storedTopic.bytes)
        } ?? false
    }

    private func correct(_ old: QueueOffset, to new: QueueOffset) -> QueueOffset {
        configuration.isSlave && !configuration.offsetCheckInSlave ? old : new
    }

    func result(_ status: GetMessageStatus, next: QueueOffset, _ queue: ConsumeQueue?) -> GetMessageResult {
        GetMessageResult(
            status: status, nextBeginOffset: next, minOffset: queue?.minOffset ?? QueueOffset(0),
            maxOffset: queue?.maxOffset ?? QueueOffset(0), messageCount: 0, bytes: 0, suggestPullingFromSlave: false)
    }

    // MARK: - Parts

    /// Entries of a queue from `offset` on, at most `maxCount`; fewer at the queue's end. Those of edited messages lead
    /// to the record that stands for them now, deleted ones are `ConsumeQueueEntry.deleted`.
    package func entries(_ queue: ConsumeQueue, from offset: QueueOffset, maxCount: Int) -> [ConsumeQueueEntry] {
        var found: [ConsumeQueueEntry] = []
        var position = offset
        guard offset >= queue.minOffset, offset < queue.maxOffset else { return [] }
        let end = position + min(queue.maxOffset - position, Int64(maxCount))
        while position < end {
            do throws(SystemError) {
                let bytes = try queueFiles.readPresent(queue, from: position, count: Int(end - position))
                guard let base = bytes.baseAddress, bytes.count >= ConsumeQueueEntry.size else { return found }
                for start in stride(from: 0, to: bytes.count, by: ConsumeQueueEntry.size) {
                    found.append(ConsumeQueueEntry(base + start))
                    position += 1
                }
            } catch {
                logger.error(
                    """
                    reading consume queue \(queue.topic)-\(queue.queueID) failed, its messages are not delivered \
                    meanwhile: \(error)
                    """
                )
                return found
            }
        }
        return found
    }

    /// The bytes of a range; nil when they are not (any more) there. The pointer is valid during the call, which must
    /// not read from the store again.
    @discardableResult
    package func withBytes<R>(_ range: LogRange, _ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R? {
        // A damaged entry may name any size; no range is larger than a file.
        guard range.length <= logFiles.fileSize, range.start <= log.written - Int64(range.length) else { return nil }
        return try windows.withBytes(at: range.start, size: range.length, body)
    }

    /// Whether a whole record lies in the range that is what was written, as far as checksums show; if not, that is
    /// logged. To be asked before a message is delivered that was not chosen by `selectMessages`.
    package func holdsMessage(_ range: LogRange) -> Bool { isReadable(range.start, range.length) }

    /// The log file that holds `offset`, for `sendfile`: descriptor (owned by the store, valid until the file is
    /// deleted) and the offset inside it.
    package func logFile(at offset: PhysicalOffset) -> (descriptor: Int32, fileOffset: Int64)? {
        let base = logFiles.base(of: offset)
        guard let file = logFiles.file(base: base) else { return nil }
        return (file.descriptor, offset - base)
    }

    /// The record that begins at `offset` and is intact; nil when none does.
    package func lookMessage(at offset: PhysicalOffset) -> LogRange? {
        guard offset >= logStart, offset < log.written, let record = recordAt(offset), !record.isBlank,
            isReadable(offset, record.size)
        else { return nil }
        return LogRange(start: offset, length: record.size, count: 1)
    }

    // MARK: - Time

    /// How `offset(byTimestamp:)` decides when no message was stored at exactly that time.
    package enum TimeBoundary: Sendable {
        /// The message stored nearest to it: `getOffsetInQueueByTime` of RocketMQ 4.
        case nearest
        /// The first message not older; the queue's end when all are older.
        case lower
        /// The last message not newer; the queue's beginning when all are newer.
        case upper
    }

    /// The offset of the message stored at a time, milliseconds since 1970. In a queue that holds no message (any more)
    /// it is the queue's beginning. With 0, a group would be set back that has read on to there.
    package func offset(
        topic: String, queueID: Int32, byTimestamp time: Int64, boundary: TimeBoundary = .nearest
    ) -> QueueOffset {
        guard let queue = consumeQueue(topic: topic, queueID: queueID) else { return QueueOffset(0) }
        guard !queue.isEmpty else { return queue.minOffset }
        let first = search(queue) { $0 >= time }
        let minimum = queue.minOffset
        let maximum = queue.maxOffset
        switch boundary {
        case .lower: return first
        case .upper:
            let behind = search(queue) { $0 > time }
            return behind > minimum ? behind - 1 : minimum
        case .nearest:
            if first == minimum { return first }
            let before = first - 1
            if first == maximum { return before }
            let right = storeTimestamp(queue, at: first)
            let left = storeTimestamp(queue, at: before)
            return (time -| left).magnitude > (time -| right).magnitude ? first : before
        }
    }

    /// The first entry whose store time fulfils a condition that stays true once it is; entries whose message was
    /// deleted count as older.
    private func search(_ queue: ConsumeQueue, _ condition: (Int64) -> Bool) -> QueueOffset {
        var low = queue.minOffset
        var high = queue.maxOffset
        while low < high {
            let middle = low + (high - low) / 2
            let time = storeTimestamp(queue, at: middle)
            if time >= 0, condition(time) { high = middle } else { low = middle + 1 }
        }
        return low
    }

    /// When the message at an offset of a queue was stored; -1 when there is none.
    package func storeTimestamp(_ queue: ConsumeQueue, at offset: QueueOffset) -> Int64 {
        do throws(SystemError) {
            guard let entry = try queueFiles.entry(queue, at: offset) else { return -1 }
            return storeTimestamp(at: entry.physicalOffset)
        } catch {
            logger.error(
                """
                reading consume queue \(queue.topic)-\(queue.queueID) failed, its messages are not delivered \
                meanwhile: \(error)
                """
            )
            return -1
        }
    }

    private func storeTimestamp(at physical: PhysicalOffset) -> Int64 {
        guard physical >= logStart, physical < log.written, let record = recordAt(physical), !record.isBlank
        else {
            return -1
        }
        return record.storeTimestamp
    }

    /// When the oldest message of the log was stored; -1 when it is empty.
    package var earliestMessageTime: Int64 {
        logFiles.first.map { storeTimestamp(at: $0) } ?? -1
    }

    // MARK: - Figures

    /// Figures for `getBrokerRuntimeInfo`.
    package var runtimeInformation: StoreRuntimeInformation {
        var information = StoreRuntimeInformation()
        information.commitLogMinOffset = minPhysicalOffset.rawValue
        information.commitLogMaxOffset = log.written.rawValue
        information.dispatchBehindBytes = log.written - log.dispatched
        information.remainHowManyDataToFlush = log.written - log.flushed
        information.commitLogDiskRatio = usedRatio(configuration.commitLogPath)
        information.consumeQueueDiskRatio = usedRatio(configuration.consumeQueuePath)
        information.putMessageTimesTotal = statistics.putMessages
        information.putMessageSizeTotal = statistics.putBytes
        information.getMessageTransferredCount = statistics.gotMessages
        information.queueCount = table.queues.count
        information.checkRemainingBytes = checkState.check == nil ? 0 : checkState.end - checkState.position
        information.checkDamaged = checkState.damaged
        information.checkRepairedEntries = checkState.repaired
        information.checkWrongEntries = checkState.notRepaired
        information.checkUnindexed = checkState.unindexed
        return information
    }
}

/// The store's part of request 28.
package struct StoreRuntimeInformation: Sendable {
    /// First byte of the log, -1 while it has no file.
    package var commitLogMinOffset: Int64 = 0
    /// Behind the last byte of the log.
    package var commitLogMaxOffset: Int64 = 0
    /// Bytes of the log no queue has yet; 0 but in recovery.
    package var dispatchBehindBytes: Int64 = 0
    /// Bytes written and not yet synchronized.
    package var remainHowManyDataToFlush: Int64 = 0
    /// 0...1.
    package var commitLogDiskRatio = 0.0
    /// 0...1.
    package var consumeQueueDiskRatio = 0.0
    /// Messages stored since the start.
    package var putMessageTimesTotal: Int64 = 0
    /// Bytes of them.
    package var putMessageSizeTotal: Int64 = 0
    /// Messages handed out by reads since the start.
    package var getMessageTransferredCount: Int64 = 0
    /// Consume queues of all topics.
    package var queueCount = 0
    /// Bytes the background check has not looked at yet; 0 when it has ended or there was none.
    package var checkRemainingBytes: Int64 = 0
    /// Damaged ranges of the log it found; what lies there is not delivered.
    package var checkDamaged = 0
    /// Queue entries it repaired.
    package var checkRepairedEntries = 0
    /// Queue entries it found wrong and could not repair.
    package var checkWrongEntries = 0
    /// Messages that are not found by some key of theirs.
    package var checkUnindexed = 0
}
