import FastJSON
package import Logging
import MessageModel
package import NIOCore
package import RemotingProtocol
package import RemotingTransport
import SettingTable

/// Where a name server keeps what shall outlive it. What loads is called before it serves. `saveBrokers` is called on
/// its event loop, and what saves an operator's change on another thread. Each file has one call at a time.
package protocol NameServerStorage: AnyObject, Sendable {
    /// nil when there is none yet.
    /// - Throws: the file is there and cannot be read.
    func loadKVConfig() throws -> [UInt8]?
    /// Replaces it as a whole, durably.
    /// - Throws: the disk is full, fails or may not be written; the former contents stay.
    func saveKVConfig(_ bytes: [UInt8]) throws
    /// What 318 has changed, as `saveChangedSettings` was given it; nil when there is nothing.
    /// - Throws: the file is there and cannot be read.
    func loadChangedSettings() throws -> [UInt8]?
    /// Replaces it as a whole, durably.
    /// - Throws: the disk is full, fails or may not be written; the former contents stay.
    func saveChangedSettings(_ bytes: [UInt8]) throws
    /// The brokers that were registered last, as `saveBrokers` was given them; empty when that is not known.
    /// - Throws: the file is there and cannot be read.
    func loadBrokers() throws -> [String]
    /// Replaces them as a whole. Need not survive a power failure. Called when a broker comes or goes.
    /// - Throws: the disk is full, fails or may not be written.
    func saveBrokers(_ brokers: [String]) throws
}

/// The name server: answers brokers, clients and tools out of its tables. It knows no other name server: brokers
/// register with each of them.
///
/// Confined to its event loop.
package final class NameServer: RemotingService {
    /// How often brokers that fell silent are looked for.
    package static let scanInterval = TimeAmount.seconds(10)

    /// Brokers and topics as they are known now. On the event loop.
    package private(set) var tables = RouteTables()
    /// With the changes operators have made while it runs (318). On the event loop.
    package private(set) var configuration: NameServerConfiguration
    /// What operators have changed with 318.
    private var changedSettings: ChangedSettings
    private var kvConfig = KVConfigTable() {
        didSet { kvBodies = [:] }
    }
    /// Namespaces of `kvConfig` as answers contain them: one goes to each broker that registers.
    private var kvBodies: [String: [UInt8]] = [:]
    private lazy var kvFile = KeptFile { [unowned self] in
        let (storage, table) = (self.storage, kvConfig)
        return { try storage?.saveKVConfig(table.json.bytes()) }
    }
    private lazy var settingsFile = KeptFile { [unowned self] in
        let (storage, changed) = (self.storage, changedSettings)
        changedSettings.markWritten()
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
    /// From a start until the brokers from before the restart are back.
    private var startHold: StartHold
    private var savedBrokers: Set<String>
    /// Brokers are to be saved in a moment.
    private var keepsBrokers = false
    /// The next turn that takes out topics of brokers that have left is scheduled.
    private var isForgetting = false
    /// Questions that were held after the start and are being answered.
    private var heldQuestions: ArraySlice<StartHold.Question> = []

    /// `milliseconds` is a clock that only goes forward.
    /// - Throws: what `storage` throws; `JSONError` when the KV configuration is no JSON.
    package init(
        configuration: NameServerConfiguration = NameServerConfiguration(), storage: (any NameServerStorage)? = nil,
        logger: Logger,
        milliseconds: @escaping () -> Int64 = { Int64(NIODeadline.now().uptimeNanoseconds / 1_000_000) }
    ) throws {
        self.configuration = configuration
        changedSettings = ChangedSettings(file: configuration.values.map { ($0.key, $0.value) })
        self.storage = storage
        self.logger = logger
        self.milliseconds = milliseconds
        if let bytes = try storage?.loadKVConfig() {
            var refused = 0
            kvConfig = KVConfigTable(json: try JSONValue(parsing: bytes, limits: .tables), refused: &refused)
            if refused > 0 {
                logger.error(
                    """
                    \(refused) entries of the KV configuration cannot be used and are left out; mqadmin updateKvConfig \
                    makes them again
                    """
                )
            }
        }
        savedBrokers = []
        startHold = StartHold(awaiting: [])
        loadChangedSettings()
        savedBrokers = Set(try storage?.loadBrokers() ?? [])
        startHold = StartHold(awaiting: savedBrokers)
    }

    /// Starts looking for silent brokers; a request for what brokers from before the restart may know
    /// waits for them, a moment.
    package func start(on eventLoop: any EventLoop) {
        self.eventLoop = eventLoop
        let this = NIOLoopBound(self, eventLoop: eventLoop)
        if startHold.isActive {
            eventLoop.scheduleTask(in: .milliseconds(StartHold.milliseconds)) { this.value.endStartHold() }
        }
        scan = eventLoop.scheduleRepeatedTask(initialDelay: Self.scanInterval, delay: Self.scanInterval) { _ in
            this.value.expireBrokers()
        }
    }

    /// Answers what still waits. Connections that close from now on mean nothing about brokers.
    package func stop() {
        scan?.cancel()
        scan = nil
        isStopping = true
        for question in heldQuestions + startHold.end() { answer(question) }
        heldQuestions = []
        if keepsBrokers { keepBrokers() }
    }

    /// Whether a broker registered by this connection: those must notice that this process ends, the others need not.
    package func isBroker(_ connection: RemotingConnection) -> Bool { tables.isBroker(connection.id) }

    /// The configuration file was read again. Values it contains as before do not undo what operators changed since.
    package func update(_ configuration: NameServerConfiguration) {
        let news = changedSettings.reload(configuration.values.map { ($0.key, $0.value) })
        var values = configuration.values
        for (key, change) in changedSettings.changes { values[key] = change.value }
        self.configuration = NameServerConfiguration(values)
        if changedSettings.isDirty {
            let keys = news.map(\.0).sorted().joined(separator: " ")
            logger.notice(
                """
                the configuration file has new values for settings changed with updateNamesrvConfig; the file's are \
                used: \(keys)
                """
            )
            keepChangedSettings()
        }
    }

    /// A file that cannot be read costs what was changed online, and is logged; the name server serves all the same.
    private func loadChangedSettings() {
        do {
            guard let bytes = try storage?.loadChangedSettings() else { return }
            let json = try JSONValue(parsing: bytes)
            guard ChangedSettings.accepts(json) else { throw RemotingDecodeError.badField("settings") }
            let loaded = changedSettings.load(json, by: .nameserver)
            for refusal in loaded.refused {
                logger.warning(
                    """
                    a setting changed with updateNamesrvConfig is given up, the configuration file's value is used: \
                    \(refusal)
                    """
                )
            }
            if !loaded.outdated.isEmpty {
                let keys = loaded.outdated.joined(separator: " ")
                logger.notice(
                    """
                    the configuration file has changed since these were set with updateNamesrvConfig; the file's \
                    values are used: \(keys)
                    """
                )
            }
            if changedSettings.isDirty { keepChangedSettings() }
            _ = configuration.update(Dictionary(loaded.held.map { ($0.key, $0.value) }, uniquingKeysWith: { $1 }))
        } catch {
            logger.error(
                """
                settings changed with updateNamesrvConfig cannot be read, the configuration file's are used; change \
                them again: \(error)
                """
            )
        }
    }

    /// At the start and when the configuration file was read again: no request waits for it.
    private func keepChangedSettings() {
        settingsFile.keep(elsewhere: elsewhere, eventLoop) { [unowned self] failure in
            if let failure {
                logger.error("changed settings were not saved, they may not survive a restart: \(failure)")
            }
        }
    }

    /// Removes brokers that are silent for too long: on a running server one in a turn, since each takes its topics
    /// along.
    package func expireBrokers() {
        let now = milliseconds()
        for id in tables.expire(now: now, atMost: self.eventLoop == nil ? .max : 1) {
            connections[id]?.close(reason: "its broker did not register for 120 s")
        }
        logEvents()
        guard let eventLoop = self.eventLoop, tables.hasExpired(now: now) else { return }
        let this = NIOLoopBound(self, eventLoop: eventLoop)
        eventLoop.scheduleTask(in: .microseconds(100)) { if !this.value.isStopping { this.value.expireBrokers() } }
    }

    /// Takes out the topics of brokers that have left, some in each turn.
    private func forgetSoon() {
        guard tables.isForgetting, !isForgetting else { return }
        guard let eventLoop = self.eventLoop else {
            while tables.isForgetting { tables.forgetSome() }
            return
        }
        isForgetting = true
        let this = NIOLoopBound(self, eventLoop: eventLoop)
        eventLoop.scheduleTask(in: .microseconds(200)) {
            this.value.isForgetting = false
            this.value.tables.forgetSome()
            this.value.logEvents()
            this.value.forgetSoon()
        }
    }

    // MARK: - RemotingService

    package func connectionOpened(_ connection: RemotingConnection) {
        connections[connection.id] = connection
    }

    package func connectionClosed(_ connection: RemotingConnection) {
        connections[connection.id] = nil
        guard !isStopping, tables.connectionClosed(connection.id, now: milliseconds()) else { return }
        guard let eventLoop = self.eventLoop else { return }
        let this = NIOLoopBound(self, eventLoop: eventLoop)
        eventLoop.scheduleTask(in: .milliseconds(RouteTables.graceMilliseconds)) {
            if !this.value.isStopping { this.value.expireBrokers() }
        }
    }

    package func received(_ frame: RemotingFrame, on connection: RemotingConnection) {
        guard let request = NameServerRequests.byCode[frame.code] else {
            return connection.respondNotSupported(to: frame)
        }
        guard frame.body.count <= request.bodyBytesMax else {
            return connection.respond(
                to: frame.returnAddress, .systemError,
                remark: ControlBody.refusal(
                    code: frame.code, bytes: frame.body.count, bytesMax: request.bodyBytesMax))
        }
        guard frame.header.count <= request.headerBytesMax else {
            return connection.respond(
                to: frame.returnAddress, .systemError,
                remark: ControlBody.refusal(code: frame.code, headerBytes: frame.header.count))
        }
        do throws(RemotingDecodeError) {
            guard let answer = try request.processor(self)(frame, connection) else { return logEvents() }
            connection.respond(
                to: frame.returnAddress, answer.code, remark: answer.remark, fields: answer.fields, body: answer.body)
        } catch {
            logger.warning(
                "request refused, it changed nothing",
                metadata: [
                    "code": "\(frame.code)", "peer": "\(connection.remoteAddress.text)", "reason": "\(error)",
                ])
            connection.respond(to: frame.returnAddress, .systemError, remark: error.description)
        }
        logEvents()
    }

    // MARK: - Answers

    struct Answer: Sendable {
        var code = ResponseCode.success
        var remark: String?
        var fields: [(String, String)] = []
        var body: [UInt8] = []

        static let ok = Answer()
        static let damagedRegistration = Answer(code: .systemError, remark: "crc32 not match")
        static func body(_ body: some JSONBody) -> Answer { Answer(body: body.encoded()) }
    }

    /// A question that may have to wait for brokers after a start.
    private func ask(
        _ asked: StartHold.Asked, _ frame: RemotingFrame, _ connection: RemotingConnection
    ) -> Answer? {
        if startHold.isActive, startHold.hold(StartHold.Question(connection, frame.returnAddress, asked)) {
            return nil
        }
        return answer(to: asked)
    }

    private func answer(to asked: StartHold.Asked) -> Answer {
        switch asked {
        case .route(let question): route(question)
        case .clusterInfo: .body(tables.clusterInfo)
        }
    }

    private func answer(_ question: StartHold.Question) {
        let answer = self.answer(to: question.asked)
        question.connection.respond(
            to: question.address, answer.code, remark: answer.remark, fields: answer.fields, body: answer.body)
    }

    /// The time is over: brokers that did not come back are not waited for any more.
    package func endStartHold() {
        answer(held: startHold.end())
        keepBrokers()
    }

    /// Questions answered in one turn of the loop.
    private static let questionsPerSlice = 32

    /// Answers questions that were held, some in each turn: there may be ten thousand.
    private func answer(held questions: [StartHold.Question]) {
        let isUnderWay = !heldQuestions.isEmpty
        heldQuestions += questions
        if !isUnderWay { answerSome() }
    }

    private func answerSome() {
        let count = self.eventLoop == nil ? heldQuestions.count : Self.questionsPerSlice
        for question in heldQuestions.prefix(count) { answer(question) }
        heldQuestions = heldQuestions.dropFirst(count)
        guard !heldQuestions.isEmpty, let eventLoop = self.eventLoop else { return }
        let this = NIOLoopBound(self, eventLoop: eventLoop)
        eventLoop.scheduleTask(in: .microseconds(200)) { this.value.answerSome() }
    }

    // MARK: - Requests about routes

    func routeInfo(_ frame: RemotingFrame, _ connection: RemotingConnection) throws(RemotingDecodeError) -> Answer? {
        ask(.route(try routeQuestion(frame)), frame, connection)
    }

    func clusterInfo(_ frame: RemotingFrame, _ connection: RemotingConnection) -> Answer? {
        ask(.clusterInfo, frame, connection)
    }

    func wipeWritePermission(
        _ frame: RemotingFrame, _ connection: RemotingConnection
    ) throws(RemotingDecodeError) -> Answer? {
        let count = tables.wipeWritePermission(of: try frame.extFields.required("brokerName"))
        return Answer(fields: [("wipeTopicCount", String(count))])
    }

    func addWritePermission(
        _ frame: RemotingFrame, _ connection: RemotingConnection
    ) throws(RemotingDecodeError) -> Answer? {
        let count = tables.addWritePermission(of: try frame.extFields.required("brokerName"))
        return Answer(fields: [("addTopicCount", String(count))])
    }

    func deleteTopic(_ frame: RemotingFrame, _ connection: RemotingConnection) throws(RemotingDecodeError) -> Answer? {
        let topic = try frame.extFields.required("topic")
        if let cluster = frame.extFields.string("clusterName"), !cluster.isEmpty {
            tables.delete(topic: topic, in: cluster)
        } else {
            tables.delete(topic: topic)
        }
        return .ok
    }

    func registerTopic(
        _ frame: RemotingFrame, _ connection: RemotingConnection
    ) throws(RemotingDecodeError) -> Answer? {
        let queues = try TopicRouteData(body: frame.body).queueDatas
        tables.register(topic: try frame.extFields.required("topic"), queues: queues)
        return .ok
    }

    func systemTopics(_ frame: RemotingFrame, _ connection: RemotingConnection) -> Answer? {
        .body(tables.systemTopics)
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
        guard var route = tables.route(of: topic) else {
            return Answer(
                code: .topicNotExist,
                remark: "No topic route info in name server for the topic: \(topic)"
                    + "; create the topic, or check that its broker is registered here")
        }
        if configuration.orderMessageEnable {
            route.orderTopicConf = kvConfig.value(namespace: KVConfigTable.orderTopicConfig, key: topic)
        }
        return Answer(body: route.encoded(asked.isStandard ? [.standard, .sorted] : []))
    }

    func registerBroker(
        _ frame: RemotingFrame, _ connection: RemotingConnection
    ) throws(RemotingDecodeError) -> Answer? {
        let request = try RegistrationRequest(frame)
        if isReadElsewhere(frame) {
            registerElsewhere(request, frame, connection)
            return nil
        }
        return register(request, try request.parse(frame.body), connection.id)
    }

    /// Enters what a broker has registered.
    func register(_ request: RegistrationRequest, _ body: RegistrationRequest.Body, _ connection: UInt64) -> Answer {
        if let refusal = refusal(of: request.broker) { return refusal }
        guard var entry = beginRegistration(request, body, connection) else { return .damagedRegistration }
        tables.apply(&entry.topics, atMost: .max)
        return registered(entry)
    }

    /// The answer to a broker that is not registered; nil: it may be.
    func refusal(of broker: BrokerRegistration) -> Answer? {
        guard let reason = tables.refusal(of: broker) else { return nil }
        logger.warning(
            "broker \(broker.brokerName.prefix(64)) at \(broker.brokerAddr.prefix(64)) is not registered: \(reason)")
        return Answer(code: .systemError, remark: reason)
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
        let begun = tables.beginRegistration(
            broker, connection: connection, now: milliseconds(),
            expiresAfter: request.expiresAfter > 0 ? request.expiresAfter : RouteTables.expiryMilliseconds)
        return Entry(broker: request.broker, master: begun.master, topics: begun.topics)
    }

    /// Enters some of its topics.
    func enter(_ entry: inout Entry, atMost limit: Int) { tables.apply(&entry.topics, atMost: limit) }

    /// The answer, once all topics are entered.
    func registered(_ entry: Entry) -> Answer {
        let (broker, master) = (entry.broker, entry.master)
        let held = startHold.registered(RouteTables.identity(broker.brokerName, broker.brokerID))
        self.answer(held: held)
        var answer = Answer.ok
        if let master {
            answer.fields = [("haServerAddr", master.haServerAddr), ("masterAddr", master.masterAddr)]
        }
        if entry.topics.refused > 0 {
            answer.remark =
                "\(entry.topics.refused) topics were not registered: a broker may have "
                + "\(RouteTables.topicsOfBrokerMax), all together \(RouteTables.topicsMax), names "
                + "\(RouteTables.topicBytesMax) bytes; delete topics"
        }
        if let order = kvBody(KVConfigTable.orderTopicConfig) { answer.body = order }
        return answer
    }

    func queryDataVersion(
        _ frame: RemotingFrame, _ connection: RemotingConnection
    ) throws(RemotingDecodeError) -> Answer? {
        let brokerAddr = try frame.extFields.required("brokerAddr")
        let hasChanged = tables.hasChanged(brokerAddr, dataVersion: try DataVersion(body: frame.body))
        if !hasChanged {
            tables.touch(brokerAddr, connection: connection.id, now: milliseconds())
        }
        return Answer(
            fields: [("changed", String(hasChanged))], body: tables.dataVersion(of: brokerAddr)?.encoded() ?? [])
    }

    func brokerHeartbeat(
        _ frame: RemotingFrame, _ connection: RemotingConnection
    ) throws(RemotingDecodeError) -> Answer? {
        tables.touch(
            try frame.extFields.required("brokerAddr"), connection: connection.id, now: milliseconds())
        return .ok
    }

    func unregisterBroker(
        _ frame: RemotingFrame, _ connection: RemotingConnection
    ) throws(RemotingDecodeError) -> Answer? {
        let fields = frame.extFields
        tables.unregister(
            clusterName: try fields.required("clusterName"), brokerAddr: try fields.required("brokerAddr"),
            brokerName: try fields.required("brokerName"), brokerID: try fields.requiredInt64("brokerId"))
        return .ok
    }

    func memberGroup(_ frame: RemotingFrame, _ connection: RemotingConnection) throws(RemotingDecodeError) -> Answer? {
        let group = tables.brokerData(try frame.extFields.required("brokerName"))
        return Answer(body: JSONValue.fields([("brokerMemberGroup", group?.json)]).bytes())
    }

    // MARK: - KV configuration

    func putKVConfig(_ frame: RemotingFrame, _ connection: RemotingConnection) throws(RemotingDecodeError) -> Answer? {
        let fields = frame.extFields
        let (namespace, key) = (try fields.required("namespace"), try fields.required("key"))
        let value = try fields.required("value")
        guard namespace.utf8.count <= KVConfigTable.namespaceMax, key.utf8.count <= KVConfigTable.keyMax else {
            return Answer(
                code: .systemError,
                remark: "a namespace has at most \(KVConfigTable.namespaceMax) bytes, a key \(KVConfigTable.keyMax)")
        }
        let isTaken = kvConfig.put(namespace: namespace, key: key, value: value)
        guard isTaken else {
            return Answer(
                code: .systemError,
                remark:
                    "the KV configuration holds \(kvConfig.bytes) bytes, and at most \(KVConfigTable.bytesMax): "
                    + "nothing was changed; delete what is not needed (mqadmin deleteKvConfig)")
        }
        return keep(kvFile, frame.returnAddress, connection)
    }

    func deleteKVConfig(
        _ frame: RemotingFrame, _ connection: RemotingConnection
    ) throws(RemotingDecodeError) -> Answer? {
        kvConfig.delete(
            namespace: try frame.extFields.required("namespace"), key: try frame.extFields.required("key"))
        return keep(kvFile, frame.returnAddress, connection)
    }

    /// Answers when the file holds what is true now.
    private func keep(_ file: KeptFile, _ address: ReturnAddress, _ connection: RemotingConnection) -> Answer? {
        connection.awaitsAnswer = true
        file.keep(elsewhere: elsewhere, eventLoop) { [unowned self] failure in
            connection.awaitsAnswer = false
            guard let failure else { return connection.respond(to: address, .success) }
            logger.error(
                "a change is in effect but was not saved, it may not survive a restart; make it again: \(failure)")
            connection.respond(
                to: address, .systemError, remark: "changed, but not kept for the next start: \(failure)")
        }
        return nil
    }

    func getKVConfig(_ frame: RemotingFrame, _ connection: RemotingConnection) throws(RemotingDecodeError) -> Answer? {
        let namespace = try frame.extFields.required("namespace")
        let key = try frame.extFields.required("key")
        guard let value = kvConfig.value(namespace: namespace, key: key) else {
            return Answer(code: .queryNotFound, remark: "No config item, Namespace: \(namespace) Key: \(key)")
        }
        return Answer(fields: [("value", value)])
    }

    /// A namespace's entries as an answer contains them; nil when there is no such namespace.
    private func kvBody(_ namespace: String) -> [UInt8]? {
        if let known = kvBodies[namespace] { return known }
        guard let entries = kvConfig.entries(namespace: namespace) else { return nil }
        let body = KVTable(table: entries).encoded()
        kvBodies[namespace] = body
        return body
    }

    func kvList(_ frame: RemotingFrame, _ connection: RemotingConnection) throws(RemotingDecodeError) -> Answer? {
        let namespace = try frame.extFields.required("namespace")
        guard let body = kvBody(namespace) else {
            return Answer(code: .queryNotFound, remark: "No config item, Namespace: \(namespace)")
        }
        return Answer(body: body)
    }

    /// For the next start: the brokers that are worth waiting for.
    private func keepBrokers() {
        keepsBrokers = false
        let brokers = tables.brokers.union(startHold.awaited)
        guard let storage, brokers != savedBrokers else { return }
        savedBrokers = brokers
        do {
            try storage.saveBrokers(brokers.sorted())
        } catch {
            logger.warning(
                "the list of registered brokers was not saved: a restart will not wait for them",
                metadata: ["reason": "\(error)"])
        }
    }

    /// Brokers that come and go within a moment are saved together: it costs all there are.
    private func keepBrokersSoon() {
        guard let eventLoop = self.eventLoop, !isStopping else { return keepBrokers() }
        guard !keepsBrokers else { return }
        keepsBrokers = true
        let this = NIOLoopBound(self, eventLoop: eventLoop)
        eventLoop.scheduleTask(in: .milliseconds(100)) { if this.value.keepsBrokers { this.value.keepBrokers() } }
    }

    // MARK: - Own configuration

    func getConfiguration(_ frame: RemotingFrame, _ connection: RemotingConnection) -> Answer? {
        Answer(body: Array(configuration.text.utf8))
    }

    func updateConfiguration(_ frame: RemotingFrame, _ connection: RemotingConnection) -> Answer? {
        let properties: [String: String]
        do throws(JavaProperties.Malformed) {
            properties = try JavaProperties.table(String(decoding: frame.body, as: UTF8.self))
        } catch {
            return Answer(code: .systemError, remark: "\(error); nothing was changed")
        }
        let before = configuration.values
        switch configuration.update(properties) {
        case .forbidden(let key):
            logger.warning(
                "configuration change refused, nothing was changed: this setting is the operator's, not a client's",
                metadata: ["key": "\(SettingRefusal.shown(key))", "peer": "\(connection.remoteAddress.text)"])
            return Answer(code: .noPermission, remark: "Can not update config in black list.")
        case .refused(let reason): return Answer(code: .systemError, remark: reason)
        case .changed(let values):
            for (key, value) in values { changedSettings.change(key, to: value) }
            let changes = values.sorted { $0.key < $1.key }.map {
                "\($0.key) from '\(SettingRefusal.shown(before[$0.key] ?? ""))' to '\(SettingRefusal.shown($0.value))'"
            }
            logger.notice(
                "settings changed by \(connection.remoteAddress.text): \(changes.joined(separator: ", "))")
            return keep(settingsFile, frame.returnAddress, connection)
        }
    }

    // MARK: - Log

    func logEvents() {
        forgetSoon()
        guard tables.hasEvents else { return }
        defer { keepBrokersSoon() }
        for event in tables.takeEvents() {
            switch event {
            case .brokerRegistered(let address, let name):
                logger.notice("broker registered", metadata: ["broker": "\(name)", "address": "\(address)"])
            case .masterChanged(let name, let from, let to):
                logger.notice(
                    "master address changed",
                    metadata: ["broker": "\(name)", "from": "\(from ?? "none")", "to": "\(to)"])
            case .brokerRemoved(let address, let name, let reason):
                logger.notice(
                    "broker removed",
                    metadata: ["broker": "\(name)", "address": "\(address)", "reason": "\(reason.rawValue)"])
            case .topicsRefused(let broker, let count):
                logger.warning(
                    """
                    \(count) topics of a broker are not taken, no client finds them: a name has more than \
                    \(RouteTables.topicBytesMax) bytes, or there are \(RouteTables.topicsOfBrokerMax) topics of this \
                    broker or \(RouteTables.topicsMax) of all; delete topics that are not needed
                    """,
                    metadata: ["broker": "\(broker)"])
            case .topicRegistered(let topic, let broker):
                logger.debug("topic registered", metadata: ["topic": "\(topic)", "broker": "\(broker)"])
            case .topicChanged(let topic, let broker):
                logger.debug("topic changed", metadata: ["topic": "\(topic)", "broker": "\(broker)"])
            case .topicRemoved(let topic):
                logger.debug("topic removed", metadata: ["topic": "\(topic)"])
            }
        }
    }
}
