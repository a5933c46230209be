import ArgumentParser
import FastJSON

struct ConsumerStatus: AdminCommand {
    static let configuration = CommandConfiguration(
        commandName: "consumerStatus", abstract: "Show what consumers tell of themselves: queues, offsets, rates.",
        discussion: """
            Without -i one line for each consumer of the group, and whether they subscribe to the same. Consumers of \
            RocketMQ's Java, C++ and Go clients and `apus consume` answer.
            """)

    @OptionGroup var server: NameServerOption
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

    func execute(_ session: AdminSession) async throws {
        if let client {
            print(Self.words(try await session.runningInfo(group.name, client, stacks: jstack)))
            return
        }
        let clients = try await session.consumers(of: group.name, broker: broker).clients
        let columns = Columns("%-10s %-40s %-20s %s")
        columns.show("#Index", "#ClientId", "#Version", "#ConsumerRunningInfo")
        var subscriptions: Set<String> = []
        var answered = 0
        for (index, client) in clients.enumerated() {
            var note: String
            do {
                let info = try await session.runningInfo(group.name, client.id)
                let queues = info["mqTable"]?.object?.members.count ?? 0
                note = "\(queues) queue\(queues == 1 ? "" : "s")"
                let set = info["subscriptionSet"]?.array ?? []
                subscriptions.insert(
                    set.map { "\($0["topic"]?.string ?? "") \($0["subString"]?.string ?? "")" }.sorted()
                        .joined(separator: "\n"))
                answered += 1
            } catch {
                note = "\(error)"
            }
            columns.show(String(index + 1), client.id, versionName(client.version), note)
        }
        guard answered > 0 else { return }
        print(
            subscriptions.count == 1
                ? "\nSame subscription in the same group of consumer"
                : "\nWARN: Different subscription in the same group of consumer!!!")
    }

    /// The parts in RocketMQ's order and under its headings.
    static func words(_ info: JSONValue) -> String {
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
                    queue.topic, queue.brokerName, String(queue.queueId), state["commitOffset"]?.string ?? ""))
        }
        lines += ["", "", "#Consumer MQ Detail#"]
        lines.append(queueColumns.line("#Topic", "#Broker Name", "#QID", "#ProcessQueueInfo"))
        for (queue, state) in queues {
            let members = (state.object?.members ?? []).map { "\($0.key)=\($0.value.string ?? $0.value.text())" }
            lines.append(
                queueColumns.line(
                    queue.topic, queue.brokerName, String(queue.queueId),
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
