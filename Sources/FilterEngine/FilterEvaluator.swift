import CFilterPlugin
import CLinux
import Glibc
package import Logging
package import StoreFormat
package import StoreReader
import WorkerProtocol

/// Runs programs over records of a commit log, in place: properties and bodies are read where the mapping holds them.
/// One evaluator serves one thread; its scratch memory is made once.
package final class FilterEvaluator {
    /// The most entries of one batch.
    package static let maximumEntries = WorkerMessage.filterBatchMax
    /// Messages of one `match_batch`: their units and the memory they point to stay in the processor's cache until they
    /// are read. What one call costs does not matter any more.
    static let maximumUnits = 256
    /// Records whose memory is on its way while one is read.
    private static let lookAhead = 12
    /// Records in one aligned block of this many bytes of a log file are evaluated by one `match_batch`.
    /// `CommitLogView` maps such blocks, and copies what lies in two of them.
    private static let blockBytes: Int64 = 4 * 1024 * 1024
    /// After this long a batch is answered as far as it has come, so that a slow program keeps no other waiting.
    private static let sliceNanoseconds: UInt64 = 250_000_000

    /// What came of asking a program.
    package enum Outcome: Equatable {
        /// Bit i % 8 of byte i / 8 is set when entry i matches. Shorter than the entries: the rest was not looked at.
        case bitmap([UInt8])
        case failed(reason: String)
    }

    private let logger: Logger
    private let units: UnsafeMutablePointer<apus_filter_unit>
    /// The position of each unit's entry among those of its group.
    private let entryOfUnit: UnsafeMutablePointer<Int32>
    private let places: UnsafeMutablePointer<Place>
    private let guarded = GuardedBitmap(maximumBytes: (FilterEvaluator.maximumUnits + 7) / 8)

    package init(logger: Logger) {
        self.logger = logger
        units = .allocate(capacity: Self.maximumUnits)
        units.initialize(repeating: apus_filter_unit(), count: Self.maximumUnits)
        entryOfUnit = .allocate(capacity: Self.maximumUnits)
        entryOfUnit.initialize(repeating: 0, count: Self.maximumUnits)
        places = .allocate(capacity: Self.maximumUnits)
        places.initialize(repeating: Place(), count: Self.maximumUnits)
    }

    deinit {
        units.deallocate()
        entryOfUnit.deallocate()
        places.deallocate()
    }

    /// - Parameters:
    ///   - entries: consume queue entries as they are stored, mostly in the order of the log. With a prefilter those it
    ///     excludes are left out already.
    ///   - written: end of what may be read of the log.
    package func match(
        _ program: FilterProgram, _ entries: UnsafeRawBufferPointer, in log: CommitLogView, written: PhysicalOffset
    ) -> Outcome {
        let count = entries.count / ConsumeQueueEntry.size
        guard count <= Self.maximumEntries, let base = entries.baseAddress else {
            return count == 0
                ? .bitmap([]) : .failed(reason: "a batch of \(count) entries; \(Self.maximumEntries) are the most")
        }
        var result = [UInt8](repeating: 0, count: (count + 7) / 8)
        let fileSize = Int64(log.fileSize)
        let end = Self.now() + Self.sliceNanoseconds
        var position = 0
        while position < count {
            let group: Group
            var answered = true
            if program.needsRecord {
                group = nextGroup(base, position..<count, written: written.rawValue, fileSize: fileSize)
                if group.entries.isEmpty {
                    let entry = ConsumeQueueEntry(base + position * ConsumeQueueEntry.size)
                    return partial(result, position)
                        ?? .failed(
                            reason:
                                "the record at \(entry.physicalOffset) (\(entry.recordSize) bytes) is not below the "
                                + "end of the log at \(written)")
                }
                if let bytes = group.bytes {
                    // nil: the file was deleted since the consume queue was read. What was deleted cannot match.
                    answered =
                        log.withBytes(at: PhysicalOffset(bytes.lowerBound), size: bytes.count) { memory in
                            run(program, fill(program, group.entries.count, memory), group.entries, &result)
                        } ?? true
                }
            } else {
                group = Group(entries: position..<min(count, position + Self.maximumUnits), bytes: nil)
                answered = run(program, fillCodes(base, group.entries), group.entries, &result)
            }
            guard answered else {
                return partial(result, position)
                    ?? .failed(
                        reason:
                            """
                            plugin \(program.culprit?.name ?? program.plugin.name) failed on the expression \
                            \(program.expression)
                            """
                    )
            }
            position = group.entries.upperBound
            if position < count, Self.now() > end, let part = partial(result, position) { return part }
        }
        return .bitmap(result)
    }

    /// The verdicts on the first `decided` entries, in whole bytes; nil when there is not one.
    private func partial(_ result: [UInt8], _ decided: Int) -> Outcome? {
        decided < 8 ? nil : .bitmap(Array(result.prefix(decided / 8)))
    }

    private static func now() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    /// Neighbours in the log that are evaluated together. `places` contains where each of them is.
    private struct Group {
        /// None: the next entry's record is not yet below the end of what was written.
        var entries: Range<Int>
        /// Where their records lie; nil when they are not needed, or are none.
        var bytes: Range<Int64>?
    }

    /// An entry of a group, read once.
    private struct Place {
        /// Bytes after the beginning of the group's first record.
        var start = 0
        var size = 0
        var tagsCode: Int64 = 0
    }

    private func nextGroup(
        _ base: UnsafeRawPointer, _ entries: Range<Int>, written: Int64, fileSize: Int64
    ) -> Group {
        var start: Int64 = 0
        var end: Int64 = 0
        var blockEnd: Int64 = -1
        var index = entries.lowerBound
        let limit = min(entries.upperBound, index + Self.maximumUnits)
        while index < limit {
            let entry = ConsumeQueueEntry(base + index &* ConsumeQueueEntry.size)
            let from = entry.physicalOffset.rawValue
            let size = Int64(entry.recordSize)
            // A position without a record, as before the beginning of a queue: nothing to match, and a group of its
            // own.
            if size <= 0 || size > fileSize || from < 0 {
                if blockEnd < 0 { return Group(entries: index..<index + 1, bytes: nil) }
                break
            }
            guard from <= written - size else { break }
            if blockEnd < 0 {
                start = from
                end = from + size
                // Not across files either: one of them may be deleted.
                let file = from / fileSize * fileSize
                blockEnd = min(file + fileSize, file + ((from - file) / Self.blockBytes + 1) * Self.blockBytes)
            } else {
                guard from >= end, from + size <= blockEnd else { break }
                end = from + size
            }
            places[index &- entries.lowerBound] = Place(
                start: Int(from &- start), size: Int(size), tagsCode: entry.tagsCode)
            index &+= 1
        }
        return Group(entries: entries.lowerBound..<index, bytes: blockEnd < 0 ? nil : start..<end)
    }

    /// Units for programs that look at the tags code only.
    private func fillCodes(_ base: UnsafeRawPointer, _ entries: Range<Int>) -> Int {
        for (count, index) in entries.enumerated() {
            units[count] = apus_filter_unit()
            units[count].tags_code = ConsumeQueueEntry(base + index * ConsumeQueueEntry.size).tagsCode
            entryOfUnit[count] = Int32(truncatingIfNeeded: count)
        }
        return entries.count
    }

    /// Units for the first `entries` places, whose records lie in `memory`, whole: `nextGroup` has seen to that.
    private func fill(_ program: FilterProgram, _ entries: Int, _ memory: UnsafeRawBufferPointer) -> Int {
        guard let base = memory.baseAddress else { return 0 }
        let needsProperties = program.needsProperties
        let needsBody = program.needsBody
        let (places, units) = (places, units)
        var count = 0
        for index in 0..<min(entries, Self.lookAhead) { fetch(base, places[index]) }
        for index in 0..<entries {
            if index &+ Self.lookAhead < entries { fetch(base, places[index &+ Self.lookAhead]) }
            let place = places[index]
            guard let parts = RecordParts(UnsafeRawBufferPointer(start: base + place.start, count: place.size)) else {
                logger.error(
                    """
                    a record of \(place.size) bytes is damaged: it cannot be filtered and is not delivered to filtered \
                    subscriptions
                    """)
                continue
            }
            var unit = apus_filter_unit()
            unit.tags_code = place.tagsCode
            if needsProperties {
                unit.properties = parts.properties.baseAddress?.assumingMemoryBound(to: UInt8.self)
                unit.properties_size = UInt32(truncatingIfNeeded: parts.properties.count)
            }
            if needsBody {
                unit.body = parts.body.baseAddress?.assumingMemoryBound(to: UInt8.self)
                unit.body_size = UInt32(truncatingIfNeeded: parts.body.count)
            }
            unit.born_timestamp = parts.bornTimestamp
            unit.store_timestamp = parts.storeTimestamp
            unit.sys_flag = UInt32(bitPattern: parts.sysFlag)
            units[count] = unit
            entryOfUnit[count] = Int32(truncatingIfNeeded: index)
            count &+= 1
        }
        return count
    }

    /// Begins to bring a record into the processor's cache: its head, which may lie in three lines, and its end, where
    /// the properties are.
    @inline(__always)
    private func fetch(_ base: UnsafeRawPointer, _ place: Place) {
        let record = base + place.start
        apus_prefetch(record)
        apus_prefetch(record + 63)
        apus_prefetch(record + (CommitLogRecord.minimumSize - 4))
        let end = record + place.size
        apus_prefetch(end - 1)
        apus_prefetch(end - 65)
        apus_prefetch(end - 129)
    }

    /// Asks the plugin about the first `count` units and carries its bits over to those of `entries`.
    private func run(_ program: FilterProgram, _ count: Int, _ entries: Range<Int>, _ result: inout [UInt8]) -> Bool {
        guard count > 0 else { return true }
        guard let bitmap = program.evaluate(units, count, guarded) else { return false }
        if count % 8 != 0 { bitmap[bitmap.count - 1] &= 1 << UInt8(count % 8) - 1 }
        result.withUnsafeMutableBufferPointer { result in
            if count == entries.count {
                // A unit for each entry: the bits go over eight at a time.
                let shift = UInt16(entries.lowerBound & 7)
                for index in 0..<bitmap.count {
                    let bits = UInt16(bitmap[index]) &<< shift
                    let place = entries.lowerBound &>> 3 &+ index
                    result[place] |= UInt8(truncatingIfNeeded: bits)
                    if bits > 0xFF { result[place &+ 1] |= UInt8(truncatingIfNeeded: bits &>> 8) }
                }
                return
            }
            for unit in 0..<count where bitmap[unit &>> 3] & (1 &<< UInt8(unit & 7)) != 0 {
                let entry = entries.lowerBound &+ Int(entryOfUnit[unit])
                result[entry &>> 3] |= 1 &<< UInt8(entry & 7)
            }
        }
        return true
    }
}

extension FilterProgram {
    /// False when the prefilter alone excludes it.
    func mayMatch(tagsCode: Int64) -> Bool {
        if case .prefilter(let codes) = tagsCodes { return codes.contains(tagsCode) }
        return true
    }
}
