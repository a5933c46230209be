extension PushConsumer {
    func enqueue(_ messages: [ReceivedMessage], _ possession: Possession) {
        var rest = messages[...]
        while !rest.isEmpty {
            work.append(possession, Array(rest.prefix(options.consumeBatchSize)))
            rest = rest.dropFirst(options.consumeBatchSize)
        }
        startWork()
    }

    func startWork() {
        guard case .concurrent(let calls) = options.order else { return }
        while running < calls, !isClosing, let (possession, messages) = work.next() {
            guard owns(possession), !possession.isStopped else { continue }
            began(possession)
            Task {
                let start = ContinuousClock.now
                let result = await handler(messages)
                await finished(messages, result, in: start.duration(to: .now), possession)
                ended(possession)
                startWork()
            }
        }
    }

    func began(_ possession: Possession) {
        running += 1
        possession.running += 1
    }

    func ended(_ possession: Possession) {
        running -= 1
        possession.running -= 1
        if possession.running == 0 { resume(&possession.whenIdle) }
        if running == 0 { resume(&whenIdle) }
    }

    /// Notes what a handler returned.
    func finished(
        _ messages: [ReceivedMessage], _ result: ConsumeResult, in time: Duration, _ possession: Possession
    ) async {
        switch result {
        case .success:
            runningInfo.consumed(messages.count, from: possession.queue, in: time)
            finish(messages, possession)
        case .stop(let consumed):
            possession.isStopped = true
            runningInfo.consumed(min(consumed, messages.count), from: possession.queue, in: time)
            finish(messages.prefix(max(0, consumed)), possession)
        case .retry(let delayLevel):
            runningInfo.failed(messages.count, from: possession.queue, in: time)
            guard !isBroadcasting else {
                warn(
                    "\(possession.queue): \(messages.count) messages were not consumed; a broadcasting consumer goes on"
                )
                finish(messages, possession)
                break
            }
            let left = await sendBack(messages, delayLevel: delayLevel, possession)
            guard !left.isEmpty, owns(possession) else { break }
            Task {
                try? await Task.sleep(for: Self.pauseBeforeNewAttempt)
                if owns(possession) { enqueue(left, possession) }
            }
        }
        // Consumed although the queue was given up meanwhile: what is done must not be done again.
        if possession.isDropped, !isClosing, !isOrdered { await commit(possession) }
    }

    func finish(_ messages: some Sequence<ReceivedMessage>, _ possession: Possession) {
        for message in messages {
            possession.window?.finish(message.queueOffset)
            possession.waitingBytes -= message.body.count
        }
        noteReached(possession)
        if possession.whenRoom != nil, hasRoom(possession) { resume(&possession.whenRoom) }
    }

    /// Sends messages back; returns those that could not be.
    func sendBack(
        _ messages: [ReceivedMessage], delayLevel: Int, _ possession: Possession
    ) async -> [ReceivedMessage] {
        var left: [ReceivedMessage] = []
        for message in messages {
            do throws(RocketMQClientError) {
                try await access.sendBack(
                    message, delayLevel: delayLevel, reconsumeTimesMax: options.reconsumeTimesMax)
                finish([message], possession)
            } catch {
                warn("\(possession.queue): message \(message.messageID) not sent back, consumed here again: \(error)")
                left.append(message)
            }
        }
        return left
    }

    func consumeInOrder(_ possession: Possession) async {
        while owns(possession), !possession.isStopped, !possession.waiting.isEmpty {
            guard await hasLock(possession) else {
                try? await Task.sleep(for: .milliseconds(100))
                continue
            }
            guard owns(possession) else { break }
            let messages = Array(possession.waiting.prefix(options.consumeBatchSize))
            began(possession)
            let start = ContinuousClock.now
            let result = await handler(messages)
            let time = start.duration(to: .now)
            if case .retry = result {
                runningInfo.failed(messages.count, from: possession.queue, in: time)
                possession.attempts += 1
                if let most = options.reconsumeTimesMax, possession.attempts > most {
                    // Not for ever: the queue goes on without them.
                    let left = await sendBack(messages, delayLevel: -1, possession)
                    possession.waiting.removeFirst(messages.count)
                    possession.waiting.insert(contentsOf: left, at: 0)
                    possession.attempts = 0
                }
                ended(possession)
                try? await Task.sleep(for: options.orderedRetryPause)
                continue
            }
            await finished(messages, result, in: time, possession)
            possession.attempts = 0
            possession.waiting.removeFirst(messages.count)
            ended(possession)
        }
        possession.isConsumed = false
    }
}
