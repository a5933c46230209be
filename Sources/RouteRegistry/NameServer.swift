import FastJSON
package import Logging
package import NIOCore
package import RemotingProtocol
package import RemotingTransport
import SettingTable

/// Where a name server keeps what shall outlive it. What loads is called before it serves, `saveBrokers` on its event loop, what
/// saves an operator's change on another thread; of each file one call at a time.
package protocol NameServerStorage: AnyObject, Sendable {
    /// nil when there is none yet.
    func loadKVConfig() throws -> [UInt8]?
    /// Replaces it as a whole, durably.
    func saveKVConfig(_ bytes: [UInt8]) throws
    /// What 318 has changed, as `saveChangedSettings` was given it; nil when there is nothing.
    func loadChangedSettings() throws -> [UInt8]?
    /// Replaces it as a whole, durably.
    func saveChangedSettings(_ bytes: [UInt8]) throws
    /// The brokers that were registered last, as `saveBrokers` was given them; empty when nobody knows.
    func loadBrokers() throws -> [String]
    /// Replaces them as a whole. Need not survive a power failure. Called when a broker comes or goes.
    func saveBrokers(_ brokers: [String]) throws
}

/// The name server: answers brokers, clients and tools out of its tables. It knows no other name server: brokers
/// register with each of them.
///
/// Confined to its event loop.
package final class NameServer: RemotingService {
    /// How often brokers that fell silent are looked for.
    package static let scanInterval = TimeAmount.seconds(10)

    package private(set) var tables = RouteTables()
    package private(set) var configuration: NameServerConfiguration
    /// What operators have changed with 318.
    private var changedSettings: ChangedSettings
    private var kvConfig = KVConfigTable()
    private lazy var kvFile = KeptFile { [unowned self] in
        let (storage, table) = (self.storage, self.kvConfig)
        return { try storage?.saveKVConfig(table.json.bytes()) }
    }
    private lazy var settingsFile = KeptFile { [unowned self] in
        let (storage, changed) = (self.storage, self.changedSettings)
        self.changedSettings.markWritten()
        return { try storage?.saveChangedSettings(changed.json.bytes(.pretty)) }
    }
    private let storage: (any NameServerStorage)?
    private let logger: Logger
    private let milliseconds: () -> Int64
    /// Runs work on another thread: reading and making of large bodies. Nil: everything is done on the event loop.
    package var elsewhere: ((@escaping @Sendable () -> Void) -> Void)?
    private var connections: [UInt64: RemotingConnection] = [:]
    private var scan: RepeatedTask?
    private(set) var eventLoop: (any EventLoop)?
    /// Large registrations whose topics are being entered.
    var entering: [(entry: Entry, finish: (Answer) -> Void)] = []
    private var isStopping = false
    /// From a start until the brokers of the last life are back.
    private var startHold: StartHold
    private var savedBrokers: Set<String>
    /// Brokers are to be saved in a moment.
    private var keepsBrokers = false
    /// Questions that were held after the start and are being answered.
    private var heldQuestions: ArraySlice<StartHold.Question> = []

    /// `milliseconds` is a clock that only goes forward. Throws what `storage` throws.
    package init(
        configuration: NameServerConfiguration = NameServerConfiguration(), storage: (any NameServerStorage)? = nil,
        logger: Logger,
        milliseconds: @escaping () -> Int64 = { Int64(NIODeadline.now().uptimeNanoseconds / 1_000_000) }
    ) throws {
        self.configuration = configuration
        self.changedSettings = ChangedSettings(file: configuration.values.map { ($0.key, $0.value) })
        self.storage = storage
        self.logger = logger
        self.milliseconds = milliseconds
        if let bytes = try storage?.loadKVConfig() {
            var refused = 0
            self.kvConfig = KVConfigTable(json: try JSONValue(parsing: bytes), refused: &refused)
            if refused > 0 {
                logger.error(
                    "\(refused) entries of the KV configuration are none and are left out; mqadmin updateKvConfig makes them again"
                )
            }
        }
        self.savedBrokers = []
        self.startHold = StartHold(awaiting: [])
        self.loadChangedSettings()
        self.savedBrokers = Set(try storage?.loadBrokers() ?? [])
        self.startHold = StartHold(awaiting: self.savedBrokers)
    }

    /// Starts looking for silent brokers; who asks for what brokers of the last life may know waits for them, a moment.
    package func start(on eventLoop: any EventLoop) {
        self.eventLoop = eventLoop
        let this = NIOLoopBound(self, eventLoop: eventLoop)
        if self.startHold.isActive {
            eventLoop.scheduleTask(in: .milliseconds(StartHold.milliseconds)) { this.value.endStartHold() }
        }
        self.scan = eventLoop.scheduleRepeatedTask(initialDelay: Self.scanInterval, delay: Self.scanInterval) { _ in
            this.value.expireBrokers()
        }
    }

    /// Answers whoever still waits. What closes from now on says nothing about brokers.
    package func stop() {
        self.scan?.cancel()
        self.scan = nil
        self.isStopping = true
        for question in self.heldQuestions + self.startHold.end() { self.answer(question) }
        self.heldQuestions = []
        if self.keepsBrokers { self.keepBrokers() }
    }

    /// Whether a broker registered by this connection: those must notice that this life ends, the others need not.
    package func isBroker(_ connection: RemotingConnection) -> Bool { self.tables.isBroker(connection.id) }

    /// The configuration file was read again. What it says as before does not undo what operators changed since.
    package func update(_ configuration: NameServerConfiguration) {
        let news = self.changedSettings.reload(configuration.values.map { ($0.key, $0.value) })
        var values = configuration.values
        for (key, change) in self.changedSettings.changes { values[key] = change.value }
        self.configuration = NameServerConfiguration(values)
        if self.changedSettings.isDirty {
            let keys = news.map(\.0).sorted().joined(separator: " ")
            self.logger.notice(
                "the configuration file says something new of settings changed online; the file holds: \(keys)")
            self.keepChangedSettings()
        }
    }

    /// A file that cannot be read costs what was changed online, and is said; the name server serves all the same.
    private func loadChangedSettings() {
        do {
            guard let bytes = try self.storage?.loadChangedSettings() else { return }
            let json = try JSONValue(parsing: bytes)
            guard ChangedSettings.accepts(json) else { throw RemotingDecodeError.badField("settings") }
            let loaded = self.changedSettings.load(json, by: .nameserver)
            for refusal in loaded.refused {
                self.logger.warning(
                    "a setting changed with updateNamesrvConfig is given up, the file holds: \(refusal)")
            }
            if !loaded.outdated.isEmpty {
                let keys = loaded.outdated.joined(separator: " ")
                self.logger.notice(
                    "the configuration file has changed since these were set with updateNamesrvConfig; the file holds: \(keys)"
                )
            }
            if self.changedSettings.isDirty { self.keepChangedSettings() }
            _ = self.configuration.update(Dictionary(loaded.held.map { ($0.key, $0.value) }, uniquingKeysWith: { $1 }))
        } catch {
            self.logger.error(
                "what was changed with updateNamesrvConfig cannot be read, the configuration file holds: \(error)")
        }
    }

    /// At the start and when the configuration file was read again: nobody waits for it.
    private func keepChangedSettings() {
        self.settingsFile.keep(elsewhere: self.elsewhere, self.eventLoop) { [unowned self] failure in
            if let failure { self.logger.error("changed settings could not be kept for the next start: \(failure)") }
        }
    }

    /// Removes brokers that are silent for too long: on a running server one in a turn, since each takes its topics along.
    package func expireBrokers() {
        let now = self.milliseconds()
        for id in self.tables.expire(now: now, atMost: self.eventLoop == nil ? .max : 1) {
            self.connections[id]?.close(reason: "its broker did not register for 120 s")
        }
        self.logEvents()
        guard let eventLoop = self.eventLoop, self.tables.hasExpired(now: now) else { return }
        let this = NIOLoopBound(self, eventLoop: eventLoop)
        eventLoop.scheduleTask(in: .microseconds(100)) { if !this.value.isStopping { this.value.expireBrokers() } }
    }

    /// Bytes of the body of a request that is no registration: it is read on the event loop.
    static let controlBytesMax = 256 << 10

    // MARK: RemotingService

    package func connectionOpened(_ connection: RemotingConnection) {
        self.connections[connection.id] = connection
    }

    package func connectionClosed(_ connection: RemotingConnection) {
        self.connections[connection.id] = nil
        guard !self.isStopping, self.tables.connectionClosed(connection.id, now: self.milliseconds()) else { return }
        guard let eventLoop = self.eventLoop else { return }
        let this = NIOLoopBound(self, eventLoop: eventLoop)
        eventLoop.scheduleTask(in: .milliseconds(RouteTables.graceMilliseconds)) {
            if !this.value.isStopping { this.value.expireBrokers() }
        }
    }

    package func received(_ frame: RemotingFrame, on connection: RemotingConnection) {
        guard let code = RequestCode(rawValue: frame.code) else {
            return connection.respondNotSupported(to: frame)
        }
        guard code == .registerBroker || frame.body.count <= Self.controlBytesMax else {
            return connection.respond(
                to: frame.returnAddress, .systemError,
                remark:
                    "a request of code \(frame.code) with a body of \(frame.body.count) bytes is not taken, at most "
                    + "\(Self.controlBytesMax): divide it among several")
        }
        do throws(RemotingDecodeError) {
            if let question = try self.question(code, frame, connection), self.startHold.hold(question) { return }
            if try self.answersElsewhere(code, frame, connection) { return }
            if try self.changesFile(code, frame, connection) { return self.logEvents() }
            guard let answer = try self.answer(code, frame, connection) else {
                return connection.respondNotSupported(to: frame)
            }
            connection.respond(
                to: frame.returnAddress, answer.code, remark: answer.remark, fields: answer.fields, body: answer.body)
        } catch {
            self.logger.warning(
                "request refused",
                metadata: [
                    "code": "\(frame.code)", "peer": "\(connection.remoteAddress.text)", "reason": "\(error)",
                ])
            connection.respond(to: frame.returnAddress, .systemError, remark: error.description)
        }
        self.logEvents()
    }

    // MARK: answers

    struct Answer: Sendable {
        var code = ResponseCode.success
        var remark: String?
        var fields: [(String, String)] = []
        var body: [UInt8] = []

        static let ok = Answer()
        static let damagedRegistration = Answer(code: .systemError, remark: "crc32 not match")
        static func body(_ body: some JSONBody) -> Answer { Answer(body: body.encoded()) }
    }

    /// nil: none that is held after a start.
    private func question(
        _ code: RequestCode, _ frame: RemotingFrame, _ connection: RemotingConnection
    ) throws(RemotingDecodeError) -> StartHold.Question? {
        guard self.startHold.isActive else { return nil }
        switch code {
        case .getRouteInfoByTopic:
            return StartHold.Question(connection, frame.returnAddress, .route(try self.routeQuestion(frame)))
        case .getBrokerClusterInfo: return StartHold.Question(connection, frame.returnAddress, .clusterInfo)
        default: return nil
        }
    }

    private func answer(_ question: StartHold.Question) {
        let answer =
            switch question.asked {
            case .route(let asked): self.route(asked)
            case .clusterInfo: Answer.body(self.tables.clusterInfo)
            }
        question.connection.respond(
            to: question.address, answer.code, remark: answer.remark, fields: answer.fields, body: answer.body)
    }

    /// The time is over: those who did not come back are not waited for any more.
    package func endStartHold() {
        self.answer(held: self.startHold.end())
        self.keepBrokers()
    }

    /// Questions answered in one turn of the loop.
    private static let questionsPerSlice = 32

    /// Answers questions that were held, some in each turn: there may be ten thousand.
    private func answer(held questions: [StartHold.Question]) {
        let isUnderWay = !self.heldQuestions.isEmpty
        self.heldQuestions += questions
        if !isUnderWay { self.answerSome() }
    }

    private func answerSome() {
        let count = self.eventLoop == nil ? self.heldQuestions.count : Self.questionsPerSlice
        for question in self.heldQuestions.prefix(count) { self.answer(question) }
        self.heldQuestions = self.heldQuestions.dropFirst(count)
        guard !self.heldQuestions.isEmpty, let eventLoop = self.eventLoop else { return }
        let this = NIOLoopBound(self, eventLoop: eventLoop)
        eventLoop.scheduleTask(in: .microseconds(200)) { this.value.answerSome() }
    }

    /// nil: the request is none of a name server's.
    private func answer(
        _ code: RequestCode, _ frame: RemotingFrame, _ connection: RemotingConnection
    ) throws(RemotingDecodeError) -> Answer? {
        let fields = frame.extFields
        switch code {
        case .getRouteInfoByTopic: return self.route(try self.routeQuestion(frame))
        case .registerBroker: return try self.registerBroker(frame, connection.id)
        case .queryDataVersion: return try self.queryDataVersion(frame, connection.id)
        case .unregisterBroker: return try self.unregisterBroker(fields)
        case .getBrokerClusterInfo: return .body(self.tables.clusterInfo)
        case .brokerHeartbeat:
            self.tables.touch(try fields.required("brokerAddr"), connection: connection.id, now: self.milliseconds())
            return .ok
        case .getBrokerMemberGroup: return self.memberGroup(try fields.required("brokerName"))
        case .getKVConfig: return try self.getKVConfig(fields)
        case .getKVListByNamespace: return try self.kvList(fields)
        case .wipeWritePermOfBroker:
            let count = self.tables.wipeWritePermission(of: try fields.required("brokerName"))
            return Answer(fields: [("wipeTopicCount", String(count))])
        case .addWritePermOfBroker:
            let count = self.tables.addWritePermission(of: try fields.required("brokerName"))
            return Answer(fields: [("addTopicCount", String(count))])
        case .getAllTopicListFromNameServer: return .body(TopicList(topicList: self.tables.topics))
        case .deleteTopicInNamesrv:
            let topic = try fields.required("topic")
            if let cluster = fields.string("clusterName"), !cluster.isEmpty {
                self.tables.delete(topic: topic, in: cluster)
            } else {
                self.tables.delete(topic: topic)
            }
            return .ok
        case .registerTopicInNamesrv:
            let queues = try TopicRouteData(body: frame.body).queueDatas
            self.tables.register(topic: try fields.required("topic"), queues: queues)
            return .ok
        case .getTopicsByCluster:
            return .body(TopicList(topicList: self.tables.topics(of: try fields.required("cluster"))))
        case .getSystemTopicListFromNameServer: return .body(self.tables.systemTopics)
        case .getUnitTopicList: return .body(TopicList(topicList: self.tables.topics { $0 & 1 != 0 }))
        case .getHasUnitSubTopicList: return .body(TopicList(topicList: self.tables.topics { $0 & 2 != 0 }))
        case .getHasUnitSubUnUnitTopicList: return .body(TopicList(topicList: self.tables.topics { $0 & 3 == 2 }))
        case .getNamesrvConfig: return Answer(body: Array(self.configuration.text.utf8))
        default: return nil
        }
    }

    private func routeQuestion(_ frame: RemotingFrame) throws(RemotingDecodeError) -> StartHold.RouteQuestion {
        // Older clients read only fastjson's number keys, newer ones want standard JSON.
        StartHold.RouteQuestion(
            topic: try frame.extFields.required("topic"),
            isStandard: frame.version >= RemotingVersion.standardJSONRoute
                || frame.extFields.bool("acceptStandardJsonOnly") ?? false)
    }

    private func route(_ asked: StartHold.RouteQuestion) -> Answer {
        let topic = asked.topic
        guard var route = self.tables.route(of: topic) else {
            return Answer(
                code: .topicNotExist,
                remark: "No topic route info in name server for the topic: \(topic)"
                    + "; create the topic, or check that its broker is registered here")
        }
        if self.configuration.orderMessageEnable {
            route.orderTopicConf = self.kvConfig.value(namespace: KVConfigTable.orderTopicConfig, key: topic)
        }
        return Answer(body: route.encoded(asked.isStandard ? [.standard, .sorted] : []))
    }

    private func registerBroker(
        _ frame: RemotingFrame, _ connection: UInt64
    ) throws(RemotingDecodeError) -> Answer {
        let registration = try RegistrationRequest(frame)
        return self.register(registration, try registration.parse(frame.body), connection)
    }

    /// Enters what a broker has said of itself.
    func register(_ request: RegistrationRequest, _ body: RegistrationRequest.Body, _ connection: UInt64) -> Answer {
        guard var entry = self.beginRegistration(request, body, connection) else { return .damagedRegistration }
        self.tables.apply(&entry.topics, atMost: .max)
        return self.registered(entry)
    }

    /// A registration whose topics are being entered.
    struct Entry {
        let broker: BrokerRegistration
        let master: (haServerAddr: String, masterAddr: String)?
        var topics: RouteTables.PendingTopics
    }

    /// Nil: its body is damaged.
    func beginRegistration(
        _ request: RegistrationRequest, _ body: RegistrationRequest.Body, _ connection: UInt64
    ) -> Entry? {
        guard case .read(let topics, let filterServers) = body else { return nil }
        var broker = request.broker
        broker.topics = topics
        broker.filterServers = filterServers
        let begun = self.tables.beginRegistration(
            broker, connection: connection, now: self.milliseconds(),
            expiresAfter: request.expiresAfter > 0 ? request.expiresAfter : RouteTables.expiryMilliseconds)
        return Entry(broker: request.broker, master: begun.master, topics: begun.topics)
    }

    /// Enters some of its topics.
    func enter(_ entry: inout Entry, atMost limit: Int) { self.tables.apply(&entry.topics, atMost: limit) }

    /// The answer, once all topics are entered.
    func registered(_ entry: Entry) -> Answer {
        let (broker, master) = (entry.broker, entry.master)
        let held = self.startHold.registered(RouteTables.identity(broker.brokerName, broker.brokerID))
        self.answer(held: held)
        var answer = Answer.ok
        if let master {
            answer.fields = [("haServerAddr", master.haServerAddr), ("masterAddr", master.masterAddr)]
        }
        if let order = self.kvConfig.entries(namespace: KVConfigTable.orderTopicConfig) {
            answer.body = KVTable(table: order).encoded()
        }
        return answer
    }

    private func queryDataVersion(
        _ frame: RemotingFrame, _ connection: UInt64
    ) throws(RemotingDecodeError) -> Answer {
        let brokerAddr = try frame.extFields.required("brokerAddr")
        let hasChanged = self.tables.hasChanged(brokerAddr, dataVersion: try DataVersion(body: frame.body))
        if !hasChanged {
            self.tables.touch(brokerAddr, connection: connection, now: self.milliseconds())
        }
        return Answer(
            fields: [("changed", String(hasChanged))], body: self.tables.dataVersion(of: brokerAddr)?.encoded() ?? [])
    }

    private func unregisterBroker(_ fields: ExtFields) throws(RemotingDecodeError) -> Answer {
        self.tables.unregister(
            clusterName: try fields.required("clusterName"), brokerAddr: try fields.required("brokerAddr"),
            brokerName: try fields.required("brokerName"), brokerID: try fields.requiredInt64("brokerId"))
        return .ok
    }

    private func memberGroup(_ brokerName: String) -> Answer {
        let group = self.tables.brokerData(brokerName)
        return Answer(body: JSONValue.fields([("brokerMemberGroup", group?.json)]).bytes())
    }

    // MARK: KV configuration

    /// Changes of what is kept in a file are answered when they are on disk. `false`: it is no such request.
    private func changesFile(
        _ code: RequestCode, _ frame: RemotingFrame, _ connection: RemotingConnection
    ) throws(RemotingDecodeError) -> Bool {
        let fields = frame.extFields
        switch code {
        case .putKVConfig:
            let isTaken = self.kvConfig.put(
                namespace: try fields.required("namespace"), key: try fields.required("key"),
                value: try fields.required("value"))
            guard isTaken else {
                let remark =
                    "the KV configuration holds \(self.kvConfig.bytes) bytes, and at most \(KVConfigTable.bytesMax): nothing "
                    + "was changed; delete what is not needed (mqadmin deleteKvConfig)"
                connection.respond(to: frame.returnAddress, .systemError, remark: remark)
                return true
            }
            self.keep(self.kvFile, frame.returnAddress, connection)
        case .deleteKVConfig:
            self.kvConfig.delete(namespace: try fields.required("namespace"), key: try fields.required("key"))
            self.keep(self.kvFile, frame.returnAddress, connection)
        case .updateNamesrvConfig:
            if let refusal = self.updateConfiguration(frame, connection) {
                connection.respond(to: frame.returnAddress, refusal.code, remark: refusal.remark)
            } else {
                self.keep(self.settingsFile, frame.returnAddress, connection)
            }
        default: return false
        }
        return true
    }

    /// Answers when the file holds what is true now.
    private func keep(_ file: KeptFile, _ address: ReturnAddress, _ connection: RemotingConnection) {
        connection.awaitsAnswer = true
        file.keep(elsewhere: self.elsewhere, self.eventLoop) { [unowned self] failure in
            connection.awaitsAnswer = false
            guard let failure else { return connection.respond(to: address, .success) }
            self.logger.error("a change could not be kept for the next start: \(failure)")
            connection.respond(
                to: address, .systemError, remark: "changed, but not kept for the next start: \(failure)")
        }
    }

    private func getKVConfig(_ fields: ExtFields) throws(RemotingDecodeError) -> Answer {
        let namespace = try fields.required("namespace")
        let key = try fields.required("key")
        guard let value = self.kvConfig.value(namespace: namespace, key: key) else {
            return Answer(code: .queryNotFound, remark: "No config item, Namespace: \(namespace) Key: \(key)")
        }
        return Answer(fields: [("value", value)])
    }

    private func kvList(_ fields: ExtFields) throws(RemotingDecodeError) -> Answer {
        let namespace = try fields.required("namespace")
        guard let entries = self.kvConfig.entries(namespace: namespace) else {
            return Answer(code: .queryNotFound, remark: "No config item, Namespace: \(namespace)")
        }
        return .body(KVTable(table: entries))
    }

    /// For the next start: who is worth waiting for.
    private func keepBrokers() {
        self.keepsBrokers = false
        let brokers = self.tables.brokers.union(self.startHold.awaited)
        guard let storage, brokers != self.savedBrokers else { return }
        self.savedBrokers = brokers
        do {
            try storage.saveBrokers(brokers.sorted())
        } catch {
            self.logger.warning(
                "which brokers are registered could not be kept: a restart will not wait for them",
                metadata: ["reason": "\(error)"])
        }
    }

    /// Brokers that come and go within a moment are saved together: it costs all there are.
    private func keepBrokersSoon() {
        guard let eventLoop = self.eventLoop, !self.isStopping else { return self.keepBrokers() }
        guard !self.keepsBrokers else { return }
        self.keepsBrokers = true
        let this = NIOLoopBound(self, eventLoop: eventLoop)
        eventLoop.scheduleTask(in: .milliseconds(100)) { if this.value.keepsBrokers { this.value.keepBrokers() } }
    }

    // MARK: own configuration

    /// - Returns: why nothing was changed; nil when all was.
    private func updateConfiguration(_ frame: RemotingFrame, _ connection: RemotingConnection) -> Answer? {
        let properties: [String: String]
        do throws(JavaProperties.Malformed) {
            properties = try JavaProperties.table(String(decoding: frame.body, as: UTF8.self))
        } catch {
            return Answer(code: .systemError, remark: "\(error); nothing was changed")
        }
        let before = self.configuration.values
        switch self.configuration.update(properties) {
        case .forbidden(let key):
            self.logger.warning("configuration change refused", metadata: ["key": "\(SettingRefusal.shown(key))"])
            return Answer(code: .noPermission, remark: "Can not update config in black list.")
        case .refused(let reason): return Answer(code: .systemError, remark: reason)
        case .changed(let values):
            for (key, value) in values { self.changedSettings.change(key, to: value) }
            let changes = values.sorted { $0.key < $1.key }.map {
                "\($0.key) from '\(before[$0.key] ?? "")' to '\(SettingRefusal.shown($0.value))'"
            }
            self.logger.notice(
                "settings changed by \(connection.remoteAddress.text): \(changes.joined(separator: ", "))")
            return nil
        }
    }

    // MARK: log

    func logEvents() {
        guard self.tables.hasEvents else { return }
        defer { self.keepBrokersSoon() }
        for event in self.tables.takeEvents() {
            switch event {
            case .brokerRegistered(let address, let name):
                self.logger.notice("broker registered", metadata: ["broker": "\(name)", "address": "\(address)"])
            case .masterChanged(let name, let from, let to):
                self.logger.notice(
                    "master address changed",
                    metadata: ["broker": "\(name)", "from": "\(from ?? "none")", "to": "\(to)"])
            case .brokerRemoved(let address, let name, let reason):
                self.logger.notice(
                    "broker removed",
                    metadata: ["broker": "\(name)", "address": "\(address)", "reason": "\(reason.rawValue)"])
            case .topicRegistered(let topic, let broker):
                self.logger.debug("topic registered", metadata: ["topic": "\(topic)", "broker": "\(broker)"])
            case .topicChanged(let topic, let broker):
                self.logger.debug("topic changed", metadata: ["topic": "\(topic)", "broker": "\(broker)"])
            case .topicRemoved(let topic):
                self.logger.debug("topic removed", metadata: ["topic": "\(topic)"])
            }
        }
    }
}
