package import LinuxSystem
package import Logging

/// What this process was doing inside a plugin.
enum PluginPhase: UInt64 {
    case load = 1
    case compile = 2
    case match = 3

    var words: String {
        switch self {
        case .load: "while it was loaded"
        case .compile: "in compile"
        case .match: "in match_batch"
        }
    }
}

/// Remembers, over the deaths of filter workers, which plugins they died of.
///
/// The memory is a segment that outlives the worker and that only the worker in office writes: a mark while a plugin is called,
/// the cause when the process dies of it, and a table of the guilty. The next worker reads them when it starts. A
/// plugin with too many points is not called for a while, and for twice as long each time after. A hostile plugin can scribble
/// there, too: then it disables itself or its like, and nobody's messages are touched.
package final class PluginConduct {
    /// How much misconduct is borne, and what follows.
    package struct Limits: Sendable {
        /// The longest one call of a plugin may take (`filterTimeBudgetMillis`).
        package var budgetMilliseconds: UInt32 = 1000
        /// From so many points on a plugin is not called.
        package var points: UInt64 = 12
        /// For a crash, an exit or a budget that ran out.
        package var pointsOfCrash: UInt64 = 4
        /// For a worker that was killed from outside in the middle of a call.
        package var pointsOfKill: UInt64 = 1
        /// For a worker that crashed in its own code after a call: perhaps of what the plugin did to its memory.
        package var pointsOfAftermath: UInt64 = 2
        /// Bytes of memory from which on a call is the last one; 0: no matter.
        package var memory: UInt64 = 0
        package var firstPauseMilliseconds: Int64 = 30_000
        package var longestPauseMilliseconds: Int64 = 3_600_000
        /// Points are forgotten when nothing happened for so long.
        package var forgetMilliseconds: Int64 = 600_000

        package init() {}
    }

    /// The slots: 0 magic, 1 mark, 2 cause, 3 mark of the call before, 4 when the last call began, from 8 on four for each guilty plugin: mark, points and cause, time of the last death,
    /// time until which it is not called (milliseconds since 1970).
    private static let magic: UInt64 = 0x4150_5553_504C_4731
    private static let markSlot = 1
    private static let lastMarkSlot = 3
    /// Nanoseconds of the machine's monotonic clock, which the next process reads, too.
    private static let beganSlot = 4
    private static let table = 8
    private static let entries = 64

    private let segment: SharedSegment
    private let guarded: CallGuard
    private let limits: Limits
    private let now: () -> Int64
    private let logger: Logger

    /// Reads what the worker before left, and starts guarding. To be made on the thread that calls the plugins.
    package init(
        segment: SharedSegment, limits: Limits = Limits(), logger: Logger, now: @escaping () -> Int64
    ) throws(SystemError) {
        precondition(segment.slots >= Self.table + 4 * Self.entries, "the segment of plugins is too small")
        self.segment = segment
        self.limits = limits
        self.logger = logger
        self.now = now
        var death: (mark: UInt64, cause: UInt64, points: UInt64)?
        if segment.atomicLoad(slot: 0) == Self.magic {
            let mark = segment.atomicLoad(slot: Self.markSlot)
            let lastMark = segment.atomicLoad(slot: Self.lastMarkSlot)
            var cause = segment.atomicLoad(slot: Self.markSlot + 1)
            if mark != 0, cause == 0 {
                // Nobody outlives four budgets who has not kept the guard's signal away: the supervisor had to end it.
                let began = segment.atomicLoad(slot: Self.beganSlot)
                let elapsed = CallGuard.now().subtractingReportingOverflow(began)
                let longest = UInt64(limits.budgetMilliseconds) * 4_000_000
                if began != 0, !elapsed.overflow, elapsed.partialValue > longest { cause = Sandbox.timeout }
            }
            if mark != 0 {
                death = (mark, cause, cause == 0 ? limits.pointsOfKill : limits.pointsOfCrash)
            } else if cause != 0, lastMark != 0 {
                death = (lastMark, cause, limits.pointsOfAftermath)
            }
            segment.atomicStore(slot: Self.lastMarkSlot, 0)
        } else {
            for slot in 0..<segment.slots { segment.atomicStore(slot: slot, 0) }
            segment.atomicStore(slot: 0, Self.magic)
        }
        guarded = try CallGuard(segment: segment, slot: Self.markSlot, memory: limits.memory)
        if let death { blame(death.mark, death.cause, death.points) }
    }

    /// Calls into a plugin; `file` is its file's name.
    func call<R>(_ file: PluginFile, _ phase: PluginPhase, _ body: () -> R) -> R {
        let mark = file.hash | phase.rawValue
        segment.atomicStore(slot: Self.lastMarkSlot, mark)
        let start = CallGuard.now()
        segment.atomicStore(slot: Self.beganSlot, start)
        return guarded.call(mark: mark, milliseconds: limits.budgetMilliseconds, start: start, body)
    }

    /// Why the plugin is not called now; nil when it is.
    func refusal(_ file: PluginFile) -> String? {
        guard let entry = entry(of: file.hash) else { return nil }
        let until = Int64(clamping: segment.atomicLoad(slot: entry + 3))
        let left = until - now()
        // Whatever stands there, no pause is longer than the longest.
        guard left > 0, left <= limits.longestPauseMilliseconds else { return nil }
        return "not used for \((left + 999) / 1000) s: \(history(entry))"
    }

    /// Whether it was while the file was being loaded that the last worker died of it.
    func diesWhenLoaded(_ file: PluginFile) -> Bool {
        entry(of: file.hash).map { segment.atomicLoad(slot: $0) & 3 == PluginPhase.load.rawValue } ?? false
    }

    /// What is known against a plugin; nil when there is nothing.
    func history(_ file: PluginFile) -> String? { entry(of: file.hash).map(history) }

    private func history(_ entry: Int) -> String {
        let phase = PluginPhase(rawValue: segment.atomicLoad(slot: entry) & 3) ?? .match
        let cause = segment.atomicLoad(slot: entry + 1) & 0xFFFF_FFFF
        let words =
            switch cause {
            case 0: "a filter worker was killed \(phase.words)"
            case Sandbox.exit: "it called exit \(phase.words)"
            case Sandbox.memory: "it used up the memory \(phase.words)"
            case Sandbox.timeout: "a call took longer than \(limits.budgetMilliseconds) ms \(phase.words)"
            default: "a filter worker crashed \(phase.words) or after (\(Sandbox.signalName(cause)))"
            }
        return "\(words), \(segment.atomicLoad(slot: entry + 1) >> 32) of \(limits.points) points"
    }

    private func entry(of hash: UInt64) -> Int? {
        for index in 0..<Self.entries {
            let entry = Self.table + 4 * index
            let mark = segment.atomicLoad(slot: entry)
            if mark != 0, mark & ~3 == hash { return entry }
        }
        return nil
    }

    /// The plugin's entry, a free one, or the one that was guilty longest ago.
    private func makeEntry(_ hash: UInt64) -> Int {
        if let known = entry(of: hash) { return known }
        let all = (0..<Self.entries).map { Self.table + 4 * $0 }
        let place =
            all.first { segment.atomicLoad(slot: $0) == 0 }
            ?? all.min { segment.atomicLoad(slot: $0 + 2) < segment.atomicLoad(slot: $1 + 2) }
        guard let place else { preconditionFailure("the table of plugins has no entries") }
        for slot in place..<place + 4 { segment.atomicStore(slot: slot, 0) }
        return place
    }

    private func blame(_ mark: UInt64, _ cause: UInt64, _ more: UInt64) {
        let time = now()
        let entry = makeEntry(mark & ~3)
        let last = Int64(clamping: segment.atomicLoad(slot: entry + 2))
        var points = min(segment.atomicLoad(slot: entry + 1) >> 32, 1 << 20)
        if last == 0 || time - last > limits.forgetMilliseconds || last > time { points = 0 }
        points += more
        segment.atomicStore(slot: entry, mark)
        segment.atomicStore(slot: entry + 1, points << 32 | min(cause, 0xFFFF_FFFF))
        segment.atomicStore(slot: entry + 2, UInt64(time))
        if points >= limits.points {
            let doublings = min((points - limits.points) / limits.pointsOfCrash, 16)
            let pause = min(limits.firstPauseMilliseconds << Int64(doublings), limits.longestPauseMilliseconds)
            segment.atomicStore(slot: entry + 3, UInt64(time + pause))
        }
    }
}

/// A plugin's file, known to `PluginConduct` by its name: a new version of it is the same plugin.
struct PluginFile {
    let name: String
    /// The two lowest bits are free for the phase.
    let hash: UInt64

    init(path: String) {
        name = String(
            path[path.index(path.lastIndex(of: "/") ?? path.startIndex, offsetBy: path.contains("/") ? 1 : 0)...])
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in name.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        self.hash = hash & ~3 == 0 ? 4 : hash & ~3
    }
}
