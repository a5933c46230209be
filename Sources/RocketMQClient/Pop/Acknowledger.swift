import RemotingProtocol

/// Sends acknowledgements: one after the other to each broker, and those that come meanwhile together.
actor Acknowledger {
    fileprivate struct Waiting {
        let claim: PopClaim
        /// When the message comes again anyway.
        let deadline: ContinuousClock.Instant
        let since = ContinuousClock.now
        let done: CheckedContinuation<RocketMQClientError?, Never>
    }

    /// Messages of one request at most. Apus takes 4096.
    private static let batchMax = 1024

    private let connections: ServerConnections
    private var waiting: [String: [Waiting]] = [:]
    private var sending: Set<String> = []
    /// Brokers that do not know BATCH_ACK_MESSAGE.
    private var withoutBatches: Set<String> = []
    /// The consumer ends.
    private var haste: Haste?

    init(_ connections: ServerConnections) { self.connections = connections }

    /// Returns when the broker has confirmed it. A broker that is away is tried again until the deadline.
    ///
    /// - Throws: why it was not confirmed.
    func acknowledge(_ claim: PopClaim, until deadline: ContinuousClock.Instant) async throws(RocketMQClientError) {
        let failure = await withCheckedContinuation { done in
            let broker = claim.handle.brokerName
            waiting[broker, default: []].append(Waiting(claim: claim, deadline: deadline, done: done))
            guard sending.insert(broker).inserted else { return }
            Task { await send(to: broker) }
        }
        if let failure { throw failure }
    }

    /// From now on a broker that is away is not tried for longer than the consumer's end may take.
    func hurry(_ haste: Haste) { self.haste = haste }

    private func send(to broker: String) async {
        var backOff = BackOff(first: .milliseconds(20), longest: .seconds(1))
        var routeAge: Duration?
        while let all = waiting[broker], !all.isEmpty {
            let single = all.first.map { !$0.claim.fitsBatch } ?? false
            let count = withoutBatches.contains(broker) || single ? 1 : Self.batchMax
            let batch = count == 1 ? Array(all.prefix(1)) : Array(all.prefix { $0.claim.fitsBatch }.prefix(count))
            waiting[broker] = Array(all.dropFirst(batch.count))
            var later: [Waiting] = []
            do throws(RocketMQClientError) {
                try await send(batch, to: broker, routeAge)
                routeAge = nil
                for one in batch { one.done.resume(returning: nil) }
            } catch {
                if error.refusal != nil, batch.count > 1 {
                    // The others are not to suffer from one: each gets its own answer.
                    if error.refusal == .requestCodeNotSupported { withoutBatches.insert(broker) }
                    for one in batch {
                        do throws(RocketMQClientError) {
                            try await send([one], to: broker, routeAge)
                            one.done.resume(returning: nil)
                        } catch {
                            if !give(up: one, error) { later.append(one) }
                        }
                    }
                } else {
                    later = batch.filter { !give(up: $0, error) }
                }
                if error.refusal == nil {
                    // It may be back elsewhere. Those whose time is over do not wait for a turn of their own.
                    routeAge = ServerConnections.routeAgeAfterFailure
                    waiting[broker] = waiting[broker]?.filter { $0.isOver(haste) ? !give(up: $0, error) : true }
                }
            }
            guard !later.isEmpty else {
                backOff.reset()
                continue
            }
            waiting[broker] = later + (waiting[broker] ?? [])
            await Pause.whatever(backOff.next())
        }
        waiting[broker] = nil
        sending.remove(broker)
    }

    /// Whether another attempt is in vain; then its caller hears of it.
    private func give(up one: Waiting, _ error: RocketMQClientError) -> Bool {
        guard error.isFinal || one.isOver(haste) else { return false }
        one.done.resume(returning: error)
        return true
    }

    private func send(
        _ batch: [Waiting], to broker: String, _ routeAge: Duration?
    ) async throws(RocketMQClientError) {
        guard let first = batch.first else { return }
        let address = try await connections.master(of: broker, topic: first.claim.topic, maxAge: routeAge)
        let command =
            batch.count == 1
            ? first.claim.acknowledgement : PopClaim.batch(batch.map(\.claim), brokerName: broker)
        _ = try await connections.demand(address, command)
    }
}

extension Acknowledger.Waiting {
    func isOver(_ haste: Haste?) -> Bool { (haste?.limit(deadline, since: since) ?? deadline) <= .now }
}

/// How long a consumer that ends tries to reach brokers.
struct Haste: Sendable {
    private let begin = ContinuousClock.now
    private let time: Duration

    init(_ time: Duration) { self.time = time }

    /// Until when something is tried that has a deadline of its own and began at a time.
    func limit(_ deadline: ContinuousClock.Instant, since: ContinuousClock.Instant) -> ContinuousClock.Instant {
        min(deadline, max(begin, since) + time)
    }
}

enum Pause {
    /// Sleeps whatever becomes of the task. `Task.sleep` returns at once in one that was cancelled: a loop that tries
    /// something again would do so without a pause.
    static func whatever(_ time: Duration) async {
        await Task.detached { try? await Task.sleep(for: time) }.value
    }
}

extension ServerConnections {
    /// The address of a broker's master: claims are kept there.
    ///
    /// - Parameter maxAge: of the route; nil: 30 s.
    /// - Throws: `topicNotFound`, `brokerNotFound`, `noNameServer`.
    func master(
        of broker: String, topic: String, maxAge: Duration? = nil
    ) async throws(RocketMQClientError) -> String {
        guard let route = try await route(of: topic, maxAge: maxAge) else {
            throw .topicNotFound(topic: topic, nameServers: nameServers)
        }
        guard let address = route.master(of: broker) else {
            throw .brokerNotFound("broker \(broker) of topic '\(topic)' has no master at present")
        }
        return address
    }
}

extension RocketMQClientError {
    /// Another attempt would fare the same.
    var isFinal: Bool {
        switch self {
        case .closed, .invalidArgument, .malformedAnswer, .notSupported: true
        case .refused(let refusal):
            switch refusal.responseCode {
            case .systemError, .systemBusy, .serviceNotAvailable: false
            default: true
            }
        default: false
        }
    }
}
