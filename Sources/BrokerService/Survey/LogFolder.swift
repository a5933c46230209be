import LinuxSystem
import StoreFormat
import StoreReader

/// A commit log no broker writes: which files it has, where it ends, and its records by physical offset.
final class LogFolder {
    let path: String
    /// Where each file begins, in order.
    private(set) var bases: [Int64] = []
    /// Of each file; 0 without any.
    private(set) var fileSize: Int64 = 0
    /// What is wrong with the files, as a text.
    private(set) var damage: [String] = []
    private let view: CommitLogView?
    /// A read that failed ends the survey: nothing may be counted as absent that could not be read.
    private var failure: SystemError?

    /// Bytes: a larger file is no log file of any broker's.
    private static let fileSizeMax: Int64 = 1 << 40

    /// - Throws: the folder cannot be read.
    init(_ path: String, _ disk: any Disk) throws(SystemError) {
        self.path = path
        let names = try disk.list(path)
        bases = names.compactMap { StoreFileName.offset(of: $0) }.sorted()
        var sizes: [Int64: Int64] = [:]
        for base in bases {
            sizes[base] = try disk.information("\(path)/\(StoreFileName.of(offset: base))")?.size ?? 0
        }
        // One of odd size must not decide for all others.
        let counts = Dictionary(
            sizes.values.filter { $0 <= Self.fileSizeMax }.map { ($0, 1) }, uniquingKeysWith: +)
        fileSize = counts.max { ($0.value, $0.key) < ($1.value, $1.key) }?.key ?? 0
        view = fileSize > 0 ? CommitLogView(directory: path, fileSize: Int(fileSize), disk: disk) : nil
        for name in names.sorted() where StoreFileName.isBeyondAll(name) {
            damage.append("\(name) names an offset no log comes to: it is left alone")
        }
        for base in bases where sizes[base] != fileSize {
            damage.append("\(StoreFileName.of(offset: base)) has \(sizes[base] ?? 0) bytes, the others \(fileSize)")
        }
        for (left, right) in zip(bases, bases.dropFirst()) where fileSize > 0 && right - left != fileSize {
            damage.append("nothing holds the bytes \(left + fileSize) to \(right - 1) of the log")
        }
        view?.readFailed = { [unowned self] in failure = $0 }
    }

    var first: Int64 { bases.first ?? 0 }

    /// What `body` makes of the whole record at that offset; nil when there is none.
    /// - Throws: the log could not be read.
    func record<R>(at place: Int64, _ body: (CommitLogRecordView) -> R) throws(SystemError) -> R? {
        var size = CommitLogRecord.minimumSize
        // Once for its size, once whole.
        for _ in 0..<2 {
            switch try parse(at: place, size: size, body) {
            case .found(let result): return result
            case .needs(let more) where more > size: size = more
            case .needs, .blank, .damaged, .nothing: return nil
            }
        }
        return nil
    }

    private enum Place<R> {
        case found(R)
        case needs(Int)
        case blank
        case damaged(CommitLogDamage)
        case nothing
    }

    private func parse<R>(
        at place: Int64, size: Int, _ body: (CommitLogRecordView) -> R
    ) throws(SystemError) -> Place<R> {
        guard let view, place >= first, fileSize > 0 else { return .nothing }
        let left = Int(fileSize - place % fileSize)
        let result: Place<R>? = view.withBytes(at: PhysicalOffset(place), size: min(size, left)) { bytes in
            switch CommitLogRecord.parse(bytes, maximumSize: left) {
            case .record(let record):
                let found = record.physicalOffset.rawValue
                return found == place ? .found(body(record)) : .damaged(.physicalOffset(found: found))
            case .blank: return .blank
            case .incomplete(let needed): return needed > left ? .damaged(.lengths) : .needs(needed)
            case .invalid(.nothing): return .nothing
            case .invalid(let damage): return .damaged(damage)
            }
        }
        if let failure { throw failure }
        return result ?? .nothing
    }

    /// Walks the records from an offset on, over ends of files, to the last whole one.
    /// - Returns: where it ends, and what is wrong there.
    func walk(
        from start: Int64, _ body: (CommitLogRecordView) -> Void
    ) throws(SystemError) -> (end: Int64, damage: CommitLogDamage?) {
        var place = start
        var size = CommitLogRecord.minimumSize
        while true {
            switch try parse(
                at: place, size: size,
                { record -> Int in
                    body(record)
                    return record.totalSize
                })
            {
            case .found(let total):
                place += Int64(total)
                size = CommitLogRecord.minimumSize
            case .needs(let more):
                guard more > size else { return (place, .lengths) }
                size = more
            case .blank:
                let next = place - place % fileSize + fileSize
                // RocketMQ makes its next file early: an empty one is no end of its own.
                guard try record(at: next, { _ in true }) == true else { return (next, nil) }
                place = next
            case .nothing: return (place, nil)
            case .damaged(let damage): return (place, damage)
            }
        }
    }

    /// An offset from which a walk is short: the newest record queues know, else the last file with one.
    func beginning(newest: Int64) throws(SystemError) -> Int64 {
        if newest >= first, try record(at: newest, { _ in true }) == true { return newest }
        for base in bases.reversed() where try record(at: base, { _ in true }) == true { return base }
        return first
    }
}
