/// Where a timer message stands in the order of delivery: by due time, then by age.
struct TimerKey: Comparable, Sendable {
    /// Milliseconds since 1970.
    var due: Int64
    /// The message's offset in queue 0 of `rmq_sys_wheel_timer`.
    var sequence: Int64

    static let lowest = TimerKey(due: Int64.min, sequence: Int64.min)

    static func < (left: TimerKey, right: TimerKey) -> Bool {
        left.due != right.due ? left.due < right.due : left.sequence < right.sequence
    }
}

/// One timer message whose time is near, or the mark of a cancellation: what is kept in memory of it.
struct TimerEntry: Equatable, Sendable {
    /// `source` of a record that still lies in the commit log, `position` being its physical offset.
    static let commitLog: Int32 = -1

    var due: Int64
    var sequence: Int64
    var position: Int64
    /// Bytes of the record; 0 for a cancellation, which is only remembered until its time is over.
    var size: Int32
    /// `commitLog`, or the number of the loaded bucket in which the record lies at `position`.
    var source: Int32

    var key: TimerKey { TimerKey(due: due, sequence: sequence) }
    var isCancellation: Bool { size == 0 }
}

/// A stretch of time whose messages lie in one file, `apus-timer/<level>-<start>`.
struct TimerBucket: Hashable, Sendable, Comparable {
    enum Level: Int, CaseIterable, Sendable {
        case minute
        case hour
        case day

        /// Milliseconds.
        var width: Int64 {
            switch self {
            case .minute: 60_000
            case .hour: 3_600_000
            case .day: 86_400_000
            }
        }

        var letter: String {
            switch self {
            case .minute: "m"
            case .hour: "h"
            case .day: "d"
            }
        }

        var finer: Level? { Level(rawValue: rawValue - 1) }
    }

    var level: Level
    /// First millisecond, a multiple of the level's width.
    var start: Int64

    var end: Int64 { start + level.width }
    var fileName: String { "\(level.letter)-\(start)" }

    init(level: Level, start: Int64) {
        self.level = level
        self.start = start
    }

    /// The bucket of a level that holds a time.
    init(level: Level, of due: Int64) {
        self.init(level: level, start: due.roundedDown(to: level.width))
    }

    /// `nil` for a name that is none of ours.
    init?(fileName: String) {
        let parts = fileName.split(separator: "-", maxSplits: 1)
        guard parts.count == 2, let start = Int64(parts[1]),
            let level = Level.allCases.first(where: { $0.letter == parts[0] }), start % level.width == 0,
            0...TimerFrame.dueMax ~= start
        else { return nil }
        self.init(level: level, start: start)
    }

    static func < (left: TimerBucket, right: TimerBucket) -> Bool {
        left.start != right.start ? left.start < right.start : left.level.rawValue < right.level.rawValue
    }
}

extension Int64 {
    /// The largest multiple of `unit` that is not larger.
    func roundedDown(to unit: Int64) -> Int64 {
        let rest = self % unit
        return self - (rest < 0 ? rest + unit : rest)
    }
}

/// A binary heap of timer entries, the next one due at its top.
struct TimerHeap {
    private var entries: [TimerEntry] = []

    var top: TimerEntry? { entries.first }
    var count: Int { entries.count }

    mutating func push(_ entry: TimerEntry) {
        entries.append(entry)
        var child = entries.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard entries[child].key < entries[parent].key else { break }
            entries.swapAt(child, parent)
            child = parent
        }
    }

    mutating func pop() {
        guard let last = entries.popLast(), !entries.isEmpty else { return }
        entries[0] = last
        var parent = 0
        while true {
            var least = parent
            for child in [2 * parent + 1, 2 * parent + 2] where child < entries.count {
                if entries[child].key < entries[least].key { least = child }
            }
            guard least != parent else { return }
            entries.swapAt(parent, least)
            parent = least
        }
    }
}
