import ArgumentParser
import FastJSON
import Glibc
import MessageModel
import NIOCore
import RemotingProtocol
import RemotingTransport

/// One command of RocketMQ's `mqadmin`: same name, same options, same columns.
protocol AdminCommand: AsyncParsableCommand {
    var server: NameServerOption { get }

    func execute(_ session: AdminSession) async throws
}

extension AdminCommand {
    func run() async throws {
        let session = try AdminSession(nameServers: server.addresses)
        do {
            try await execute(session)
        } catch {
            await session.close()
            throw error
        }
        await session.close()
    }
}

/// Requests to name servers and brokers for the length of one command. Every failure is words for the operator.
struct AdminSession: Sendable {
    private static let timeout = TimeAmount.seconds(10)

    let cluster: Cluster

    init(nameServers: String) throws {
        cluster = try Cluster(nameServers: nameServers)
    }

    func close() async { await cluster.close() }

    var nameServers: [String] { cluster.nameServers }

    /// The answer of one server, whatever its code.
    func ask(
        _ address: String, _ code: RequestCode, _ fields: [String: String] = [:], body: [UInt8] = [],
        language: LanguageCode = .other, timeout: TimeAmount = AdminSession.timeout
    ) async throws -> RemotingCommand {
        do {
            return try await cluster.connection(to: address).invoke(
                RemotingCommand(code: code.rawValue, language: language, extFields: fields, body: body),
                timeout: timeout)
        } catch {
            throw CommandFailure("\(error)")
        }
    }

    /// The answer of one server, which must be success.
    func demand(
        _ address: String, _ code: RequestCode, _ fields: [String: String] = [:], body: [UInt8] = [],
        timeout: TimeAmount = AdminSession.timeout
    ) async throws -> RemotingCommand {
        let reply = try await ask(address, code, fields, body: body, timeout: timeout)
        guard reply.responseCode == .success else { throw Refusal(address: address, reply: reply) }
        return reply
    }

    /// The first name server that answers decides.
    func askNameServer(
        _ code: RequestCode, _ fields: [String: String] = [:], body: [UInt8] = []
    ) async throws -> RemotingCommand {
        var failure: (any Error)?
        for address in nameServers {
            do {
                return try await demand(address, code, fields, body: body)
            } catch let error as Refusal {
                throw error
            } catch {
                failure = error
            }
        }
        throw CommandFailure(
            "no name server answers: \(failure.map { "\($0)" } ?? "none is given")\n"
                + "Say where one runs with -n HOST:PORT or in the environment variable NAMESRV_ADDR.")
    }

    /// Does something at each name server, also at those after one that failed. Throws what was done where and what was not.
    func everyNameServer(_ work: (String) async throws -> Void) async throws {
        var done: [String] = []
        var failed: [(address: String, reason: String)] = []
        for address in nameServers {
            do {
                try await work(address)
                done.append(address)
            } catch {
                failed.append((address, "\(error)"))
            }
        }
        guard !failed.isEmpty else { return }
        throw CommandFailure(
            Self.partly(done, failed, remedy: "Do it again there: -n '\(failed.map(\.address).joined(separator: ";"))'")
        )
    }

    /// What was done where, and what was not, for people.
    static func partly(_ done: [String], _ failed: [(address: String, reason: String)], remedy: String) -> String {
        let summary = done.isEmpty ? "done nowhere" : "done at \(done.joined(separator: ", ")), not everywhere"
        return ([summary] + failed.map { "  not at \($0.address): \($0.reason)" } + (done.isEmpty ? [] : [remedy]))
            .joined(separator: "\n")
    }

    // MARK: What is where

    func clusterInfo() async throws -> ClusterInfo {
        try ClusterInfo(body: await askNameServer(.getBrokerClusterInfo).body)
    }

    /// A topic's route; a topic that does not exist is a failure.
    func route(_ topic: String) async throws -> TopicRouteData {
        try TopicRouteData(body: await askNameServer(.getRouteInfoByTopic, ["topic": topic]).body)
    }

    func topics() async throws -> [String] {
        try TopicList(body: await askNameServer(.getAllTopicListFromNameServer).body).topicList.sorted()
    }

    /// Broker names of a cluster with all their addresses, sorted by name.
    func brokers(of cluster: String) async throws -> [BrokerData] {
        let info = try await clusterInfo()
        guard let names = info.clusterAddrTable[cluster] else {
            let known = info.clusterAddrTable.keys.sorted().joined(separator: ", ")
            throw CommandFailure(
                "there is no cluster '\(cluster)'; \(known.isEmpty ? "no broker is registered" : "known: \(known)")")
        }
        return names.sorted().compactMap { info.brokerAddrTable[$0] }
    }

    /// Addresses of the masters a command is for.
    func masters(_ wanted: BrokerOrCluster) async throws -> [String] {
        if let broker = wanted.broker { return [broker] }
        guard let name = wanted.cluster else { return try await masters() }
        let masters = try await brokers(of: name).compactMap { $0.brokerAddrs[0] }
        guard !masters.isEmpty else { throw CommandFailure("no master of cluster '\(name)' is registered") }
        return masters
    }

    /// All masters of all clusters.
    func masters() async throws -> [String] {
        try await clusterInfo().brokerAddrTable.values.sorted { $0.brokerName < $1.brokerName }
            .compactMap { $0.brokerAddrs[0] }
    }

    /// The brokers a consumer group is known to: those of its retry topic, or all while it has none.
    func brokers(ofGroup group: String) async throws -> [BrokerData] {
        do {
            return try await route("%RETRY%\(group)").brokerDatas.sorted { $0.brokerName < $1.brokerName }
        } catch let refusal as Refusal where refusal.code == .topicNotExist {
            return try await clusterInfo().brokerAddrTable.values.sorted { $0.brokerName < $1.brokerName }
        }
    }

    /// The address to ask about a queue: its master, else a slave.
    func address(of queue: MessageQueue, in route: TopicRouteData) throws -> String {
        guard
            let address = route.brokerDatas.first(where: { $0.brokerName == queue.brokerName })?.preferredAddress
        else { throw CommandFailure("topic '\(queue.topic)' has no broker '\(queue.brokerName)'") }
        return address
    }

    /// The readable queues of a topic, sorted.
    func queues(_ topic: String, in route: TopicRouteData) -> [MessageQueue] {
        route.queueDatas.flatMap { data in
            (0..<Int(min(max(0, data.readQueueNums), QueueLimits.queuesPerTopic))).map {
                MessageQueue(topic: topic, brokerName: data.brokerName, queueId: $0)
            }
        }.sorted()
    }

    /// One whole number of a queue: its first offset, its end, or the offset at a time.
    func offset(
        _ code: RequestCode, _ queue: MessageQueue, at address: String, timestamp: Int64? = nil
    ) async throws -> Int64 {
        var fields = ["topic": queue.topic, "queueId": String(queue.queueId)]
        if let timestamp { fields["timestamp"] = String(timestamp) }
        return try await demand(address, code, fields).integer("offset")
    }
}

/// A server that answered no.
struct Refusal: Error, CustomStringConvertible {
    let address: String
    let code: ResponseCode?
    let description: String

    init(address: String, reply: RemotingCommand) {
        self.address = address
        code = reply.responseCode
        description = "\(address) answered \(words(of: reply))"
    }
}

extension MessageQueue {
    /// An object key of RocketMQ's tables: `{"brokerName":"a","queueId":0,"topic":"t"}`.
    init?(key: String) {
        guard let json = try? JSONValue(parsing: key), let topic = json["topic"]?.string,
            let broker = json["brokerName"]?.string, let id = json["queueId"]?.integer
        else { return nil }
        self.init(topic: topic, brokerName: broker, queueId: Int(id))
    }

    /// The same object.
    var json: JSONValue {
        .fields([("brokerName", .string(brokerName)), ("queueId", .integer(queueId)), ("topic", .string(topic))])
    }

    /// As Java prints it.
    var javaText: String { "MessageQueue [topic=\(topic), brokerName=\(brokerName), queueId=\(queueId)]" }
}
