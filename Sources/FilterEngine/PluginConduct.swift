package import LinuxSystem
package import Logging
import WorkerProtocol

/// What this process was doing inside a plugin.
enum PluginPhase: UInt64 {
    case load = 1
    case compile = 2
    case match = 3

    var text: String {
        switch self {
        case .load: "while it was loaded"
        case .compile: "in compile"
        case .match: "in match_batch"
        }
    }
}

/// Remembers, over the deaths of filter workers, which plugins they died of.
///
/// The memory is a segment that outlives the worker and that only the running worker writes. It holds a mark while a
/// plugin is called, the cause when the process dies of it, and a table of the guilty plugins. The next worker reads
/// them when it starts. A plugin with too many points is not called for a while, and for twice as long each time after.
/// A hostile plugin can scribble there, too: then it disables itself or its like, and no message is touched.
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
        /// The first pause of a plugin that has reached `points`: it is not called meanwhile.
        package var firstPauseMilliseconds: Int64 = 30_000
        /// The pause doubles with each further `pointsOfCrash` points, up to this.
        package var longestPauseMilliseconds: Int64 = 3_600_000
        /// Points are forgotten when nothing happened for so long.
        package var forgetMilliseconds: Int64 = 600_000

        package init() {}
    }

    /// The slots: 0 magic, 1 mark, 2 cause, 3 mark of the call before, 4 when the last call began. From 8 on there are
    /// four for each guilty plugin: mark, points and cause, time of the last death, end of the pause. Times are
    /// milliseconds since 1970. The magic is "APUSPLG2".
    private static let magic: UInt64 = 0x4150_5553_504C_4732
    private static let markSlot = 1
    private static let lastMarkSlot = 3
    /// Nanoseconds of the machine's monotonic clock, which the next process reads, too.
    private static let beganSlot = 4
    private static let table = 8
    private static let entries = 64

    private let segment: SharedSegment
    /// Those of the other filter workers, read only: what a plugin did there counts here. Not what stands there of
    /// plugins that come with Apus: foreign code runs in those workers, writes there, and could have them refused
    /// everywhere.
    package var others: [SharedSegment] = []
    /// What the worker before ended of, as text; nil: of nothing a plugin did.
    package private(set) var explanation: String?
    private let guarded: CallGuard
    private let limits: Limits
    private let now: () -> Int64
    private let logger: Logger

    /// Reads what the worker before left, and starts guarding. To be made on the thread that calls the plugins.
    /// - Throws: the kernel refuses the signal handlers, or /proc does not show how much memory is in use.
    package init(
        segment: SharedSegment, others: [SharedSegment] = [], limits: Limits = Limits(), logger: Logger,
        now: @escaping () -> Int64
    ) throws(SystemError) {
        precondition(segment.slots >= Self.table + 4 * Self.entries, "the segment of plugins is too small")
        self.segment = segment
        self.others = others
        self.limits = limits
        self.logger = logger
        self.now = now
        var death: Death?
        if segment.atomicLoad(slot: 0) == Self.magic {
            death = Self.death(in: segment, limits)
            segment.atomicStore(slot: Self.lastMarkSlot, 0)
        } else {
            for slot in 0..<segment.slots { segment.atomicStore(slot: slot, 0) }
            segment.atomicStore(slot: 0, Self.magic)
        }
        guarded = try CallGuard(segment: segment, slot: Self.markSlot, memory: limits.memory)
        if let death {
            blame(death)
            explanation = Self.explain(death, limits)
        }
    }

    /// How a process ended that had marked its calls in a segment.
    private struct Death {
        var mark: UInt64
        var cause: UInt64
        var points: UInt64
        var phase: PluginPhase { PluginPhase(rawValue: mark & 3) ?? .match }
    }

    /// nil: not in a call of a plugin, nor of what one did.
    private static func death(in segment: SharedSegment, _ limits: Limits) -> Death? {
        let mark = segment.atomicLoad(slot: markSlot)
        let lastMark = segment.atomicLoad(slot: lastMarkSlot)
        var cause = segment.atomicLoad(slot: markSlot + 1)
        if mark != 0, cause == 0 {
            // A worker outlives four budgets only when the guard's signal was kept away: the supervisor had to kill it.
            let began = segment.atomicLoad(slot: beganSlot)
            let elapsed = CallGuard.now().subtractingReportingOverflow(began)
            let longest = UInt64(limits.budgetMilliseconds) * 4_000_000
            if began != 0, !elapsed.overflow, elapsed.partialValue > longest { cause = Sandbox.timeout }
        }
        if mark != 0 {
            return Death(mark: mark, cause: cause, points: cause == 0 ? limits.pointsOfKill : limits.pointsOfCrash)
        }
        if cause != 0, lastMark != 0 { return Death(mark: lastMark, cause: cause, points: limits.pointsOfAftermath) }
        return nil
    }

    private static func explain(_ death: Death, _ limits: Limits) -> String {
        explain(death.cause, death.phase, limits)
    }

    private static func explain(_ cause: UInt64, _ phase: PluginPhase, _ limits: Limits) -> String {
        switch cause {
        case 0: "a filter worker was killed \(phase.text)"
        case Sandbox.exit: "it called exit \(phase.text)"
        case Sandbox.memory: "it used up the memory \(phase.text)"
        case Sandbox.timeout: "a call took longer than \(limits.budgetMilliseconds) ms \(phase.text)"
        default: "a filter worker crashed \(phase.text) or after (\(Sandbox.signalName(cause)))"
        }
    }

    /// What a process that has ended did in its last call, by its segment; nil: it ended outside of calls.
    package static func verdict(in segment: SharedSegment, limits: Limits = Limits()) -> String? {
        death(in: segment, limits).map { explain($0, limits) }
    }

    private static let finishedSlot = 5
    private static let finishedMark: UInt64 = 0x4649_4E49_0000_0000

    /// Notes that the process has done what it was there for, and the code it ends with, 0 to 255.
    package static func finish(_ code: Int32, in segment: SharedSegment) {
        segment.atomicStore(slot: finishedSlot, finishedMark | UInt64(UInt8(truncatingIfNeeded: code)))
    }

    /// The code `finish` noted; nil: it did not come so far.
    package static func finished(in segment: SharedSegment) -> Int32? {
        let value = segment.atomicLoad(slot: finishedSlot)
        return value & ~0xFF == finishedMark ? Int32(value & 0xFF) : nil
    }

    /// Whether a `PluginConduct` was made on the segment.
    package static func hasBegun(_ segment: SharedSegment) -> Bool { segment.atomicLoad(slot: 0) == magic }

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
        guard let left = pause(file) else { return nil }
        return "not used for \((left + 999) / 1000) s: \(history(file) ?? "")"
    }

    /// The milliseconds for which the plugin is not called yet; nil: it is called.
    func pause(_ file: PluginFile) -> Int64? {
        let longest = entries(of: file).map { segment, entry in
            let until = Int64(clamping: segment.atomicLoad(slot: entry + 3))
            let left = until.subtractingReportingOverflow(now())
            // Whatever stands there, no pause is longer than the longest.
            return left.overflow || left.partialValue > limits.longestPauseMilliseconds ? 0 : left.partialValue
        }.max()
        return longest.flatMap { $0 > 0 ? $0 : nil }
    }

    /// Whether it was while the file was being loaded that the last worker died of it.
    func diesWhenLoaded(_ file: PluginFile) -> Bool {
        entries(of: file).contains { segment, entry in
            segment.atomicLoad(slot: entry) & 3 == PluginPhase.load.rawValue
        }
    }

    /// What is known against a plugin; nil when there is nothing, or it is forgotten.
    func history(_ file: PluginFile) -> String? {
        let known = entries(of: file).filter { !isForgotten($0, $1) }
        let last = known.max { $0.0.atomicLoad(slot: $0.1 + 2) < $1.0.atomicLoad(slot: $1.1 + 2) }
        guard let (segment, entry) = last else { return nil }
        let phase = PluginPhase(rawValue: segment.atomicLoad(slot: entry) & 3) ?? .match
        let cause = segment.atomicLoad(slot: entry + 1) & 0xFFFF_FFFF
        let points = known.reduce(UInt64(0)) { $0 + min($1.0.atomicLoad(slot: $1.1 + 1) >> 32, 1 << 20) }
        return "\(Self.explain(cause, phase, limits)), \(points) of \(limits.points) points"
    }

    /// Forgets what is held against a plugin by this worker. Whether there was anything.
    @discardableResult
    func pardon(_ file: PluginFile) -> Bool {
        guard let entry = Self.entry(of: file.hash, in: segment) else { return false }
        for slot in entry..<entry + 4 { segment.atomicStore(slot: slot, 0) }
        return true
    }

    private func isForgotten(_ segment: SharedSegment, _ entry: Int) -> Bool {
        let last = Int64(clamping: segment.atomicLoad(slot: entry + 2))
        let age = now().subtractingReportingOverflow(last)
        return last == 0 || age.overflow || age.partialValue > limits.forgetMilliseconds || age.partialValue < 0
    }

    private func entries(of file: PluginFile) -> [(SharedSegment, Int)] {
        entries(of: file.hash, in: file.isBuiltIn ? [segment] : [segment] + others)
    }

    private func entries(of hash: UInt64, in segments: [SharedSegment]) -> [(SharedSegment, Int)] {
        segments.compactMap { segment in
            guard segment.slots >= Self.table + 4 * Self.entries, segment.atomicLoad(slot: 0) == Self.magic else {
                return nil
            }
            return Self.entry(of: hash, in: segment).map { (segment, $0) }
        }
    }

    private static func entry(of hash: UInt64, in segment: SharedSegment) -> Int? {
        for index in 0..<entries {
            let entry = table + 4 * index
            let mark = segment.atomicLoad(slot: entry)
            if mark != 0, mark & ~3 == hash { return entry }
        }
        return nil
    }

    /// The plugin's entry, a free one, or the one that was guilty longest ago.
    private func makeEntry(_ hash: UInt64) -> Int {
        if let known = Self.entry(of: hash, in: segment) { return known }
        let all = (0..<Self.entries).map { Self.table + 4 * $0 }
        let place =
            all.first { segment.atomicLoad(slot: $0) == 0 }
            ?? all.min { segment.atomicLoad(slot: $0 + 2) < segment.atomicLoad(slot: $1 + 2) }
        guard let place else { preconditionFailure("the table of plugins has no entries") }
        for slot in place..<place + 4 { segment.atomicStore(slot: slot, 0) }
        return place
    }

    private func blame(_ death: Death) {
        let time = now()
        let hash = death.mark & ~3
        let entry = makeEntry(hash)
        var points = isForgotten(segment, entry) ? 0 : min(segment.atomicLoad(slot: entry + 1) >> 32, 1 << 20)
        points += death.points
        segment.atomicStore(slot: entry, death.mark)
        segment.atomicStore(slot: entry + 1, points << 32 | min(death.cause, 0xFFFF_FFFF))
        segment.atomicStore(slot: entry + 2, UInt64(time))
        let all = entries(of: hash, in: [segment] + others).filter { !isForgotten($0, $1) }
            .reduce(UInt64(0)) { $0 + min($1.0.atomicLoad(slot: $1.1 + 1) >> 32, 1 << 20) }
        if all >= limits.points {
            let doublings = min((all - limits.points) / limits.pointsOfCrash, 16)
            let pause = min(limits.firstPauseMilliseconds << Int64(doublings), limits.longestPauseMilliseconds)
            segment.atomicStore(slot: entry + 3, UInt64(time + pause))
        }
    }
}

/// A plugin as `PluginConduct` knows it: by its file's name and contents. Other contents are another plugin, which
/// starts without a record.
struct PluginFile: Hashable {
    let name: String
    /// The two lowest bits are free for the phase.
    let hash: UInt64

    /// - Parameter checksum: CRC-32 of the file's contents.
    init(path: String, checksum: UInt32 = 0) {
        name = Self.name(of: path)
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in name.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        for shift in [0, 8, 16, 24] { hash = (hash ^ UInt64(checksum >> UInt32(shift) & 0xFF)) &* 0x100_0000_01B3 }
        self.hash = hash & ~3 == 0 ? 4 : hash & ~3
    }

    /// What stands after the last slash of a path.
    static func name(of path: String) -> String {
        path.lastIndex(of: "/").map { String(path[path.index(after: $0)...]) } ?? path
    }

    /// Comes with Apus. No file of an operator's is taken under such a name.
    var isBuiltIn: Bool { PluginPlaces.builtIns.contains(name) }

    /// Whether people mean this file: its name, or that without `lib` and `.so`.
    func isCalled(_ other: String) -> Bool { name == other || name == "lib\(other).so" }
}
