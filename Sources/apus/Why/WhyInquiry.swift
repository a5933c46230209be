import FastJSON
import MessageModel
import NIOCore
import RemotingProtocol

/// Asks name servers, brokers and, through them, the group's clients. It changes nothing and commits nothing. Any RocketMQ
/// broker can be asked; what one cannot answer is missing in the facts.
struct WhyInquiry: Sendable {
    private static let clientTimeout = TimeAmount.seconds(5)

    let session: AdminSession
    let group: String
    let topic: String?
    /// Recent messages of a topic that are looked at.
    let sampleSize: Int

    func ask() async throws -> WhyFacts {
        var facts = WhyFacts(group: group, nameServers: session.nameServers.joined(separator: ";"))
        let all = try await session.clusterInfo().brokerAddrTable.values.sorted { $0.brokerName < $1.brokerName }
        var seen: Set<String> = []
        for data in all {
            guard let address = data.preferredAddress else { continue }
            var broker = WhyFacts.Broker(name: data.brokerName, address: address)
            do {
                broker.config = try await config(at: address)
                broker.inconsistency = try await inconsistency(at: address)
                try await connections(at: address, &facts, &seen)
            } catch {
                broker.unreachable = "\(error)"
            }
            facts.brokers.append(broker)
        }
        await askMembers(&facts)
        for name in try await topicNames(facts) { facts.topics.append(try await ask(topic: name, facts)) }
        facts.retries = await backlog(of: "%RETRY%\(group)")
        facts.deadLetters = await count(of: "%DLQ%\(group)")
        // Brokers that serve none of the topics do not matter.
        let serving = Set(facts.topics.flatMap { ($0.permissions ?? [:]).keys })
        if !serving.isEmpty { facts.brokers.removeAll { !serving.contains($0.name) } }
        return facts
    }

    // MARK: Brokers

    private func config(at address: String) async throws -> WhyFacts.GroupConfig? {
        let body = try await session.demand(address, .getAllSubscriptionGroupConfig).body
        guard
            let config = try SubscriptionGroupWrapper(body: body).subscriptionGroupTable.first(where: {
                $0.groupName == group
            })
        else { return nil }
        return WhyFacts.GroupConfig(
            consumeEnable: config.consumeEnable, consumeBroadcastEnable: config.consumeBroadcastEnable,
            retryMaxTimes: config.retryMaxTimes)
    }

    private func inconsistency(at address: String) async throws -> String? {
        let body = try await session.demand(address, .getBrokerRuntimeInfo).body
        return try KVTable(body: body).table["inconsistentGroup_\(group)"]
    }

    private func connections(at address: String, _ facts: inout WhyFacts, _ seen: inout Set<String>) async throws {
        let reply = try await session.ask(address, .getConsumerConnectionList, ["consumerGroup": group])
        guard reply.responseCode == .success else { return }
        let json = try reply.json()
        for entry in json["connectionSet"]?.array ?? [] {
            let client = ClientConnection(entry)
            guard seen.insert(client.id).inserted else { continue }
            facts.members.append(WhyFacts.Member(id: client.id, address: client.address))
        }
        facts.isBroadcast = json["messageModel"]?.string == "BROADCASTING"
        facts.consumeFromWhere = json["consumeFromWhere"]?.string ?? ""
        for member in json["subscriptionTable"]?.object?.members ?? [] { add(member.value, to: &facts) }
    }

    private func add(_ subscription: JSONValue, to facts: inout WhyFacts) {
        guard let topic = subscription["topic"]?.string else { return }
        let wanted = WhyFacts.Wanted(
            topic: topic, type: subscription["expressionType"]?.string ?? "TAG",
            expression: subscription["subString"]?.string ?? "*")
        if !facts.wanted.contains(wanted) { facts.wanted.append(wanted) }
    }

    // MARK: Clients

    private func askMembers(_ facts: inout WhyFacts) async {
        let addresses = facts.brokers.filter { $0.unreachable == nil }.map(\.address)
        for index in facts.members.indices {
            let fields = ["consumerGroup": group, "clientId": facts.members[index].id, "jstackEnable": "false"]
            for address in addresses {
                guard
                    let reply = try? await session.ask(
                        address, .getConsumerRunningInfo, fields, timeout: Self.clientTimeout),
                    reply.responseCode == .success, let info = try? reply.json()
                else { continue }
                take(info, &facts.members[index])
                for subscription in info["subscriptionSet"]?.array ?? [] { add(subscription, to: &facts) }
                break
            }
        }
    }

    private func take(_ info: JSONValue, _ member: inout WhyFacts.Member) {
        member.hasAnswered = true
        for entry in info["mqTable"]?.object?.members ?? [] {
            guard let queue = MessageQueue(key: entry.key) else { continue }
            member.queues.insert(queue)
            member.cached = member.cached +| (entry.value["cachedMsgCount"]?.integer ?? 0)
        }
        for status in info["statusTable"]?.object?.members ?? [] {
            member.failedPerHour = member.failedPerHour +| (status.value["consumeFailedMsgs"]?.integer ?? 0)
        }
    }

    // MARK: Topics

    /// What is asked about, or what the group subscribes to, or what it has consumed.
    private func topicNames(_ facts: WhyFacts) async throws -> [String] {
        if let topic { return [topic] }
        let subscribed = Set(facts.wanted.map(\.topic).filter { !$0.hasPrefix("%RETRY%") }).sorted()
        if !subscribed.isEmpty { return subscribed }
        let consumed = (try? await session.consumeStats(group))?.rows.map(\.queue.topic) ?? []
        return Set(consumed.filter { !$0.hasPrefix("%RETRY%") }).sorted()
    }

    private func ask(topic name: String, _ facts: WhyFacts) async throws -> WhyFacts.Topic {
        let wanted = facts.wanted.filter { $0.topic == name }
        var topic = WhyFacts.Topic(name: name, permissions: nil, isSubscribed: !wanted.isEmpty)
        let route: TopicRouteData
        do {
            route = try await session.route(name)
        } catch let refusal as Refusal where refusal.code == .topicNotExist {
            return topic
        }
        topic.permissions = Dictionary(
            route.queueDatas.map { ($0.brokerName, $0.perm) }, uniquingKeysWith: { first, _ in first })
        let consumed = Dictionary(
            ((try? await session.consumeStats(group, topic: name))?.rows ?? []).map { ($0.queue, $0.consumerOffset) },
            uniquingKeysWith: { first, _ in first })
        for queue in session.queues(name, in: route) {
            guard let address = try? session.address(of: queue, in: route),
                let minimum = try? await session.offset(.getMinOffset, queue, at: address),
                let end = try? await session.offset(.getMaxOffset, queue, at: address)
            else { continue }
            topic.queues.append(
                WhyFacts.Queue(queue: queue, minimum: max(0, minimum), end: end, consumed: consumed[queue] ?? 0))
        }
        let sampler = WhySampler(session: session, route: route, queues: topic.queues, size: sampleSize)
        for one in wanted where !one.isAll { topic.samples.append(await sampler.sample(one)) }
        return topic
    }

    private func backlog(of topic: String) async -> Int64 {
        ((try? await session.consumeStats(group, topic: topic))?.rows ?? []).reduce(0) { $0 +| max(0, $1.difference) }
    }

    private func count(of topic: String) async -> Int64 {
        guard let route = try? await session.route(topic) else { return 0 }
        var count: Int64 = 0
        for queue in session.queues(topic, in: route) {
            guard let address = try? session.address(of: queue, in: route),
                let minimum = try? await session.offset(.getMinOffset, queue, at: address),
                let end = try? await session.offset(.getMaxOffset, queue, at: address)
            else { continue }
            count = count +| max(0, end -| max(0, minimum))
        }
        return count
    }
}

/// Looks at the newest messages of a topic and at which of them a subscription chooses. Tags are compared here, as clients do.
/// Any other expression is applied by the broker, with the filter worker and the plugins the group has, and not by a copy of the
/// engine here: the answer is what the group gets.
struct WhySampler: Sendable {
    /// Pulls of one queue that bring nothing before it is given up.
    private static let emptyPullsMax = 20

    let session: AdminSession
    let route: TopicRouteData
    let queues: [WhyFacts.Queue]
    let size: Int

    func sample(_ wanted: WhyFacts.Wanted) async -> WhyFacts.Sample {
        var sample = WhyFacts.Sample(wanted: wanted)
        let filled = queues.filter { $0.end > $0.minimum }
        guard !filled.isEmpty else { return sample }
        let share = Int64(max(1, size / filled.count))
        do {
            for queue in filled {
                try await look(at: queue, from: max(queue.minimum, queue.end -| share), wanted, &sample)
            }
        } catch {
            sample.failure = "\(error)"
        }
        return sample
    }

    private func look(
        at queue: WhyFacts.Queue, from first: Int64, _ wanted: WhyFacts.Wanted, _ sample: inout WhyFacts.Sample
    ) async throws {
        let address = try session.address(of: queue.queue, in: route)
        var messages: [MessageExt] = []
        try await session.read(queue.queue, at: address, from: first, to: queue.end) { messages += $0 }
        let chosen: Set<Int64>
        if wanted.isTag {
            let tags = Subscription(topic: wanted.topic, expression: wanted.expression).tags
            chosen = Set(messages.filter { tags?.contains($0.tags ?? "") ?? true }.map(\.queueOffset))
        } else {
            chosen = try await choose(queue, at: address, from: first, wanted)
        }
        for message in messages {
            sample.looked += 1
            if chosen.contains(message.queueOffset) {
                sample.matched += 1
            } else if message.queueOffset < queue.consumed {
                sample.skipped += 1
            }
            if wanted.isTag {
                if let tag = message.tags { sample.seen[tag, default: 0] += 1 } else { sample.untagged += 1 }
            } else {
                for name in message.properties.keys where !Self.ofSystem.contains(name) {
                    sample.seen[name, default: 0] += 1
                }
            }
        }
    }

    /// Properties nobody filters by.
    private static let ofSystem: Set<String> = [
        "UNIQ_KEY", "CLUSTER", "WAIT", "MSG_REGION", "TRACE_ON", "INSTANCE_ID", "MIN_OFFSET", "MAX_OFFSET",
    ]

    private func choose(
        _ queue: WhyFacts.Queue, at address: String, from first: Int64, _ wanted: WhyFacts.Wanted
    ) async throws -> Set<Int64> {
        var chosen: Set<Int64> = []
        var offset = first
        var empty = 0
        while offset < queue.end {
            let pulled = try await session.pull(
                queue.queue, at: address, offset: offset, count: 32, wanted.expression, type: wanted.type)
            chosen.formUnion(pulled.messages.map(\.queueOffset).filter { $0 < queue.end })
            if pulled.hasEnded { break }
            guard pulled.next <= offset else {
                offset = pulled.next
                empty = 0
                continue
            }
            empty += 1
            guard empty < Self.emptyPullsMax else {
                throw CommandFailure("\(address) does not get on with queue \(queue.queue.queueId) at \(offset)")
            }
            try await Task.sleep(for: .milliseconds(100))
        }
        return chosen
    }
}
