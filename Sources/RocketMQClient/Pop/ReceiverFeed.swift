import RemotingProtocol

/// Calls of `MessageReceiver.receive` that wait for the same: one topic, group, filter and time. Confined to the
/// receiver.
final class ReceiverFeed {
    struct Key: Hashable, Sendable {
        let topic: String
        let group: String
        let expressionType: String
        let expression: String
        let timeout: Duration?
    }

    typealias Outcome = Result<[ReceivedDelivery], RocketMQClientError>

    struct Waiter {
        let messagesMax: Int
        let deadline: ContinuousClock.Instant
        /// All brokers have been looked at since it came.
        var isSeen = false
        let done: CheckedContinuation<Outcome, Never>
    }

    let key: Key
    private var waiters: [Int: Waiter] = [:]
    /// Numbers as they came; some may be of those that have left.
    private var order: [Int] = []
    private var first = 0
    /// Brokers that are waited for: with a request that waits there, or after a failure.
    var busy: Set<String> = []
    /// Brokers whose last request failed, and why.
    var failures: [String: RocketMQClientError] = [:]
    /// Where the next look at the brokers begins.
    var turn = 0
    var isServed = false
    private var isStirred = false
    private var sleeper: CheckedContinuation<Void, Never>?
    private var timer: (at: ContinuousClock.Instant, task: Task<Void, Never>)?

    init(_ key: Key) { self.key = key }

    var isEmpty: Bool { waiters.isEmpty }
    /// No call waits, and no request is under way.
    var isIdle: Bool { waiters.isEmpty && !isServed && busy.isEmpty }

    /// Messages that are waited for, 1 to 32.
    var wanted: Int {
        var sum = 0
        for waiter in waiters.values {
            sum += waiter.messagesMax
            if sum >= 32 { return 32 }
        }
        return max(1, sum)
    }

    /// How long the most patient one still waits.
    func longestWait(at now: ContinuousClock.Instant, atMost most: Duration) -> Duration {
        var longest = Duration.zero
        for waiter in waiters.values {
            longest = max(longest, now.duration(to: waiter.deadline))
            if longest >= most { return most }
        }
        return longest
    }

    func add(_ number: Int, _ waiter: Waiter) {
        waiters[number] = waiter
        order.append(number)
    }

    /// Ends one without messages. Nothing for one that has left.
    func leave(_ number: Int) {
        waiters.removeValue(forKey: number)?.done.resume(returning: .success([]))
        if order.count - first > 2 * waiters.count + 16 {
            order = order[first...].filter { waiters[$0] != nil }
            first = 0
        }
    }

    func end(with outcome: Outcome) {
        let all = waiters.values
        waiters = [:]
        order = []
        first = 0
        for waiter in all { waiter.done.resume(returning: outcome) }
    }

    /// Gives messages to those that wait, in their order.
    ///
    /// - Returns: those that none waits for.
    func deliver(_ deliveries: [ReceivedDelivery]) -> ArraySlice<ReceivedDelivery> {
        var rest = deliveries[...]
        while !rest.isEmpty, first < order.count {
            let number = order[first]
            first += 1
            guard let waiter = waiters.removeValue(forKey: number) else { continue }
            waiter.done.resume(returning: .success(Array(rest.prefix(waiter.messagesMax))))
            rest = rest.dropFirst(waiter.messagesMax)
        }
        if first > 64, first * 2 > order.count {
            order.removeFirst(first)
            first = 0
        }
        return rest
    }

    /// All brokers have been looked at.
    func note(seen numbers: [Int]) {
        for number in numbers { waiters[number]?.isSeen = true }
    }

    var unseen: [Int] { order[first...].filter { waiters[$0]?.isSeen == false } }

    /// Ends those whose time is over.
    ///
    /// - Returns: when the next one's is.
    func expire(at now: ContinuousClock.Instant) -> ContinuousClock.Instant? {
        var next: ContinuousClock.Instant?
        for (number, waiter) in waiters where waiter.isSeen {
            if waiter.deadline <= now {
                leave(number)
            } else {
                next = min(next ?? waiter.deadline, waiter.deadline)
            }
        }
        return next
    }

    // MARK: - Waking

    /// Something has changed for who serves the feed.
    func stir() {
        isStirred = true
        sleeper?.resume()
        sleeper = nil
    }

    /// Returns when `stir` was called since the last return.
    func untilStirred(isolation: isolated (any Actor)? = #isolation) async {
        if !isStirred { await withCheckedContinuation { sleeper = $0 } }
        isStirred = false
    }

    /// Has `action` called at a time, or at an earlier one that was set before.
    func wake(at time: ContinuousClock.Instant?, _ action: @escaping @Sendable () async -> Void) {
        guard let time else { return }
        if let timer, timer.at <= time { return }
        timer?.task.cancel()
        timer = (
            time,
            Task {
                guard (try? await Task.sleep(until: time, tolerance: .milliseconds(20))) != nil else { return }
                await action()
            }
        )
    }

    func timerIsOver() { timer = nil }
}
