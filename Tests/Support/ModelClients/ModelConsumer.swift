import Foundation
package import RemotingProtocol
import RocketMQClient

/// A message a consumer is about to work on.
package struct ModelDelivery: Sendable {
    package var member: String
    package var group: String
    package var queue: MessageQueue
    package var message: MessageExt
    /// Of the member's connection.
    package var generation: Int
}

/// What a consumer reports to the model. Called on any thread.
package protocol ModelConsumerObserver: Sendable {
    /// Works on a message; `false`: it failed.
    func consume(_ delivery: ModelDelivery) async -> Bool
    /// A message is about to be sent back.
    func sendingBack(_ delivery: ModelDelivery)
    /// An offset is on its way to the broker.
    func committing(group: String, queue: MessageQueue, offset: Int64)
    /// The broker answered a pull with what it never should.
    func wrong(_ words: String)
    /// The queues a member owns now.
    func owns(member: String, group: String, queues: Set<MessageQueue>)
}

/// A push consumer as RocketMQ's client 4.9 has it: beats, rebalances by AllocateMessageQueueAveragely when told to
/// (40) and now and then, long-polls its queues, commits offsets, sends back what failed, locks its queues if it is
/// orderly. One member of one group with a connection of its own.
package actor ModelConsumer {
    package enum Mode: String, Sendable {
        case concurrent, orderly, broadcast
    }

    package struct Settings: Sendable {
        package var group: String
        package var clientID: String
        package var topics: [String]
        package var mode: Mode
        /// Sent along with 36; nil leaves it to the group's configuration.
        package var maxReconsumeTimes: Int32?
        package var heartbeat = Duration.seconds(1)
        package var rebalance = Duration.seconds(2)
        package var persist = Duration.milliseconds(500)
        package var relock = Duration.milliseconds(500)
        /// A lock not renewed for so long is not used any more; the broker gives it away later.
        package var lockValidity = Duration.milliseconds(1500)

        package init(group: String, clientID: String, topics: [String], mode: Mode) {
            self.group = group
            self.clientID = clientID
            self.topics = topics
            self.mode = mode
        }
    }

    /// One queue this member owns.
    final class Owned {
        let queue: MessageQueue
        var isDropped = false
        /// To pull next.
        var next: Int64
        /// Everything before it is worked on; to be committed.
        var done: Int64
        var committed: Int64
        var waiting: [Int64: MessageExt] = [:]
        var inWork: Set<Int64> = []
        var lockedUntil: ContinuousClock.Instant?
        var lockGeneration = -1

        init(_ queue: MessageQueue, from offset: Int64) {
            self.queue = queue
            next = offset
            done = offset
            committed = offset
        }

        var unfinished: Int { waiting.count + inWork.count }

        func finished(_ offset: Int64) {
            waiting[offset] = nil
            inWork.remove(offset)
            let smallest = min(waiting.keys.min() ?? Int64.max, inWork.min() ?? Int64.max)
            done = max(done, min(next, smallest))
        }
    }

    private enum Event: Sendable {
        case notified, tick
    }

    static let waitingMax = 64

    package let settings: Settings
    let link: ModelLink
    let observer: any ModelConsumerObserver
    private var owned: [MessageQueue: Owned] = [:]
    private var isRunning = true
    private var tasks: [Task<Void, Never>] = []
    private var worker: Task<Void, Never>?
    private let events: AsyncStream<Event>
    private let post: AsyncStream<Event>.Continuation
    private var beatenGeneration = -1
    private var lastBeat: ContinuousClock.Instant?
    private var lastRebalance: ContinuousClock.Instant?
    private var lastPersist = ContinuousClock.now
    private var lastRelock = ContinuousClock.now
    /// Broadcast: kept by the client, over its own disconnects too.
    private var localOffsets: [MessageQueue: Int64] = [:]

    package init(_ settings: Settings, link: ModelLink, observer: any ModelConsumerObserver) {
        self.settings = settings
        self.link = link
        self.observer = observer
        (events, post) = AsyncStream.makeStream(of: Event.self, bufferingPolicy: .bufferingNewest(8))
    }

    package func start() async {
        let post = post
        let group = settings.group
        await link.setInbound { request in
            if request.requestCode == .notifyConsumerIDsChanged, request.extFields["consumerGroup"] == group {
                post.yield(.notified)
                return nil
            }
            return RemotingCommand.response(.requestCodeNotSupported)
        }
        tasks.append(
            Task {
                while isRunning {
                    post.yield(.tick)
                    try? await Task.sleep(for: .milliseconds(50))
                }
                post.finish()
            })
        worker = Task {
            for await event in events where isRunning { await work(event) }
        }
    }

    // MARK: - Ending

    /// The process dies: no server is notified.
    package func crash() async {
        isRunning = false
        for queue in owned.values { queue.isDropped = true }
        await link.close()
        for task in tasks { task.cancel() }
        observer.owns(member: settings.clientID, group: settings.group, queues: [])
    }

    /// A clean end: offsets are committed, locks released, the group left.
    package func leave() async {
        isRunning = false
        post.finish()
        for queue in owned.values { queue.isDropped = true }
        // A lock asked for must not be granted after all have been released.
        await worker?.value
        for queue in Array(owned.values) { await give(back: queue) }
        let fields = ["clientID": settings.clientID, "consumerGroup": settings.group]
        _ = try? await link.invoke(RemotingCommand(.unregisterClient, extFields: fields))
        await link.close()
        for task in tasks { task.cancel() }
        observer.owns(member: settings.clientID, group: settings.group, queues: [])
    }

    /// The connection breaks; the client goes on.
    package func disconnect() async { await link.disconnect() }

    // MARK: - The client's own threads, in one

    private func work(_ event: Event) async {
        do {
            for topic in settings.topics { _ = try await link.queues(of: topic) }
            _ = try await link.client()
            let generation = await link.generation
            let now = ContinuousClock.now
            var mustRebalance = event == .notified
            if generation != beatenGeneration || (lastBeat.map { $0.duration(to: now) >= settings.heartbeat } ?? true) {
                try await beat()
                if generation != beatenGeneration { mustRebalance = true }
                beatenGeneration = generation
                lastBeat = now
            }
            if settings.mode == .orderly, lastRelock.duration(to: now) >= settings.relock {
                lastRelock = now
                try await relock()
            }
            if mustRebalance || (lastRebalance.map { $0.duration(to: now) >= settings.rebalance } ?? true) {
                lastRebalance = now
                try await rebalance()
            }
            if lastPersist.duration(to: now) >= settings.persist {
                lastPersist = now
                for queue in owned.values { await persist(queue) }
            }
        } catch {
            // The broker or the name server is away: again at the next tick.
        }
    }

    private var retryTopic: String { "%RETRY%" + settings.group }
    private var topics: [String] { settings.mode == .broadcast ? settings.topics : settings.topics + [retryTopic] }

    private func beat() async throws {
        var data = ConsumerData(groupName: settings.group)
        data.messageModel = settings.mode == .broadcast ? "BROADCASTING" : "CLUSTERING"
        data.consumeFromWhere = "CONSUME_FROM_FIRST_OFFSET"
        data.subscriptionDataSet = topics.map { SubscriptionData(topic: $0, subVersion: 1) }
        let body = HeartbeatData(clientID: settings.clientID, consumerDataSet: [data]).encoded()
        let reply = try await link.invoke(RemotingCommand(.heartBeat, body: body))
        guard reply.code == 0 else { throw ModelError("heartbeat: \(reply.code) \(reply.remark ?? "")") }
    }

    // MARK: - Rebalancing

    private func rebalance() async throws {
        let before = Set(owned.keys)
        var members: [String] = []
        if settings.mode != .broadcast {
            let reply = try await link.invoke(
                RemotingCommand(.getConsumerListByGroup, extFields: ["consumerGroup": settings.group]))
            guard reply.code == 0 else { throw ModelError("38: \(reply.code)") }
            members = try GetConsumerListByGroupResponseBody(body: reply.body).consumerIDList.sorted()
        }
        for topic in topics {
            guard let count = try? await link.queues(of: topic) else { continue }
            let all = (0..<count).map { MessageQueue(topic: topic, brokerName: "broker-a", queueID: $0) }
            let mine =
                settings.mode == .broadcast
                ? Set(all)
                : Set(
                    QueueAllocation.averagely(all.map { .init($0) }, among: members, for: settings.clientID)
                        .map(\.wire))
            for queue in owned.values where queue.queue.topic == topic && !mine.contains(queue.queue) {
                queue.isDropped = true
                await give(back: queue)
            }
            for queue in mine.sorted() where owned[queue] == nil && isRunning { try await take(queue) }
        }
        let after = Set(owned.keys)
        if after != before { observer.owns(member: settings.clientID, group: settings.group, queues: after) }
    }

    private func take(_ queue: MessageQueue) async throws {
        var locked: ContinuousClock.Instant?
        var generation = -1
        if settings.mode == .orderly {
            let asked = ContinuousClock.now
            let held = try await lock([queue])
            guard held.contains(queue) else { return }
            locked = asked + settings.lockValidity
            generation = await link.generation
        }
        let offset: Int64
        if settings.mode == .broadcast {
            offset = localOffsets[queue] ?? 0
        } else {
            let reply = try await link.invoke(
                RemotingCommand(
                    .queryConsumerOffset,
                    extFields: [
                        "consumerGroup": settings.group, "topic": queue.topic, "queueId": String(queue.queueID),
                    ]))
            switch reply.responseCode {
            case .success: offset = try reply.integer("offset")
            case .queryNotFound: offset = 0
            default: throw ModelError("14: \(reply.code) \(reply.remark ?? "")")
            }
        }
        guard isRunning, owned[queue] == nil else { return }
        let state = Owned(queue, from: offset)
        state.lockedUntil = locked
        state.lockGeneration = generation
        owned[queue] = state
        tasks.append(Task { await pull(state) })
        if settings.mode == .orderly { tasks.append(Task { await consumeInOrder(state) }) }
    }

    /// The queue is no longer ours.
    private func give(back queue: Owned) async {
        // What is being worked on is not waited for, but an orderly queue is handed on only when no handler works on
        // it.
        if settings.mode == .orderly {
            while !queue.inWork.isEmpty { try? await Task.sleep(for: .milliseconds(1)) }
        }
        await persist(queue)
        if settings.mode == .broadcast { localOffsets[queue.queue] = queue.done }
        owned[queue.queue] = nil
        guard settings.mode == .orderly else { return }
        _ = try? await link.invoke(lockRequest([queue.queue]).command(.unlockBatchMQ))
    }

    // MARK: - Locks

    private func lockRequest(_ queues: [MessageQueue]) -> LockRequest {
        LockRequest(group: settings.group, clientID: settings.clientID, queues: queues.map { .init($0) })
    }

    private func lock(_ queues: [MessageQueue]) async throws -> [MessageQueue] {
        let reply = try await link.invoke(lockRequest(queues).command(.lockBatchMQ))
        guard reply.code == 0 else { throw ModelError("41: \(reply.code)") }
        return try LockBatchResponseBody(body: reply.body).lockOKMQSet
    }

    private func relock() async throws {
        guard !owned.isEmpty else { return }
        let asked = ContinuousClock.now
        let held = Set(try await lock(Array(owned.keys)))
        let generation = await link.generation
        for queue in owned.values {
            if held.contains(queue.queue) {
                // Another member may have worked on it meanwhile: what we know of it is old.
                if let until = queue.lockedUntil, until > asked, queue.lockGeneration == generation {
                    queue.lockedUntil = asked + settings.lockValidity
                } else {
                    queue.isDropped = true
                }
            } else {
                if let until = queue.lockedUntil, until > .now, queue.lockGeneration == generation {
                    wrong(queue, queue.next, "a lock renewed in time was given away")
                }
                queue.lockedUntil = nil
                queue.isDropped = true
            }
        }
        for queue in owned.values where queue.isDropped {
            lastRebalance = nil
            while !queue.inWork.isEmpty { try? await Task.sleep(for: .milliseconds(1)) }
            owned[queue.queue] = nil
        }
    }

    // MARK: - Pulling

    private func pull(_ queue: Owned) async {
        while isRunning, !queue.isDropped {
            guard queue.unfinished < Self.waitingMax else {
                try? await Task.sleep(for: .milliseconds(5))
                continue
            }
            do {
                try await pullOnce(queue)
            } catch {
                try? await Task.sleep(for: .milliseconds(50))
            }
        }
    }

    private func pullOnce(_ queue: Owned) async throws {
        let from = queue.next
        let commits = settings.mode != .broadcast && queue.done > 0
        if commits { observer.committing(group: settings.group, queue: queue.queue, offset: queue.done) }
        // 1: with the offset to commit, 2: may be held. The subscription is that of the heartbeats.
        let reply = try await link.invoke(
            RemotingCommand(
                .pullMessage,
                extFields: [
                    "consumerGroup": settings.group, "topic": queue.queue.topic,
                    "queueId": String(queue.queue.queueID), "queueOffset": String(from), "maxMsgNums": "32",
                    "sysFlag": commits ? "3" : "2", "commitOffset": String(commits ? queue.done : 0),
                    "suspendTimeoutMillis": "3000", "subVersion": "1", "expressionType": "TAG",
                ]), seconds: 10)
        guard !queue.isDropped, isRunning else { return }
        switch reply.responseCode {
        case .success: try take(reply, queue, from)
        case .pullNotFound, .pullRetryImmediately:
            let next = try reply.integer("nextBeginOffset")
            if next != from { wrong(queue, from, "moved to \(next) although it wants everything: \(reply.code)") }
        case .pullOffsetMoved:
            wrong(queue, from, "offset moved to \(reply.extFields["nextBeginOffset"] ?? "?"): \(reply.remark ?? "")")
            try await Task.sleep(for: .seconds(1))
        default: throw ModelError("11: \(reply.code) \(reply.remark ?? "")")
        }
    }

    private func take(_ reply: RemotingCommand, _ queue: Owned, _ from: Int64) throws {
        let messages = try MessageExt.decodeAll(reply.body)
        var expected = from
        for message in messages {
            if message.queueOffset != expected { wrong(queue, from, "got \(message.queueOffset), not \(expected)") }
            expected = message.queueOffset + 1
            queue.waiting[message.queueOffset] = message
        }
        if try reply.integer("nextBeginOffset") != expected { wrong(queue, from, "next is not \(expected)") }
        queue.next = expected
        guard settings.mode != .orderly else { return }
        for message in messages {
            queue.waiting[message.queueOffset] = nil
            queue.inWork.insert(message.queueOffset)
            tasks.append(Task { await consume(message, queue) })
        }
        if tasks.count > 4096 { tasks.removeSubrange(2..<(tasks.count - 1024)) }
    }

    private func wrong(_ queue: Owned, _ from: Int64, _ words: String) {
        observer.wrong(
            "\(settings.clientID) of \(settings.group), \(queue.queue.topic) \(queue.queue.queueID), pull from \(from): \(words)"
        )
    }

    private func delivery(_ message: MessageExt, _ queue: Owned) async -> ModelDelivery {
        ModelDelivery(
            member: settings.clientID, group: settings.group, queue: queue.queue, message: message,
            generation: await link.generation)
    }

    // MARK: - Consuming

    private func consume(_ message: MessageExt, _ queue: Owned) async {
        guard !queue.isDropped else { return }
        let delivery = await delivery(message, queue)
        let isDone = await observer.consume(delivery)
        while isRunning, !queue.isDropped {
            if isDone || settings.mode == .broadcast { return queue.finished(message.queueOffset) }
            observer.sendingBack(delivery)
            if await sendBack(message) { return queue.finished(message.queueOffset) }
            try? await Task.sleep(for: .milliseconds(100))
        }
    }

    private func sendBack(_ message: MessageExt) async -> Bool {
        let request = SendBack(
            group: settings.group, commitLogOffset: message.physicalOffset, topic: message.topic,
            messageID: message.messageID, delayLevel: 0, reconsumeTimesMax: settings.maxReconsumeTimes.map { Int($0) })
        do {
            let reply = try await link.invoke(request.command)
            return reply.code == 0
        } catch {
            return false
        }
    }

    private func consumeInOrder(_ queue: Owned) async {
        while isRunning, !queue.isDropped {
            guard let offset = queue.waiting.keys.min(), let message = queue.waiting[offset] else {
                try? await Task.sleep(for: .milliseconds(2))
                continue
            }
            let generation = await link.isConnected ? await link.generation : -1
            guard let until = queue.lockedUntil, until > .now, generation == queue.lockGeneration else {
                try? await Task.sleep(for: .milliseconds(5))
                continue
            }
            guard isRunning, !queue.isDropped else { return }
            queue.inWork.insert(offset)
            let isDone = await observer.consume(await delivery(message, queue))
            queue.inWork.remove(offset)
            if isDone {
                queue.finished(offset)
            } else {
                // The queue waits a moment and begins with the same message again.
                try? await Task.sleep(for: .milliseconds(20))
            }
        }
    }

    // MARK: - Offsets

    private func persist(_ queue: Owned) async {
        guard settings.mode != .broadcast, queue.done > queue.committed else { return }
        let offset = queue.done
        observer.committing(group: settings.group, queue: queue.queue, offset: offset)
        do {
            try await link.oneway(
                RemotingCommand(
                    .updateConsumerOffset,
                    extFields: [
                        "consumerGroup": settings.group, "topic": queue.queue.topic,
                        "queueId": String(queue.queue.queueID), "commitOffset": String(offset),
                    ]))
            queue.committed = offset
        } catch {
            // Tried again at the next round, as long as the queue is ours.
        }
    }
}
