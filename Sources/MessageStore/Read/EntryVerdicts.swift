import LinuxSystem
import Logging
package import StoreFormat

/// Which messages of a range of a queue are wanted, as a filter that knows their properties has decided.
package struct EntryVerdicts {
    /// Offset in the queue of the first entry decided about.
    package let start: Int64
    /// Entries decided about.
    package let count: Int
    /// Bit i % 64 of number i / 64 stands for entry `start + i`; bits from `count` on are 0.
    private let chunks: [UInt64]
    /// The entries from `start` on as they are stored, `count` of them at least: then they are not read once more. Nil:
    /// they are.
    package var entries: KeptEntries?

    /// Behind the last entry decided about.
    package var end: Int64 { start + Int64(count) }

    /// - Parameter bitmap: bit i % 8 of byte i / 8 stands for entry `start + i`; what is missing is not wanted.
    package init(start: Int64, count: Int, bitmap: [UInt8]) {
        precondition(count >= 0, "a range has a length")
        self.start = start
        self.count = count
        var chunks = [UInt64](repeating: 0, count: (count + 63) / 64)
        chunks.withUnsafeMutableBytes { target in
            bitmap.withUnsafeBytes { target.copyBytes(from: $0.prefix(target.count)) }
        }
        for index in chunks.indices { chunks[index] = UInt64(littleEndian: chunks[index]) }
        if count % 64 != 0 { chunks[chunks.count - 1] &= (1 << UInt64(count % 64)) - 1 }
        self.chunks = chunks
    }

    /// - Parameters:
    ///   - asked: the entries `bitmap` is about, as distances from `start`; no other is wanted.
    package init(start: Int64, count: Int, asked: [Int32], bitmap: [UInt8]) {
        var spread = [UInt8](repeating: 0, count: (count + 7) / 8)
        for (index, place) in asked.prefix(bitmap.count * 8).enumerated() where place >= 0 && Int(place) < count {
            if bitmap[index >> 3] & (1 << UInt8(index & 7)) != 0 { spread[Int(place) >> 3] |= 1 << UInt8(place & 7) }
        }
        self.init(start: start, count: count, bitmap: spread)
    }

    /// Whether the message of the entry `position` is wanted; no other than those decided about is.
    package func wants(_ position: Int64) -> Bool {
        position >= start && position < end && reading { $0.next(from: position) } == position
    }

    /// The verdicts as plain memory, for loops over many entries: each look at an array would be counted.
    struct Reader {
        let start: Int64
        let count: Int
        let chunks: UnsafeBufferPointer<UInt64>
        let entries: UnsafeRawBufferPointer?

        /// The first wanted entry from `position` on; behind the last one decided about when there is none.
        @inline(__always)
        func next(from position: Int64) -> Int64 {
            let index = Int(position - start)
            guard index >= 0, index < count else { return start + Int64(count) }
            var chunk = index >> 6
            var bits = chunks[chunk] & (~0 &<< UInt64(index & 63))
            while bits == 0 {
                chunk += 1
                guard chunk < chunks.count else { return start + Int64(count) }
                bits = chunks[chunk]
            }
            return start + Int64(chunk << 6 + bits.trailingZeroBitCount)
        }

        /// What was kept of a range of entries, all of it.
        @inline(__always)
        func entries(_ range: Range<Int64>) -> UnsafeRawBufferPointer? {
            guard let entries, range.lowerBound >= start else { return nil }
            let from = Int(range.lowerBound - start) &* ConsumeQueueEntry.size
            let end = Int(range.upperBound - start) &* ConsumeQueueEntry.size
            return end <= entries.count ? UnsafeRawBufferPointer(rebasing: entries[from..<end]) : nil
        }

        /// Entries from `position` on among which `wanted` wanted ones are, or all that are left: up to 63 more than it
        /// takes, and `limit` at most.
        @inline(__always)
        func rangeLength(from position: Int64, wanted: Int, atMost limit: Int) -> Int {
            let index = Int(position - start)
            guard index >= 0, index < count else { return 0 }
            var chunk = index >> 6
            var found = (chunks[chunk] & (~0 &<< UInt64(index & 63))).nonzeroBitCount
            chunk += 1
            while found < wanted, chunk < chunks.count, chunk << 6 - index < limit {
                found += chunks[chunk].nonzeroBitCount
                chunk += 1
            }
            return min(chunk << 6, count, index + limit) - index
        }
    }

    @inline(__always)
    func reading<R>(_ body: (Reader) -> R) -> R {
        chunks.withUnsafeBufferPointer { chunks in
            guard let entries else {
                return body(Reader(start: start, count: count, chunks: chunks, entries: nil))
            }
            return entries.bytes.withUnsafeBytes {
                body(Reader(start: start, count: count, chunks: chunks, entries: $0))
            }
        }
    }
}

/// Queue entries that were read to be asked about, and are kept to be answered with. All that are kept together are
/// bounded by an `EntryMemory`. Confined to the store's thread.
package final class KeptEntries {
    fileprivate let bytes: [UInt8]
    private let memory: EntryMemory

    fileprivate init(_ bytes: [UInt8], _ memory: EntryMemory) {
        self.bytes = bytes
        self.memory = memory
        memory.used += bytes.count
    }

    deinit { memory.used -= bytes.count }
}

/// Bounds what is kept of queue entries.
package final class EntryMemory {
    /// Bytes.
    package let maximum: Int
    /// Bytes kept.
    package fileprivate(set) var used = 0

    /// - Parameter maximum: bytes.
    package init(maximum: Int) { self.maximum = maximum }

    /// Nil when there is no room: then they are read once more when they are needed.
    package func keep(_ entries: [UInt8]) -> KeptEntries? {
        entries.count <= maximum - used ? KeptEntries(entries, self) : nil
    }
}

extension MessageStore {
    /// Entries read from a queue at once: what `ConsumeQueueFiles` reads from a file at once.
    private static let readMaximum = 800

    /// Chooses the messages that verdicts want, by the rules of `selectMessages` otherwise. The offset must lie among
    /// the decided entries and in the queue's range; the answer ends with the verdicts at the latest.
    package func selectMessages(
        _ queue: ConsumeQueue, from offset: QueueOffset, verdicts: EntryVerdicts, maxCount: Int, maxBytes: Int = .max,
        into ranges: inout [LogRange]
    ) -> GetMessageResult {
        verdicts.reading {
            selectMessages(
                queue, from: offset, verdicts: $0, maxCount: maxCount, maxBytes: maxBytes, into: &ranges)
        }
    }

    private func selectMessages(
        _ queue: ConsumeQueue, from offset: QueueOffset, verdicts: EntryVerdicts.Reader, maxCount: Int, maxBytes: Int,
        into ranges: inout [LogRange]
    ) -> GetMessageResult {
        ranges.removeAll(keepingCapacity: true)
        precondition(
            offset.rawValue >= verdicts.start && offset >= queue.minOffset, "an offset no filter has decided about")
        var answer = result(.noMatchedMessage, next: offset, queue)
        let memory = memoryBytes * Int64(configuration.accessMessageInMemoryMaxRatio) / 100
        let scanEnd = min(queue.maxOffset.rawValue, verdicts.start + Int64(verdicts.count))
        let most = max(1, maxCount)
        // Most answers are full at that many: what lies behind them in the queue is not read.
        let enough = max(1, min(most, configuration.maxTransferCountOnMessageInMemory))
        var position = offset.rawValue
        var lastPhysical = log.written
        scan: while position < scanEnd {
            position = min(verdicts.next(from: position), scanEnd)
            guard position < scanEnd, answer.messageCount < most else { break }
            let bytes: UnsafeRawBufferPointer
            if let kept = verdicts.entries(position..<scanEnd) {
                bytes = kept
            } else {
                let ahead = verdicts.rangeLength(
                    from: position, wanted: max(1, enough - answer.messageCount), atMost: Self.readMaximum)
                do throws(SystemError) {
                    bytes = try queueFiles.read(queue, from: position, count: min(ahead, Int(scanEnd - position)))
                } catch {
                    logger.error("reading the queue \(queue.topic)-\(queue.queueId) failed: \(error)")
                    break
                }
            }
            guard let base = bytes.baseAddress, bytes.count >= ConsumeQueueEntry.size else { break }
            let first = position
            let readEnd = position + Int64(bytes.count / ConsumeQueueEntry.size)
            while position < readEnd {
                let entry = ConsumeQueueEntry(base + Int(position - first) * ConsumeQueueEntry.size)
                let physical = entry.physicalOffset
                let size = Int(entry.recordSize)
                lastPhysical = physical
                if answer.messageCount > 0 {
                    if isFull(answer, size, maxCount, isInDisk: bytesBehind(physical) > memory)
                        || answer.bytes + size > maxBytes
                    {
                        break scan
                    }
                }
                if isReadable(physical, size, in: queue, at: position) {
                    add(physical, size, &ranges)
                    answer.messageCount += 1
                    answer.bytes += size
                    answer.status = .found
                } else if answer.messageCount == 0 {
                    answer.status = .messageWasRemoving
                }
                position = verdicts.next(from: position + 1)
            }
        }
        answer.nextBeginOffset = QueueOffset(min(position, scanEnd))
        answer.suggestPullingFromSlave = bytesBehind(lastPhysical) > memory
        statistics.gotMessages += Int64(answer.messageCount)
        return answer
    }

    /// Appends entries of a queue as they are stored, from `offset` on, to `bytes`: at most `maxCount`, fewer at the
    /// queue's end.
    package func appendEntries(
        _ queue: ConsumeQueue, from offset: QueueOffset, maxCount: Int, to bytes: inout [UInt8]
    ) {
        var position = offset.rawValue
        guard offset >= queue.minOffset, offset < queue.maxOffset else { return }
        let end = position + min(queue.maxOffset.rawValue - position, Int64(maxCount))
        bytes.reserveCapacity(bytes.count + Int(end - position) * ConsumeQueueEntry.size)
        while position < end {
            do throws(SystemError) {
                let read = try queueFiles.read(queue, from: position, count: Int(end - position))
                let count = read.count / ConsumeQueueEntry.size
                guard count > 0 else { return }
                bytes.append(contentsOf: read.prefix(count * ConsumeQueueEntry.size))
                position += Int64(count)
            } catch {
                logger.error("reading the queue \(queue.topic)-\(queue.queueId) failed: \(error)")
                return
            }
        }
    }
}
