import FastJSON
import Logging
import MessageStore
import RemotingProtocol
import SettingTable
import StoreFormat

/// Requests of operators' tools and of slaves about topics, groups, offsets and the broker itself.
final class AdminBrokerProcessor {
    private unowned let broker: Broker
    private lazy var stats = ConsumeStatsProcessor(broker)

    init(_ broker: Broker) { self.broker = broker }

    /// `false` for a code nobody here knows.
    func process(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) -> Bool {
        switch RequestCode(rawValue: frame.code) {
        case .updateAndCreateTopic: try updateTopic(frame, client)
        case .deleteTopicInBroker: try deleteTopic(frame, client)
        case .getAllTopicConfig: client.answer(frame.returnAddress, .success, body: broker.topics.json.bytes())
        case .updateAndCreateSubscriptionGroup: try updateGroup(frame, client)
        case .deleteSubscriptionGroup: try deleteGroup(frame, client)
        case .getAllSubscriptionGroupConfig:
            client.answer(frame.returnAddress, .success, body: broker.groups.json.bytes())
        case .getAllConsumerOffset: client.answer(frame.returnAddress, .success, body: broker.offsets.json.bytes())
        case .getAllDelayOffset: client.answer(frame.returnAddress, .success, body: broker.schedule.json.bytes())
        case .getBrokerConfig: getConfig(frame, client)
        case .updateBrokerConfig: updateConfig(frame, client)
        case .getBrokerRuntimeInfo:
            client.answer(frame.returnAddress, .success, body: KVTable(table: broker.runtimeInformation).encoded())
        case .getSystemTopicListFromBroker:
            let list = TopicList(topicList: broker.topics.systemTopics.sorted())
            client.answer(frame.returnAddress, .success, body: list.encoded())
        case .cleanExpiredConsumeQueue, .deleteExpiredCommitLog:
            broker.store.runMaintenance()
            client.answer(frame.returnAddress, .success)
        case .cleanUnusedTopic:
            broker.removeUnusedTopics()
            client.answer(frame.returnAddress, .success)
        case .getConsumerConnectionList: try consumerConnections(frame, client)
        case .getProducerConnectionList: try producerConnections(frame, client)
        case .getAllProducerInfo: producerInfo(frame, client)
        case .cloneGroupOffset: try cloneOffsets(frame, client)
        case .queryCorrectionOffset: try correctionOffset(frame, client)
        default: return try stats.process(frame, client)
        }
        return true
    }

    /// A slave's tables are its master's.
    private func refusedBySlave(_ frame: RemotingFrame, _ client: ClientContext) -> Bool {
        guard broker.configuration.isSlave else { return false }
        client.answer(
            frame.returnAddress, .systemError,
            remark: "Can't modify topic or subscription group from slave broker, "
                + "please execute it from master broker.")
        return true
    }

    private func refusedName(_ topic: String, _ frame: RemotingFrame, _ client: ClientContext) -> Bool {
        var remark = TopicNames.refusal(of: topic)
        if remark == nil, broker.topics.isSystemTopic(topic) {
            remark = "The topic[\(topic)] is conflict with system topic."
        }
        guard let remark else { return false }
        client.answer(frame.returnAddress, .systemError, remark: remark)
        return true
    }

    // MARK: Topics

    private func updateTopic(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let fields = frame.extFields
        let topic = try fields.required("topic")
        if refusedBySlave(frame, client) || refusedName(topic, frame, client) { return }
        var config = TopicConfig(
            topicName: topic, readQueueNums: try fields.requiredInt32("readQueueNums"),
            writeQueueNums: try fields.requiredInt32("writeQueueNums"), perm: try fields.requiredInt32("perm"))
        config.topicFilterType = fields.string("topicFilterType") ?? "SINGLE_TAG"
        config.topicSysFlag = try fields.int32("topicSysFlag") ?? 0
        config.order = fields.bool("order") ?? false
        guard config.readQueueNums >= 0, config.writeQueueNums >= 0 else { throw .badField("readQueueNums") }
        guard (0...Permission.all).contains(config.perm) else {
            return client.answer(
                frame.returnAddress, .systemError,
                remark:
                    "perm \(config.perm) of the topic \(topic) is no permission: 2 writes, 4 reads, 6 both (1 more: others "
                    + "inherit); nothing was changed")
        }
        broker.topics.update(config)
        broker.logger.info("topic \(topic) updated by \(client.address)")
        // Whoever made the topic may ask a name server for it as soon as this is answered.
        let address = frame.returnAddress
        broker.registration.whenRegistered { client.answer(address, .success) }
    }

    private func deleteTopic(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let topic = try frame.extFields.required("topic")
        if refusedBySlave(frame, client) || refusedName(topic, frame, client) { return }
        broker.delete(topic: topic)
        broker.logger.info("topic \(topic) deleted by \(client.address)")
        client.answer(frame.returnAddress, .success)
    }

    // MARK: Groups

    private func updateGroup(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        if refusedBySlave(frame, client) { return }
        let config = try SubscriptionGroupConfig(body: frame.body)
        guard SubscriptionGroupManager.isGood(config.groupName) else {
            return client.answer(
                frame.returnAddress, .systemError,
                remark: "The specified group [\(config.groupName.prefix(64))] is no name for a group."
                    + broker.groups.remedy(for: config.groupName))
        }
        broker.groups.update(config)
        broker.logger.info("consumer group \(config.groupName) updated by \(client.address)")
        client.answer(frame.returnAddress, .success)
    }

    private func deleteGroup(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        if refusedBySlave(frame, client) { return }
        let group = try frame.extFields.required("groupName")
        broker.groups.delete(group)
        broker.stats.forget { _, name in name == group }
        // mqadmin 4.9.8 says removeOffset, 5.x cleanOffset.
        if frame.extFields.bool("removeOffset") ?? frame.extFields.bool("cleanOffset") ?? false {
            broker.offsets.remove(group: group)
        }
        broker.logger.info("consumer group \(group) deleted by \(client.address)")
        client.answer(frame.returnAddress, .success)
    }

    private func cloneOffsets(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let source = try frame.extFields.required("srcGroup")
        let destination = try frame.extFields.required("destGroup")
        let wanted = frame.extFields.string("topic") ?? ""
        let isOffline = frame.extFields.bool("offline") ?? false
        for topic in wanted.isEmpty ? broker.offsets.topics(of: source) : [wanted] {
            guard broker.topics[topic] != nil else { continue }
            // An online group that does not consume the topic any more: what it left there is not to be copied.
            if !isOffline, let group = broker.consumers[source], !group.subscriptions.values.isEmpty,
                group.subscriptions[topic] == nil
            {
                continue
            }
            broker.offsets.clone(from: source, to: destination, topic: topic)
        }
        client.answer(frame.returnAddress, .success)
    }

    private func correctionOffset(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let topic = try frame.extFields.required("topic")
        let excluded = Set((frame.extFields.string("filterGroups") ?? "").split(separator: ",").map(String.init))
        let compared = broker.offsets.offsets(topic: topic, group: try frame.extFields.required("compareGroup")) ?? [:]
        var table = JSONObject()
        let smallest = broker.offsets.minimumOffsets(topic: topic, excluding: excluded) {
            broker.store.consumeQueue(topic: topic, queueId: $0)?.minOffset.rawValue ?? 0
        }
        for (queue, offset) in smallest.sorted(by: { $0.key < $1.key }) {
            // A group that is ahead of the compared one has nothing to correct there.
            let isPast = compared[queue].map { offset > $0 } ?? false
            let corrected: Int64 = isPast ? .max : offset
            table.append(rawKey: String(queue), JSONValue.integer(corrected))
        }
        client.answer(
            frame.returnAddress, .success, body: JSONValue.fields([("correctionOffsets", .object(table))]).bytes())
    }

    // MARK: Connections

    private func connection(_ info: ClientChannelInfo) -> JSONValue {
        .fields([
            ("clientAddr", .string(info.client.address)), ("clientId", .string(info.clientId)),
            ("language", .string("\(info.language.name)")), ("version", .integer(info.version)),
        ])
    }

    private func consumerConnections(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let name = try frame.extFields.required("consumerGroup")
        guard let group = broker.consumers[name] else {
            return client.answer(
                frame.returnAddress, .consumerNotOnline, remark: "the consumer group[\(name)] not online")
        }
        let subscriptions = group.subscriptions.values.map { ($0.topic, Optional($0.data.json)) }
        let body = JSONValue.fields([
            ("connectionSet", .array(group.clients.map(connection))),
            ("consumeFromWhere", .string(group.consumeFromWhere)), ("consumeType", .string(group.consumeType)),
            ("messageModel", .string(group.messageModel)), ("subscriptionTable", .fields(subscriptions)),
        ])
        client.answer(frame.returnAddress, .success, body: body.bytes())
    }

    private func producerConnections(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let name = try frame.extFields.required("producerGroup")
        guard let clients = broker.producers.clients(of: name) else {
            return client.answer(
                frame.returnAddress, .systemError, remark: "the producer group[\(name)] not exist")
        }
        let body = JSONValue.fields([("connectionSet", .array(clients.map(connection)))])
        client.answer(frame.returnAddress, .success, body: body.bytes())
    }

    private func producerInfo(_ frame: RemotingFrame, _ client: ClientContext) {
        let data = broker.producers.all.map { group, clients in
            (
                group,
                Optional(
                    JSONValue.array(
                        clients.map { info in
                            .fields([
                                ("clientId", .string(info.clientId)), ("language", .string("\(info.language.name)")),
                                ("lastUpdateTimestamp", .integer(info.lastUpdateMillis)),
                                ("remoteIP", .string("/" + info.client.address)), ("version", .integer(info.version)),
                            ])
                        }))
            )
        }
        client.answer(frame.returnAddress, .success, body: JSONValue.fields([("data", .fields(data))]).bytes())
    }

    // MARK: The broker's settings

    private func getConfig(_ frame: RemotingFrame, _ client: ClientContext) {
        let holding = broker.configuration.listing + broker.store.configuration.listing
        // What somebody set stands as it was set; what nobody did by the value it has.
        let values = Dictionary(
            (holding + broker.configuration.pairs).map { ($0.key, $0.value) }, uniquingKeysWith: { $1 })
        let text = values.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)\n" }.joined()
        client.answer(
            frame.returnAddress, .success, fields: [("version", broker.configurationVersion.json.text())],
            body: Array(text.utf8))
    }

    private func updateConfig(_ frame: RemotingFrame, _ client: ClientContext) {
        let pairs: [(String, String)]
        do throws(JavaProperties.Malformed) {
            pairs = try JavaProperties.parse(String(decoding: frame.body, as: UTF8.self)).map { ($0.key, $0.value) }
        } catch {
            return client.answer(frame.returnAddress, .systemError, remark: "\(error); nothing was changed")
        }
        let forbidden = Set(
            broker.configuration.configBlackList + ["brokerConfigPath", "rocketmqHome", "configBlackList"])
        guard !pairs.contains(where: { forbidden.contains($0.0) }) else {
            return client.answer(
                frame.returnAddress, .noPermission, remark: "Can not update config in black list.")
        }
        if let refusal = broker.change(settings: pairs) {
            return client.answer(frame.returnAddress, .systemError, remark: refusal)
        }
        let values = pairs.map { "\($0)=\(SettingRefusal.shown($1))" }.joined(separator: " ")
        broker.logger.notice("settings changed by \(client.address): \(values)")
        client.answer(frame.returnAddress, .success)
    }
}
