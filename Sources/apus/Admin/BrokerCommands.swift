import ArgumentParser
import FastJSON
import MessageModel
import NIOCore
import RemotingProtocol

struct ClusterList: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "clusterList", abstract: "List the brokers of all clusters and what they do.")

    @OptionGroup var server: NameServerOption
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

    private static let base = Columns("%-16s  %-22s  %-4s  %-22s %-16s %19s %19s %10s %5s %6s")
    private static let more = Columns("%-16s  %-32s %14s %14s %14s %14s")

    func validate() throws {
        guard interval.map({ $0 > 0 }) ?? true else { throw ValidationError("-i must be above 0") }
    }

    func execute(_ session: AdminSession) async throws {
        while true {
            try await show(session)
            guard let interval else { return }
            try await Task.sleep(for: .seconds(interval))
        }
    }

    private func show(_ session: AdminSession) async throws {
        let info = try await session.clusterInfo()
        if moreStats {
            Self.more.show(
                "#Cluster Name", "#Broker Name", "#InTotalYest", "#OutTotalYest", "#InTotalToday", "#OutTotalToday")
        } else {
            Self.base.show(
                "#Cluster Name", "#Broker Name", "#BID", "#Addr", "#Version", "#InTPS(LOAD)", "#OutTPS(LOAD)",
                "#PCWait(ms)", "#Hour", "#SPACE")
        }
        for (name, brokers) in info.clusterAddrTable.sorted(by: { $0.key < $1.key })
        where cluster.map({ $0 == name }) ?? true {
            for broker in brokers.sorted().compactMap({ info.brokerAddrTable[$0] }) {
                for (id, address) in broker.brokerAddrs.sorted(by: { $0.key < $1.key }) {
                    // A broker that does not answer keeps its line; its numbers are missing.
                    var table: [String: String] = [:]
                    do {
                        table = try await session.runtime(of: address)
                    } catch {
                        writeToStandardError("\(address): \(error)\n")
                    }
                    print(
                        moreStats
                            ? Self.totals(name, broker.brokerName, table)
                            : Self.load(name, broker.brokerName, id, address, table))
                }
            }
        }
    }

    private static func load(
        _ cluster: String, _ broker: String, _ id: Int64, _ address: String, _ table: [String: String]
    ) -> String {
        func rate(_ key: String) -> Double {
            table[key]?.split(separator: " ").first.flatMap { Double($0) } ?? 0
        }
        func load(_ rate: Double, _ queue: String) -> String {
            let number = fixed(rate, 2)
            let padded = String(repeating: " ", count: max(0, 9 - number.count)) + number
            return "\(padded)(\(table["\(queue)Size"] ?? ""),\(table["\(queue)HeadWaitTimeMills"] ?? "")ms)"
        }
        let earliest = table["earliestMessageTimeStamp"].flatMap { Int64($0) }
        let hours = earliest.map { $0 > 0 ? Double(Clock.milliseconds - $0) / 3_600_000 : 0 } ?? 0
        let space = table["commitLogDiskRatio"].flatMap { Double($0) } ?? 0
        return base.line(
            cluster, broker, String(id), address, table["brokerVersionDesc"] ?? "",
            load(rate("putTps"), "sendThreadPoolQueue"), load(rate("getTransferedTps"), "pullThreadPoolQueue"),
            table["pageCacheLockTimeMills"] ?? "", fixed(hours, 2), fixed(space, 4))
    }

    private static func totals(_ cluster: String, _ broker: String, _ table: [String: String]) -> String {
        func difference(_ late: String, _ early: String) -> String {
            String((table[late].flatMap { Int64($0) } ?? 0) -| (table[early].flatMap { Int64($0) } ?? 0))
        }
        return more.line(
            cluster, broker, difference("msgPutTotalTodayMorning", "msgPutTotalYesterdayMorning"),
            difference("msgGetTotalTodayMorning", "msgGetTotalYesterdayMorning"),
            difference("msgPutTotalTodayNow", "msgPutTotalTodayMorning"),
            difference("msgGetTotalTodayNow", "msgGetTotalTodayMorning"))
    }
}

struct BrokerStatus: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "brokerStatus", abstract: "Show a broker's figures.")

    @OptionGroup var server: NameServerOption
    @OptionGroup var place: BrokerOrCluster

    func validate() throws { try place.requireOne() }

    func execute(_ session: AdminSession) async throws {
        if let address = place.broker {
            let columns = Columns("%-32s: %s")
            for (key, value) in try await session.runtime(of: address).sorted(by: { $0.key < $1.key }) {
                columns.show(key, value)
            }
            return
        }
        let columns = Columns("%-24s %-32s: %s")
        for broker in try await session.brokers(of: place.cluster ?? "") {
            for (_, address) in broker.brokerAddrs.sorted(by: { $0.key < $1.key }) {
                for (key, value) in try await session.runtime(of: address).sorted(by: { $0.key < $1.key }) {
                    columns.show(address, key, value)
                }
            }
        }
    }
}

struct GetBrokerConfig: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "getBrokerConfig", abstract: "Show a broker's settings.")

    @OptionGroup var server: NameServerOption
    @OptionGroup var place: BrokerOrCluster

    func validate() throws { try place.requireOne() }

    func execute(_ session: AdminSession) async throws {
        if let address = place.broker { return try await show("============\(address)============", address, session) }
        for broker in try await session.brokers(of: place.cluster ?? "") {
            let master = broker.brokerAddrs[0] ?? "NO_MASTER"
            for (id, address) in broker.brokerAddrs.sorted(by: { $0.key < $1.key }) {
                let title = id == 0 ? "Master: \(address)" : "My Master: \(master)=====Slave: \(address)"
                try await show("============\(title)============", address, session)
            }
        }
    }

    private func show(_ title: String, _ address: String, _ session: AdminSession) async throws {
        print(title)
        showProperties(try await session.demand(address, .getBrokerConfig).body)
        print("")
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

    func execute(_ session: AdminSession) async throws {
        for address in try await session.masters(place) {
            _ = try await session.demand(address, .updateBrokerConfig, body: Array("\(key)=\(value)\n".utf8))
            print("update broker config success, \(address)")
        }
    }
}

/// The three commands that make brokers clean up: all of a cluster, one, or all there are.
protocol CleaningCommand: AdminCommand {
    static var request: RequestCode { get }
    var place: BrokerOrCluster { get }
}

extension CleaningCommand {
    func validate() throws {
        guard place.broker == nil || place.cluster == nil else {
            throw ValidationError("give either -b or -c, or neither for all brokers")
        }
    }

    func execute(_ session: AdminSession) async throws {
        for address in try await session.masters(place) { _ = try await session.demand(address, Self.request) }
        print("success")
    }
}

struct CleanExpiredCQ: CleaningCommand {
    static let configuration = CommandConfiguration(
        commandName: "cleanExpiredCQ", abstract: "Delete consume queue files whose messages are gone.")
    static let request = RequestCode.cleanExpiredConsumeQueue

    @OptionGroup var server: NameServerOption
    @OptionGroup var place: BrokerOrCluster
}

struct DeleteExpiredCommitLog: CleaningCommand {
    static let configuration = CommandConfiguration(
        commandName: "deleteExpiredCommitLog", abstract: "Delete commit log files past their retention now.")
    static let request = RequestCode.deleteExpiredCommitLog

    @OptionGroup var server: NameServerOption
    @OptionGroup var place: BrokerOrCluster
}

struct CleanUnusedTopic: CleaningCommand {
    static let configuration = CommandConfiguration(
        commandName: "cleanUnusedTopic", abstract: "Delete the queues of topics that are no more.")
    static let request = RequestCode.cleanUnusedTopic

    @OptionGroup var server: NameServerOption
    @OptionGroup var place: BrokerOrCluster
}

struct BrokerConsumeStats: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "brokerConsumeStats", abstract: "Show how far all groups of a broker are behind.")

    @OptionGroup var server: NameServerOption
    @Option(
        name: [.customShort("b"), .customLong("brokerAddr")], parsing: .unconditional,
        help: ArgumentHelp("The broker.", valueName: "HOST:PORT"))
    var broker: String
    @Option(
        name: [.customShort("t"), .customLong("timeoutMillis")], parsing: .unconditional,
        help: "How long to wait for the answer.")
    var timeoutMillis: Int64 = 50_000
    @Option(
        name: [.customShort("l"), .customLong("level")], parsing: .unconditional,
        help: "Only queues that are at least so far behind.")
    var level: Int64 = 0
    @Option(
        name: [.customShort("o"), .customLong("order")], parsing: .unconditional,
        help: "Only ordered topics (true or false).")
    var order = false

    func execute(_ session: AdminSession) async throws {
        let json = try await session.demand(
            broker, .getBrokerConsumeStats, ["isOrder": String(order)], timeout: .milliseconds(timeoutMillis)
        ).json()
        let columns = Columns("%-64s  %-64s  %-32s  %-4s  %-20s  %-20s  %-20s  %s")
        columns.show(
            "#Topic", "#Group", "#Broker Name", "#QID", "#Broker Offset", "#Consumer Offset", "#Diff", "#LastTime")
        for group in (json["consumeStatsList"]?.array ?? []).flatMap({ $0.object?.members ?? [] }) {
            for table in group.value.array ?? [] {
                var stats = GroupStats()
                stats.add(table)
                for row in stats.rows.sorted(by: { $0.queue < $1.queue })
                where row.difference >= level && row.lastTimestamp > 0 {
                    columns.show(
                        front(row.queue.topic, 64), group.key, front(row.queue.brokerName, 32),
                        String(row.queue.queueId), String(row.brokerOffset), String(row.consumerOffset),
                        String(row.difference), AdminTime.seconds(row.lastTimestamp))
                }
            }
        }
        print("\nDiff Total: \(json["totalDiff"]?.integer ?? 0)")
    }
}

struct QueryCq: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "queryCq", abstract: "Show entries of a consume queue.")

    @OptionGroup var server: NameServerOption
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

    func execute(_ session: AdminSession) async throws {
        var address = broker
        if address == nil { address = try await session.route(topic.name).brokerDatas.first?.preferredAddress }
        guard let address else { throw CommandFailure("topic '\(topic.name)' has no broker") }
        var fields = [
            "topic": topic.name, "queueId": String(queue), "index": String(index), "count": String(count),
        ]
        fields["consumerGroup"] = group
        let reply = try await session.demand(address, .queryConsumeQueue, fields)
        // A queue that has nothing at the index is no error to brokers.
        guard !reply.body.isEmpty else { throw CommandFailure(reply.remark ?? "nothing is there") }
        let json = try reply.json()
        let rule = "======================================"
        if let subscription = json["subscriptionData"], !subscription.isNull {
            print("Subscription data: \n\(subscription.text(.pretty))\n\(rule)")
        }
        if let filter = json["filterData"]?.string { print("Filter data: \n\(filter)\n\(rule)") }
        let (last, first) = (json["maxQueueIndex"]?.integer ?? 0, json["minQueueIndex"]?.integer ?? 0)
        print("Queue data: \nmax: \(last), min: \(first)\n\(rule)")
        for (step, entry) in (json["queueData"]?.array ?? []).enumerated() {
            let members = (entry.object?.members ?? []).map { "\($0.key)=\($0.value.string ?? $0.value.text())" }
            print("idx: \(index + Int64(step))\nConsumeQueueData{\(members.joined(separator: ", "))}\n\(rule)")
        }
    }
}

extension AdminSession {
    /// A broker's figures by name.
    func runtime(of address: String) async throws -> [String: String] {
        try KVTable(body: await demand(address, .getBrokerRuntimeInfo).body).table
    }
}

/// `key=value` lines as the settings commands show them.
func showProperties(_ body: [UInt8]) {
    let columns = Columns("%-50s=  %s")
    for line in String(decoding: body, as: UTF8.self).split(whereSeparator: \.isNewline).sorted() {
        let parts = line.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        columns.show(parts[0], parts.count > 1 ? parts[1] : "")
    }
}
