internal import CFilterPlugin
package import Logging
package import StoreFormat
package import StoreReader
package import WorkerProtocol

/// Runs programs over records of a commit log, in place: properties and bodies are read where the mapping holds them.
/// One evaluator serves one thread; its scratch memory is made once.
package final class FilterEvaluator {
    /// The most records of one batch: more than any pull looks at.
    package static let maximumRecords = 4096
    /// Records in one aligned stretch of this many bytes of a log file are evaluated by one `match_batch`: `CommitLogView`
    /// maps such stretches, and copies what lies in two of them.
    private static let stretch: Int64 = 4 * 1024 * 1024

    package enum Outcome: Equatable {
        /// Bit i % 8 of byte i / 8 is set when record i matches.
        case bitmap([UInt8])
        case failed(reason: String)
    }

    private let logger: Logger
    private let units: UnsafeMutablePointer<apus_filter_unit>
    /// The record behind each unit.
    private let recordOfUnit: UnsafeMutablePointer<Int32>
    private let guarded = GuardedBitmap(maximumBytes: (FilterEvaluator.maximumRecords + 7) / 8)

    package init(logger: Logger) {
        self.logger = logger
        units = .allocate(capacity: Self.maximumRecords)
        units.initialize(repeating: apus_filter_unit(), count: Self.maximumRecords)
        recordOfUnit = .allocate(capacity: Self.maximumRecords)
        recordOfUnit.initialize(repeating: 0, count: Self.maximumRecords)
    }

    deinit {
        units.deallocate()
        recordOfUnit.deallocate()
    }

    /// - Parameters:
    ///   - records: as the consume queue names them, mostly in the order of the log.
    ///   - written: end of what may be read of the log.
    package func match(
        _ program: FilterProgram, _ records: [FilterRecord], in log: CommitLogView, written: PhysicalOffset
    ) -> Outcome {
        guard records.count <= Self.maximumRecords else {
            return .failed(reason: "a batch of \(records.count) records; \(Self.maximumRecords) are the most")
        }
        var result = [UInt8](repeating: 0, count: (records.count + 7) / 8)
        var position = 0
        while position < records.count {
            let group: Group
            if program.needsRecord {
                do throws(FilterFailure) {
                    group = try nextGroup(records, from: position, written: written, fileSize: Int64(log.fileSize))
                } catch {
                    return .failed(reason: error.reason)
                }
                if let bytes = group.bytes {
                    let answered = log.withBytes(at: PhysicalOffset(bytes.lowerBound), size: bytes.count) { memory in
                        let count = fill(program, records, group, memory)
                        return run(program, count, &result)
                    }
                    // nil: the file was deleted since the consume queue was read. What is gone cannot match.
                    guard answered ?? true else { return failure(of: program) }
                }
            } else {
                group = Group(records: position..<records.count, bytes: nil)
                guard run(program, fillCodes(program, records), &result) else { return failure(of: program) }
            }
            position = group.records.upperBound
        }
        return .bitmap(result)
    }

    private struct FilterFailure: Error {
        let reason: String
    }

    /// Neighbours in the log that are evaluated together.
    private struct Group {
        var records: Range<Int>
        /// Nil when the records' bytes are not needed.
        var bytes: Range<Int64>?
    }

    private func failure(of program: FilterProgram) -> Outcome {
        .failed(reason: "plugin \(program.plugin.name) failed on the expression \(program.expression)")
    }

    private func nextGroup(
        _ records: [FilterRecord], from first: Int, written: PhysicalOffset, fileSize: Int64
    ) throws(FilterFailure) -> Group {
        var bytes: Range<Int64>?
        var index = first
        while index < records.count {
            let record = records[index]
            guard record.physicalOffset >= 0, record.size > 0,
                record.physicalOffset <= written.rawValue - Int64(record.size)
            else {
                throw FilterFailure(
                    reason: "the record at \(record.physicalOffset) (\(record.size) bytes) is not below the end of the "
                        + "log at \(written)")
            }
            let end = record.physicalOffset + Int64(record.size)
            guard let sofar = bytes else {
                bytes = record.physicalOffset..<end
                index += 1
                continue
            }
            // Not across files either: one of them may be gone.
            guard record.physicalOffset >= sofar.upperBound,
                record.physicalOffset / fileSize == sofar.lowerBound / fileSize,
                (end - 1) % fileSize / Self.stretch == sofar.lowerBound % fileSize / Self.stretch
            else { break }
            bytes = sofar.lowerBound..<end
            index += 1
        }
        return Group(records: first..<index, bytes: bytes)
    }

    /// Units for programs that look at the tags code only.
    private func fillCodes(_ program: FilterProgram, _ records: [FilterRecord]) -> Int {
        var count = 0
        for (index, record) in records.enumerated() where program.mayMatch(tagsCode: record.tagsCode) {
            units[count] = apus_filter_unit()
            units[count].tags_code = record.tagsCode
            recordOfUnit[count] = Int32(index)
            count += 1
        }
        return count
    }

    private func fill(
        _ program: FilterProgram, _ records: [FilterRecord], _ group: Group, _ memory: UnsafeRawBufferPointer
    ) -> Int {
        guard let bytes = group.bytes else { return 0 }
        let needsProperties = program.needsProperties
        let needsBody = program.needsBody
        var count = 0
        for index in group.records {
            let record = records[index]
            guard program.mayMatch(tagsCode: record.tagsCode) else { continue }
            let start = Int(record.physicalOffset - bytes.lowerBound)
            let place = UnsafeRawBufferPointer(rebasing: memory[start..<start + Int(record.size)])
            guard case .record(let view) = CommitLogRecord.parse(place), view.totalSize == Int(record.size) else {
                logger.error(
                    """
                    the record at \(record.physicalOffset) (\(record.size) bytes) is damaged: it cannot be filtered and is \
                    not delivered to filtered subscriptions
                    """)
                continue
            }
            var unit = apus_filter_unit()
            unit.tags_code = record.tagsCode
            if needsProperties {
                unit.properties = view.properties.baseAddress?.assumingMemoryBound(to: UInt8.self)
                unit.properties_size = UInt32(view.properties.count)
            }
            if needsBody {
                unit.body = view.body.baseAddress?.assumingMemoryBound(to: UInt8.self)
                unit.body_size = UInt32(view.body.count)
            }
            unit.born_timestamp = view.bornTimestamp
            unit.store_timestamp = view.storeTimestamp
            unit.sys_flag = UInt32(bitPattern: view.sysFlag)
            units[count] = unit
            recordOfUnit[count] = Int32(index)
            count += 1
        }
        return count
    }

    /// Asks the plugin about the first `count` units and carries its bits over to the records'.
    private func run(_ program: FilterProgram, _ count: Int, _ result: inout [UInt8]) -> Bool {
        guard count > 0 else { return true }
        let bitmap = guarded.zeroed((count + 7) / 8)
        guard let start = bitmap.baseAddress, program.match(units, count, start) else { return false }
        for unit in 0..<count where bitmap[unit >> 3] & (1 << UInt8(unit & 7)) != 0 {
            let record = Int(recordOfUnit[unit])
            result[record >> 3] |= 1 << UInt8(record & 7)
        }
        return true
    }
}

extension FilterProgram {
    /// False when the prefilter alone says no.
    func mayMatch(tagsCode: Int64) -> Bool {
        if case .prefilter(let codes) = tagsCodes { return codes.contains(tagsCode) }
        return true
    }
}
