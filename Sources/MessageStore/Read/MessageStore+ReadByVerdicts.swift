import LinuxSystem
import Logging
package import StoreFormat

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
        // Most answers are full at that many: what lies after them in the queue is not read.
        let enough = max(1, min(most, configuration.maxTransferCountOnMessageInMemory))
        var position = offset.rawValue
        var lastPhysical = log.written
        let hasEdits = queue.edits != nil
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
                    bytes = try queueFiles.readPresent(
                        queue, from: QueueOffset(position), count: min(ahead, Int(scanEnd - position)))
                } catch {
                    logger.error(
                        """
                        reading consume queue \(queue.topic)-\(queue.queueID) failed, its messages are not delivered \
                        meanwhile: \(error)
                        """
                    )
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
                if hasEdits, entry == .deleted {
                    position = verdicts.next(from: position + 1)
                    continue
                }
                lastPhysical = physical
                if answer.messageCount > 0 {
                    if isFull(answer, size, maxCount, isInDisk: bytesBehind(physical) > memory)
                        || answer.bytes + size > maxBytes
                    {
                        break scan
                    }
                }
                if isReadable(physical, size, in: queue, at: QueueOffset(position)) {
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

    /// Appends entries of a queue as `entries` gives them, from `offset` on, to `bytes`: at most `maxCount`, fewer at
    /// the queue's end.
    package func appendEntries(
        _ queue: ConsumeQueue, from offset: QueueOffset, maxCount: Int, to bytes: inout [UInt8]
    ) {
        var position = offset
        guard offset >= queue.minOffset, offset < queue.maxOffset else { return }
        let end = position + min(queue.maxOffset - position, Int64(maxCount))
        bytes.reserveCapacity(bytes.count + Int(end - position) * ConsumeQueueEntry.size)
        while position < end {
            do throws(SystemError) {
                let read = try queueFiles.readPresent(queue, from: position, count: Int(end - position))
                let count = read.count / ConsumeQueueEntry.size
                guard count > 0 else { return }
                bytes.append(contentsOf: read.prefix(count * ConsumeQueueEntry.size))
                position += Int64(count)
            } catch {
                logger.error(
                    """
                    reading consume queue \(queue.topic)-\(queue.queueID) failed, its messages are not delivered \
                    meanwhile: \(error)
                    """
                )
                return
            }
        }
    }
}
