import FastJSON
import LinuxSystem
import Logging
import MessageModel
import StoreFormat

@testable import MessageStore

/// The parsers of the store's files, one by one: the first byte chooses which.
enum FormatTarget {
    static func run(_ input: UnsafeRawBufferPointer) {
        guard let choice = input.first else { return }
        // A copy of exactly its size: the sanitizer sees the first step outside.
        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: input.count - 1, alignment: 1)
        defer { bytes.deallocate() }
        bytes.copyMemory(from: UnsafeRawBufferPointer(rebasing: input.dropFirst()))
        let raw = UnsafeRawBufferPointer(bytes)
        switch choice % 9 {
        case 0: record(raw)
        case 1:
            MessageStoreProperties.forEach(in: raw) { _ = TagsCode.of($1) &+ Int64($0.count) }
        case 2:
            if let point = RecoveryPoint(raw) { demand(point.encoded().count == RecoveryPoint.size) }
        case 3: _ = StoreCheckpointLayout(raw)?.minTimestamp
        case 4:
            if let header = IndexHeader(raw) {
                _ = header.overlaps(begin: header.endTimestamp, end: header.beginTimestamp)
            }
            if raw.count >= IndexLayout.entrySize, let base = raw.baseAddress { _ = IndexEntry(base) }
            if raw.count >= ConsumeQueueEntry.size, let base = raw.baseAddress { _ = ConsumeQueueEntry(base).isEmpty }
        case 5:
            var covered = 0
            let skipped = TimerFrame.forEach(in: raw) {
                covered += $0.frame.count
                _ = $0.cancellation
            }
            demand(covered + skipped <= raw.count + TimerFrame.alignment, "frames overlap")
        case 6:
            _ = TimerFiles.Checkpoint(raw)
            _ = DeliveryProgress(raw)
        case 7: batch(raw)
        default:
            let name = String(decoding: raw, as: UTF8.self)
            if let offset = StoreFileName.offset(of: name) { demand(StoreFileName.of(offset: offset) == name) }
            if let bucket = TimerBucket(fileName: name) { _ = bucket.fileName }
        }
    }

    private typealias MessageStoreProperties = MessageProperties

    private static func record(_ bytes: UnsafeRawBufferPointer) {
        switch CommitLogRecord.parse(bytes) {
        case .record(let record):
            demand(record.totalSize <= bytes.count && record.totalSize >= CommitLogRecord.minimumSize)
            _ = (record.damage(by: .body), record.damage(by: .propCRCIfPresent))
            _ = (record.storeHost, record.bornHost, record.reconsumeTimes, record.preparedTransactionOffset)
            _ = record.property(PropertyName.keys).map { TagsCode.of($0) }
        case .blank(let size): demand(size >= CommitLogRecord.blankSize)
        case .incomplete(let needed): demand(needed > bytes.count)
        case .invalid(let damage): _ = damage.description
        }
    }

    private nonisolated(unsafe) static var store: MessageStore?
    private nonisolated(unsafe) static var uses = 0

    /// A batch is taken whole or not at all, and what is taken is records.
    private static func batch(_ bytes: UnsafeRawBufferPointer) {
        uses += 1
        do {
            if store == nil || uses % 1000 == 0 {
                let fresh = StoreTarget.store(
                    StoreTarget.configuration(log: 64 << 10, queue: 4000, 16, 4000), FuzzDisk(files: [:]), boot: 1)
                try fresh.open()
                store = fresh
            }
            guard let store else { return }
            let before = store.writtenOffset
            var offsets: [PhysicalOffset] = []
            let outcome = Array("B".utf8).withUnsafeBytes { topic in
                store.appendBatch(
                    MessageDraft(
                        topic: topic, queueID: 0, bornHost: HostAddress(ipv4: 1, port: 2),
                        storeHost: HostAddress(ipv4: 3, port: 4), body: bytes), physicalOffsets: &offsets)
            }
            try store.commitTick()
            switch outcome {
            case .appended(let result):
                demand(result.count == offsets.count && result.count > 0)
                for offset in offsets {
                    demand(store.lookMessage(at: offset) != nil, "a message of a batch is no record")
                }
                demand(store.dispatchedOffset == store.writtenOffset, "a batch stopped the dispatch")
            case .refused:
                demand(store.writtenOffset == before && offsets.isEmpty, "a refused batch left something")
            }
        } catch {
            fatalError("\(error)")
        }
    }
}
