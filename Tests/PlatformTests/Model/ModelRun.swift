import Foundation
import ModelClients
import NIOCore
import NIOPosix
import RemotingProtocol
import RemotingTransport
import TestTools

/// One run of the model: a platform, clients that do at random what clients do, faults under way, and at the end the
/// oracle's word. The seed decides what happens in which order; when exactly, the machine decides.
actor ModelRun {
    let seed: UInt64
    let duration: Duration
    let oracle: ModelOracle
    private var platform: Platform
    private let ports: (Int, Int)
    private var members: [String: [(id: String, consumer: ModelConsumer, since: Int)]] = [:]
    private var producers: [ModelProducer] = []
    private var nextMember = 0
    private var isSending = true
    private var isWatching = true
    private var isPlatformUp = true
    private var kills = 0
    private(set) var events: [String] = []
    private let log = ModelLog()
    /// Of platforms that were restarted.
    private var earlierLogs: [String] = []

    init(seed: UInt64, duration: Duration) async throws {
        self.seed = seed
        self.duration = duration
        oracle = ModelOracle(seed: seed)
        platform = try await Platform.start(ModelPlan.settings)
        ports = (Self.port(of: platform.nameServer), Self.port(of: platform.broker))
    }

    private static func port(of address: String) -> Int { Int(address.split(separator: ":").last ?? "") ?? 0 }

    // MARK: - The whole of it

    func run() async throws {
        try await prepare()
        for group in ModelPlan.groups {
            for _ in 0..<group.members { await join(group) }
        }
        let sending = (0..<3).map { number in Task { await send(number) } }
        let watching = Task { await watchOffsets() }
        try await disturb()
        isSending = false
        for task in sending { await task.value }
        try await settle()
        isWatching = false
        await watching.value
        try await leaveAll()
        for producer in producers { await producer.end() }
        log.end()
        try await platform.stop()
    }

    /// Keeps the platform's files and its log for those who look for the reason; gives the folder.
    func keepEvidence() async -> String {
        let folder = Binaries.packageRoot + "/.build/model-evidence/seed-\(seed)"
        _ = try? await Program.run("/bin/rm", ["-rf", folder])
        _ = try? await Program.run("/bin/mkdir", ["-p", folder])
        _ = try? await Program.run("/bin/cp", ["-a", "--sparse=always", platform.data, folder])
        try? logs.joined(separator: "\n---- next supervisor\n").write(
            toFile: folder + "/log", atomically: false, encoding: .utf8)
        return folder
    }

    private var logs: [String] { earlierLogs + [platform.log] }

    /// Stops what a failed run left.
    func abandon() async {
        isSending = false
        isWatching = false
        for member in members.values.joined() { await member.consumer.crash() }
        for producer in producers { await producer.end() }
    }

    private func prepare() async throws {
        for topic in ModelPlan.topics {
            let made = try await platform.ask(
                platform.broker,
                RemotingCommand(
                    .updateAndCreateTopic,
                    extFields: [
                        "topic": topic, "defaultTopic": "TBW102", "readQueueNums": String(ModelPlan.queues),
                        "writeQueueNums": String(ModelPlan.queues), "perm": "6", "topicFilterType": "SINGLE_TAG",
                        "topicSysFlag": "0", "order": "false",
                    ]))
            guard made.code == 0 else { throw ScenarioFailure("\(topic): \(made.code) \(made.remark ?? "")") }
        }
        for group in ModelPlan.groups {
            var config = SubscriptionGroupConfig(groupName: group.name)
            config.retryMaxTimes = group.bringsLimit ? 16 : group.maxRetries
            let made = try await platform.ask(
                platform.broker, RemotingCommand(.updateAndCreateSubscriptionGroup, body: config.encoded()))
            guard made.code == 0 else { throw ScenarioFailure("\(group.name): \(made.code)") }
        }
    }

    private func note(_ words: String) { events.append(words) }

    // MARK: - Producers

    private func send(_ number: Int) async {
        let oracle = oracle
        // Two of them are one group: a check-back may go to either.
        let producer = ModelProducer(
            group: number < 2 ? "ModelP" : "ModelP2", clientID: "producer-\(number)",
            link: ModelLink(nameServer: platform.nameServer)
        ) { oracle.decide($0) }
        producers.append(producer)
        await producer.start(topics: ModelPlan.topics)
        var random = ModelRandom(seed &+ UInt64(1000 + number))
        var sequences: [Int: Int] = [:]
        while isSending {
            switch random.below(20) {
            case 0..<6: await sendPlain(producer, &random)
            case 6..<8: await sendBatch(producer, &random)
            case 8..<13: await sendKeyed(producer, number, &random, &sequences)
            case 13..<15: await sendLater(producer, &random, byLevel: true)
            case 15..<17: await sendLater(producer, &random, byLevel: false)
            default: await sendTransaction(producer, &random)
            }
            if random.once(in: 400) { await producer.disconnect() }
            // With the broker away every send fails at once.
            let isAway = await !producer.isConnected
            try? await Task.sleep(for: .milliseconds(isAway ? 100 : random.below(12)))
        }
    }

    private static func properties(_ id: Int) -> [String: String] {
        [
            "KEYS": "k\(id)",
            "UNIQ_KEY": "7F000001" + String(repeating: "0", count: 12) + String(id + 0x1000_0000, radix: 16),
        ]
    }

    private func attempt(
        _ kind: ModelOracle.Kind, _ topic: String, _ queue: Int32, earliest: Int64 = 0,
        _ adjust: (inout ModelOracle.Attempt) -> Void = { _ in }
    ) -> ModelOracle.Attempt {
        let oracle = oracle
        return oracle.begin { id in
            var attempt = ModelOracle.Attempt(
                id: id, kind: kind, topic: topic, queue: queue, body: oracle.body(id), earliest: earliest)
            attempt.hasDelay = earliest > 0
            adjust(&attempt)
            return attempt
        }
    }

    private func sendPlain(_ producer: ModelProducer, _ random: inout ModelRandom) async {
        let attempt = attempt(.plain, ModelPlan.mixed, Int32(random.below(Int(ModelPlan.queues))))
        oracle.finish(
            attempt.id,
            await producer.send(
                attempt.topic, queue: attempt.queue, body: attempt.body, properties: Self.properties(attempt.id)))
    }

    private func sendBatch(_ producer: ModelProducer, _ random: inout ModelRandom) async {
        let queue = Int32(random.below(Int(ModelPlan.queues)))
        let batch = (0..<(2 + random.below(8))).map { _ in attempt(.batch, ModelPlan.mixed, queue) }
        let outcome = await producer.sendBatch(
            ModelPlan.mixed, queue: queue, batch.map { ($0.body, Self.properties($0.id)) })
        for (index, attempt) in batch.enumerated() {
            var own = outcome
            if case .acknowledged(let offset, let ids) = outcome {
                let all = ids.split(separator: ",").map(String.init)
                if all.count != batch.count { oracle.violate("a batch of \(batch.count) got \(all.count) ids") }
                own = .acknowledged(queueOffset: offset, messageID: index < all.count ? all[index] : "")
            }
            oracle.finish(attempt.id, own, batchIndex: Int64(index))
        }
    }

    /// In the order of its key: the next message goes when this one is known to be stored, or is given up.
    private func sendKeyed(
        _ producer: ModelProducer, _ number: Int, _ random: inout ModelRandom, _ sequences: inout [Int: Int]
    ) async {
        let key = number * 100 + random.below(ModelPlan.keys)
        let sequence = sequences[key, default: 0]
        sequences[key] = sequence + 1
        let attempt = attempt(.keyed, ModelPlan.ordered, Int32(key % Int(ModelPlan.queues))) { attempt in
            attempt.key = key
            attempt.sequence = sequence
        }
        oracle.finish(
            attempt.id,
            await producer.send(
                attempt.topic, queue: attempt.queue, body: attempt.body, properties: Self.properties(attempt.id)))
    }

    private func sendLater(_ producer: ModelProducer, _ random: inout ModelRandom, byLevel: Bool) async {
        let now = ModelClock.nowMilliseconds
        let queue = Int32(random.below(Int(ModelPlan.queues)))
        var more: [String: String] = [:]
        var earliest = now
        if byLevel {
            let level = 1 + random.below(2)
            more["DELAY"] = String(level)
            earliest += ModelPlan.levelMilliseconds[level - 1]
        } else {
            let milliseconds = Int64(random.below(4000))
            switch random.below(3) {
            case 0:
                more["TIMER_DELAY_MS"] = String(milliseconds)
                earliest += milliseconds
            case 1:
                more["TIMER_DELAY_SEC"] = String(1 + milliseconds / 1000)
                earliest += (1 + milliseconds / 1000) * 1000
            default:
                more["TIMER_DELIVER_MS"] = String(now + milliseconds)
                earliest += milliseconds
            }
        }
        let attempt = attempt(byLevel ? .level : .timer, ModelPlan.mixed, queue, earliest: earliest)
        oracle.finish(
            attempt.id,
            await producer.send(
                attempt.topic, queue: queue, body: attempt.body,
                properties: Self.properties(attempt.id).merging(more) { $1 }))
    }

    private func sendTransaction(_ producer: ModelProducer, _ random: inout ModelRandom) async {
        let queue = Int32(random.below(Int(ModelPlan.queues)))
        let outcome: ModelTransactionOutcome? =
            switch random.below(20) {
            case 0..<12: .commit
            case 12..<19: .rollback
            default: nil
            }
        let unknowns = random.once(in: 4) ? random.below(3) : 0
        let isDelayed = random.once(in: 8)
        let saysItself = random.below(3) > 0
        let pause = random.once(in: 3) ? random.below(1500) : 0
        let begin = ModelClock.nowMilliseconds
        let attempt = attempt(
            .transaction, ModelPlan.mixed, queue, earliest: isDelayed ? begin + ModelPlan.levelMilliseconds[0] : 0
        ) { attempt in
            attempt.outcome = outcome
            attempt.unknowns = unknowns
            // It counts from the commit on, whenever that is.
            attempt.hasDelay = false
        }
        var properties = Self.properties(attempt.id)
        if isDelayed { properties["DELAY"] = "1" }
        var end: (outcome: ModelTransactionOutcome, afterMilliseconds: Int)?
        if let outcome, saysItself { end = (unknowns > 0 ? .unknown : outcome, 0) }
        if pause > 0, let outcome, unknowns == 0 {
            // The outcome comes late, perhaps after the first check: not waited for.
            let oracle = oracle
            let id = attempt.id
            Task {
                let result = await producer.sendTransaction(
                    attempt.topic, queue: queue, body: attempt.body, properties: properties, end: (outcome, pause))
                oracle.finish(id, result)
            }
            return
        }
        oracle.finish(
            attempt.id,
            await producer.sendTransaction(
                attempt.topic, queue: queue, body: attempt.body, properties: properties, end: end))
    }

    // MARK: - Members

    private func join(_ group: ModelPlan.Group) async {
        nextMember += 1
        var settings = ModelConsumer.Settings(
            group: group.name, clientID: "\(group.name)-\(nextMember)", topics: group.topics, mode: group.mode)
        if group.bringsLimit { settings.maxReconsumeTimes = group.maxRetries }
        let consumer = ModelConsumer(settings, link: ModelLink(nameServer: platform.nameServer), observer: oracle)
        members[group.name, default: []].append((settings.clientID, consumer, events.count))
        await consumer.start()
    }

    private func takeMember(_ group: ModelPlan.Group, _ random: inout ModelRandom) -> ModelConsumer? {
        guard let count = members[group.name]?.count, count > 1 else { return nil }
        return members[group.name]?.remove(at: random.below(count)).consumer
    }

    // MARK: - Faults

    private func disturb() async throws {
        var random = ModelRandom(seed)
        let end = ContinuousClock.now + duration
        while ContinuousClock.now < end {
            try await Task.sleep(for: .milliseconds(200 + random.below(1600)))
            guard let group = random.pick(ModelPlan.groups) else { continue }
            switch random.below(100) {
            case 0..<14: await kill("broker-store")
            case 14..<22: await kill("nameserver")
            case 22..<25: await kill(random.once(in: 2) ? "filter" : "replication")
            case 25..<29: try await restart(killed: false)
            case 29..<31: try await restart(killed: true)
            case 31..<36: await pause(milliseconds: 50 + random.below(600))
            case 36..<56:
                if members[group.name]?.count ?? 0 < 5 {
                    note("join \(group.name)")
                    await join(group)
                }
            case 56..<72:
                if let member = takeMember(group, &random) {
                    note("leave \(group.name)")
                    await member.leave()
                }
            case 72..<86:
                if let member = takeMember(group, &random) {
                    note("crash \(group.name)")
                    await member.crash()
                    await join(group)
                }
            default:
                note("disconnect \(group.name)")
                oracle.disturbed()
                if let count = members[group.name]?.count, count > 0 {
                    await members[group.name]?[random.below(count)].consumer.disconnect()
                }
            }
        }
    }

    private func kill(_ kind: String) async {
        guard let pid = platform.pid(of: kind) else { return }
        note("kill \(kind)")
        if kind == "broker-store" {
            oracle.disturbed()
            kills += 1
        }
        Glibc.kill(pid, SIGKILL)
        if kind == "broker-store" {
            _ = try? await platform.newPid(of: kind, after: pid)
            oracle.disturbed()
        }
    }

    private func pause(milliseconds: Int) async {
        guard let pid = platform.pid(of: "broker-store") else { return }
        note("pause \(milliseconds) ms")
        Glibc.kill(pid, SIGSTOP)
        try? await Task.sleep(for: .milliseconds(milliseconds))
        Glibc.kill(pid, SIGCONT)
    }

    private func restart(killed: Bool) async throws {
        note(killed ? "kill all" : "restart")
        oracle.disturbed()
        isPlatformUp = false
        if killed {
            kills += 1
            let workers = Platform.children(of: platform.supervisorPid)
            platform.program.send(signal: SIGKILL)
            _ = try await platform.program.finish()
            try await eventually("the workers end without their supervisor", within: .seconds(10)) {
                workers.allSatisfy { Glibc.kill($0, 0) != 0 }
            }
        } else {
            try await platform.stop()
        }
        earlierLogs.append(platform.log)
        platform = try await Platform.start(in: platform.folder, ports: ports, ModelPlan.settings)
        isPlatformUp = true
        oracle.disturbed()
    }

    // MARK: - Offsets under way

    /// Asks for committed offsets again and again: one may only be smaller than before after a client committed that,
    /// or after a kill (they are written to disk every few seconds).
    private func watchOffsets() async {
        var random = ModelRandom(seed &+ 77)
        var seen: [String: (offset: Int64, at: Int64, kills: Int)] = [:]
        let link = ModelLink(nameServer: platform.nameServer, broker: platform.broker)
        while isWatching {
            try? await Task.sleep(for: .milliseconds(15))
            guard let group = random.pick(ModelPlan.groups.filter { $0.mode != .broadcast }),
                let topic = random.pick(group.topics + ["%RETRY%" + group.name])
            else { continue }
            let queue = topic.hasPrefix("%") ? 0 : random.below(Int(ModelPlan.queues))
            let place = "\(group.name) \(topic) \(queue)"
            let killsBefore = kills
            let fields = ["consumerGroup": group.name, "topic": topic, "queueId": String(queue)]
            guard
                let reply = try? await link.invoke(RemotingCommand(.queryConsumerOffset, extFields: fields)),
                reply.code == 0, let offset = try? reply.integer("offset")
            else { continue }
            if let last = seen[place], offset < last.offset, last.kills == kills,
                !oracle.wasCommitted(place, offset: offset, since: last.at - 2000)
            {
                oracle.violate("the offset of \(place) went back from \(last.offset) to \(offset) without cause")
            }
            seen[place] = (offset, ModelClock.nowMilliseconds, killsBefore)
        }
        await link.close()
    }

    // MARK: - The end

    private func readLog() async throws {
        for topic in ModelPlan.topics { try await log.read(platform, topic: topic, queues: ModelPlan.queues) }
        for group in ModelPlan.groups where group.mode != .broadcast {
            try await log.read(platform, topic: "%DLQ%" + group.name, queues: 1)
            try await log.read(platform, topic: "%RETRY%" + group.name, queues: 1)
        }
    }

    /// Waits until everything that must arrive has arrived, and a moment longer for what must not.
    private func settle() async throws {
        note("settle")
        let verdict = ModelVerdict(oracle: oracle, log: log, broadcasters: broadcasters)
        var missing: [String] = ["nothing read yet"]
        let limit = ContinuousClock.now + .seconds(60)
        while !missing.isEmpty, ContinuousClock.now < limit {
            try await Task.sleep(for: .milliseconds(200))
            do { try await readLog() } catch { continue }
            missing = verdict.missing()
        }
        for words in missing.prefix(20) { oracle.violate("after a minute: \(words)") }
        if missing.count > 20 { oracle.violate("after a minute: \(missing.count) of these") }
        // Time passes, in which something could come twice.
        try await Task.sleep(for: .seconds(2))
        try await readLog()
        for words in verdict.contradictions() { oracle.violate(words) }
    }

    /// Members of broadcast groups that were there from the beginning to the end see everything there is.
    private var broadcasters: [String] {
        ModelPlan.groups.filter { $0.mode == .broadcast }.flatMap { members[$0.name]?.map(\.id) ?? [] }
    }

    /// All members leave in order: then each group has committed all there is.
    private func leaveAll() async throws {
        for member in members.values.joined() { await member.consumer.leave() }
        members = [:]
        for group in ModelPlan.groups where group.mode != .broadcast {
            for topic in group.topics + ["%RETRY%" + group.name] {
                for queue in 0..<(topic.hasPrefix("%") ? 1 : ModelPlan.queues) {
                    let fields = ["topic": topic, "queueId": String(queue), "consumerGroup": group.name]
                    let end = try await platform.ask(
                        platform.broker, RemotingCommand(.getMaxOffset, extFields: fields)
                    ).integer("offset")
                    let committed = try await platform.ask(
                        platform.broker, RemotingCommand(.queryConsumerOffset, extFields: fields)
                    ).integer("offset")
                    if committed != end {
                        oracle.violate("\(group.name) has left \(topic) \(queue) at \(committed) of \(end)")
                    }
                }
            }
        }
    }

    var summary: String {
        let attempts = oracle.attempts
        var counts: [String: Int] = [:]
        for attempt in attempts { counts[attempt.kind.rawValue, default: 0] += 1 }
        let unknown = attempts.filter { $0.state == .unknown }.count
        let refused = attempts.filter { $0.state == .refused }.count
        let deliveries = ModelPlan.groups.map { oracle.received($0.name).values.reduce(0) { $0 + $1.count } }
        let late = oracle.lateness
        let p99 = late.isEmpty ? 0 : late[min(late.count - 1, late.count * 99 / 100)]
        return
            "\(attempts.count) messages (\(counts.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }.joined(separator: ", "))), \(unknown) of unknown fate, \(refused) refused; deliveries \(deliveries); \(events.count) events; late p99 \(p99) ms; \(oracle.excused) overlaps excused by faults"
    }
}
