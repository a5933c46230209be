import MessageStore
import NIOCore
package import WorkerProtocol

/// Learns that a filter worker can be asked (again). On the event loop.
protocol FilterLinkObserver: AnyObject {
    func filterWorkerIsAvailable()
}

/// The broker's side of the link to `apus-filter`. An expression is compiled once and remembered; a restarted filter
/// worker (a new peer) compiles again by itself what is in use. While there is none, subscriptions the plugin answered
/// with tags codes go on. The others wait: no consumer gets an unfiltered message, and no offset moves past one.
///
/// Several workers share the expressions, each of which stays with its worker also while that restarts. So an
/// expression that kills its worker does not go on to kill the next.
package final class FilterLink {
    private struct Key: Hashable {
        var type: String
        var expression: String

        /// The same for equal expressions in every process.
        var hash: UInt64 {
            var hash: UInt64 = 0xCBF2_9CE4_8422_2325
            for byte in expression.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
            return hash ^ hash >> 32
        }
    }

    private struct Batch {
        var subscription: CompiledSubscription
        var completion: ([UInt8]?) -> Void
    }

    /// A request to the filter worker is given up after this; the one that asked tries again or answers "nothing yet".
    static let answerTimeoutMilliseconds: Int64 = 3000
    /// How long a refusal for want of a plugin counts.
    static let unavailableMilliseconds: Int64 = 1000
    /// Expressions remembered at most; the least used quarter goes.
    static let subscriptionsMax = 4096
    /// Bytes of them and of what workers answered; above, the least used go that no client holds.
    static let bytesMax = 32 << 20
    /// Above that, what clients have let go of meanwhile is looked for this long after the last time.
    static let lookAgainMilliseconds: Int64 = 60_000
    /// As above, with those that consumers and waiting reads hold: no further expression is taken.
    static let heldBytesMax = 256 << 20
    /// Windows of verdicts kept at most, 1 to 2 KiB each; when there are more, all are made anew as they are needed.
    static let windowsMax = 4096

    /// For the queue entries of ranges that were asked about: 20 bytes each, read once for the question and the
    /// answer.
    var entryMemory = EntryMemory(maximum: 4 << 20)

    private let eventLoop: any EventLoop
    private let now: () -> Int64
    /// The workers that are there, by index.
    private var workers: [Int: (WorkerMessage) -> Void] = [:]
    /// The indexes of all workers there ever were, in order.
    private var known: [Int] = []
    /// What each of them reported last that it serves: also of one that is being restarted.
    private var served: [Int: (rank: UInt8, types: Set<String>)] = [:]
    private var subscriptions: [Key: CompiledSubscription] = [:]
    private var recent = RecentSubscriptions()
    /// The least used are looked for when there are so many: not at each new one when all are in use.
    private var forgetAt = FilterLink.subscriptionsMax
    /// At most so many bytes; exact whenever the least used were forgotten.
    private(set) var bytes = 0
    private var forgetAtBytes = FilterLink.bytesMax
    /// When the least used were looked for.
    private var forgotAt = Int64.min
    private var compiling: [UInt64: CompiledSubscription] = [:]
    private var batches: [UInt64: Batch] = [:]
    /// Expressions that reads wait for while their worker is away, by the number of a request that is not sent.
    private var waiting: [UInt64: CompiledSubscription] = [:]
    /// Requests in the order of their deadlines: all have the same time-out.
    private var deadlines: [(request: UInt64, milliseconds: Int64)] = []
    private var firstDeadline = 0
    private var timer: Scheduled<Void>?
    private var nextRequest: UInt64 = 1

    private weak var observer: (any FilterLinkObserver)?

    /// - Parameter now: milliseconds.
    init(eventLoop: any EventLoop, observer: (any FilterLinkObserver)?, now: @escaping () -> Int64) {
        self.observer = observer
        self.eventLoop = eventLoop
        self.now = now
    }

    /// What pulls of a type and an expression select by; an expression that was not seen yet is compiled.
    func filter(type: String, expression: String) -> SubscriptionFilter {
        let isTag = SubscriptionFilter.isTagType(type)
        if isTag, expression.isEmpty || expression == "*" { return .all }
        return .compiled(subscription(type: isTag ? "TAG" : type, expression: expression))
    }

    var isConnected: Bool { !workers.isEmpty }
    /// Whether there is an expression that is not by tags; looks at all that are known.
    var hasPluginExpressions: Bool { subscriptions.keys.contains { !SubscriptionFilter.isTagType($0.type) } }
    /// Why a pull cannot be filtered now, for a remark.
    var absence: String {
        isConnected
            ? "the filter worker did not answer in time; the pull may be repeated"
            : "the filter worker is restarting; the pull may be repeated (see the journal of apus-filter)"
    }

    // MARK: - The peer

    /// Filter worker `index` was introduced; the one before with this index, if any, has ended, and its programs with
    /// it.
    package func connect(_ index: Int = 0, send: @escaping (WorkerMessage) -> Void) {
        disconnect(index)
        workers[index] = send
        if !known.contains(index) {
            known = (known + [index]).sorted()
            route()
        }
        compileUnknown(index)
        observer?.filterWorkerIsAvailable()
    }

    /// Filter worker `index` serves these types from now on. Expressions go to the workers of the lowest rank that
    /// serve all they call.
    private func serves(_ index: Int, rank: UInt8, types: [String]) {
        // Expressions name no longer type.
        let named = types.prefix(WorkerMessage.filterTypesMax).filter { $0.utf8.count <= WorkerMessage.filterTypeMax }
        served[index] = (rank, Set(named))
        route()
        compileUnknown(index)
        observer?.filterWorkerIsAvailable()
    }

    private func route() {
        for (key, subscription) in subscriptions {
            // What stands by itself needs no worker.
            switch subscription.state {
            case .everything, .tagsCodes, .refused: continue
            case .unknown, .compiling, .program, .unavailable: break
            }
            move(subscription, to: worker(for: key, calls: subscription.calls))
        }
    }

    private func compileUnknown(_ index: Int) {
        for subscription in subscriptions.values where subscription.worker == index {
            if case .unknown = subscription.state { compile(subscription) }
        }
    }

    /// Filter worker `index` has ended. Its programs are forgotten, and reads that wait for it are resumed.
    package func disconnect(_ index: Int = 0) {
        guard workers.removeValue(forKey: index) != nil else { return }
        let lost = batches.filter { $0.value.subscription.worker == index }
        for request in lost.keys { batches[request] = nil }
        compiling = compiling.filter { $0.value.worker != index }
        for subscription in subscriptions.values where subscription.worker == index { subscription.forgetWorker() }
        for batch in lost.values { batch.completion(nil) }
        // What waited for a compilation looks again, and finds no worker.
        for subscription in subscriptions.values where subscription.worker == index { finish(subscription) }
    }

    /// The worker of an expression: of those of the lowest rank that serve all it needs, by its hash. Where none does,
    /// one that can report that; a worker that has not reported yet may serve anything.
    private func worker(for key: Key, calls: [String]) -> Int {
        let needed = calls.isEmpty ? [key.type] : calls
        let able = known.filter { index in served[index].map { needed.allSatisfy($0.types.contains) } ?? false }
        let lowest = able.compactMap { served[$0]?.rank }.min()
        var candidates = able.filter { served[$0]?.rank == lowest }
        // A plugin has one worker; of two plugins for one type the first by name counts, in the first worker.
        if let lowest, lowest > 0 { candidates = Array(candidates.prefix(1)) }
        if candidates.isEmpty { candidates = known.filter { served[$0] == nil || served[$0]?.rank == 0 } }
        if candidates.isEmpty { candidates = known }
        return candidates.isEmpty ? 0 : candidates[Int(key.hash % UInt64(candidates.count))]
    }

    func typesServed(by index: Int) -> Set<String> { served[index]?.types ?? [] }

    private func isServed(_ types: [String]) -> Bool {
        served.values.contains { types.allSatisfy($0.types.contains) }
    }

    /// There are more workers now, and this one serves the expression from now on.
    private func move(_ subscription: CompiledSubscription, to worker: Int) {
        guard subscription.worker != worker else { return }
        if case .program(let program) = subscription.state {
            workers[subscription.worker]?(.filterRelease(program: program))
        }
        let lost = batches.filter { $0.value.subscription === subscription }
        for request in lost.keys { batches[request] = nil }
        compiling = compiling.filter { $0.value !== subscription }
        subscription.worker = worker
        subscription.forgetWorker()
        for batch in lost.values { batch.completion(nil) }
        // Reads that wait for the answer of the former worker get the new one's: no later read may ask for this
        // expression.
        if !subscription.waiters.isEmpty, case .unknown = subscription.state { compile(subscription) }
    }

    /// Workers below this index run no foreign code: only they are taken to have rank 0, that of TAG and SQL92.
    package var builtInWorkers = Int.max

    /// A message of filter worker `index`. What runs in it may be a plugin's code: it answers only for that worker.
    package func receive(_ message: WorkerMessage, from index: Int) {
        switch message {
        case .filterServes(let rank, let types):
            serves(index, rank: index < builtInWorkers ? rank : max(rank, 1), types: types)
        case .filterCompiled(let request, _):
            if compiling[request]?.worker == index { receive(message) }
        case .filterMatched(let request, _), .filterFailed(let request, _, _):
            if batches[request]?.subscription.worker == index { receive(message) }
        default: break
        }
    }

    /// An answer to a request of this link; one to no open request is dropped.
    package func receive(_ message: WorkerMessage) {
        switch message {
        case .filterCompiled(let request, let result): compiled(request, result)
        case .filterMatched(let request, let bitmap):
            guard let batch = batches.removeValue(forKey: request) else { return }
            batch.subscription.batchEnded(inTime: true)
            batch.completion(bitmap.isEmpty ? nil : bitmap)
        case .filterFailed(let request, let unknownProgram, _):
            guard let batch = batches.removeValue(forKey: request) else { return }
            if unknownProgram { compile(batch.subscription) }
            batch.completion(nil)
        default: break
        }
    }

    // MARK: - Compiling

    /// As below for one that is known, which is left as it is; nil: ask by name. `type` is as the client spelled it.
    @inline(__always)
    func recentSubscription(
        type: UnsafeRawBufferPointer?, expression: UnsafeRawBufferPointer
    ) -> CompiledSubscription? {
        recent.find(type, expression)
    }

    /// The next pull with the same finds it by these bytes.
    func remember(
        _ subscription: CompiledSubscription, type: UnsafeRawBufferPointer?, expression: UnsafeRawBufferPointer
    ) {
        // One that found no room is asked for again.
        guard !subscription.hasNoRoom else { return }
        recent.add(subscription, type, expression)
    }

    /// The subscription of an expression; its compilation starts now if it has not.
    func subscription(type: String, expression: String) -> CompiledSubscription {
        if let reason = Self.refusal(type: type, expression: expression) {
            return CompiledSubscription(
                type: type, expression: expression, .refused(position: -1, reason: reason))
        }
        let key = Key(type: type, expression: expression)
        let subscription: CompiledSubscription
        if let known = subscriptions[key] {
            subscription = known
        } else {
            subscription = CompiledSubscription(type: type, expression: expression)
            let isFull = bytes + subscription.textBytes > Self.heldBytesMax
            let wasMuch = bytes > Self.bytesMax && forgotAt + Self.lookAgainMilliseconds <= now()
            if subscriptions.count >= forgetAt || bytes + subscription.textBytes > forgetAtBytes || wasMuch {
                // Nothing comes of looking again at once where all is held.
                if !isFull || forgotAt + Self.unavailableMilliseconds <= now() { forgetLeastUsed() }
            }
            guard bytes + subscription.textBytes <= Self.heldBytesMax else { return Self.noRoom(type, expression) }
            subscription.worker = worker(for: key, calls: [])
            subscriptions[key] = subscription
            bytes += subscription.textBytes
        }
        prepare(subscription)
        return subscription
    }

    /// Why an expression is not compiled and nothing of it kept, with the remedy; nil: it is.
    static func refusal(type: String, expression: String) -> String? {
        let (types, expressions) = (WorkerMessage.filterTypeMax, WorkerMessage.filterExpressionMax)
        if type.utf8.count > types {
            return
                "the expression's type has \(type.utf8.count) bytes, at most \(types): name the type that a filter "
                + "plugin serves"
        }
        guard expression.utf8.count > expressions else { return nil }
        return
            "the expression has \(expression.utf8.count) bytes, at most \(expressions): shorten it, or divide it among "
            + "several groups"
    }

    /// The next read that names it, or the next heartbeat, asks again.
    private static func noRoom(_ type: String, _ expression: String) -> CompiledSubscription {
        let subscription = CompiledSubscription(
            type: type, expression: expression,
            .unavailable(
                reason: "the expressions that clients use now take \(heldBytesMax >> 20) MiB, no other is taken; "
                    + "shorten them, or use the same in more groups",
                untilMilliseconds: .max))
        subscription.hasNoRoom = true
        return subscription
    }

    /// Starts what must be (re)compiled; call before looking at the state.
    func prepare(_ subscription: CompiledSubscription) {
        let time = now()
        subscription.lastUsedMilliseconds = time
        switch subscription.state {
        case .unknown: compile(subscription)
        case .unavailable(_, let until) where until <= time: compile(subscription)
        default: break
        }
    }

    /// Calls back once the compilation has ended in whatever way, in time or not; at once if it has already.
    func whenCompiled(_ subscription: CompiledSubscription, _ completion: @escaping () -> Void) {
        switch subscription.state {
        case .unknown:
            subscription.waiters.append(completion)
            limitWait(subscription)
        case .compiling: subscription.waiters.append(completion)
        default: completion()
        }
    }

    /// Its worker is away, and may be for long: no request is there to end the wait of the reads.
    private func limitWait(_ subscription: CompiledSubscription) {
        guard !subscription.hasDeadline, !subscription.waiters.isEmpty else { return }
        subscription.hasDeadline = true
        waiting[newRequest()] = subscription
    }

    private func compile(_ subscription: CompiledSubscription) {
        guard let send = workers[subscription.worker] else { return limitWait(subscription) }
        subscription.state = .compiling
        let request = newRequest()
        compiling[request] = subscription
        send(.filterCompile(request: request, type: subscription.type, expression: subscription.expression))
    }

    private func compiled(_ request: UInt64, _ result: FilterCompilation) {
        guard let subscription = compiling.removeValue(forKey: request) else { return }
        defer { bytes += subscription.answerBytes }
        switch result {
        case .everything: subscription.state = .everything
        case .tagsCodes(let codes) where codes.count > WorkerMessage.filterTagsCodesMax,
            .program(_, let codes?) where codes.count > WorkerMessage.filterTagsCodesMax:
            if case .program(let program, _) = result {
                workers[subscription.worker]?(.filterRelease(program: program))
            }
            subscription.state = tooMany(codes.count, "tags codes")
        case .elsewhere(let types, _) where !Self.mayCall(types):
            subscription.state = tooMany(types.count, "types")
        case .tagsCodes(let codes): subscription.state = .tagsCodes(codes)
        case .program(let program, let prefilter):
            subscription.prefilter = prefilter.map { Set($0) }
            subscription.state = .program(program)
        case .refused(let position, let reason): subscription.state = .refused(position: position, reason: reason)
        case .unavailable(let reason):
            subscription.state = .unavailable(reason: reason, untilMilliseconds: now() + Self.unavailableMilliseconds)
        case .elsewhere(let types, let reason):
            subscription.calls = types
            let key = Key(type: subscription.type, expression: subscription.expression)
            let other = worker(for: key, calls: types)
            if isServed(types), other != subscription.worker {
                subscription.worker = other
                subscription.state = .unknown
                compile(subscription)
                // Its worker is being restarted: what waits is called when it is back.
                return
            }
            subscription.state = .unavailable(reason: reason, untilMilliseconds: now() + Self.unavailableMilliseconds)
        }
        finish(subscription)
    }

    private func tooMany(_ count: Int, _ what: String) -> CompiledSubscription.State {
        .unavailable(
            reason: "the filter worker answered \(count) \(what) for it, which is more than one expression may need",
            untilMilliseconds: now() + Self.unavailableMilliseconds)
    }

    private static func mayCall(_ types: [String]) -> Bool {
        types.count <= WorkerMessage.filterTypesMax
            && types.reduce(0) { $0 + $1.utf8.count }
                <= WorkerMessage.filterExpressionMax
    }

    private func finish(_ subscription: CompiledSubscription) {
        let waiters = subscription.waiters
        subscription.waiters.removeAll()
        for waiter in waiters { waiter() }
    }

    private func forgetLeastUsed() {
        recent = RecentSubscriptions()
        let byUse = subscriptions.map { (key: $0.key, used: $0.value.lastUsedMilliseconds) }.sorted {
            $0.used < $1.used
        }
        bytes = subscriptions.values.reduce(0) { $0 + $1.textBytes + $1.answerBytes }
        let quarter = subscriptions.count >= forgetAt ? Self.subscriptionsMax / 4 : 0
        for (place, (key, _)) in byUse.enumerated() {
            guard place < quarter || bytes > Self.bytesMax * 3 / 4 else { break }
            // What a consumer or a pull holds stays: as many as there are clients, and all are notified when a worker
            // ends.
            guard isKnownUniquelyReferenced(&subscriptions[key]) else { continue }
            if case .program(let program)? = subscriptions[key]?.state, let worker = subscriptions[key]?.worker {
                workers[worker]?(.filterRelease(program: program))
            }
            bytes -= subscriptions[key].map { $0.textBytes + $0.answerBytes } ?? 0
            subscriptions[key] = nil
        }
        forgotAt = now()
        forgetAtBytes = min(max(Self.bytesMax, bytes + Self.bytesMax / 4), Self.heldBytesMax)
        forgetAt = max(Self.subscriptionsMax, subscriptions.count + Self.subscriptionsMax / 4)
    }

    // MARK: - Evaluating

    /// Asks which of the entries match; `nil` when the worker has ended, is late or could not evaluate. The bitmap may
    /// end before the entries do: the rest was not looked at.
    func match(
        _ subscription: CompiledSubscription, program: UInt32, entries: [UInt8],
        completion: @escaping ([UInt8]?) -> Void
    ) {
        guard let send = workers[subscription.worker] else { return completion(nil) }
        let request = newRequest()
        batches[request] = Batch(subscription: subscription, completion: completion)
        send(.filterBatch(request: request, program: program, entries: entries))
    }

    /// The window of a queue and a group; bounds how many there are.
    func window(
        _ subscription: CompiledSubscription, _ queue: ConsumeQueue, _ group: AnyObject
    ) -> FilterWindow {
        let before = subscription.windowCount
        let window = subscription.window(queue, group)
        guard subscription.windowCount > before else { return window }
        let windows = subscriptions.values.reduce(0) { $0 + $1.windowCount }
        guard windows > Self.windowsMax else { return window }
        for other in subscriptions.values { other.forgetVerdicts() }
        return subscription.window(queue, group)
    }

    // MARK: - Time-outs

    private func newRequest() -> UInt64 {
        let request = nextRequest
        nextRequest += 1
        deadlines.append((request, now() + Self.answerTimeoutMilliseconds))
        if timer == nil { arm(inMilliseconds: Self.answerTimeoutMilliseconds) }
        return request
    }

    private func arm(inMilliseconds delay: Int64) {
        let link = NIOLoopBound(self, eventLoop: eventLoop)
        timer = eventLoop.scheduleTask(in: .milliseconds(max(1, delay))) { link.value.expire() }
    }

    private func expire() {
        timer = nil
        let time = now()
        while firstDeadline < deadlines.count {
            let (request, deadline) = deadlines[firstDeadline]
            if deadline > time { break }
            firstDeadline += 1
            if let batch = batches.removeValue(forKey: request) {
                batch.subscription.batchEnded(inTime: false)
                batch.completion(nil)
            }
            if let subscription = compiling.removeValue(forKey: request) {
                subscription.state = .unknown
                finish(subscription)
            }
            if let subscription = waiting.removeValue(forKey: request) {
                subscription.hasDeadline = false
                if case .unknown = subscription.state { finish(subscription) }
            }
        }
        if firstDeadline == deadlines.count {
            deadlines.removeAll(keepingCapacity: true)
            firstDeadline = 0
        } else {
            if firstDeadline > 1024 {
                deadlines.removeFirst(firstDeadline)
                firstDeadline = 0
            }
            arm(inMilliseconds: deadlines[firstDeadline].milliseconds - time)
        }
    }

    func close() {
        timer?.cancel()
        timer = nil
        for index in known { disconnect(index) }
    }
}
