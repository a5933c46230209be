import RemotingProtocol

/// Sends acknowledgements: one after the other to each broker, and those that come meanwhile together.
actor Acknowledger {
    private struct Waiting {
        let claim: PopClaim
        /// When the message comes again anyway.
        let deadline: ContinuousClock.Instant
        let done: CheckedContinuation<RocketMQClientError?, Never>
    }

    /// Messages of one request at most. Apus takes 4096.
    private static let batchMax = 1024

    private let connections: ServerConnections
    private var waiting: [String: [Waiting]] = [:]
    private var sending: Set<String> = []
    /// Brokers that do not know BATCH_ACK_MESSAGE.
    private var withoutBatches: Set<String> = []

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

    private func send(to broker: String) async {
        var backOff = BackOff(first: .milliseconds(20), longest: .seconds(1))
        while let all = waiting[broker], !all.isEmpty {
            let single = all.first.map { !$0.claim.fitsBatch } ?? false
            let count = withoutBatches.contains(broker) || single ? 1 : Self.batchMax
            let batch = count == 1 ? Array(all.prefix(1)) : Array(all.prefix { $0.claim.fitsBatch }.prefix(count))
            waiting[broker] = Array(all.dropFirst(batch.count))
            var later: [Waiting] = []
            do throws(RocketMQClientError) {
                try await send(batch, to: broker)
                for one in batch { one.done.resume(returning: nil) }
            } catch {
                if error.refusal != nil, batch.count > 1 {
                    // The others are not to suffer from one: each gets its own answer.
                    if error.refusal == .requestCodeNotSupported { withoutBatches.insert(broker) }
                    for one in batch {
                        do throws(RocketMQClientError) {
                            try await send([one], to: broker)
                            one.done.resume(returning: nil)
                        } catch {
                            if !give(up: one, error) { later.append(one) }
                        }
                    }
                } else {
                    later = batch.filter { !give(up: $0, error) }
                }
            }
            guard !later.isEmpty else {
                backOff.reset()
                continue
            }
            waiting[broker] = later + (waiting[broker] ?? [])
            try? await Task.sleep(for: backOff.next())
        }
        waiting[broker] = nil
        sending.remove(broker)
    }

    /// Whether another attempt is in vain; then its caller hears of it.
    private func give(up one: Waiting, _ error: RocketMQClientError) -> Bool {
        guard error.isFinal || one.deadline <= .now else { return false }
        one.done.resume(returning: error)
        return true
    }

    private func send(_ batch: [Waiting], to broker: String) async throws(RocketMQClientError) {
        guard let first = batch.first else { return }
        let address = try await connections.master(of: broker, topic: first.claim.topic)
        let command =
            batch.count == 1
            ? first.claim.acknowledgement : PopClaim.batch(batch.map(\.claim), brokerName: broker)
        _ = try await connections.demand(address, command)
    }
}

extension ServerConnections {
    /// The address of a broker's master: claims are kept there.
    ///
    /// - Throws: `topicNotFound`, `brokerNotFound`, `noNameServer`.
    func master(of broker: String, topic: String) async throws(RocketMQClientError) -> String {
        guard let route = try await route(of: topic) else {
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
        case .closed, .invalidArgument, .malformedAnswer: true
        case .refused(let refusal):
            switch refusal.responseCode {
            case .systemError, .systemBusy, .serviceNotAvailable: false
            default: true
            }
        default: false
        }
    }
}
