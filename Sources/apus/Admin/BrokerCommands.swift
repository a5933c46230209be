import ArgumentParser
import FastJSON
import MessageModel
import RocketMQClient

struct ClusterList: ShowingCommand {
    static let configuration = CommandConfiguration(
        commandName: "clusterList", abstract: "List the brokers of all clusters and what they do.",
        discussion: AdminOutput.help(
            """
            a list of servers: cluster, brokerName, brokerId, address, failure (why it does not answer), figures (its \
            runtime figures by RocketMQ's names, as brokerStatus shows them).
            """))

    @OptionGroup var server: NameServerOption
    @OptionGroup var output: AdminOutput
    @Flag(name: [.customShort("m"), .customLong("moreStats")], help: "Messages of yesterday and today instead.")
    var moreStats = false
    @Option(
        name: [.customShort("i"), .customLong("interval")], parsing: .unconditional,
        help: ArgumentHelp("Print again every N seconds.", valueName: "N"))
    var interval: Int?
    @Option(
        name: [.customShort("c"), .customLong("clusterName")], parsing: .unconditional,
        help: ArgumentHelp("This cluster only.", valueName: "NAME"))
    var cluster: String?

    /// All servers, and when they were asked.
    struct Value {
        struct Server {
            let cluster: String
            let broker: String
            let id: Int64
            let address: String
            /// Empty when the server does not answer.
            var figures: [String: String] = [:]
            var failure: String?
        }

        /// Milliseconds since 1970.
        var time: Int64
        var servers: [Server] = []
    }

    private static let base = Columns("%-16s  %-22s  %-4s  %-22s %-16s %19s %19s %10s %5s %6s")
    private static let more = Columns("%-16s  %-32s %14s %14s %14s %14s")

    func validate() throws {
        guard interval.map({ $0 > 0 }) ?? true else { throw ValidationError("-i must be above 0") }
    }

    func execute(_ client: AdminClient) async throws {
        while true {
            try await show(client)
            guard let interval else { return }
            try await Task.sleep(for: .seconds(interval))
        }
    }

    func ask(_ client: AdminClient) async throws -> Value {
        var value = Value(time: WallClock.milliseconds)
        for (name, brokers) in try await client.clusters().clusters.sorted(by: { $0.key < $1.key })
        where cluster.map({ $0 == name }) ?? true {
            for broker in brokers {
                for (id, address) in broker.addresses.sorted(by: { $0.key < $1.key }) {
                    // A broker that does not answer keeps its line; its numbers are missing.
                    var server = Value.Server(cluster: name, broker: broker.name, id: id, address: address)
                    do {
                        server.figures = try await client.runtimeFigures(of: address)
                    } catch {
                        server.failure = "\(error)"
                    }
                    value.servers.append(server)
                }
            }
        }
        return value
    }

    func warnings(_ value: Value) -> [String] {
        value.servers.compactMap { server in server.failure.map { "\(server.address): \($0)" } }
    }

    func lines(_ value: Value) -> [String] {
        if moreStats {
            return [
                Self.more.line(
                    "#Cluster Name", "#Broker Name", "#InTotalYest", "#OutTotalYest", "#InTotalToday",
                    "#OutTotalToday")
            ] + value.servers.map(Self.totals)
        }
        return [
            Self.base.line(
                "#Cluster Name", "#Broker Name", "#BID", "#Addr", "#Version", "#InTPS(LOAD)", "#OutTPS(LOAD)",
                "#PCWait(ms)", "#Hour", "#SPACE")
        ] + value.servers.map { Self.load($0, at: value.time) }
    }

    func json(_ value: Value) -> JSONValue {
        .array(
            value.servers.map { server in
                .fields([
                    ("cluster", .string(server.cluster)), ("brokerName", .string(server.broker)),
                    ("brokerId", .integer(server.id)), ("address", .string(server.address)),
                    ("failure", server.failure.map { .string($0) }),
                    (
                        "figures",
                        .fields(server.figures.sorted { $0.key < $1.key }.map { ($0.key, .string($0.value)) })
                    ),
                ])
            })
    }

    private static func load(_ server: Value.Server, at now: Int64) -> String {
        let table = server.figures
        func rate(_ key: String) -> Double {
            table[key]?.split(separator: " ").first.flatMap { Double($0) } ?? 0
        }
        func load(_ rate: Double, _ queue: String) -> String {
            let number = fixed(rate, 2)
            let padded = String(repeating: " ", count: max(0, 9 - number.count)) + number
            return "\(padded)(\(table["\(queue)Size"] ?? ""),\(table["\(queue)HeadWaitTimeMills"] ?? "")ms)"
        }
        let earliest = table["earliestMessageTimeStamp"].flatMap { Int64($0) }
        let hours = earliest.map { $0 > 0 ? Double(now -| $0) / 3_600_000 : 0 } ?? 0
        let space = table["commitLogDiskRatio"].flatMap { Double($0) } ?? 0
        return base.line(
            server.cluster, server.broker, String(server.id), server.address, table["brokerVersionDesc"] ?? "",
            load(rate("putTps"), "sendThreadPoolQueue"), load(rate("getTransferedTps"), "pullThreadPoolQueue"),
            table["pageCacheLockTimeMills"] ?? "", fixed(hours, 2), fixed(space, 4))
    }

    private static func totals(_ server: Value.Server) -> String {
        func difference(_ late: String, _ early: String) -> String {
            func figure(_ key: String) -> Int64 { server.figures[key].flatMap { Int64($0) } ?? 0 }
            return String(figure(late) -| figure(early))
        }
        return more.line(
            server.cluster, server.broker, difference("msgPutTotalTodayMorning", "msgPutTotalYesterdayMorning"),
            difference("msgGetTotalTodayMorning", "msgGetTotalYesterdayMorning"),
            difference("msgPutTotalTodayNow", "msgPutTotalTodayMorning"),
            difference("msgGetTotalTodayNow", "msgGetTotalTodayMorning"))
    }
}

struct BrokerStatus: ShowingCommand {
    static let configuration = CommandConfiguration(
        commandName: "brokerStatus", abstract: "Show a broker's figures.",
        discussion: AdminOutput.help("an object: the server's address, and its figures by RocketMQ's names."))

    @OptionGroup var server: NameServerOption
    @OptionGroup var output: AdminOutput
    @OptionGroup var place: BrokerOrCluster

    func validate() throws { try place.requireOne() }

    func ask(_ client: AdminClient) async throws -> [(address: String, figures: [String: String])] {
        if let address = place.broker { return [(address, try await client.runtimeFigures(of: address))] }
        var all: [(String, [String: String])] = []
        for broker in try await client.brokers(ofCluster: place.cluster ?? "") {
            for (_, address) in broker.addresses.sorted(by: { $0.key < $1.key }) {
                all.append((address, try await client.runtimeFigures(of: address)))
            }
        }
        return all
    }

    func lines(_ value: [(address: String, figures: [String: String])]) -> [String] {
        let one = Columns("%-32s: %s")
        let several = Columns("%-24s %-32s: %s")
        return value.flatMap { server in
            server.figures.sorted { $0.key < $1.key }.map { key, text in
                place.broker == nil ? several.line(server.address, key, text) : one.line(key, text)
            }
        }
    }

    func json(_ value: [(address: String, figures: [String: String])]) -> JSONValue {
        .fields(
            value.map { server in
                (
                    server.address,
                    .fields(server.figures.sorted { $0.key < $1.key }.map { ($0.key, .string($0.value)) })
                )
            })
    }
}

struct GetBrokerConfig: ShowingCommand {
    static let configuration = CommandConfiguration(
        commandName: "getBrokerConfig", abstract: "Show a broker's settings.",
        discussion: AdminOutput.help("an object: the server's address, and its settings by name."))

    @OptionGroup var server: NameServerOption
    @OptionGroup var output: AdminOutput
    @OptionGroup var place: BrokerOrCluster

    struct Server {
        let title: String
        let address: String
        let settings: [(name: String, value: String)]
    }

    func validate() throws { try place.requireOne() }

    func ask(_ client: AdminClient) async throws -> [Server] {
        if let address = place.broker {
            return [
                Server(title: address, address: address, settings: try await client.brokerSettings(of: address))
            ]
        }
        var all: [Server] = []
        for broker in try await client.brokers(ofCluster: place.cluster ?? "") {
            let master = broker.master ?? "NO_MASTER"
            for (id, address) in broker.addresses.sorted(by: { $0.key < $1.key }) {
                let title = id == 0 ? "Master: \(address)" : "My Master: \(master)=====Slave: \(address)"
                all.append(
                    Server(title: title, address: address, settings: try await client.brokerSettings(of: address)))
            }
        }
        return all
    }

    func lines(_ value: [Server]) -> [String] {
        value.flatMap { ["============\($0.title)============"] + propertyLines($0.settings) + [""] }
    }

    func json(_ value: [Server]) -> JSONValue {
        .fields(value.map { ($0.address, settingsJSON($0.settings)) })
    }
}

struct UpdateBrokerConfig: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "updateBrokerConfig", abstract: "Change a setting of running brokers.",
        discussion: """
            The change holds at once and over restarts, until the configuration file says something else.
            """)

    @OptionGroup var server: NameServerOption
    @OptionGroup var place: BrokerOrCluster
    @Option(
        name: [.customShort("k"), .customLong("key")], parsing: .unconditional, help: "The setting.",
        completion: Completions.setting) var key: String
    @Option(name: [.customShort("v"), .customLong("value")], parsing: .unconditional, help: "Its new value.") var value:
        String

    func validate() throws { try place.requireOne() }

    func execute(_ client: AdminClient) async throws {
        for address in try await client.masters(place.choice) {
            try await client.setBrokerSetting(key, to: value, at: address)
            print("update broker config success, \(address)")
        }
    }
}

/// The three commands that make brokers clean up: all of a cluster, one, or all there are.
protocol CleaningCommand: AdminCommand {
    static var what: AdminClient.CleanUp { get }
    var place: BrokerOrCluster { get }
}

extension CleaningCommand {
    func validate() throws {
        guard place.broker == nil || place.cluster == nil else {
            throw ValidationError("give either -b or -c, or neither for all brokers")
        }
    }

    func execute(_ client: AdminClient) async throws {
        for address in try await client.masters(place.choice) { try await client.cleanUp(Self.what, at: address) }
        print("success")
    }
}

struct CleanExpiredCQ: CleaningCommand {
    static let configuration = CommandConfiguration(
        commandName: "cleanExpiredCQ", abstract: "Delete consume queue files whose messages are gone.")
    static let what = AdminClient.CleanUp.expiredConsumeQueues

    @OptionGroup var server: NameServerOption
    @OptionGroup var place: BrokerOrCluster
}

struct DeleteExpiredCommitLog: CleaningCommand {
    static let configuration = CommandConfiguration(
        commandName: "deleteExpiredCommitLog", abstract: "Delete commit log files past their retention now.")
    static let what = AdminClient.CleanUp.expiredCommitLog

    @OptionGroup var server: NameServerOption
    @OptionGroup var place: BrokerOrCluster
}

struct CleanUnusedTopic: CleaningCommand {
    static let configuration = CommandConfiguration(
        commandName: "cleanUnusedTopic", abstract: "Delete the queues of topics that are no more.")
    static let what = AdminClient.CleanUp.unusedTopics

    @OptionGroup var server: NameServerOption
    @OptionGroup var place: BrokerOrCluster
}

struct BrokerConsumeStats: ShowingCommand {
    static let configuration = CommandConfiguration(
        commandName: "brokerConsumeStats", abstract: "Show how far all groups of a broker are behind.",
        discussion: AdminOutput.help(
            """
            an object: totalDiff, and queues, a list of group, topic, brokerName, queueId, brokerOffset, \
            consumerOffset, diff, lastTimestamp (milliseconds since 1970).
            """))

    @OptionGroup var server: NameServerOption
    @OptionGroup var output: AdminOutput
    @Option(
        name: [.customShort("b"), .customLong("brokerAddr")], parsing: .unconditional,
        help: ArgumentHelp("The broker.", valueName: "HOST:PORT"))
    var broker: String
    @Option(
        name: [.customShort("t"), .customLong("timeoutMillis")], parsing: .unconditional,
        help: "How long to wait for the answer.")
    var timeoutMilliseconds: Int64 = 50_000
    @Option(
        name: [.customShort("l"), .customLong("level")], parsing: .unconditional,
        help: "Only queues that are at least so far behind.")
    var level: Int64 = 0
    @Option(
        name: [.customShort("o"), .customLong("order")], parsing: .unconditional,
        help: "Only ordered topics (true or false).")
    var order = false

    func ask(_ client: AdminClient) async throws -> BrokerProgress {
        try await client.progress(ofBroker: broker, onlyOrdered: order, timeout: .milliseconds(timeoutMilliseconds))
    }

    /// The queues that are far enough behind, of those the group has consumed from.
    private func rows(_ value: BrokerProgress) -> [(group: String, row: ConsumerProgressReport.Row)] {
        value.groups.flatMap { group in
            group.report.rows.filter { $0.difference >= level && $0.lastTimestamp > 0 }.map { (group.group, $0) }
        }
    }

    func lines(_ value: BrokerProgress) -> [String] {
        let columns = Columns("%-64s  %-64s  %-32s  %-4s  %-20s  %-20s  %-20s  %s")
        let head = columns.line(
            "#Topic", "#Group", "#Broker Name", "#QID", "#Broker Offset", "#Consumer Offset", "#Diff", "#LastTime")
        let lines = rows(value).map { group, row in
            columns.line(
                front(row.queue.topic, 64), group, front(row.queue.brokerName, 32), String(row.queue.queueID),
                String(row.brokerOffset), String(row.consumerOffset), String(row.difference),
                AdminTime.seconds(row.lastTimestamp))
        }
        return [head] + lines + ["\nDiff Total: \(value.difference)"]
    }

    func json(_ value: BrokerProgress) -> JSONValue {
        let queues = rows(value).map { group, row in
            JSONValue.object(
                JSONObject(
                    members: [JSONObject.Member(key: "group", value: .string(group))]
                        + (row.json.object?.members ?? [])))
        }
        return .fields([("totalDiff", .integer(value.difference)), ("queues", .array(queues))])
    }
}

struct QueryCq: ShowingCommand {
    static let configuration = CommandConfiguration(
        commandName: "queryCq", abstract: "Show entries of a consume queue.",
        discussion: AdminOutput.help(
            """
            the broker's answer: minQueueIndex, maxQueueIndex, queueData (a list of physicOffset, physicSize, \
            tagsCode, msg, bitMap, eval), subscriptionData, filterData.
            """))

    @OptionGroup var server: NameServerOption
    @OptionGroup var output: AdminOutput
    @OptionGroup var topic: TopicOption
    @Option(name: [.customShort("q"), .customLong("queue")], parsing: .unconditional, help: "Queue id.") var queue: Int
    @Option(name: [.customShort("i"), .customLong("index")], parsing: .unconditional, help: "First entry.") var index:
        Int64
    @Option(name: [.customShort("c"), .customLong("count")], parsing: .unconditional, help: "How many.") var count = 10
    @Option(
        name: [.customShort("b"), .customLong("broker")], parsing: .unconditional,
        help: ArgumentHelp("The broker (default: the topic's first).", valueName: "HOST:PORT"))
    var broker: String?
    @Option(
        name: [.customShort("g"), .customLong("consumer")], parsing: .unconditional, help: "Apply this group's filter.")
    var group: String?

    func ask(_ client: AdminClient) async throws -> ConsumeQueueEntries {
        do throws(RocketMQClientError) {
            return try await client.consumeQueueEntries(
                of: topic.name, queueID: queue, index: index, count: count, group: group, at: broker)
        } catch {
            if case .notFound(let text) = error { throw CommandFailure(text) }
            throw error
        }
    }

    func lines(_ value: ConsumeQueueEntries) -> [String] {
        let rule = "======================================"
        var lines: [String] = []
        if let subscription = value.json["subscriptionData"], !subscription.isNull {
            lines.append("Subscription data: \n\(subscription.text(.pretty))\n\(rule)")
        }
        if let filter = value.json["filterData"]?.string { lines.append("Filter data: \n\(filter)\n\(rule)") }
        lines.append("Queue data: \nmax: \(value.maxIndex), min: \(value.minIndex)\n\(rule)")
        for (step, entry) in value.entries.enumerated() {
            let members = entry.map { "\($0.name)=\($0.value)" }
            lines.append(
                "idx: \(index +| Int64(step))\nConsumeQueueData{\(members.joined(separator: ", "))}\n\(rule)")
        }
        return lines
    }

    func json(_ value: ConsumeQueueEntries) -> JSONValue { value.json }
}

/// `key=value` lines as the settings commands show them.
func propertyLines(_ properties: [(name: String, value: String)]) -> [String] {
    let columns = Columns("%-50s=  %s")
    return properties.map { columns.line($0.name, $0.value) }
}
