package import FastJSON
import NIOCore
package import RemotingProtocol

/// Asks and changes name servers and brokers: clusters, topics, groups, offsets, messages, settings. Every call answers
/// values. Any number of calls may be under way; a change at several servers is made at one after the other.
public struct AdminClient: Sendable {
    /// Shared by all calls, and closed with the client.
    package let connections: ServerConnections
    private let producer: Producer
    private let timeout: Duration
    let toolAccess: QueueAccess

    /// A client; nothing is connected before the first call.
    ///
    /// - Parameter timeout: how long one request may take.
    /// - Throws: `invalidArgument`.
    public init(_ settings: ClientSettings, timeout: Duration = .seconds(10)) throws(RocketMQClientError) {
        var settings = settings
        settings.requestTimeout = timeout
        self.timeout = timeout
        connections = try ServerConnections(settings)
        toolAccess = QueueAccess(connections, group: WireNames.toolsGroup)
        var options = Producer.Options()
        options.attemptsMax = 1
        options.sendTimeout = timeout
        options.attemptTimeout = timeout
        producer = Producer(
            connections, group: WireNames.toolsGroup, clientID: settings.clientID ?? ClientIdentity.make(),
            options: options)
    }

    /// Closes all connections.
    public func close() async { await connections.close() }

    /// As given.
    public var nameServers: [String] { connections.nameServers }

    // MARK: - Requests

    /// The answer of one server, whatever its code.
    func ask(
        _ address: String, _ code: RequestCode, _ fields: [String: String] = [:], body: [UInt8] = [],
        language: LanguageCode = .other, timeout: Duration? = nil
    ) async throws(RocketMQClientError) -> RemotingCommand {
        try await connections.invoke(
            address, RemotingCommand(code: code.rawValue, language: language, extFields: fields, body: body),
            timeout: timeout)
    }

    /// The answer of one server, which must be success.
    ///
    /// - Throws: `refused` with any other code, failures of the connection.
    package func demand(
        _ address: String, _ code: RequestCode, _ fields: [String: String] = [:], body: [UInt8] = [],
        timeout: Duration? = nil
    ) async throws(RocketMQClientError) -> RemotingCommand {
        let reply = try await ask(address, code, fields, body: body, timeout: timeout)
        guard reply.responseCode == .success else {
            throw .refused(ServerRefusal(address: address, reply: reply))
        }
        return reply
    }

    /// The same, its body as JSON.
    ///
    /// - Throws: as `demand`; `malformedAnswer` when the body is no JSON.
    package func json(
        _ address: String, _ code: RequestCode, _ fields: [String: String] = [:], timeout: Duration? = nil
    ) async throws(RocketMQClientError) -> JSONValue {
        let reply = try await demand(address, code, fields, timeout: timeout)
        return try decoded(address) { () throws(RemotingDecodeError) in try reply.json() }
    }

    /// The first name server that answers decides.
    func askNameServer(
        _ code: RequestCode, _ fields: [String: String] = [:]
    ) async throws(RocketMQClientError) -> (address: String, reply: RemotingCommand) {
        let answer = try await connections.askNameServers(
            RemotingCommand(code, extFields: fields), timeout: timeout)
        guard answer.reply.responseCode == .success else {
            throw .refused(ServerRefusal(address: answer.address, reply: answer.reply))
        }
        return answer
    }

    /// Does something at each name server, also at those after one that failed.
    ///
    /// - Throws: `partlyDone`.
    public func atEveryNameServer(
        _ work: (String) async throws(RocketMQClientError) -> Void
    ) async throws(RocketMQClientError) {
        var done: [String] = []
        var failed: [(address: String, reason: String)] = []
        for address in nameServers {
            do throws(RocketMQClientError) {
                try await work(address)
                done.append(address)
            } catch {
                failed.append((address, error.description))
            }
        }
        if !failed.isEmpty { throw .partlyDone(done: done, failed: failed) }
    }

    // MARK: - Clusters and brokers

    /// All brokers the name servers know.
    ///
    /// - Throws: `noNameServer`, `refused`.
    public func clusters() async throws(RocketMQClientError) -> ClusterDescription {
        let (address, reply) = try await askNameServer(.getBrokerClusterInfo)
        let info = try decoded(address) { () throws(RemotingDecodeError) in try ClusterInfo(body: reply.body) }
        return ClusterDescription(info)
    }

    /// The brokers of a cluster, sorted by name.
    ///
    /// - Throws: `notFound` for a cluster no broker belongs to.
    public func brokers(ofCluster name: String) async throws(RocketMQClientError) -> [BrokerDescription] {
        let all = try await clusters().clusters
        guard let brokers = all[name] else {
            let known = all.keys.sorted().joined(separator: ", ")
            throw .notFound(
                "there is no cluster '\(name)'; \(known.isEmpty ? "no broker is registered" : "known: \(known)")")
        }
        return brokers
    }

    /// The addresses of the masters a choice means.
    ///
    /// - Throws: `notFound` for a cluster without a master.
    public func masters(_ choice: BrokerChoice) async throws(RocketMQClientError) -> [String] {
        switch choice {
        case .address(let address): return [address]
        case .all: return try await clusters().brokers.compactMap(\.master)
        case .cluster(let name):
            let masters = try await brokers(ofCluster: name).compactMap(\.master)
            guard !masters.isEmpty else { throw .notFound("no master of cluster '\(name)' is registered") }
            return masters
        }
    }

    /// A broker's figures by RocketMQ's names.
    ///
    /// - Throws: `refused` by the broker, `malformedAnswer`, failures of the connection.
    public func runtimeFigures(of address: String) async throws(RocketMQClientError) -> [String: String] {
        let reply = try await demand(address, .getBrokerRuntimeInfo)
        return try decoded(address) { () throws(RemotingDecodeError) in try KVTable(body: reply.body).table }
    }

    /// A broker's settings, sorted by name.
    ///
    /// - Throws: `refused` by the broker, failures of the connection.
    public func brokerSettings(
        of address: String
    ) async throws(RocketMQClientError) -> [(name: String, value: String)] {
        Self.properties(try await demand(address, .getBrokerConfig).body)
    }

    /// Changes a setting of a running broker.
    ///
    /// - Throws: `refused` when the broker does not take the value, failures of the connection.
    public func setBrokerSetting(
        _ name: String, to value: String, at address: String
    ) async throws(RocketMQClientError) {
        _ = try await demand(address, .updateBrokerConfig, body: Array("\(name)=\(value)\n".utf8))
    }

    /// What brokers clean up when asked.
    public enum CleanUp: Sendable, Hashable {
        /// Consume queue files whose messages are deleted.
        case expiredConsumeQueues
        /// Log files past their retention.
        case expiredCommitLog
        /// Queues of topics that do not exist any more.
        case unusedTopics
    }

    /// Makes one broker clean up.
    ///
    /// - Throws: `refused` by the broker, failures of the connection.
    public func cleanUp(_ what: CleanUp, at address: String) async throws(RocketMQClientError) {
        let code: RequestCode =
            switch what {
            case .expiredConsumeQueues: .cleanExpiredConsumeQueue
            case .expiredCommitLog: .deleteExpiredCommitLog
            case .unusedTopics: .cleanUnusedTopic
            }
        _ = try await demand(address, code)
    }

    /// How far all groups of a broker are.
    ///
    /// - Parameter onlyOrdered: topics that are ordered.
    /// - Throws: `refused` by the broker, `malformedAnswer`, failures of the connection.
    public func progress(
        ofBroker address: String, onlyOrdered: Bool = false, timeout: Duration = .seconds(50)
    ) async throws(RocketMQClientError) -> BrokerProgress {
        let json = try await json(
            address, .getBrokerConsumeStats, ["isOrder": String(onlyOrdered)], timeout: timeout)
        var groups: [(String, ConsumerProgressReport)] = []
        for group in (json["consumeStatsList"]?.array ?? []).flatMap({ $0.object?.members ?? [] }) {
            for table in group.value.array ?? [] {
                var report = ConsumerProgressReport()
                report.add(table)
                groups.append((group.key, report))
            }
        }
        return BrokerProgress(groups: groups, difference: json["totalDiff"]?.integer ?? 0)
    }

    /// A statistic of all masters of a topic together. A broker that keeps no such figure counts as none.
    ///
    /// - Parameters:
    ///   - name: RocketMQ's, such as `TOPIC_PUT_NUMS`.
    ///   - key: the topic, or `TOPIC@GROUP`.
    public func flow(_ name: String, key: String, in route: TopicRoute) async -> MessageFlow {
        var flow = MessageFlow()
        for address in route.brokers.compactMap(\.master) {
            guard let json = try? await json(address, .viewBrokerStatsData, ["statsName": name, "statsKey": key])
            else { continue }
            flow.messagesPerSecond += json["statsMinute"]?["tps"]?.double ?? 0
            flow.messages +=
                ["statsDay", "statsHour", "statsMinute"].lazy.compactMap { json[$0]?["sum"]?.integer }
                .first { $0 != 0 } ?? 0
        }
        return flow
    }

    // MARK: - Name servers

    /// A name server's settings, sorted by name.
    ///
    /// - Throws: `refused` by the name server, failures of the connection.
    public func nameServerSettings(
        of address: String
    ) async throws(RocketMQClientError) -> [(name: String, value: String)] {
        Self.properties(try await demand(address, .getNamesrvConfig).body)
    }

    /// Changes a setting of all name servers.
    ///
    /// - Throws: `partlyDone`.
    public func setNameServerSetting(_ name: String, to value: String) async throws(RocketMQClientError) {
        try await atEveryNameServer { address throws(RocketMQClientError) in
            _ = try await demand(address, .updateNamesrvConfig, body: Array("\(name)=\(value)\n".utf8))
        }
    }

    /// A value of the name servers' key-value tables.
    ///
    /// - Throws: `refused` for a key that is not there.
    public func value(of key: String, namespace: String) async throws(RocketMQClientError) -> String {
        let (address, reply) = try await askNameServer(.getKVConfig, ["namespace": namespace, "key": key])
        return try decoded(address) { () throws(RemotingDecodeError) in try reply.field("value") }
    }

    /// Sets a value in the key-value tables of all name servers.
    ///
    /// - Throws: `partlyDone`.
    public func setValue(_ value: String, of key: String, namespace: String) async throws(RocketMQClientError) {
        try await atEveryNameServer { address throws(RocketMQClientError) in
            _ = try await demand(address, .putKVConfig, ["namespace": namespace, "key": key, "value": value])
        }
    }

    /// Deletes a value from the key-value tables of all name servers.
    ///
    /// - Throws: `partlyDone`.
    public func deleteValue(of key: String, namespace: String) async throws(RocketMQClientError) {
        try await atEveryNameServer { address throws(RocketMQClientError) in
            _ = try await demand(address, .deleteKVConfig, ["namespace": namespace, "key": key])
        }
    }

    /// Lets producers write to a broker's topics again, or keeps them from it, in one name server's routes.
    ///
    /// - Returns: how many topics were changed.
    /// - Throws: `refused` by the name server, `malformedAnswer`, failures of the connection.
    public func setWritable(
        _ isWritable: Bool, broker: String, at nameServer: String
    ) async throws(RocketMQClientError) -> Int {
        let reply = try await demand(
            nameServer, isWritable ? .addWritePermOfBroker : .wipeWritePermOfBroker, ["brokerName": broker])
        return Int(
            clamping: try decoded(nameServer) { () throws(RemotingDecodeError) in
                try reply.integer(isWritable ? "addTopicCount" : "wipeTopicCount")
            })
    }

    /// `key=value` lines, sorted.
    static func properties(_ body: [UInt8]) -> [(name: String, value: String)] {
        String(decoding: body, as: UTF8.self).split(whereSeparator: \.isNewline).sorted().map { line in
            let parts = line.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            return (parts[0], parts.count > 1 ? parts[1] : "")
        }
    }

    // MARK: - Sending

    /// Sends one message, once.
    ///
    /// - Parameter selector: nil: any writable queue.
    /// - Throws: `refused`, `queueNotFound`, `topicNotFound` and failures of the connection.
    public func send(
        _ message: Message, selector: QueueSelector? = nil
    ) async throws(RocketMQClientError) -> SendResult {
        do throws(RocketMQClientError) {
            return try await producer.send(
                message, selector: selector ?? .custom { Int.random(in: 0..<$0.count) })
        } catch {
            if case .sendAbandoned(let failure) = error { throw failure.last }
            throw error
        }
    }

    /// The queues of a topic that can be written, sorted; for a topic that does not exist yet those it will get.
    ///
    /// - Throws: `noNameServer`, `topicNotFound`, `queueNotFound`.
    public func writableQueues(of topic: String) async throws(RocketMQClientError) -> [MessageQueue] {
        try await producer.writableQueues(of: topic)
    }
}
