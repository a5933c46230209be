import FastJSON
import Logging
import MessageModel
import MessageStore
import RemotingProtocol
import SettingTable
import StoreFormat

/// Requests of operators' tools and of slaves about topics, groups, offsets and the broker itself.
final class AdminBrokerProcessor {
    /// Queues of one topic on this broker; RocketMQ has no bound. Its largest own topic has 1024.
    static let queuesMax: Int32 = 4096

    let environment: BrokerEnvironment
    let tables: BrokerTables
    let storage: StoreAccess
    let keeper: TableKeeper
    let answers: TableAnswers
    let settings: BrokerSettings
    let registration: NameserverRegistration
    let runtime: RuntimeInformation
    let replica: ReplicaStatus
    let kinds: MessageKinds

    init(
        _ environment: BrokerEnvironment, _ tables: BrokerTables, _ storage: StoreAccess, _ keeper: TableKeeper,
        _ answers: TableAnswers, _ settings: BrokerSettings, _ registration: NameserverRegistration,
        _ runtime: RuntimeInformation, _ replica: ReplicaStatus, _ kinds: MessageKinds
    ) {
        self.environment = environment
        self.tables = tables
        self.storage = storage
        self.keeper = keeper
        self.answers = answers
        self.settings = settings
        self.registration = registration
        self.runtime = runtime
        self.replica = replica
        self.kinds = kinds
    }

    // MARK: The broker

    func runtimeInformation(_ frame: RemotingFrame, _ client: ClientContext) {
        client.answer(
            frame.returnAddress, .success, body: KVTable(table: runtime.information).encoded())
    }

    func systemTopics(_ frame: RemotingFrame, _ client: ClientContext) {
        let list = TopicList(topicList: tables.topics.systemTopics.sorted())
        client.answer(frame.returnAddress, .success, body: list.encoded())
    }

    func timerMetrics(_ frame: RemotingFrame, _ client: ClientContext) {
        let metrics = kinds.timers.metrics.json(forFile: false)
        client.answer(frame.returnAddress, .success, body: metrics.bytes())
    }

    func timerCheckpoint(_ frame: RemotingFrame, _ client: ClientContext) {
        client.answer(frame.returnAddress, .success, body: kinds.timers.checkpointBytes)
    }

    func delayOffsets(_ frame: RemotingFrame, _ client: ClientContext) {
        client.answer(frame.returnAddress, .success, body: kinds.schedule.json.bytes())
    }

    func cleanExpiredQueues(_ frame: RemotingFrame, _ client: ClientContext) {
        storage.store.expireQueues()
        environment.logger.notice("consume queues are shortened to what the log holds, asked for by \(client.address)")
        client.answer(frame.returnAddress, .success)
    }

    func deleteExpiredLog(_ frame: RemotingFrame, _ client: ClientContext) {
        environment.logger.notice("expired commit log files are deleted, asked for by \(client.address)")
        storage.store.deleteExpiredFiles()
        client.answer(frame.returnAddress, .success)
    }

    func cleanUnusedTopics(_ frame: RemotingFrame, _ client: ClientContext) {
        let address = frame.returnAddress
        removeUnusedTopics(for: client) { client.answer(address, .success) }
    }

    private func refusedName(_ topic: String, _ frame: RemotingFrame, _ client: ClientContext) -> Bool {
        guard let remark = refusal(ofTopic: topic) else { return false }
        client.answer(frame.returnAddress, .systemError, remark: remark)
        return true
    }

    // MARK: Topics

    func updateTopic(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let fields = frame.extFields
        let topic = try fields.required("topic")
        if refusedName(topic, frame, client) { return }
        var config = TopicConfig(
            topicName: topic, readQueueNums: try fields.required(.readQueueNums),
            writeQueueNums: try fields.required(.writeQueueNums), perm: try fields.requiredInt32("perm"))
        config.topicFilterType = fields.string("topicFilterType") ?? "SINGLE_TAG"
        config.topicSysFlag = try fields.int32("topicSysFlag") ?? 0
        config.order = fields.bool("order") ?? false
        do throws(TopicAttributes.Refusal) {
            let current = tables.topics[topic].map { $0.config.attributes ?? [:] }
            let changed = try TopicAttributes.altered(
                current, by: try TopicAttributes.parse(fields.string("attributes") ?? ""))
            // A topic without any stays as RocketMQ 4.9 writes it.
            config.attributes = changed.isEmpty ? nil : changed
        } catch {
            return client.answer(frame.returnAddress, .systemError, remark: "\(error)")
        }
        if let (code, remark) = refusal(of: config, client) {
            return client.answer(frame.returnAddress, code, remark: remark)
        }
        do throws(NameError) {
            try tables.topics.update(config)
        } catch {
            throw .badName("\(error)")
        }
        environment.logger.info("topic \(topic) updated by \(client.address)")
        // Whoever made the topic may ask a name server for it as soon as this is answered.
        let address = frame.returnAddress
        keeper.answerWhenKept(address, client) { [self] in
            registration.whenRegistered { client.answer(address, .success) }
        }
    }

    func deleteTopic(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let topic = try frame.extFields.required("topic")
        if refusedName(topic, frame, client) { return }
        delete(topic: topic)
        environment.logger.info("topic \(topic) deleted by \(client.address)")
        let address = frame.returnAddress
        keeper.answerWhenKept(address, client) { client.answer(address, .success) }
    }

    // MARK: Groups

    func updateGroup(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let config = try SubscriptionGroupConfig(body: frame.body)
        if let remark = refusal(ofGroup: config.groupName) {
            return client.answer(frame.returnAddress, .systemError, remark: remark)
        }
        if let (code, remark) = refusalToMake(config, client) {
            return client.answer(frame.returnAddress, code, remark: remark)
        }
        try update(config)
        environment.logger.info("consumer group \(config.groupName) updated by \(client.address)")
        let address = frame.returnAddress
        keeper.answerWhenKept(address, client) { client.answer(address, .success) }
    }

    /// A retry topic that is there has all the queues its group has from now on.
    func update(_ config: SubscriptionGroupConfig) throws(RemotingDecodeError) {
        let group = try tables.groups.update(config)
        if let retryTopic = group.groupName.retryTopic, tables.topics[retryTopic.text] != nil {
            _ = tables.retryTopic(of: group.groupName)
        }
    }

    func deleteGroup(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let group = try frame.extFields.required("groupName")
        tables.groups.delete(group)
        storage.stats.forget(group: group)
        // mqadmin 4.9.8 says removeOffset, 5.x cleanOffset.
        if frame.extFields.bool("removeOffset") ?? frame.extFields.bool("cleanOffset") ?? false {
            tables.offsets.remove(group: group, in: environment.slices)
        }
        environment.logger.info("consumer group \(group) deleted by \(client.address)")
        let address = frame.returnAddress
        keeper.answerWhenKept(address, client) { client.answer(address, .success) }
    }

    func cloneOffsets(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let source = try frame.extFields.required("srcGroup")
        let destination = try tables.groups.checked(try frame.extFields.required("destGroup"))
        let wanted = frame.extFields.string("topic") ?? ""
        let isOffline = frame.extFields.bool("offline") ?? false
        guard tables.groups.find(destination.text) != nil else {
            return client.answer(
                frame.returnAddress, .subscriptionGroupNotExist,
                remark: "Group \(destination) not exist!" + tables.groups.remedy(for: destination.text))
        }
        let address = frame.returnAddress
        var topics = (wanted.isEmpty ? tables.offsets.topics(of: source) : [wanted])[...]
        environment.slices.work(for: client) { [self] in
            for topic in topics.prefix(Self.topicsPerSlice) {
                guard let topicName = tables.topics[topic]?.topicName else { continue }
                // An online group that does not consume the topic any more: what it left there is not to be copied.
                if !isOffline, let group = tables.consumers[source], group.subscriptions.count > 0,
                    group.subscriptions[topic] == nil
                {
                    continue
                }
                tables.offsets.clone(from: source, to: destination, topic: topicName)
            }
            topics = topics.dropFirst(Self.topicsPerSlice)
            return !topics.isEmpty
        } then: {
            client.answer(address, .success)
        }
    }

    /// Topics whose offsets are copied in one slice, and offsets compared.
    private static let topicsPerSlice = 256
    private static let offsetsPerSlice = 4096

    func correctionOffset(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        let topic = try frame.extFields.required("topic")
        let excluded = Set((frame.extFields.string("filterGroups") ?? "").split(separator: ",").map(String.init))
        let group = try frame.extFields.required("compareGroup")
        let address = frame.returnAddress
        var left = tables.offsets.tables(of: topic)[...]
        var smallest: [Int32: Int64] = [:]
        environment.slices.work(for: client) { [self] in
            var budget = Self.offsetsPerSlice
            while budget > 0, let table = left.popFirst() {
                budget -= 1 + table.offsets.count
                guard !excluded.contains(table.group) else { continue }
                table.lower(&smallest) {
                    storage.store.consumeQueue(topic: topic, queueId: $0)?.minOffset.rawValue ?? 0
                }
            }
            return !left.isEmpty
        } then: { [self] in
            let compared = tables.offsets.offsets(topic: topic, group: group) ?? [:]
            let found = smallest
            answers.answer(entries: found.count, address, client) {
                var table = JSONObject()
                for (queue, offset) in found.sorted(by: { $0.key < $1.key }) {
                    // A group that is ahead of the compared one has nothing to correct there.
                    let isPast = compared[queue].map { offset > $0 } ?? false
                    let corrected: Int64 = isPast ? .max : offset
                    table.append(rawKey: String(queue), JSONValue.integer(corrected))
                }
                return .fields([("correctionOffsets", .object(table))])
            }
        }
    }

    // MARK: The broker's settings

    func getConfig(_ frame: RemotingFrame, _ client: ClientContext) {
        let text = settingsHeld().sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)\n" }.joined()
        client.answer(
            frame.returnAddress, .success, fields: [("version", settings.version.json.text())],
            body: Array(text.utf8))
    }

    /// What somebody set stands as it was set; what nobody did by the value it has.
    private func settingsHeld() -> [String: String] {
        let holding = environment.configuration.listing + storage.store.configuration.listing
        return Dictionary(
            (holding + environment.configuration.pairs).map { ($0.key, $0.value) }, uniquingKeysWith: { $1 })
    }

    func updateConfig(_ frame: RemotingFrame, _ client: ClientContext) {
        let pairs: [(String, String)]
        do throws(JavaProperties.Malformed) {
            pairs = try JavaProperties.parse(String(decoding: frame.body, as: UTF8.self)).map { ($0.key, $0.value) }
        } catch {
            return client.answer(frame.returnAddress, .systemError, remark: "\(error); nothing was changed")
        }
        let forbidden = Set(
            environment.configuration.configBlackList + ["brokerConfigPath", "rocketmqHome", "configBlackList"])
        guard !pairs.contains(where: { forbidden.contains($0.0) }) else {
            return client.answer(
                frame.returnAddress, .noPermission, remark: "Can not update config in black list.")
        }
        let before = settingsHeld()
        if let refusal = settings.change(settings: pairs) {
            return client.answer(frame.returnAddress, .systemError, remark: refusal)
        }
        let changes = pairs.map {
            "\($0.0) from '\(before[$0.0] ?? "")' to '\(SettingRefusal.shown($0.1.trimmedBlanks))'"
        }
        environment.logger.notice("settings changed by \(client.address): \(changes.joined(separator: ", "))")
        let address = frame.returnAddress
        keeper.answerWhenKept(address, client) { client.answer(address, .success) }
    }
}
