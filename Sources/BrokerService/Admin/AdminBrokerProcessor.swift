import FastJSON
import Logging
import MessageModel
import MessageStore
import RemotingProtocol
import SettingTable
import StoreFormat

/// Requests of operators' tools and of slaves about topics, groups, offsets and the broker itself.
final class AdminBrokerProcessor {

    let environment: BrokerEnvironment
    let tables: BrokerTables
    let storage: StoreAccess
    let hold: PullRequestHold
    let claims: GroupClaims
    let waiters: PopWaiters
    let keeper: TableKeeper
    let answers: TableAnswers
    let settings: BrokerSettings
    let registration: NameserverRegistration
    let runtime: RuntimeInformation
    let replica: ReplicaStatus
    let kinds: MessageKinds

    init(
        _ environment: BrokerEnvironment, _ tables: BrokerTables, _ storage: StoreAccess, _ hold: PullRequestHold,
        _ claims: GroupClaims, _ waiters: PopWaiters, _ keeper: TableKeeper, _ answers: TableAnswers,
        _ settings: BrokerSettings, _ registration: NameserverRegistration,
        _ runtime: RuntimeInformation, _ replica: ReplicaStatus, _ kinds: MessageKinds
    ) {
        self.environment = environment
        self.tables = tables
        self.storage = storage
        self.hold = hold
        self.claims = claims
        self.waiters = waiters
        self.keeper = keeper
        self.answers = answers
        self.settings = settings
        self.registration = registration
        self.runtime = runtime
        self.replica = replica
        self.kinds = kinds
    }

    // MARK: - The broker

    func runtimeInformation(_ request: borrowing Request) {
        request.answer(.success, body: KVTable(table: runtime.information).encoded())
    }

    func systemTopics(_ request: borrowing Request) {
        let list = TopicList(topicList: tables.topics.systemTopics.sorted())
        request.answer(.success, body: list.encoded())
    }

    func timerMetrics(_ request: borrowing Request) {
        let metrics = kinds.timers.metrics.json(forFile: false)
        request.answer(.success, body: metrics.bytes())
    }

    func timerCheckpoint(_ request: borrowing Request) {
        request.answer(.success, body: kinds.timers.checkpointBytes)
    }

    func delayOffsets(_ request: borrowing Request) {
        request.answer(.success, body: kinds.schedule.json.bytes())
    }

    func cleanExpiredQueues(_ request: borrowing Request) {
        storage.store.expireQueues()
        environment.logger.notice(
            "consume queues are shortened to what the log holds, asked for by \(request.client.address)")
        request.answer(.success)
    }

    func deleteExpiredLog(_ request: borrowing Request) {
        environment.logger.notice("expired commit log files are deleted, asked for by \(request.client.address)")
        storage.store.deleteExpiredFiles()
        request.answer(.success)
    }

    func cleanUnusedTopics(_ request: borrowing Request) {
        let asker = request.asker
        removeUnusedTopics(for: request.client) { asker.answer(.success) }
    }

    private func refusedName(_ topic: String, _ request: borrowing Request) -> Bool {
        guard let remark = refusal(ofTopic: topic) else { return false }
        request.answer(.systemError, remark: remark)
        return true
    }

    // MARK: - Topics

    func updateTopic(_ request: borrowing Request) throws(RemotingDecodeError) {
        let fields = request.extFields
        let topic = try fields.required("topic")
        if refusedName(topic, request) { return }
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
            return request.answer(.systemError, remark: "\(error)")
        }
        if let (code, remark) = refusal(of: config, request.client) ?? refusalOfPolicy(config) {
            return request.answer(code, remark: remark)
        }
        do throws(NameError) {
            try update(config)
        } catch {
            throw .badName("\(error)")
        }
        environment.logger.info("topic \(topic) updated by \(request.client.address)")
        // The one that made the topic may ask a name server for it as soon as this is answered.
        let asker = request.asker
        keeper.answerWhenKept(asker) { [self] in
            registration.whenRegistered { asker.answer(.success) }
        }
    }

    func deleteTopic(_ request: borrowing Request) throws(RemotingDecodeError) {
        let topic = try request.extFields.required("topic")
        if refusedName(topic, request) { return }
        delete(topic: topic)
        environment.logger.info("topic \(topic) deleted by \(request.client.address)")
        let asker = request.asker
        keeper.answerWhenKept(asker) { asker.answer(.success) }
    }

    // MARK: - Groups

    func updateGroup(_ request: borrowing Request) throws(RemotingDecodeError) {
        let config = try SubscriptionGroupConfig(body: request.body)
        if let remark = refusal(ofGroup: config.groupName) {
            return request.answer(.systemError, remark: remark)
        }
        if let (code, remark) = refusalToMake(config, request.client) {
            return request.answer(code, remark: remark)
        }
        try update(config)
        environment.logger.info("consumer group \(config.groupName) updated by \(request.client.address)")
        let asker = request.asker
        keeper.answerWhenKept(asker) { asker.answer(.success) }
    }

    /// A retry topic that is there has all the queues its group has from now on.
    func update(_ config: SubscriptionGroupConfig) throws(RemotingDecodeError) {
        let group = try tables.groups.update(config)
        if let retryTopic = group.groupName.retryTopic, tables.topics[retryTopic.text] != nil {
            _ = tables.retryTopic(of: group.groupName)
        }
    }

    func deleteGroup(_ request: borrowing Request) throws(RemotingDecodeError) {
        let group = try request.extFields.required("groupName")
        tables.groups.delete(group)
        storage.stats.forget(group: group)
        // mqadmin 4.9.8 sends removeOffset, 5.x cleanOffset.
        if request.extFields.bool("removeOffset") ?? request.extFields.bool("cleanOffset") ?? false {
            tables.offsets.remove(group: group, in: environment.slices)
            claims.forget(group: group)
        }
        waiters.end(group: group)
        environment.logger.info("consumer group \(group) deleted by \(request.client.address)")
        let asker = request.asker
        keeper.answerWhenKept(asker) { asker.answer(.success) }
    }

    func cloneOffsets(_ request: borrowing Request) throws(RemotingDecodeError) {
        let source = try request.extFields.required("srcGroup")
        let destination = try tables.groups.checked(try request.extFields.required("destGroup"))
        let wanted = request.extFields.string("topic") ?? ""
        let isOffline = request.extFields.bool("offline") ?? false
        guard let group = tables.groups.find(destination.text) else {
            return request.answer(
                .subscriptionGroupNotExist,
                remark: "Group \(destination) not exist!" + tables.groups.remedy(for: destination.text))
        }
        guard source != destination.text else {
            return request.answer(
                .systemError,
                remark: "srcGroup and destGroup are both [\(source)]; nothing was changed: name two groups")
        }
        let asker = request.asker
        var topics = (wanted.isEmpty ? tables.offsets.topics(of: source) : [wanted])[...]
        environment.slices.work(for: request.client) { [self] in
            var budget = Self.offsetsPerSlice
            while budget > 0, let name = topics.popFirst() {
                budget -= Self.offsetsPerSlice / Self.topicsPerSlice
                guard let topic = tables.topics[name] else { continue }
                // An online group that does not consume the topic any more: what it left there is not to be copied.
                if !isOffline, let group = tables.consumers[source], group.subscriptions.count > 0,
                    group.subscriptions[name] == nil
                {
                    continue
                }
                let queues = tables.offsets.clone(from: source, to: destination, topic: topic.topicName)
                for queueID in queues { claims.offsetWasSet(group: group, topic: topic, queueID: queueID) }
                budget -= queues.count
            }
            return !topics.isEmpty
        } then: {
            asker.answer(.success)
        }
    }

    /// Topics whose offsets are copied in one slice, and offsets compared.
    private static let topicsPerSlice = 256
    private static let offsetsPerSlice = 4096

    func correctionOffset(_ request: borrowing Request) throws(RemotingDecodeError) {
        let topic = try request.extFields.required("topic")
        let excluded = Set((request.extFields.string("filterGroups") ?? "").split(separator: ",").map(String.init))
        let group = try request.extFields.required("compareGroup")
        let asker = request.asker
        var left = tables.offsets.tables(of: topic)[...]
        var smallest: [Int32: Int64] = [:]
        environment.slices.work(for: request.client) { [self] in
            var budget = Self.offsetsPerSlice
            while budget > 0, let table = left.popFirst() {
                budget -= 1 + table.offsets.count
                guard !excluded.contains(table.group) else { continue }
                table.lower(&smallest) {
                    storage.store.consumeQueue(topic: topic, queueID: $0)?.minOffset.rawValue ?? 0
                }
            }
            return !left.isEmpty
        } then: { [self] in
            let compared = tables.offsets.offsets(topic: topic, group: group) ?? [:]
            let found = smallest
            answers.answer(entries: found.count, asker) {
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

    // MARK: - The broker's settings

    func getConfig(_ request: borrowing Request) {
        let text = settingsHeld().sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)\n" }.joined()
        request.answer(
            .success, fields: [("version", settings.version.json.text())],
            body: Array(text.utf8))
    }

    /// What was set stands as it was set; what was not by the value it has.
    private func settingsHeld() -> [String: String] {
        let holding = environment.configuration.listing + storage.store.configuration.listing
        return Dictionary(
            (holding + environment.configuration.pairs).map { ($0.key, $0.value) }, uniquingKeysWith: { $1 })
    }

    func updateConfig(_ request: borrowing Request) {
        let pairs: [(String, String)]
        do throws(JavaProperties.Malformed) {
            let entries = try JavaProperties.parse(String(decoding: request.body, as: UTF8.self))
            // Of several values of one key the last counts, as in Java; each one taken costs the loop time.
            let last = Dictionary(entries.indices.map { (entries[$0].key, $0) }, uniquingKeysWith: { $1 })
            pairs = last.values.sorted().map { (entries[$0].key, entries[$0].value) }
        } catch {
            return request.answer(.systemError, remark: "\(error); nothing was changed")
        }
        let forbidden = Set(
            environment.configuration.configBlackList + ["brokerConfigPath", "rocketmqHome", "configBlackList"])
        guard !pairs.contains(where: { forbidden.contains($0.0) }) else {
            return request.answer(.noPermission, remark: "Can not update config in black list.")
        }
        let before = settingsHeld()
        if let refusal = settings.change(settings: pairs) {
            return request.answer(.systemError, remark: refusal)
        }
        let changes = pairs.map {
            let former = SettingRefusal.shown(before[$0.0] ?? "")
            return "\($0.0) from '\(former)' to '\(SettingRefusal.shown($0.1.trimmedBlanks))'"
        }
        environment.logger.notice("settings changed by \(request.client.address): \(changes.joined(separator: ", "))")
        let asker = request.asker
        keeper.answerWhenKept(asker) { asker.answer(.success) }
    }
}
