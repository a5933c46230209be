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
        if !isInTime, one.isHandled { ranOut.insert(number) }
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
        defer { drop(number) }
        // 0 would say that the message was given back, which is no delivery at brokers of Apus.
        if let pause { return try await change(one, to: max(1, pause.milliseconds)) != nil }
        if await mayKnowStrategies(one) {
            do throws(RocketMQClientError) {
                // -1: by the topic's strategy. A broker that takes it for a time has the message come again at once.
                guard let changed = try await change(one, to: -1, reason: Self.shortened(reason)) else { return false }
                if !PopClaim.isByStrategy(changed.reply) { await knowsNoStrategies(changed.address) }
                return true
            } catch {
                guard case .refused(let refusal) = error, error.refusal == .invalidParameter else { throw error }
                await knowsNoStrategies(refusal.address)
            }
        }
        return try await change(one, to: PopRetryPause.milliseconds(afterAttempt: one.attempt)) != nil
    }

    private func mayKnowStrategies(_ one: Held) async -> Bool {
        guard
            let address = try? await connections.master(of: one.claim.handle.brokerName, topic: one.claim.topic),
            let epoch = withoutStrategies[address]
        else { return true }
        return await connections.epoch(of: address) != epoch
    }

    private func knowsNoStrategies(_ address: String) async {
        withoutStrategies[address] = await connections.epoch(of: address)
    }

    func renew(_ number: Int, for time: Duration?) async throws(RocketMQClientError) -> Bool {
        if let time { try Self.check(time, from: 1) }
        guard let one = await begin(number) else { return false }
        defer { end(one) }
        let milliseconds = time?.milliseconds ?? one.time
        let asked = ContinuousClock.now
        guard let changed = try await change(one, to: milliseconds) else {
            runOut(number, one)
            return false
        }
        one.claim.handle = changed.handle
        one.deadline = asked + .milliseconds(milliseconds)
        return true
    }

    /// Other members get it at once.
    func giveBack(_ number: Int) async {
        // Not to be handed out any more.
        arrived.removeAll { $0 == number }
        guard let one = await begin(number) else { return }
        defer { end(one) }
        do throws(RocketMQClientError) {
            _ = try await change(one, to: 0)
        } catch {
            if !isClosing { warn("message \(one.message.messageID) not given back, it comes again later: \(error)") }
        }
        drop(number)
    }

    func giveBackAll() async { await giveBack(held.keys.sorted()) }

    /// What waits to be handed out.
    func giveBackWaiting() async { await giveBack(held.filter { $0.value.handedOut == nil }.keys.sorted()) }

    private func giveBack(_ numbers: [Int]) async {
        arrived.removeAll { numbers.contains($0) }
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

    private struct Changed {
        let handle: PopHandle
        let reply: RemotingCommand
        let address: String
    }

    /// Says when a message is to come again. A broker that is away is tried again until the message's time is over, or
    /// the consumer's, which ends.
    ///
    /// - Returns: nil when its time was over.
    private func change(
        _ one: Held, to milliseconds: Int64, reason: String? = nil
    ) async throws(RocketMQClientError) -> Changed? {
        let began = ContinuousClock.now
        var routeAge: Duration?
        var backOff = BackOff(first: .milliseconds(20), longest: .seconds(1))
        while ContinuousClock.now < one.deadline {
            do throws(RocketMQClientError) {
                let address = try await connections.master(
                    of: one.claim.handle.brokerName, topic: one.claim.topic, maxAge: routeAge)
                let reply = try await connections.demand(address, one.claim.change(to: milliseconds, reason: reason))
                return one.claim.handle(after: reply).map { Changed(handle: $0, reply: reply, address: address) }
            } catch {
                let pause = backOff.next()
                let limit = haste?.limit(one.deadline, since: began) ?? one.deadline
                guard !error.isFinal, ContinuousClock.now + pause < limit else { throw error }
                // It may be back elsewhere.
                if error.refusal == nil { routeAge = ServerConnections.routeAgeAfterFailure }
                await Pause.whatever(pause)
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

    /// Renews what waits to be handed out, while others are, and what the options say. Gives back what waits in vain,
    /// and forgets what other members may have by now.
    func lookAfterHeld() {
        let now = ContinuousClock.now
        for (number, one) in held where !one.isBusy {
            if one.deadline <= now {
                runOut(number, one)
            } else if one.handedOut == nil, max(one.since, lastTaken) + .milliseconds(one.time) <= now {
                // Not to be handed out meanwhile.
                arrived.removeAll { $0 == number }
                Task { await giveBack(number) }
            } else if one.isHalfOver, !isClosing, one.handedOut.map({ $0 + one.renewsUpTo > now }) ?? true {
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

    /// Another member may have the message by now.
    private func runOut(_ number: Int, _ one: Held) {
        guard held[number] != nil else { return }
        let id = one.message.messageID
        if one.handedOut == nil {
            warn("message \(id) was not handed out in time: it goes to another consumer")
        } else if one.isHandled {
            ranOut.insert(number)
            warn(
                """
                the handler of message \(id) takes longer than the message stays here: another consumer gets it; raise \
                timeout (now \(one.time) ms) or renewsUpTo
                """)
        } else {
            warn("message \(id) was not acknowledged within its time: another consumer gets it")
        }
        drop(number)
    }

    // MARK: - Handlers

    /// A handler gets a message, which is renewed meanwhile.
    ///
    /// - Parameter renewsUpTo: nil: ten times the message's time.
    func handlerBegins(_ number: Int, renewsUpTo: Duration?) {
        handlers += 1
        guard let one = held[number] else { return }
        one.isHandled = true
        one.renewsUpTo = renewsUpTo ?? .milliseconds(one.time) * 10
    }

    /// - Returns: whether the message had run out before it was settled.
    func handlerEnds(_ number: Int) -> Bool {
        handlers -= 1
        return ranOut.remove(number) != nil
    }
}
