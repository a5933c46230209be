import MessageStore
import WorkerProtocol

/// One subscription expression and what the filter worker's plugin made of it. Shared by all groups that use it.
final class CompiledSubscription {
    enum State {
        /// Not asked yet, or the worker that had answered has ended.
        case unknown
        case compiling
        /// The expression selects everything.
        case everything
        /// Comparing these tags codes decides; needs no filter worker any more.
        case tagsCodes([Int64])
        /// A program of the present filter worker.
        case program(UInt32)
        case refused(position: Int32, reason: String)
        case unavailable(reason: String, untilMilliseconds: Int64)
    }

    let type: String
    let expression: String
    var state = State.unknown {
        didSet { if case .program = state {} else { forgetVerdicts() } }
    }
    /// With a program: messages with other tags codes cannot match.
    var prefilter: Set<Int64>?
    /// Entries the next batch may have: fewer after one that came too late.
    var batchMax = WorkerMessage.filterBatchMax
    private var windows: [FilterWindow.Key: FilterWindow] = [:]
    /// Some of them again, by the addresses of what they are for: a pull finds its window here without hashing.
    private var recent = [FilterWindow?](repeating: nil, count: CompiledSubscription.recentMax)
    private static let recentMax = 32
    var waiters: [() -> Void] = []
    /// The wait ends by itself, with or without an answer.
    var hasDeadline = false
    /// It is in no table, and is never compiled: the expressions in use left no room for it.
    var hasNoRoom = false
    /// The filter worker that serves it.
    var worker = 0
    /// The plugins it calls besides its own type's, once a worker has reported them.
    var calls: [String] = []
    var lastUsedMilliseconds: Int64 = 0

    init(type: String, expression: String) {
        self.type = type
        self.expression = expression
    }

    /// One that is not compiled; it keeps nothing of a text that is too long.
    init(type: String, expression: String, _ state: State) {
        func short(_ text: String, _ max: Int) -> String {
            text.utf8.count <= max ? text : "(\(text.utf8.count) bytes)"
        }
        self.type = short(type, WorkerMessage.filterTypeMax)
        self.expression = short(expression, 64)
        self.state = state
    }

    /// Of type and expression.
    var textBytes: Int { type.utf8.count + expression.utf8.count }

    /// Of what its worker has answered.
    var answerBytes: Int {
        let kept: Int
        switch state {
        case .tagsCodes(let codes): kept = codes.count * 8
        case .refused(_, let reason), .unavailable(let reason, _): kept = reason.utf8.count
        case .unknown, .compiling, .everything, .program: kept = 0
        }
        return kept + (prefilter?.count ?? 0) * 16 + calls.reduce(0) { $0 + $1.utf8.count }
    }

    /// What its worker made of it is lost; what stands by itself stays.
    func forgetWorker() {
        switch state {
        case .compiling, .program, .unavailable:
            state = .unknown
            prefilter = nil
        case .unknown, .everything, .tagsCodes, .refused: break
        }
    }

    /// Whether a message with these tags may be wanted; only the plugin knows if more than tags decide.
    func mayMatch(tagsCode: Int64) -> Bool {
        switch state {
        case .tagsCodes(let codes): codes.contains(tagsCode)
        case .program: prefilter?.contains(tagsCode) ?? true
        default: true
        }
    }

    // MARK: - Verdicts

    var windowCount: Int { windows.count }

    /// What is known about a queue for a group.
    func window(_ queue: ConsumeQueue, _ group: AnyObject) -> FilterWindow {
        let place = FilterWindow.place(queue, group) % Self.recentMax
        if let window = recent[place], window.isOf(queue, group) { return window }
        let key = FilterWindow.Key(queue, group)
        let window = windows[key] ?? FilterWindow(queue: queue, group: group)
        windows[key] = window
        recent[place] = window
        return window
    }

    /// Verdicts are a program's: they go with it. What still waits for one holds its window.
    func forgetVerdicts() {
        windows.removeAll()
        for place in recent.indices { recent[place] = nil }
    }

    /// A batch was answered in full, or not in time.
    func batchEnded(inTime: Bool) {
        batchMax =
            inTime ? min(batchMax * 2, WorkerMessage.filterBatchMax) : max(batchMax / 4, FilterWindow.firstBatch / 4)
    }
}
