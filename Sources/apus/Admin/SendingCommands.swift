import ArgumentParser
import FastJSON
import RocketMQClient

struct SendMessage: ShowingCommand {
    static let configuration = CommandConfiguration(
        commandName: "sendMessage", abstract: "Send one message.",
        discussion: AdminOutput.help("an object: \(SendResult.jsonKeys)."))

    @OptionGroup var server: NameServerOption
    @OptionGroup var output: AdminOutput
    @OptionGroup var topic: TopicOption
    @Option(name: [.customShort("p"), .customLong("body")], parsing: .unconditional, help: "Body.") var body: String
    @Option(name: [.customShort("k"), .customLong("key")], parsing: .unconditional, help: "Keys, separated by blanks.")
    var key: String?
    @Option(name: [.customShort("c"), .customLong("tags")], parsing: .unconditional, help: "Tag.") var tag: String?
    @Option(name: [.customShort("b"), .customLong("broker")], parsing: .unconditional, help: "To this broker.")
    var broker: String?
    @Option(name: [.customShort("i"), .customLong("qid")], parsing: .unconditional, help: "With -b: to this queue.")
    var queue: Int?
    @Option(
        name: [.customShort("m"), .customLong("msgTraceEnable")], parsing: .unconditional,
        help: "Accepted for compatibility; no trace is written (true or false).")
    var trace = false

    func validate() throws {
        guard queue == nil || broker != nil else { throw ValidationError("-i needs the broker: -b NAME") }
    }

    func ask(_ client: AdminClient) async throws -> SendResult {
        let message = Message(
            topic: topic.name, body: Array(body.utf8), tag: tag, keys: key.map { [$0] } ?? [])
        let (broker, queue) = (broker, queue)
        let candidates = try await client.writableQueues(of: topic.name).filter {
            (broker == nil || $0.brokerName == broker) && (queue == nil || $0.queueID == queue)
        }
        guard let chosen = candidates.randomElement() else {
            throw CommandFailure("topic '\(topic.name)' has no such writable queue")
        }
        return try await client.send(message, selector: .queue(chosen))
    }

    func lines(_ value: SendResult) -> [String] {
        let columns = Columns("%-32s  %-4s  %-20s    %s")
        return [
            columns.line("#Broker Name", "#QID", "#Send Result", "#MsgId"),
            columns.line(
                value.queue.brokerName, String(value.queue.queueID), value.status.rawValue, value.messageID),
        ]
    }

    func json(_ value: SendResult) -> JSONValue { value.json }
}

struct CheckMsgSendRT: StreamingCommand {
    static let configuration = CommandConfiguration(
        commandName: "checkMsgSendRT",
        abstract: "Send messages to a topic, queue after queue, and show how long each took.",
        discussion: AdminOutput.help(
            "a line for each message: topic, brokerName, queueId, sent, milliseconds; then one with meanMilliseconds."))

    @OptionGroup var server: NameServerOption
    @OptionGroup var output: AdminOutput
    @OptionGroup var topic: TopicOption
    @Option(name: [.customShort("a"), .customLong("amount")], parsing: .unconditional, help: "Messages.") var amount =
        100
    @Option(name: [.customShort("s"), .customLong("size")], parsing: .unconditional, help: "Bytes of a body.")
    var size = 128

    func validate() throws {
        guard amount > 0, size >= 0 else { throw ValidationError("-a must be above 0 and -s not below") }
    }

    enum Part {
        case begin
        case message(MessageQueue, isSent: Bool, milliseconds: Double)
        /// The first message, which opened the connection, does not count.
        case mean(milliseconds: Double)
    }

    func ask(_ client: AdminClient, _ show: (Part) -> Void) async throws {
        let queues = try await client.writableQueues(of: topic.name)
        show(.begin)
        var times: [Double] = []
        var failures = 0
        for turn in 0..<amount {
            let queue = queues[turn % queues.count]
            let message = Message(topic: topic.name, body: [UInt8](repeating: 0x61, count: size))
            let start = ContinuousClock.now
            let isSent = (try? await client.send(message, selector: .queue(queue))) != nil
            let milliseconds = start.duration(to: .now).seconds * 1000
            if !isSent { failures += 1 }
            show(.message(queue, isSent: isSent, milliseconds: milliseconds))
            if turn > 0 { times.append(milliseconds) }
        }
        show(.mean(milliseconds: times.isEmpty ? 0 : times.reduce(0, +) / Double(times.count)))
        if failures > 0 { throw ExitCode(1) }
    }

    func lines(_ part: Part) -> [String] {
        let columns = Columns("%-32s  %-4s  %-20s    %s")
        return switch part {
        case .begin: [columns.line("#Broker Name", "#QID", "#Send Result", "#RT")]
        case .message(let queue, let isSent, let milliseconds):
            [columns.line(queue.brokerName, String(queue.queueID), String(isSent), fixed(milliseconds, 0))]
        case .mean(let milliseconds): ["Avg RT: \(fixed(milliseconds, 2))"]
        }
    }

    func json(_ part: Part) -> [JSONValue] {
        switch part {
        case .begin: []
        case .message(let queue, let isSent, let milliseconds):
            [queue.json(with: [("sent", .bool(isSent)), ("milliseconds", .number(milliseconds))])]
        case .mean(let milliseconds): [.fields([("meanMilliseconds", .number(milliseconds))])]
        }
    }
}

struct SendMsgStatus: StreamingCommand {
    static let configuration = CommandConfiguration(
        commandName: "sendMsgStatus", abstract: "Send messages to a broker's own topic and show how long each took.",
        discussion: AdminOutput.help("a line for each message: \(SendResult.jsonKeys), milliseconds."))

    @OptionGroup var server: NameServerOption
    @OptionGroup var output: AdminOutput
    @Option(name: [.customShort("b"), .customLong("brokerName")], parsing: .unconditional, help: "Broker name.")
    var broker: String
    @Option(name: [.customShort("s"), .customLong("messageSize")], parsing: .unconditional, help: "Bytes of a body.")
    var size = 128
    @Option(name: [.customShort("c"), .customLong("count")], parsing: .unconditional, help: "Messages.") var count = 50

    struct Part {
        let result: SendResult
        let milliseconds: Double
    }

    func ask(_ client: AdminClient, _ show: (Part) -> Void) async throws {
        let message = Message(topic: broker, body: [UInt8](repeating: 0x61, count: max(0, size)))
        _ = try await client.send(message)
        for _ in 0..<max(0, count) {
            let start = ContinuousClock.now
            let result = try await client.send(message)
            show(Part(result: result, milliseconds: start.duration(to: .now).seconds * 1000))
        }
    }

    func lines(_ part: Part) -> [String] {
        ["rt=\(fixed(part.milliseconds, 0))ms, SendResult=\(part.result.javaText)"]
    }

    func json(_ part: Part) -> [JSONValue] {
        var members = part.result.json.object?.members ?? []
        members.append(JSONObject.Member(key: "milliseconds", value: .number(part.milliseconds)))
        return [.object(JSONObject(members: members))]
    }
}

struct ClusterRT: StreamingCommand {
    static let configuration = CommandConfiguration(
        commandName: "clusterRT",
        abstract: "Send messages to every broker again and again and show how long they took.",
        discussion: AdminOutput.help(
            "a line for each broker and round: cluster, brokerName, time, meanMilliseconds, successCount, failCount."))

    @OptionGroup var server: NameServerOption
    @OptionGroup var output: AdminOutput
    @Option(
        name: [.customShort("a"), .customLong("amount")], parsing: .unconditional, help: "Messages a broker and round.")
    var amount = 100
    @Option(name: [.customShort("s"), .customLong("size")], parsing: .unconditional, help: "Bytes of a body.")
    var size = 128
    @Option(name: [.customShort("c"), .customLong("cluster")], parsing: .unconditional, help: "This cluster only.")
    var cluster: String?
    @Option(
        name: [.customShort("p"), .customLong("print")], parsing: .unconditional,
        help: "Bars between columns (true or false).") var log =
        false
    @Option(
        name: [.customShort("m"), .customLong("machine")], parsing: .unconditional,
        help: "With -p: a name in every line.")
    var machine = "noname"
    @Option(
        name: [.customShort("i"), .customLong("interval")], parsing: .unconditional, help: "Seconds between rounds.")
    var interval = 10

    func validate() throws {
        guard amount > 0, size >= 0, interval > 0 else { throw ValidationError("-a and -i must be above 0") }
    }

    enum Part {
        case begin
        /// - Parameters:
        ///   - mean: milliseconds, the first message apart.
        ///   - time: milliseconds since 1970.
        case round(cluster: String, broker: String, mean: Double, failures: Int, time: Int64)
    }

    func ask(_ client: AdminClient, _ show: (Part) -> Void) async throws {
        show(.begin)
        let clusters = try await client.clusters().clusters
        if let cluster, clusters[cluster] == nil { throw CommandFailure("there is no cluster '\(cluster)'") }
        while true {
            for (name, brokers) in clusters.sorted(by: { $0.key < $1.key }) where cluster.map({ $0 == name }) ?? true {
                for broker in brokers.map(\.name) {
                    let (mean, failures) = await round(broker, client)
                    show(
                        .round(
                            cluster: name, broker: broker, mean: mean, failures: failures,
                            time: WallClock.milliseconds))
                }
            }
            try await Task.sleep(for: .seconds(interval))
        }
    }

    /// Mean milliseconds, the first message apart, and the count of failures.
    private func round(_ broker: String, _ client: AdminClient) async -> (Double, Int) {
        var (total, failures) = (0.0, 0)
        let message = Message(topic: broker, body: [UInt8](repeating: 0x61, count: size))
        for turn in 0..<amount {
            let start = ContinuousClock.now
            if (try? await client.send(message)) == nil { failures += 1 }
            if turn > 0 { total += start.duration(to: .now).seconds * 1000 }
        }
        return (amount > 1 ? total / Double(amount - 1) : 0, failures)
    }

    func lines(_ part: Part) -> [String] {
        let columns = Columns("%-24s  %-24s  %-8s  %-16s  %-16s")
        switch part {
        case .begin:
            return log ? [] : [columns.line("#Cluster Name", "#Broker Name", "#RT", "#successCount", "#failCount")]
        case .round(let cluster, let broker, let mean, let failures, let time):
            if log { return ["\(AdminTime.seconds(time))|\(machine)|\(cluster)|\(broker)|\(fixed(mean, 0))"] }
            return [columns.line(cluster, broker, fixed(mean, 2), String(amount - failures), String(failures))]
        }
    }

    func json(_ part: Part) -> [JSONValue] {
        guard case .round(let cluster, let broker, let mean, let failures, let time) = part else { return [] }
        return [
            .fields([
                ("cluster", .string(cluster)), ("brokerName", .string(broker)), ("time", .integer(time)),
                ("meanMilliseconds", .number(mean)), ("successCount", .integer(amount - failures)),
                ("failCount", .integer(failures)),
            ])
        ]
    }
}
