import MessageModel
import RocketMQClient

/// Asks name servers, brokers and, through them, the group's clients. It changes nothing and commits nothing. Any
/// RocketMQ broker can be asked; what one cannot answer is missing in the facts.
struct WhyInquiry: Sendable {
    let client: AdminClient
    let group: String
    let topic: String?
    /// Recent messages of a topic that are looked at.
    let sampleSize: Int

    func ask() async throws -> WhyFacts {
        var facts = WhyFacts(group: group, nameServers: client.nameServers.joined(separator: ";"))
        let all = try await client.clusters().brokers
        var seen: Set<String> = []
        for data in all {
            guard let address = data.preferredAddress else { continue }
            var broker = WhyFacts.Broker(name: data.name, address: address)
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
        facts.retries = await backlog(of: TopicName.retryPrefix + group)
        facts.deadLetters = await count(of: TopicName.deadLetterPrefix + group)
        // Brokers that serve none of the topics do not matter.
        let serving = Set(facts.topics.flatMap { ($0.permissions ?? [:]).keys })
        if !serving.isEmpty { facts.brokers.removeAll { !serving.contains($0.name) } }
        return facts
    }

    // MARK: - Brokers

    private func config(at address: String) async throws -> WhyFacts.GroupConfig? {
        guard let settings = try await client.settings(ofGroup: group, at: address) else { return nil }
        return WhyFacts.GroupConfig(
            consumeEnable: settings.mayConsume, consumeBroadcastEnable: settings.mayBroadcast,
            retryMaxTimes: settings.retriesMax)
    }

    private func inconsistency(at address: String) async throws -> String? {
        try await client.runtimeFigures(of: address)["inconsistentGroup_\(group)"]
    }

    private func connections(at address: String, _ facts: inout WhyFacts, _ seen: inout Set<String>) async throws {
        let consumers: ConsumerConnections
        do throws(RocketMQClientError) {
            consumers = try await client.consumers(of: group, at: address)
        } catch {
            // A broker that has no consumer of the group answers that.
            guard case .refused = error else { throw error }
            return
        }
        for one in consumers.clients where seen.insert(one.clientID).inserted {
            facts.members.append(WhyFacts.Member(id: one.clientID, address: one.address))
        }
        facts.isBroadcast = consumers.messageModel == "BROADCASTING"
        facts.consumeFromWhere = consumers.consumeFromWhere
        for subscription in consumers.subscriptions { add(subscription, to: &facts) }
    }

    private func add(_ subscription: ConsumerConnections.Subscribed, to facts: inout WhyFacts) {
        let wanted = WhyFacts.Wanted(
            topic: subscription.topic, type: subscription.expressionType, expression: subscription.expression)
        if !facts.wanted.contains(wanted) { facts.wanted.append(wanted) }
    }

    // MARK: - Clients

    private func askMembers(_ facts: inout WhyFacts) async {
        let addresses = facts.brokers.filter { $0.unreachable == nil }.map(\.address)
        for index in facts.members.indices {
            for address in addresses {
                guard
                    let report = try? await client.report(
                        of: facts.members[index].id, group: group, at: address, timeout: .seconds(5))
                else { continue }
                facts.members[index].hasAnswered = true
                facts.members[index].queues.formUnion(report.queues)
                facts.members[index].cached = report.waitingMessages
                facts.members[index].failedPerHour = report.failedMessages
                for subscription in report.subscriptions { add(subscription, to: &facts) }
                break
            }
        }
    }

    // MARK: - Topics

    /// What is asked about, or what the group subscribes to, or what it has consumed.
    private func topicNames(_ facts: WhyFacts) async throws -> [String] {
        if let topic { return [topic] }
        let subscribed = Set(facts.wanted.map(\.topic).filter { !$0.hasPrefix(TopicName.retryPrefix) }).sorted()
        if !subscribed.isEmpty { return subscribed }
        let consumed = (try? await client.progress(of: group))?.rows.map(\.queue.topic) ?? []
        return Set(consumed.filter { !$0.hasPrefix(TopicName.retryPrefix) }).sorted()
    }

    private func ask(topic name: String, _ facts: WhyFacts) async throws -> WhyFacts.Topic {
        let wanted = facts.wanted.filter { $0.topic == name }
        var topic = WhyFacts.Topic(name: name, permissions: nil, isSubscribed: !wanted.isEmpty)
        let route: TopicRoute
        do throws(RocketMQClientError) {
            route = try await client.route(of: name)
        } catch {
            guard error.responseCode == RocketMQClientError.topicDoesNotExist else { throw error }
            return topic
        }
        topic.permissions = Dictionary(
            route.queues.map { ($0.brokerName, $0.permission) }, uniquingKeysWith: { first, _ in first })
        let consumed = Dictionary(
            ((try? await client.progress(of: group, topic: name))?.rows ?? []).map { ($0.queue, $0.consumerOffset) },
            uniquingKeysWith: { first, _ in first })
        for queue in route.readableQueues {
            guard let address = try? route.address(of: queue),
                let minimum = try? await client.offset(.first, of: queue, at: address),
                let end = try? await client.offset(.last, of: queue, at: address)
            else { continue }
            topic.queues.append(
                WhyFacts.Queue(queue: queue, minimum: max(0, minimum), end: end, consumed: consumed[queue] ?? 0))
        }
        let sampler = WhySampler(client: client, route: route, queues: topic.queues, size: sampleSize)
        for one in wanted where !one.isAll { topic.samples.append(await sampler.sample(one)) }
        return topic
    }

    private func backlog(of topic: String) async -> Int64 {
        ((try? await client.progress(of: group, topic: topic))?.rows ?? []).reduce(0) { $0 +| max(0, $1.difference) }
    }

    private func count(of topic: String) async -> Int64 {
        guard let route = try? await client.route(of: topic) else { return 0 }
        var count: Int64 = 0
        for queue in route.readableQueues {
            guard let address = try? route.address(of: queue),
                let minimum = try? await client.offset(.first, of: queue, at: address),
                let end = try? await client.offset(.last, of: queue, at: address)
            else { continue }
            count = count +| max(0, end -| max(0, minimum))
        }
        return count
    }
}

/// Looks at the newest messages of a topic and at which of them a subscription chooses. Tags are compared here, as
/// clients do. The broker applies any other expression, with the filter worker and the plugins the group has. A copy of
/// the engine here would not do: the answer is what the group gets.
struct WhySampler: Sendable {
    /// Pulls of one queue that bring nothing before it is given up.
    private static let emptyPullsMax = 20

    let client: AdminClient
    let route: TopicRoute
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
        let address = try route.address(of: queue.queue)
        var messages: [ReceivedMessage] = []
        try await client.read(queue.queue, at: address, from: first, to: queue.end) { messages += $0 }
        let chosen: Set<Int64>
        if wanted.isTag {
            let subscription = Subscription(topic: wanted.topic, tags: wanted.expression)
            chosen = Set(messages.filter(subscription.selects).map(\.queueOffset))
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
                if let tag = message.tag { sample.seen[tag, default: 0] += 1 } else { sample.untagged += 1 }
            } else {
                for name in message.properties.keys where !Self.ofSystem.contains(name) {
                    sample.seen[name, default: 0] += 1
                }
            }
        }
    }

    /// Properties no subscription filters by.
    private static let ofSystem = Set(
        [
            PropertyName.uniqueKey, PropertyName.cluster, PropertyName.waitStoreMsgOK, PropertyName.region,
            PropertyName.traceSwitch, PropertyName.instanceID, PropertyName.minOffset, PropertyName.maxOffset,
        ].map { "\($0)" })

    private func choose(
        _ queue: WhyFacts.Queue, at address: String, from first: Int64, _ wanted: WhyFacts.Wanted
    ) async throws -> Set<Int64> {
        var chosen: Set<Int64> = []
        var offset = first
        var empty = 0
        while offset < queue.end {
            let pulled = try await client.pull(
                queue.queue, at: address, offset: offset, type: wanted.type, expression: wanted.expression)
            chosen.formUnion(pulled.messages.map(\.queueOffset).filter { $0 < queue.end })
            if pulled.status == .noNewMessage || pulled.status == .offsetMoved && pulled.nextOffset <= offset { break }
            guard pulled.nextOffset <= offset else {
                offset = pulled.nextOffset
                empty = 0
                continue
            }
            empty += 1
            guard empty < Self.emptyPullsMax else {
                throw CommandFailure("\(address) does not get on with queue \(queue.queue.queueID) at \(offset)")
            }
            try await Task.sleep(for: .milliseconds(100))
        }
        return chosen
    }
}
