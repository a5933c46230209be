import LinuxSystem
import StoreFormat

/// The pass that writes queues, index and record checksums behind the log, a bounded part with each call.
///
/// A pass covers all that was dispatched when it began. Queues that get messages meanwhile belong to the next one.
/// Confined to the store's thread.
struct QueuePass {
    /// What the store does with a job of the `writeBehind` thread that has ended.
    typealias Completion = (MessageStore) throws(SystemError) -> Void

    private(set) var isRunning = false
    /// What lies below is written when the pass has ended.
    private(set) var dispatched = PhysicalOffset(0)
    /// Still to be written.
    private var queues: [ConsumeQueue] = []
    /// Written by the pass before or by this one: if they stay quiet until the next one their memory is released.
    private var warmQueues: [(queue: ConsumeQueue, end: QueueOffset)] = []
    /// Queues the `writeBehind` thread makes files for.
    private var waitingForFile: [ConsumeQueue] = []
    /// The `writeBehind` thread works for the pass, which goes on when it has done.
    private(set) var isWaiting = false
    private var completion: Completion?
    /// When the last pass began, milliseconds since 1970.
    private var lastBeginMilliseconds: Int64 = 0

    /// The store has been opened: all below `dispatched` counts as written.
    mutating func open(now: Int64, dispatched: PhysicalOffset) {
        lastBeginMilliseconds = now
        self.dispatched = dispatched
    }

    func millisecondsSinceBegin(_ now: Int64) -> Int64 { now - lastBeginMilliseconds }

    /// Begins with what is dirty now; releases the memory of queues that have been quiet since the pass before.
    mutating func begin(now: Int64, dispatched end: PhysicalOffset, dirty: [ConsumeQueue]) {
        precondition(!isRunning && queues.isEmpty, "a pass begins when the one before it has ended")
        assert(end >= dispatched, "a pass does not go back")
        isRunning = true
        lastBeginMilliseconds = now
        dispatched = end
        queues = dirty
        for (queue, end) in warmQueues where queue.maxOffset == end { queue.releaseTail() }
        warmQueues.removeAll(keepingCapacity: true)
    }

    var hasQueues: Bool { !queues.isEmpty }

    mutating func nextQueue() -> ConsumeQueue? { queues.popLast() }

    /// The queue is written up to its end.
    mutating func noteWritten(_ queue: ConsumeQueue) { warmQueues.append((queue, queue.maxOffset)) }

    /// The `writeBehind` thread makes files for these queues; `madeFiles` follows when it has ended.
    mutating func waitForFiles(_ queues: [ConsumeQueue]) { waitingForFile = queues }

    /// - Returns: the queues that waited.
    mutating func takeWaiting() -> [ConsumeQueue] {
        defer { waitingForFile = [] }
        return waitingForFile
    }

    /// These belong to the pass once more: they have files now.
    mutating func add(_ queues: [ConsumeQueue]) { self.queues += queues }

    /// The pass goes on when a job of the `writeBehind` thread has ended.
    mutating func wait(_ completion: @escaping Completion) {
        precondition(isRunning && !isWaiting, "a pass waits for one job at a time")
        isWaiting = true
        self.completion = completion
    }

    /// The job has ended.
    /// - Returns: what is to be done with it; nil when the store was closed meanwhile.
    mutating func resume() -> Completion? {
        defer { completion = nil }
        if completion != nil { isWaiting = false }
        return completion
    }

    /// All is written.
    mutating func end() {
        precondition(isRunning && queues.isEmpty && !isWaiting, "a pass ends when all is written")
        isRunning = false
    }

    /// The pass failed, or the store closes: a job under way is not taken over.
    /// - Returns: the queues that were not written.
    mutating func abandon() -> [ConsumeQueue] {
        defer { queues = [] }
        isRunning = false
        return queues
    }

    /// The store closes and the threads have ended: what a job would have done then is not wanted any more.
    /// - Returns: the queues that were not written.
    mutating func close() -> [ConsumeQueue] {
        completion = nil
        return abandon() + takeWaiting()
    }
}
