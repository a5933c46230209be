import FastJSON
import Logging
import MessageModel
import MessageStore
import RemotingProtocol
import RemotingTransport

/// What tools of RocketMQ 5 ask about one topic or group (351, 352), and change of many at once (18, 225).
extension AdminBrokerProcessor {
    /// GET_TOPIC_CONFIG (351). Static topics, whose `mappingDetail` would stand here, do not exist in Apus: the member
    /// is absent, as Apache leaves it out.
    func topicConfig(_ request: borrowing Request) throws(RemotingDecodeError) {
        let name = try request.extFields.required("topic")
        guard var config = tables.topics[name]?.config else {
            return request.answer(.topicNotExist, remark: "No topic in this broker. topic: \(name)")
        }
        config.attributes = config.attributes ?? [:]
        request.answer(.success, body: config.encoded())
    }

    /// GET_SUBSCRIPTIONGROUP_CONFIG (352). With `autoCreateSubscriptionGroup` Apache makes the group when it is asked
    /// for; here it answers the same, and a misspelt name leaves no group.
    func groupConfig(_ request: borrowing Request) throws(RemotingDecodeError) {
        let name = try request.extFields.required("group")
        guard let config = tables.groups[name]?.config ?? tables.groups.configIfCreated(name) else {
            return request.answer(.subscriptionGroupNotExist, remark: "No group in this broker")
        }
        request.answer(.success, body: config.jsonOfVersion5.bytes())
    }

    /// Topics of one list (18).
    private static let topicsOfListMax = 2000

    /// UPDATE_AND_CREATE_TOPIC_LIST (18): all are checked before the first is changed. Apache answers "success" without
    /// a change when one of them is as it was before; here the others are changed.
    func updateTopics(_ request: borrowing Request) throws(RemotingDecodeError) {
        let list = try CreateTopicListRequestBody(body: request.body).topicConfigList
        guard list.count <= Self.topicsOfListMax else {
            return request.answer(
                .invalidParameter,
                remark: "a list of \(list.count) topics is not taken, at most \(Self.topicsOfListMax): divide it among "
                    + "several requests")
        }
        var accepted: [TopicConfig] = []
        var wanted: [String: TopicConfig] = [:]
        for config in list {
            guard let former = wanted.updateValue(config, forKey: config.topicName), former != config else { continue }
            return request.answer(
                .invalidParameter,
                remark: "the list names topic \(config.topicName.prefix(128)) twice, in different ways; nothing was "
                    + "changed")
        }
        var copies = WaitingCopies(of: Set(wanted.keys))
        for var config in list {
            // One of two that say the same is enough.
            guard wanted.removeValue(forKey: config.topicName) != nil else { continue }
            if let remark = refusal(ofTopic: config.topicName) {
                return request.answer(.invalidParameter, remark: remark)
            }
            if let (code, remark) = refusal(of: config, request.client) {
                return request.answer(code == .systemError ? .invalidParameter : code, remark: remark)
            }
            do throws(TopicAttributes.Refusal) {
                let current = tables.topics[config.topicName].map { $0.config.attributes ?? [:] }
                config.attributes = try TopicAttributes.altered(current, by: config.attributes ?? [:])
            } catch {
                return request.answer(.systemError, remark: "\(config.topicName): \(error)")
            }
            if let (code, remark) = refusalOfPolicy(config, &copies) { return request.answer(code, remark: remark) }
            accepted.append(config)
        }
        do throws(NameError) {
            for config in accepted { try update(config) }
        } catch {
            throw .badName("\(error)")
        }
        environment.logger.info("\(accepted.count) topics updated by \(request.client.address)")
        let asker = request.asker
        keeper.answerWhenKept(asker) { [self] in
            registration.whenRegistered { asker.answer(.success) }
        }
    }

    /// UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST (225): all are checked before the first is changed.
    func updateGroups(_ request: borrowing Request) throws(RemotingDecodeError) {
        let list = try SubscriptionGroupList(body: request.body).groupConfigList
        for config in list {
            if let remark = refusal(ofGroup: config.groupName) {
                return request.answer(.invalidParameter, remark: remark)
            }
            if let (code, remark) = refusalToMake(config, request.client) {
                return request.answer(code, remark: remark)
            }
        }
        for config in list { try update(config) }
        environment.logger.info("\(list.count) consumer groups updated by \(request.client.address)")
        let asker = request.asker
        keeper.answerWhenKept(asker) { asker.answer(.success) }
    }

    // MARK: - Refusals

    func refusal(ofTopic name: String) -> String? {
        if let problem = TopicName.problem(name) { return "\(problem)" }
        return tables.topics.isSystemTopic(name) ? "The topic[\(name)] is conflict with system topic." : nil
    }

    /// Why a topic is not made or changed: its numbers of queues, its texts, or the client's rate of new topics.
    func refusal(of config: TopicConfig, _ client: ClientContext) -> (ResponseCode, String)? {
        let topic = config.topicName
        guard config.readQueueNums >= 0, config.writeQueueNums >= 0 else {
            return (
                .systemError,
                "topic \(topic): readQueueNums=\(config.readQueueNums) writeQueueNums=\(config.writeQueueNums); "
                    + "neither may be negative"
            )
        }
        guard (0...Permission.all).contains(config.perm) else {
            return (
                .systemError,
                "perm \(config.perm) of the topic \(topic) is no permission: 2 writes, 4 reads, 6 both (1 more: others "
                    + "inherit); nothing was changed"
            )
        }
        if let problem = config.problem() {
            return (.systemError, "topic \(topic): \(problem); nothing was changed")
        }
        let queues = max(config.readQueueNums, config.writeQueueNums)
        guard queues <= QueueCounts.maximum else {
            return (
                .systemError,
                "topic[\(topic)] with \(queues) queues is not made, at most \(QueueCounts.maximum): a request for a "
                    + "topic's state looks at each of its queues"
            )
        }
        guard tables.topics[topic] != nil || tables.creations.mayMakeTopic(client.connection.remoteAddress) else {
            return (
                .systemBusy,
                "topic[\(topic)] was not made: this address has made more than \(CreationRates.topics.words); "
                    + "say it again in a moment"
            )
        }
        return nil
    }

    /// Makes or changes a topic. What waits for its messages and may not have them any more is answered now.
    /// - Throws: there is none of its name, and none can be made.
    func update(_ config: TopicConfig) throws(NameError) {
        let known = tables.topics[config.topicName]
        let (before, queuesBefore) = (known?.policy ?? .standard, known?.config.readQueueNums)
        let entry = try tables.topics.update(config)
        let isOther = before.mode != entry.policy.mode || before.hasLeases != entry.policy.hasLeases
        // Who has queues that are not read any more would keep its share of those that are from the others.
        let hasOtherQueues = entry.policy.hasLeases && queuesBefore != config.readQueueNums
        guard isOther || hasOtherQueues else { return }
        if isOther {
            let (mode, earlier) = (entry.policy.mode.rawValue, before.mode.rawValue)
            environment.logger.notice("topic \(entry.name) has apus.mode=\(mode) now, it had \(earlier)")
        }
        claims.leases.forget(topic: entry.name)
        waiters.end(topic: entry.name)
        guard isOther else { return }
        hold.expire(at: (0..<entry.queueNums).compactMap { storage.store.consumeQueue(topic: entry.name, queueID: $0) })
    }

    func refusalOfPolicy(_ config: TopicConfig) -> (ResponseCode, String)? {
        var copies = WaitingCopies(of: [config.topicName])
        return refusalOfPolicy(config, &copies)
    }

    /// Why a topic cannot have the mode its attributes name, or keep its messages that way.
    /// - Parameter copies: of all topics of the request.
    private func refusalOfPolicy(_ config: TopicConfig, _ copies: inout WaitingCopies) -> (ResponseCode, String)? {
        let policy = TopicPolicy(attributes: config.attributes)
        guard policy != .standard else { return nil }
        let topic = config.topicName
        let isOfGroup = topic.hasPrefix(TopicNames.retryPrefix) || topic.hasPrefix(TopicName.deadLetterPrefix)
        if isOfGroup, policy.isPoppedOnly {
            return (
                .systemError,
                "topic \(topic) belongs to a consumer group and cannot be apus.mode=\(policy.mode.rawValue): set it on "
                    + "the topic the messages are sent to"
            )
        }
        let known = tables.topics[topic]?.queueNums ?? 0
        let queues = max(config.readQueueNums, config.writeQueueNums, known)
        if policy.mode == .serial, queues != 1 || config.readQueueNums != 1 || config.writeQueueNums != 1 {
            return (
                .systemError,
                "apus.mode=SERIAL_QUEUE needs one queue, topic \(topic) has \(queues): make a new topic with "
                    + "readQueueNums=1 and writeQueueNums=1 (mqadmin updateTopic -r 1 -w 1), or when consumers are "
                    + "done with the others give this one a single queue first"
            )
        }
        if policy.hasLeases, tables.topics[topic]?.policy.hasLeases != true,
            let (retryTopic, group) = waiting(topic, &copies)
        {
            return (
                .systemError,
                "topic \(topic) cannot have one consumer for a queue (apus.mode=SERIAL_QUEUE, apus.shard) yet: "
                    + "\(retryTopic) has messages RocketMQ has stored for another delivery to group \(group), which "
                    + "lie in no order. Let the group consume them first, or skip them (mqadmin skipAccumulatedMessage)"
            )
        }
        let reserved = storage.store.configuration.fileReservedTime
        if case .days(let days) = policy.archive, days * 24 < Int64(reserved) {
            return (
                .systemError,
                "apus.archive=\(days)d is shorter than fileReservedTime (\(reserved) h): a log file holds messages of "
                    + "all topics and is not deleted for one of them; set at least \((Int64(reserved) + 23) / 24)d, or "
                    + "leave it out"
            )
        }
        return nil
    }

    /// Where copies of some topics' messages may lie; found when it is needed for the first time.
    private struct WaitingCopies {
        let topics: Set<String>
        var retryTopics: [String: [(topic: TopicEntry, group: SubscriptionGroupEntry)]]?

        init(of topics: Set<String>) { self.topics = topics }
    }

    /// A retry topic of RocketMQ's that holds messages of the topic a group is still to get, and that group. A pop with
    /// leases does not look there.
    private func waiting(_ topic: String, _ copies: inout WaitingCopies) -> (retryTopic: String, group: String)? {
        let retryTopics = copies.retryTopics ?? self.retryTopics(of: copies.topics)
        copies.retryTopics = retryTopics
        for (entry, group) in retryTopics[topic] ?? [] {
            for queueID in 0..<max(0, entry.config.readQueueNums)
            where claims.available(group: group, topic: entry, queueID: queueID) > 0 {
                return (entry.name, group.name)
            }
        }
        return nil
    }

    /// Retry topics of RocketMQ's popping groups, by the topic whose messages they hold. Looks at all topics.
    private func retryTopics(
        of topics: Set<String>
    ) -> [String: [(topic: TopicEntry, group: SubscriptionGroupEntry)]] {
        var found: [String: [(topic: TopicEntry, group: SubscriptionGroupEntry)]] = [:]
        for entry in tables.topics.all where entry.isRetryTopic {
            let rest = entry.name.utf8.dropFirst(TopicNames.retryPrefix.utf8.count)
            for place in rest.indices where rest[place] == UInt8(ascii: "_") || rest[place] == UInt8(ascii: "+") {
                let topic = String(rest[rest.index(after: place)...]) ?? ""
                // It may be the retry topic of a group that pulls and is called like both together.
                guard topics.contains(topic), tables.groups[String(rest) ?? ""] == nil,
                    let group = tables.groups[String(rest[..<place]) ?? ""],
                    PopRetryTopics.origin(of: entry.name, group: group.name) == topic
                else { continue }
                found[topic, default: []].append((entry, group))
            }
        }
        return found
    }

    /// Why a group is not made or changed: the number of its retry queues, its other fields, or the client's
    /// rate of new groups.
    func refusalToMake(_ config: SubscriptionGroupConfig, _ client: ClientContext) -> (ResponseCode, String)? {
        let group = config.groupName
        guard (0...QueueCounts.maximum).contains(config.retryQueueNums) else {
            return (
                .systemError,
                "group [\(group)]: retryQueueNums=\(config.retryQueueNums) is not within 0 to \(QueueCounts.maximum); "
                    + "nothing was changed"
            )
        }
        if let problem = config.problem() {
            return (.systemError, "group [\(group)]: \(problem); nothing was changed")
        }
        guard tables.groups[group] == nil, !tables.creations.mayMakeGroup(client.connection.remoteAddress) else {
            return nil
        }
        return (
            .systemBusy,
            "group [\(group)] was not made: this address has made more than \(CreationRates.groups.words); "
                + "say it again in a moment"
        )
    }

    func refusal(ofGroup name: String) -> String? {
        GroupName.problem(name) == nil ? nil : String(tables.groups.remedy(for: name).dropFirst())
    }
}

extension SubscriptionGroupConfig {
    /// With RocketMQ 5.3's defaults for the members only that version has.
    var jsonOfVersion5: JSONValue {
        let later: [(String, JSONValue)] = [
            ("attributes", .fields([])), ("consumeMessageOrderly", .bool(false)),
            ("consumeTimeoutMinute", .integer(15)),
            ("groupRetryPolicy", .fields([("type", .string("CUSTOMIZED"))])), ("groupSysFlag", .integer(0)),
        ]
        let members = json.object?.members ?? []
        let known = Set(members.map(\.key))
        let missing = later.filter { !known.contains($0.0) }
        return .fields(
            (members.map { ($0.key, $0.value) } + missing).sorted { $0.0 < $1.0 }.map { ($0.0, Optional($0.1)) })
    }
}
