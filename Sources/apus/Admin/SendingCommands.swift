import ArgumentParser
import RemotingProtocol

struct SendMessage: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "sendMessage", abstract: "Send one message.")

    @OptionGroup var server: NameServerOption
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
        help: "Taken for RocketMQ's sake; no trace is written (true or false).")
    var trace = false

    func validate() throws {
        guard queue == nil || broker != nil else { throw ValidationError("-i needs the broker: -b NAME") }
    }

    func execute(_ session: AdminSession) async throws {
        var properties: [String: String] = [:]
        properties["KEYS"] = key
        properties["TAGS"] = tag
        let sent = try await session.send(
            topic: topic.name, broker: broker, queue: queue, body: Array(body.utf8), properties: properties)
        let columns = Columns("%-32s  %-4s  %-20s    %s")
        columns.show("#Broker Name", "#QID", "#Send Result", "#MsgId")
        columns.show(sent.queue.brokerName, String(sent.queue.queueId), sent.status, sent.id)
    }
}

struct CheckMsgSendRT: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "checkMsgSendRT",
        abstract: "Send messages to a topic, queue after queue, and show how long each took.")

    @OptionGroup var server: NameServerOption
    @OptionGroup var topic: TopicOption
    @Option(name: [.customShort("a"), .customLong("amount")], parsing: .unconditional, help: "Messages.") var amount =
        100
    @Option(name: [.customShort("s"), .customLong("size")], parsing: .unconditional, help: "Bytes of a body.")
    var size = 128

    func validate() throws {
        guard amount > 0, size >= 0 else { throw ValidationError("-a must be above 0 and -s not below") }
    }

    func execute(_ session: AdminSession) async throws {
        let queues = try await session.writable(topic.name)
        let columns = Columns("%-32s  %-4s  %-20s    %s")
        columns.show("#Broker Name", "#QID", "#Send Result", "#RT")
        var times: [Double] = []
        var failures = 0
        for turn in 0..<amount {
            let queue = queues[turn % queues.count]
            let start = ContinuousClock.now
            var isSent = true
            do {
                _ = try await session.send(
                    topic: topic.name, broker: queue.brokerName, queue: queue.queueId,
                    body: [UInt8](repeating: 0x61, count: size), properties: [:])
            } catch {
                isSent = false
                failures += 1
            }
            let milliseconds = start.duration(to: .now).seconds * 1000
            columns.show(queue.brokerName, String(queue.queueId), String(isSent), fixed(milliseconds, 0))
            // The first one opened the connection.
            if turn > 0 { times.append(milliseconds) }
        }
        print("Avg RT: \(fixed(times.isEmpty ? 0 : times.reduce(0, +) / Double(times.count), 2))")
        if failures > 0 { throw ExitCode(1) }
    }
}

struct SendMsgStatus: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "sendMsgStatus", abstract: "Send messages to a broker's own topic and show how long each took.")

    @OptionGroup var server: NameServerOption
    @Option(name: [.customShort("b"), .customLong("brokerName")], parsing: .unconditional, help: "Broker name.")
    var broker: String
    @Option(name: [.customShort("s"), .customLong("messageSize")], parsing: .unconditional, help: "Bytes of a body.")
    var size = 128
    @Option(name: [.customShort("c"), .customLong("count")], parsing: .unconditional, help: "Messages.") var count = 50

    func execute(_ session: AdminSession) async throws {
        let body = [UInt8](repeating: 0x61, count: max(0, size))
        _ = try await session.send(topic: broker, body: body, properties: [:])
        for _ in 0..<max(0, count) {
            let start = ContinuousClock.now
            let sent = try await session.send(topic: broker, body: body, properties: [:])
            print("rt=\(fixed(start.duration(to: .now).seconds * 1000, 0))ms, SendResult=\(sent.javaText)")
        }
    }
}

struct ClusterRT: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "clusterRT", abstract: "Send messages to every broker again and again and show how long they took."
    )

    @OptionGroup var server: NameServerOption
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
        help: "With -p: a word in every line.")
    var machine = "noname"
    @Option(
        name: [.customShort("i"), .customLong("interval")], parsing: .unconditional, help: "Seconds between rounds.")
    var interval = 10

    func validate() throws {
        guard amount > 0, size >= 0, interval > 0 else { throw ValidationError("-a and -i must be above 0") }
    }

    func execute(_ session: AdminSession) async throws {
        let columns = Columns("%-24s  %-24s  %-8s  %-16s  %-16s")
        if !log { columns.show("#Cluster Name", "#Broker Name", "#RT", "#successCount", "#failCount") }
        let info = try await session.clusterInfo()
        if let cluster, info.clusterAddrTable[cluster] == nil {
            throw CommandFailure("there is no cluster '\(cluster)'")
        }
        while true {
            for (name, brokers) in info.clusterAddrTable.sorted(by: { $0.key < $1.key })
            where cluster.map({ $0 == name }) ?? true {
                for broker in brokers.sorted() {
                    let (mean, failures) = await round(broker, session)
                    if log {
                        let time = AdminTime.seconds(Clock.milliseconds)
                        print("\(time)|\(machine)|\(name)|\(broker)|\(fixed(mean, 0))")
                    } else {
                        columns.show(name, broker, fixed(mean, 2), String(amount - failures), String(failures))
                    }
                }
            }
            try await Task.sleep(for: .seconds(interval))
        }
    }

    /// Mean milliseconds, the first message apart, and the count of failures.
    private func round(_ broker: String, _ session: AdminSession) async -> (Double, Int) {
        var (sum, failures) = (0.0, 0)
        for turn in 0..<amount {
            let start = ContinuousClock.now
            do {
                _ = try await session.send(
                    topic: broker, body: [UInt8](repeating: 0x61, count: size), properties: [:])
            } catch {
                failures += 1
            }
            if turn > 0 { sum += start.duration(to: .now).seconds * 1000 }
        }
        return (amount > 1 ? sum / Double(amount - 1) : 0, failures)
    }
}

/// A message that was taken.
struct Sent {
    let queue: MessageQueue
    /// In RocketMQ's words (`SendStatus`).
    let status: String
    /// The id the client made.
    let id: String
    let offsetId: String
    let offset: String

    var javaText: String {
        "SendResult [sendStatus=\(status), msgId=\(id), offsetMsgId=\(offsetId), messageQueue=\(queue.javaText), "
            + "queueOffset=\(offset)]"
    }
}

extension AdminSession {
    private static let templateTopic = "TBW102"
    private static let keys = UniqueKeys()

    /// The writable queues of a topic; for one that does not exist yet those it will get.
    func writable(_ topic: String) async throws -> [MessageQueue] {
        if let route = try await cluster.route(of: topic) {
            guard !route.writable.isEmpty else { throw CommandFailure("topic '\(topic)' has no writable queue") }
            return route.writable
        }
        guard let template = try await cluster.route(of: Self.templateTopic), !template.writable.isEmpty else {
            throw CommandFailure("topic '\(topic)' does not exist, and the brokers do not create topics by themselves")
        }
        return template.writable.filter { $0.queueId < 4 }
            .map { MessageQueue(topic: topic, brokerName: $0.brokerName, queueId: $0.queueId) }
    }

    /// Sends one message, once.
    func send(
        topic: String, broker: String? = nil, queue: Int? = nil, body: [UInt8], properties: [String: String]
    ) async throws -> Sent {
        let candidates = try await writable(topic).filter {
            (broker == nil || $0.brokerName == broker) && (queue == nil || $0.queueId == queue)
        }
        guard let chosen = candidates.randomElement() else {
            throw CommandFailure("topic '\(topic)' has no such writable queue")
        }
        var address = try await cluster.route(of: topic)?.masters[chosen.brokerName]
        if address == nil { address = try await cluster.route(of: Self.templateTopic)?.masters[chosen.brokerName] }
        guard let address else { throw CommandFailure("broker \(chosen.brokerName) has no master at present") }
        var all = properties
        let id = Self.keys.next()
        all["UNIQ_KEY"] = id
        all["WAIT"] = "true"
        let text = all.map { "\($0.key)\u{1}\($0.value)" }.joined(separator: "\u{2}")
        let reply = try await ask(
            address, .sendMessageV2,
            [
                "a": Self.toolsGroup, "b": topic, "c": Self.templateTopic, "d": "4", "e": String(chosen.queueId),
                "f": "0", "g": String(Clock.milliseconds), "h": "0", "i": text, "j": "0", "k": "false", "m": "false",
                "n": chosen.brokerName,
            ], body: body)
        let status =
            switch reply.responseCode {
            case .success: "SEND_OK"
            case .flushDiskTimeout: "FLUSH_DISK_TIMEOUT"
            case .flushSlaveTimeout: "FLUSH_SLAVE_TIMEOUT"
            case .slaveNotAvailable: "SLAVE_NOT_AVAILABLE"
            default: throw Refusal(address: address, reply: reply)
            }
        return Sent(
            queue: chosen, status: status, id: id, offsetId: reply.extFields["msgId"] ?? "",
            offset: reply.extFields["queueOffset"] ?? "")
    }
}
