import ArgumentParser
import FastJSON
import RocketMQClient

struct ConsumerStatus: ShowingCommand {
    static let configuration = CommandConfiguration(
        commandName: "consumerStatus", abstract: "Show what consumers report of themselves: queues, offsets, rates.",
        discussion: AdminOutput.help(
            """
            with -i the consumer's own report: properties, subscriptionSet, mqTable, statusTable, jstack. Without -i a \
            list of clientId, version, queues (how many), subscriptions (a list of topic, expression), failure.
            """,
            after: """
                Without -i one line for each consumer of the group, and whether they subscribe to the same. Consumers \
                of RocketMQ's Java, C++ and Go clients, of RocketMQClient for Swift and `apus consume` answer.
                """))

    @OptionGroup var server: NameServerOption
    @OptionGroup var output: AdminOutput
    @OptionGroup var group: GroupOption
    @Option(
        name: [.customShort("i"), .customLong("clientId")], parsing: .unconditional,
        help: ArgumentHelp("One consumer in full.", valueName: "ID"))
    var client: String?
    @Option(
        name: [.customShort("b"), .customLong("brokerAddr")], parsing: .unconditional,
        help: ArgumentHelp("Ask this broker.", valueName: "HOST:PORT"))
    var broker: String?
    @Flag(name: [.customShort("s"), .customLong("jstack")], help: "With -i: the stacks of its threads, too.")
    var jstack = false

    enum Value {
        case one(ConsumerReport)
        case all([Member])
    }

    struct Member {
        let client: ClientConnection
        let report: Result<ConsumerReport, RocketMQClientError>
    }

    func ask(_ admin: AdminClient) async throws -> Value {
        if let client { return .one(try await admin.report(of: client, group: group.name, stacks: jstack)) }
        var members: [Member] = []
        for client in try await admin.consumers(of: group.name, at: broker).clients {
            do throws(RocketMQClientError) {
                let report = try await admin.report(of: client.clientID, group: group.name)
                members.append(Member(client: client, report: .success(report)))
            } catch {
                members.append(Member(client: client, report: .failure(error)))
            }
        }
        return .all(members)
    }

    func lines(_ value: Value) -> [String] {
        switch value {
        case .one(let report): [Self.text(report.json)]
        case .all(let members): Self.lines(members)
        }
    }

    private static func lines(_ members: [Member]) -> [String] {
        let columns = Columns("%-10s %-40s %-20s %s")
        var lines = [columns.line("#Index", "#ClientId", "#Version", "#ConsumerRunningInfo")]
        var subscriptions: Set<[String]> = []
        for (index, member) in members.enumerated() {
            let note: String
            switch member.report {
            case .success(let report):
                let count = report.queues.count
                note = "\(count) queue\(count == 1 ? "" : "s")"
                subscriptions.insert(report.subscriptions.map { "\($0.topic) \($0.expression)" }.sorted())
            case .failure(let error): note = error.description
            }
            lines.append(
                columns.line(
                    String(index + 1), member.client.clientID, versionName(member.client.version), note))
        }
        guard !subscriptions.isEmpty else { return lines }
        return lines + [
            subscriptions.count == 1
                ? "\nSame subscription in the same group of consumer"
                : "\nWARN: Different subscription in the same group of consumer!!!"
        ]
    }

    func json(_ value: Value) -> JSONValue {
        guard case .all(let members) = value else {
            if case .one(let report) = value { return report.json }
            return .null
        }
        return .array(
            members.map { member in
                let report = try? member.report.get()
                var failure: String?
                if case .failure(let error) = member.report { failure = error.description }
                return .fields([
                    ("clientId", .string(member.client.clientID)),
                    ("version", .string(versionName(member.client.version))),
                    ("queues", report.map { .integer($0.queues.count) }),
                    (
                        "subscriptions",
                        report.map { report in
                            .array(
                                report.subscriptions.map {
                                    .fields([
                                        ("topic", .string($0.topic)), ("expression", .string($0.expression)),
                                    ])
                                })
                        }
                    ), ("failure", failure.map { .string($0) }),
                ])
            })
    }

    /// The parts in RocketMQ's order and under its headings.
    static func text(_ info: JSONValue) -> String {
        var lines = ["#Consumer Properties#"]
        let properties = Columns("%-40s: %s")
        for member in info["properties"]?.object?.members.sorted(by: { $0.key < $1.key }) ?? [] {
            lines.append(properties.line(member.key, member.value.string ?? member.value.text()))
        }
        lines += ["", "", "#Consumer Subscription#"]
        let subscriptions = Columns("%s Topic: %-40s ClassFilter: %-8s SubExpression: %s")
        for (index, entry) in (info["subscriptionSet"]?.array ?? []).enumerated() {
            lines.append(
                subscriptions.line(
                    String(String(1000 + index + 1).dropFirst()), entry["topic"]?.string ?? "",
                    entry["classFilterMode"]?.string ?? "false", entry["subString"]?.string ?? ""))
        }
        let queues = (info["mqTable"]?.object?.members ?? [])
            .compactMap { member in MessageQueue(key: member.key).map { ($0, member.value) } }
            .sorted { $0.0 < $1.0 }
        let queueColumns = Columns("%-64s  %-32s  %-4s  %-20s")
        lines += ["", "", "#Consumer Offset#"]
        lines.append(queueColumns.line("#Topic", "#Broker Name", "#QID", "#Consumer Offset"))
        for (queue, state) in queues {
            lines.append(
                queueColumns.line(
                    queue.topic, queue.brokerName, String(queue.queueID), state["commitOffset"]?.string ?? ""))
        }
        lines += ["", "", "#Consumer MQ Detail#"]
        lines.append(queueColumns.line("#Topic", "#Broker Name", "#QID", "#ProcessQueueInfo"))
        for (queue, state) in queues {
            let members = (state.object?.members ?? []).map { "\($0.key)=\($0.value.string ?? $0.value.text())" }
            lines.append(
                queueColumns.line(
                    queue.topic, queue.brokerName, String(queue.queueID),
                    "ProcessQueueInfo [\(members.joined(separator: ", "))]"))
        }
        lines += ["", "", "#Consumer RT&TPS#"]
        let rates = Columns("%-64s  %14s %14s %14s %14s %18s %25s")
        lines.append(
            rates.line(
                "#Topic", "#Pull RT", "#Pull TPS", "#Consume RT", "#ConsumeOK TPS", "#ConsumeFailed TPS",
                "#ConsumeFailedMsgsInHour"))
        for member in info["statusTable"]?.object?.members.sorted(by: { $0.key < $1.key }) ?? [] {
            func rate(_ key: String) -> String { fixed(member.value[key]?.double ?? 0, 2) }
            lines.append(
                rates.line(
                    member.key, rate("pullRT"), rate("pullTPS"), rate("consumeRT"), rate("consumeOKTPS"),
                    rate("consumeFailedTPS"), String(member.value["consumeFailedMsgs"]?.integer ?? 0)))
        }
        if let stacks = info["jstack"]?.string { lines += ["", "", "#Consumer jstack#", stacks] }
        return lines.joined(separator: "\n")
    }
}
