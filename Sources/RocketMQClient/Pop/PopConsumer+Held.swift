import RemotingProtocol

/// What becomes of messages in hand.
extension PopConsumer {
    /// Waits for other requests about a message. Every `begin` that gives one needs an `end`.
    private func begin(_ number: Int) async -> Held? {
        while let one = held[number] {
            if !one.isBusy {
                one.isBusy = true
                return one
            }
            await withCheckedContinuation { one.whenFree.append($0) }
        }
        return nil
    }

    private func end(_ one: Held) {
        one.isBusy = false
        let waiting = one.whenFree
        one.whenFree = []
        for continuation in waiting { continuation.resume() }
    }

    /// A message is in hand no more.
    func drop(_ number: Int) {
        guard held.removeValue(forKey: number) != nil else { return }
        arrived.removeAll { $0 == number }
        freed()
    }

    func acknowledge(_ number: Int) async throws(RocketMQClientError) -> Bool {
        guard let one = await begin(number) else { return false }
        defer { end(one) }
        do throws(RocketMQClientError) {
            try await acknowledger.acknowledge(one.claim, until: one.deadline)
        } catch {
            drop(number)
            throw error
        }
        let isInTime = ContinuousClock.now < one.deadline
        drop(number)
        note(one, isConsumed: true)
        return isInTime
    }

    func fail(
        _ number: Int, after pause: Duration?, reason: String?
    ) async throws(RocketMQClientError) -> Bool {
        if let pause { try Self.check(pause, from: 0) }
        guard let one = await begin(number) else { return false }
        defer { end(one) }
        note(one, isConsumed: false)
        let broker = one.claim.handle.brokerName
        defer { drop(number) }
        if let pause { return try await change(one, to: pause.milliseconds) != nil }
        if !withoutStrategies.contains(broker) {
            do throws(RocketMQClientError) {
                // -1: by the topic's strategy. A broker that takes it for a time has the message come again at once.
                guard let handle = try await change(one, to: -1, reason: Self.shortened(reason)) else { return false }
                let isAtOnce = handle.invisibleTime <= (options.isOrdered ? one.age : -1)
                if isAtOnce, policies[one.claim.topic]?.retryInterval != .zero { withoutStrategies.insert(broker) }
                return true
            } catch {
                guard error.refusal == .invalidParameter else { throw error }
                withoutStrategies.insert(broker)
            }
        }
        return try await change(one, to: PopRetryPause.milliseconds(afterAttempt: one.attempt)) != nil
    }

    func renew(_ number: Int, for time: Duration?) async throws(RocketMQClientError) -> Bool {
        if let time { try Self.check(time, from: 1) }
        guard let one = await begin(number) else { return false }
        defer { end(one) }
        let milliseconds = time?.milliseconds ?? one.time
        let asked = ContinuousClock.now
        guard let handle = try await change(one, to: milliseconds) else {
            drop(number)
            return false
        }
        one.claim.handle = handle
        one.deadline = asked + .milliseconds(milliseconds)
        return true
    }

    /// Other members get it at once.
    func giveBack(_ number: Int) async {
        guard let one = await begin(number) else { return }
        defer { end(one) }
        do throws(RocketMQClientError) {
            _ = try await change(one, to: 0, within: options.closeTimeout)
        } catch {
            if !isClosing { warn("message \(one.message.messageID) not given back, it comes again later: \(error)") }
        }
        drop(number)
    }

    func giveBackAll() async {
        let numbers = held.keys.sorted()
        arrived = []
        await withTaskGroup(of: Void.self) { tasks in
            for number in numbers { tasks.addTask { await self.giveBack(number) } }
        }
    }

    /// A header's field is not to grow without bounds.
    private static func shortened(_ reason: String?) -> String? { reason.map { String($0.prefix(512)) } }

    private static func check(_ time: Duration, from least: Int64) throws(RocketMQClientError) {
        guard least...invisibleBounds.upperBound ~= time.milliseconds, time >= .zero else {
            throw .invalidArgument("a message comes again after \(least) ms to 3 days, not after \(time)")
        }
    }

    /// Says when a message is to come again. A broker that is away is tried again until the message's time is over.
    ///
    /// - Returns: its new handle; nil when its time was over.
    private func change(
        _ one: Held, to milliseconds: Int64, reason: String? = nil, within limit: Duration? = nil
    ) async throws(RocketMQClientError) -> PopHandle? {
        let deadline = limit.map { min(one.deadline, .now + $0) } ?? one.deadline
        var backOff = BackOff(first: .milliseconds(20), longest: .seconds(1))
        while ContinuousClock.now < one.deadline {
            do throws(RocketMQClientError) {
                let address = try await connections.master(of: one.claim.handle.brokerName, topic: one.claim.topic)
                let reply = try await connections.demand(address, one.claim.change(to: milliseconds, reason: reason))
                return one.claim.handle(after: reply)
            } catch {
                let pause = backOff.next()
                guard !error.isFinal, ContinuousClock.now + pause < deadline else { throw error }
                try? await Task.sleep(for: pause)
            }
        }
        return nil
    }

    private func note(_ one: Held, isConsumed: Bool) {
        let time = (one.handedOut ?? one.since).duration(to: .now)
        if isConsumed {
            runningInfo.consumed(1, from: one.message.queue, in: time)
        } else {
            runningInfo.failed(1, from: one.message.queue, in: time)
        }
    }

    /// Renews what waits to be handed out, and what the options say; forgets what other members may have by now.
    func lookAfterHeld() {
        let now = ContinuousClock.now
        for (number, one) in held where !one.isBusy {
            if one.deadline <= now {
                if one.handedOut == nil {
                    warn("message \(one.message.messageID) was not handed out in time: it goes to another consumer")
                }
                drop(number)
            } else if one.isHalfOver, one.handedOut.map({ $0 + options.renewsUpTo > now }) ?? true, !isClosing {
                Task {
                    do throws(RocketMQClientError) {
                        _ = try await renew(number, for: nil)
                    } catch {
                        warn("message \(one.message.messageID) not renewed: \(error)")
                    }
                }
            }
        }
    }
}
