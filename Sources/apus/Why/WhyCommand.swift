import ArgumentParser
import FastJSON
import LinuxSystem
import RocketMQClient

/// `apus why --group G [--topic T]`: why a consumer group does not get the messages its owner expects.
struct WhyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "why", abstract: "Say why a consumer group gets nothing, or not everything.",
        discussion: """
            Looks at the group's clients, the topic's route and permissions, the owner of each queue, the offsets, \
            and at what the group's subscription chooses of the newest messages in the log; at retries and dead \
            letters. For each cause it names the command to type next. It reads only.

              apus why --group orders-billing
              apus why --group orders-billing --topic orders --json

            Ends with 0 when it could ask, whatever it found.
            """)

    @OptionGroup var server: ServerOption
    @Option(
        name: .shortAndLong, parsing: .unconditional, help: ArgumentHelp("The consumer group.", valueName: "NAME"),
        completion: Completions.group)
    var group: String
    @Option(
        name: .shortAndLong, parsing: .unconditional,
        help: ArgumentHelp("One topic (default: those the group subscribes to).", valueName: "NAME"),
        completion: Completions.topic)
    var topic: String?
    @Option(help: ArgumentHelp("How many of a topic's newest messages to look at.", valueName: "N"))
    var sample = 256
    @Flag(help: "As a JSON object: findings and facts.")
    var json = false

    func validate() throws {
        guard !group.isEmpty else { throw ValidationError("--group is empty") }
        guard (1...100_000).contains(sample) else { throw ValidationError("--sample must be 1 to 100000") }
    }

    func run() async throws {
        try await AdminClient.using(server.addresses) { client in
            let facts = try await WhyInquiry(client: client, group: group, topic: topic, sampleSize: sample).ask()
            let diagnosis = WhyDiagnosis(facts)
            print(json ? Self.json(diagnosis).text() : Self.lines(diagnosis).joined(separator: "\n"))
        }
    }

    static func json(_ diagnosis: WhyDiagnosis) -> JSONValue {
        .fields([("findings", .array(diagnosis.findings.map(\.json))), ("facts", diagnosis.facts.json)])
    }

    /// Each fit for a terminal: names in them are what clients send, and could break off a line to begin another.
    static func lines(_ diagnosis: WhyDiagnosis) -> [String] {
        plainLines(diagnosis).map { PlainText.escaped($0) }
    }

    private static func plainLines(_ diagnosis: WhyDiagnosis) -> [String] {
        let facts = diagnosis.facts
        var lines: [String] = []
        let causes = diagnosis.findings.filter { $0.weight == .cause }
        if causes.isEmpty {
            lines.append("nothing keeps messages from group \(facts.group)")
        } else {
            lines.append("group \(facts.group):")
        }
        for finding in diagnosis.findings {
            lines.append((finding.weight == .cause ? "  ! " : "  - ") + finding.text)
            if let command = finding.command { lines.append("      → \(command)") }
        }
        lines.append("")
        lines.append(
            "clients \(facts.members.count), \(facts.isBroadcast ? "broadcast" : "clustering"), retries "
                + "\(facts.retries), dead letters \(facts.deadLetters)")
        for topic in facts.topics {
            lines += Self.queues(topic, facts)
            for sample in topic.samples where sample.failure == nil {
                lines.append(
                    "  \(sample.wanted.isTag ? "TAG" : sample.wanted.type) '\(sample.wanted.expression)': "
                        + "\(sample.matched) of the last \(sample.looked) messages")
            }
        }
        return lines
    }

    private static func queues(_ topic: WhyFacts.Topic, _ facts: WhyFacts) -> [String] {
        guard !topic.queues.isEmpty else { return ["topic \(topic.name): no queue to read"] }
        let columns = Columns("  %-24s %4s %14s %14s %10s  %s")
        var lines = ["topic \(topic.name):", columns.line("broker", "qid", "end", "group is at", "lag", "owner")]
        for queue in topic.queues {
            let owners = facts.members.filter { $0.queues.contains(queue.queue) }.map(\.id)
            lines.append(
                columns.line(
                    queue.queue.brokerName, String(queue.queue.queueID), String(queue.end), String(queue.consumed),
                    String(queue.waiting),
                    owners.isEmpty ? "-" : owners.joined(separator: " ")))
        }
        return lines
    }
}
