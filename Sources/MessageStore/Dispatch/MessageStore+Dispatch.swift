import LinuxSystem
import Logging
import MessageModel
import StoreFormat
import StoreReader

/// Why dispatch stopped.
enum DispatchStop: Equatable {
    /// All bytes are used up.
    case end
    /// The record that begins next needs this many bytes from its start.
    case needMore(Int)
    /// A blank record: the log goes on in the next file.
    case fileEnd
    case damaged(CommitLogDamage)
}

/// What dispatch does besides filling queues and index.
struct DispatchMode: OptionSet {
    let rawValue: Int
    /// Compare the CRCs: the bytes come from a disk.
    static let verify = DispatchMode(rawValue: 1)
    /// Report the event `arrival`.
    static let announce = DispatchMode(rawValue: 2)
    /// Look for blocks a power cut left unwritten.
    static let tornBlocks = DispatchMode(rawValue: 4)
    /// The index has these records already.
    static let queuesOnly = DispatchMode(rawValue: 8)
}

extension MessageStore {
    /// The one way from log to queues and index: fresh appends, recovery and replicated bytes all pass here. Works on
    /// whole records from `bytes[0]`, which lies at physical offset `start`; returns the bytes used.
    func dispatch(_ bytes: UnsafeRawBufferPointer, at start: PhysicalOffset, _ mode: DispatchMode) -> (
        used: Int, stop: DispatchStop
    ) {
        var used = 0
        while used < bytes.count {
            let here = start + Int64(used)
            switch CommitLogRecord.parse(
                UnsafeRawBufferPointer(rebasing: bytes[used...]),
                maximumSize: Int(logFiles.base(of: here) + logFiles.fileSize - here))
            {
            case .record(let record):
                if record.physicalOffset != here {
                    return (used, .damaged(.physicalOffset(found: record.physicalOffset.rawValue)))
                }
                if mode.contains(.verify), configuration.checkCRCOnRecover,
                    let damage = record.damage(by: configuration.recordCheckOnRecover)
                {
                    return (used, .damaged(damage))
                }
                if mode.contains(.tornBlocks), hasUnwrittenBlock(record) { return (used, .damaged(.tornBlock)) }
                dispatch(record, mode)
                used += record.totalSize
            case .blank(let size):
                // Blank records end exactly at the file's end; anything else is damage.
                guard here + size == logFiles.base(of: here + size) else { return (used, .damaged(.size(Int32(size)))) }
                return (used, .fileEnd)
            case .incomplete(let needed): return (used, .needMore(needed))
            case .invalid(let damage): return (used, .damaged(damage))
            }
        }
        return (used, .end)
    }

    @inline(__always)
    private func dispatch(_ record: CommitLogRecordView, _ mode: DispatchMode) {
        var tags: UnsafeRawBufferPointer?
        var keys: UnsafeRawBufferPointer?
        var uniqueKey: UnsafeRawBufferPointer?
        var delay: UnsafeRawBufferPointer?
        MessageProperties.forEach(in: record.properties) { name, value in
            switch name.count {
            case 4:
                let bits = name.loadUnaligned(as: UInt32.self)
                if bits == WellKnownName.tags { tags = value } else if bits == WellKnownName.keys { keys = value }
            case 5: if MessageProperties.isDelay(name) { delay = value }
            case 8: if name.loadUnaligned(as: UInt64.self) == WellKnownName.uniqueKey { uniqueKey = value }
            default: break
            }
        }
        var tagsCode = tags.map { TagsCode.of($0) } ?? 0
        lastStoreTimestamp = record.storeTimestamp

        var queue: ConsumeQueue?
        var isEdit = false
        if SysFlag.entersConsumeQueue(record.sysFlag), let found = queueOf(record) {
            if found.storedTopic.isSchedule, let delay, let level = Self.number(delay), level > 0 {
                tagsCode = delayLevels.deliverTimestamp(level: level, storeTimestamp: record.storeTimestamp)
            }
            put(record, tagsCode, found, mode)
            queue = found
        } else if SysFlag.entersConsumeQueue(record.sysFlag) {
            noteWithoutQueue(record)
        } else {
            isEdit = dispatchEdit(record, tagsCode, mode)
        }

        if let index, !mode.contains(.queuesOnly),
            isEdit || SysFlag.transactionValue(record.sysFlag) != SysFlag.transactionRollbackType
        {
            let prefix = queue?.storedTopic.keyHashPrefix ?? (JavaHash.hash(record.topic, continuing: 0) &* 31 &+ 35)
            let offset = record.physicalOffset
            if let uniqueKey {
                index.add(
                    javaHash: JavaHash.hash(uniqueKey, continuing: prefix), physicalOffset: offset,
                    storeTimestamp: record.storeTimestamp)
            }
            if let keys {
                MessageProperties.forEachKey(in: keys) { key in
                    index.add(
                        javaHash: JavaHash.hash(key, continuing: prefix), physicalOffset: offset,
                        storeTimestamp: record.storeTimestamp)
                }
            }
            if index.needsApply { index.apply() }
        }
        if let queue, queue.wantsArrival, mode.contains(.announce) {
            events.arrival(
                queue,
                MessageArrival(
                    physicalOffset: record.physicalOffset, size: record.totalSize, maxOffset: queue.maxOffset,
                    tagsCode: tagsCode, storeTimestamp: record.storeTimestamp))
        }
    }

    /// The queue a record belongs to, made if it is the first one. Nil when no folder can be named after its topic, or
    /// its queue's number is negative. Brokers check both; a damaged log or another master may not.
    @inline(__always)
    private func queueOf(_ record: CommitLogRecordView) -> ConsumeQueue? {
        if let queue = table.find(record.topic, record.queueID) { return queue }
        guard !deleted.hides(record.topic, at: record.physicalOffset),
            case .success(let queue) = makeQueue(record.topic, record.queueID)
        else { return nil }
        return queue
    }

    /// Counts a record that no queue can hold. It stays in the log, and its keys in the index.
    @inline(never)
    private func noteWithoutQueue(_ record: CommitLogRecordView) {
        guard !deleted.hides(record.topic, at: record.physicalOffset),
            case .failure(let refusal) = makeQueue(record.topic, record.queueID)
        else { return }
        withoutQueue += 1
        // At the first, and then ever more seldom: a log of RocketMQ's may be full of them.
        guard withoutQueue & (withoutQueue - 1) == 0 else { return }
        logger.error(
            """
            the message at \(record.physicalOffset) of the commit log is in no queue: \(refusal); it stays in the log, \
            readable by offset and key (\(withoutQueue) such messages since the start)
            """
        )
    }

    @inline(__always)
    private func put(
        _ record: CommitLogRecordView, _ tagsCode: Int64, _ queue: ConsumeQueue, _ mode: DispatchMode
    ) {
        let entry = ConsumeQueueEntry(
            physicalOffset: record.physicalOffset, recordSize: Int32(truncatingIfNeeded: record.totalSize),
            tagsCode: tagsCode)
        if record.queueOffset != queue.maxOffset {
            let isReplay = !mode.contains(.announce)
            guard preparePut(entry, at: record.queueOffset, queue, isReplay: isReplay) else { return }
        }
        add(entry, to: queue)
    }

    @inline(__always)
    func add(_ entry: ConsumeQueueEntry, to queue: ConsumeQueue) {
        queue.add(entry)
        queue.lastPhysicalOffset = entry.physicalOffset
        if queue.nextOffset < queue.maxOffset { queue.nextOffset = queue.maxOffset }
        markDirty(queue)
    }

    @inline(__always)
    func markDirty(_ queue: ConsumeQueue) {
        if !queue.isDirty {
            queue.isDirty = true
            dirtyQueues.append(queue)
        }
    }

    /// Whether a disk block inside the topic or the properties, which no CRC covers, holds nothing but zeros: a power
    /// cut lost it. The body's blocks are the CRC's business, and a lost first block leaves no magic.
    private func hasUnwrittenBlock(_ record: CommitLogRecordView) -> Bool {
        guard let start = record.bytes.baseAddress, let topic = record.topic.baseAddress else { return false }
        // The length of no properties is two zeros, and may have a block for itself.
        let size = Int64(record.totalSize - (record.properties.isEmpty ? 2 : 0))
        let first = record.physicalOffset.rawValue
        var block = (first + Int64(start.distance(to: topic))) / 512 * 512 + 512
        while block < first + size {
            let end = min(block + 512, first + size)
            let bytes = record.bytes[Int(block - first)..<Int(end - first)]
            if bytes.allSatisfy({ $0 == 0 }) { return true }
            block += 512
        }
        return false
    }

    private static func number(_ text: UnsafeRawBufferPointer) -> Int? {
        Int(String(decoding: text, as: UTF8.self))
    }

    // MARK: - Over mapped windows

    /// Dispatches from `log.dispatched` up to `limit` out of the files, as far as whole records go; returns why it
    /// stopped.
    func dispatchWindows(upTo limit: PhysicalOffset, _ mode: DispatchMode) -> DispatchStop {
        var needed = CommitLogRecord.blankSize
        while log.dispatched < limit {
            let base = logFiles.base(of: log.dispatched)
            let fileEnd = base + logFiles.fileSize
            // To the end of the window if that is enough for the record that begins here.
            let windowEnd = min(base + ((log.dispatched - base) / windows.windowSize + 1) * windows.windowSize, fileEnd)
            var size = min(windowEnd, limit) - log.dispatched
            if size < Int64(needed) {
                guard log.dispatched + Int64(needed) <= min(limit, fileEnd) else {
                    return log.dispatched + Int64(needed) > fileEnd ? .damaged(.lengths) : .needMore(needed)
                }
                size = Int64(needed)
            }
            let start = log.dispatched
            guard let result = windows.withBytes(at: start, size: Int(size), { dispatch($0, at: start, mode) })
            else {
                return .end
            }
            log.dispatch(to: start + Int64(result.used))
            needed = CommitLogRecord.blankSize
            switch result.stop {
            case .end: break
            case .needMore(let more): needed = more
            case .fileEnd:
                // A slave may have the blank record and not yet the zeros after it.
                guard fileEnd <= limit else { return .end }
                log.dispatch(to: fileEnd)
            case .damaged: return result.stop
            }
        }
        return .end
    }
}

/// Property names as the number their bytes make in this machine's order.
enum WellKnownName {
    static let tags = bits32(PropertyName.tags)
    static let keys = bits32(PropertyName.keys)
    static let uniqueKey = bits64(PropertyName.uniqueKey)

    private static func bits32(_ name: StaticString) -> UInt32 {
        UnsafeRawBufferPointer(start: name.utf8Start, count: 4).loadUnaligned(as: UInt32.self)
    }

    private static func bits64(_ name: StaticString) -> UInt64 {
        UnsafeRawBufferPointer(start: name.utf8Start, count: 8).loadUnaligned(as: UInt64.self)
    }
}

extension MessageProperties {
    /// Whether a name of 5 bytes is DELAY.
    @inline(__always)
    static func isDelay(_ name: UnsafeRawBufferPointer) -> Bool {
        name[0] == 68 && name[1] == 69 && name[2] == 76 && name[3] == 65 && name[4] == 89
    }

    /// The keys of a KEYS property: separated by spaces, empty ones skipped.
    @inline(__always)
    static func forEachKey(in keys: UnsafeRawBufferPointer, _ body: (UnsafeRawBufferPointer) -> Void) {
        var start = 0
        for index in 0...keys.count where index == keys.count || keys[index] == 32 {
            if index > start { body(UnsafeRawBufferPointer(rebasing: keys[start..<index])) }
            start = index + 1
        }
    }
}
