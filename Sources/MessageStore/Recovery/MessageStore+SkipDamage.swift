import LinuxSystem
import Logging
import StoreFormat
import StoreReader

/// Ranges of the log that hold no message, as a start meets them.
extension MessageStore {
    /// Decides about damage met on the way. True: it was stepped over, dispatch goes on after it.
    func skipDamage(_ damage: CommitLogDamage, _ plan: RecoveryPlan) -> Bool {
        let isKnown = log.dispatched < plan.known
        if damage == .nothing, !isKnown, plan.wasClean || plan.afterPowerLoss { return false }
        // A killed process wrote in order: messages after damage, be it zeros, mean that only the damaged range is
        // lost. After a power cut they are writes that overtook it. None of them was acknowledged as durable, and
        // keeping them would leave holes in queues.
        if plan.afterPowerLoss, !isKnown {
            guard plan.point == nil, !plan.isOurs else { return false }
            // A store of RocketMQ's does not contain how far it was synchronized; the last two files may not have been.
            let lastWritten = logFiles.files.last { recordAt($0.base) != nil }?.base ?? PhysicalOffset(0)
            if log.dispatched >= lastWritten - logFiles.fileSize { return false }
        }
        if damage == .tornBlock, let record = recordAt(log.dispatched),
            recordAt(log.dispatched + Int64(record.size)) != nil
        {
            // What was written in order and goes on after it is no torn write: the properties are zeros.
            return dispatchWindows(upTo: log.dispatched + Int64(record.size), .verify) == .end
        }
        var from = log.dispatched + 1
        if damage == .nothing {
            guard let data = firstData(behind: log.dispatched) else { return false }
            // A record begins with its size, whose first bytes are zeros as well.
            from = max(from, data - 3)
        }
        guard let next = nextRecord(from: from) else { return false }
        logger.error(
            """
            commit log at \(log.dispatched): \(damage); \(next - log.dispatched) bytes are skipped, their messages are \
            lost
            """
        )
        skip(to: next)
        return true
    }

    private func skip(to next: PhysicalOffset) {
        skippedMessages += (next - log.dispatched) / Int64(CommitLogRecord.minimumSize)
        log.dispatch(to: next)
    }

    /// Entries that point past the log's end go. Their messages were lost with the log's end, or the entries are
    /// damaged and their messages lie in the log. What lies there after a queue's last good entry is entered again,
    /// before any number is given a second time.
    func cutQueues(to end: PhysicalOffset) throws(SystemError) {
        var from = end
        var cut = 0
        for queue in table.queues where queue.lastPhysicalOffset >= end {
            try queueFiles.cut(queue, to: queueFiles.endOfEntries(queue, below: end))
            from = min(from, queue.lastPhysicalOffset)
            cut += 1
        }
        guard cut > 0 else { return }
        logger.warning(
            "\(cut) queues point behind the log's end: what they lack before it is entered from the log again")
        needsCheck = true
        log.dispatchAgain(from: replayStart(from))
        while case .damaged = dispatchWindows(upTo: end, [.verify, .queuesOnly]),
            let next = nextRecord(from: log.dispatched + 1), next < end
        {
            skip(to: next)
        }
        decideWaitingRecords()
    }

    /// Where a replay begins whose first record a queue's entry names. The entry may be damaged, too, and a replay that
    /// began inside a record would take it for the log's end. Then the replay begins with the log.
    func replayStart(_ offset: PhysicalOffset) -> PhysicalOffset {
        offset >= logStart && recordAt(offset) != nil ? offset : logStart
    }

    /// The next offset at which a record begins that holds this offset and whose body is intact.
    private func nextRecord(from start: PhysicalOffset) -> PhysicalOffset? {
        var base = logFiles.base(of: start)
        var from = start
        while logFiles.file(base: base) != nil {
            let fileEnd = base + logFiles.fileSize
            if let found = nextRecord(from: from, to: fileEnd) { return found }
            base = fileEnd
            from = fileEnd
        }
        return nil
    }

    private func nextRecord(from: PhysicalOffset, to end: PhysicalOffset) -> PhysicalOffset? {
        let piece: Int64 = 1 << 20
        var position = from
        while position + Int64(CommitLogRecord.minimumSize) <= end {
            let size = Int(min(piece, end - position))
            let found: PhysicalOffset?? = windows.withBytes(at: position, size: size) { bytes in
                var offset = 0
                while offset + 36 <= size {
                    let magic = bytes.loadUnaligned(fromByteOffset: offset + 4, as: Int32.self).bigEndian
                    let place = PhysicalOffset(
                        bytes.loadUnaligned(fromByteOffset: offset + 28, as: Int64.self).bigEndian)
                    if magic == CommitLogRecord.magicV1 || magic == CommitLogRecord.magicV2,
                        place == position + offset
                    {
                        return place
                    }
                    offset += 1
                }
                return nil
            }
            if let found, let place = found, recordAt(place) != nil { return place }
            if let found, let place = found {
                position = place + 1
            } else {
                position += max(1, Int64(size) - 35)
            }
        }
        return nil
    }

    /// The first byte at or after `offset` that is not zero; nil when there is none. Holes cost nothing.
    func firstData(behind offset: PhysicalOffset) -> PhysicalOffset? {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096)
        defer { buffer.deallocate() }
        for (base, file) in logFiles.files where base + logFiles.fileSize > offset {
            var position = max(0, offset - base)
            while position < logFiles.fileSize, let data = file.firstData(from: position), data < logFiles.fileSize {
                position = max(position, data)
                let hole = min(file.firstHole(from: position), logFiles.fileSize)
                while position < hole {
                    let count = Int(min(hole - position, Int64(buffer.count)))
                    let part = UnsafeMutableRawBufferPointer(rebasing: buffer[0..<count])
                    // What cannot be read is not known to be nothing.
                    guard let got = try? file.read(into: part, at: position) else { return base + position }
                    if got == 0 { break }
                    if let found = firstNonZero(UnsafeRawBufferPointer(rebasing: part[0..<got])) {
                        return base + position + Int64(found)
                    }
                    position += Int64(got)
                }
                position = max(position + 1, hole)
            }
        }
        return nil
    }
}

private func firstNonZero(_ bytes: UnsafeRawBufferPointer) -> Int? {
    var position = 0
    while position + 8 <= bytes.count, bytes.loadUnaligned(fromByteOffset: position, as: UInt64.self) == 0 {
        position += 8
    }
    return bytes[position...].firstIndex { $0 != 0 }
}
