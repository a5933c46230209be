import MessageModel
import RocketMQClient
import SettingTable
import Supervision

/// What the facts mean: pure, so that each cause has a test without servers. Causes stand in the order in which a
/// person would have to remove them.
struct WhyDiagnosis {
    /// Of topics, tags and properties for which a near name is looked for.
    private static let nameBytesMax = 255
    let facts: WhyFacts
    private(set) var findings: [WhyFinding] = []

    init(_ facts: WhyFacts) {
        self.facts = facts
        judgeBrokers()
        judgeMembers()
        for topic in facts.topics { judge(topic) }
        judgeRetries()
        findings = findings.filter { $0.weight == .cause } + findings.filter { $0.weight == .note }
    }

    var hasCause: Bool { findings.contains { $0.weight == .cause } }

    private mutating func cause(_ text: String, _ command: ShellCommand? = nil) {
        findings.append(WhyFinding(weight: .cause, text: text, command: command?.text))
    }

    private mutating func note(_ text: String, _ command: ShellCommand? = nil) {
        findings.append(WhyFinding(weight: .note, text: text, command: command?.text))
    }

    // MARK: - Brokers and members

    private mutating func judgeBrokers() {
        let group = facts.group
        for broker in facts.brokers {
            if let reason = broker.unreachable {
                cause("broker \(broker.name) at \(broker.address) does not answer: \(reason)", "apus status")
                continue
            }
            if let config = broker.config {
                if !config.consumeEnable {
                    cause(
                        "broker \(broker.name) gives the group nothing: its consumeEnable is false",
                        "apus admin updateSubGroup -b \(broker.address) -g \(group) -s true")
                }
                if facts.isBroadcast, !config.consumeBroadcastEnable {
                    cause(
                        """
                        the group consumes in broadcast, which broker \(broker.name) does not allow it \
                        (consumeBroadcastEnable is false)
                        """,
                        "apus admin updateSubGroup -b \(broker.address) -g \(group) -d true")
                }
            } else if !facts.members.isEmpty {
                note(
                    """
                    broker \(broker.name) has no consumer group '\(group)'; without autoCreateSubscriptionGroup it \
                    refuses its pulls
                    """,
                    "apus admin updateSubGroup -b \(broker.address) -g \(group)")
            } else {
                note("broker \(broker.name) has no consumer group '\(group)': it has never consumed there")
            }
            if let inconsistency = broker.inconsistency {
                cause(
                    "clients of the group subscribe to different things on broker \(broker.name): \(inconsistency)",
                    "apus admin consumerStatus -g \(group)")
            }
        }
    }

    private mutating func judgeMembers() {
        let group = facts.group
        if facts.members.isEmpty {
            let topic = facts.topics.first?.name
            cause(
                "no consumer of the group is connected to a broker of \(facts.nameServers)",
                "apus consume --topic \(topic ?? "TOPIC") --group \(group)")
            return
        }
        for member in facts.members where member.failedPerHour > 0 {
            note(
                """
                client \(member.id) could not process \(member.failedPerHour) messages within the last hour; they come \
                again later
                """,
                "apus admin consumerStatus -g \(group) -i \(member.id)")
        }
    }

    private mutating func judgeRetries() {
        let group = facts.group
        let deadLetters = TopicName.deadLetterPrefix + group
        if facts.retries > 0 {
            note(
                "\(facts.retries) messages wait to be delivered to the group again (\(TopicName.retryPrefix + group))",
                "apus admin consumerProgress -g \(group)")
        }
        if facts.deadLetters > 0 {
            note(
                "\(facts.deadLetters) messages were given up after too many tries (\(deadLetters))",
                "apus admin printMsg -t \(deadLetters)")
        }
    }

    // MARK: - Topics

    private mutating func judge(_ topic: WhyFacts.Topic) {
        guard let permissions = topic.permissions else {
            return cause(
                "no broker has a topic '\(topic.name)'", "apus admin updateTopic -c DefaultCluster -t \(topic.name)")
        }
        let forbidden = permissions.filter { $0.value & 4 == 0 }.keys.sorted()
        for name in forbidden {
            let address = facts.brokers.first { $0.name == name }?.address ?? "BROKER"
            cause(
                "topic \(topic.name) may not be read on broker \(name) (permission \(permissions[name] ?? 0))",
                "apus admin updateTopicPerm -b \(address) -t \(topic.name) -p 6")
        }
        if !topic.isSubscribed, !facts.members.isEmpty {
            let others = facts.wanted.map(\.topic).filter { !$0.hasPrefix(TopicName.retryPrefix) }
            let meant =
                Spelling.nearest(to: topic.name, among: others, bytesMax: Self.nameBytesMax).map { "; is \($0) meant?" }
                ?? ""
            cause(
                "no client of the group subscribes to \(topic.name); they subscribe to "
                    + "\(others.isEmpty ? "nothing" : Set(others).sorted().joined(separator: ", "))\(meant)",
                "apus admin consumerConnection -g \(facts.group)")
        }
        judgeOwners(topic)
        judgeOffsets(topic)
        for sample in topic.samples { judge(sample, topic) }
        if topic.queues.allSatisfy({ $0.end == $0.minimum }), forbidden.isEmpty {
            cause("topic \(topic.name) holds no message", "echo hello | apus send --topic \(topic.name)")
        }
    }

    private mutating func judgeOwners(_ topic: WhyFacts.Topic) {
        guard topic.isSubscribed, !facts.isBroadcast, !facts.members.isEmpty else { return }
        let silent = facts.members.filter { !$0.hasAnswered }
        guard silent.isEmpty else {
            return note(
                "\(silent.count) of \(facts.members.count) clients do not say which queues they have "
                    + "(\(silent.map(\.id).joined(separator: ", ")))")
        }
        let lost = topic.queues.map(\.queue).filter { queue in !facts.members.contains { $0.queues.contains(queue) } }
        if !lost.isEmpty {
            cause(
                "\(lost.count) of \(topic.queues.count) queues of \(topic.name) belong to no client: "
                    + "\(lost.map { "\($0.brokerName)/\($0.queueID)" }.joined(separator: ", ")); "
                    + "clients divide them anew every 20 s, so look again",
                """
                apus admin allocateMQ -t \(topic.name) -i \
                \(facts.members.map { String($0.id.prefix { $0 != "@" }) }.joined(separator: ","))
                """
            )
        }
        let twice = topic.queues.map(\.queue).filter { queue in
            facts.members.filter { $0.queues.contains(queue) }.count > 1
        }
        if !twice.isEmpty {
            note(
                """
                \(twice.count) queues of \(topic.name) are claimed by several clients; one of them waits for the \
                others: 
                """
                    + twice.map { "\($0.brokerName)/\($0.queueID)" }.joined(separator: ", "))
        }
        let idle = facts.members.filter { member in !member.queues.contains { $0.topic == topic.name } }
        if !idle.isEmpty, topic.queues.count < facts.members.count {
            note(
                """
                \(idle.count) of \(facts.members.count) clients have no queue of \(topic.name): it has only \
                \(topic.queues.count)
                """,
                """
                apus admin updateTopic -c DefaultCluster -t \(topic.name) -r \(facts.members.count) -w \
                \(facts.members.count)
                """
            )
        }
    }

    private mutating func judgeOffsets(_ topic: WhyFacts.Topic) {
        guard !facts.isBroadcast else { return }
        let group = facts.group
        let beyond = topic.queues.filter { $0.consumed > $0.end }
        if !beyond.isEmpty {
            cause(
                """
                the group's offset is beyond the end of \(beyond.count) queues of \(topic.name): it waits for messages \
                that do not exist yet
                """,
                "apus admin resetOffsetByTime -g \(group) -t \(topic.name) -s now")
        }
        let gone = topic.queues.reduce(Int64(0)) { $0 +| max(0, $1.consumed > 0 ? $1.minimum -| $1.consumed : 0) }
        if gone > 0 {
            note("\(gone) messages of \(topic.name) were deleted (fileReservedTime) before the group had them")
        }
        let waiting = topic.queues.reduce(Int64(0)) { $0 +| $1.waiting }
        let hasOffset = topic.queues.contains { $0.consumed > 0 }
        if !hasOffset, waiting > 0, facts.consumeFromWhere == "CONSUME_FROM_LAST_OFFSET" {
            note(
                "the group has no offset in \(topic.name) yet; a new group begins at the end "
                    + "(CONSUME_FROM_LAST_OFFSET), so that the \(waiting) messages there now are not for it",
                "apus admin resetOffsetByTime -g \(group) -t \(topic.name) -s 0")
        } else if waiting > 0, topic.isSubscribed, !facts.members.isEmpty {
            let held = facts.members.reduce(Int64(0)) { $0 +| $1.cached }
            note(
                "\(waiting) messages of \(topic.name) wait for the group"
                    + (held > 0
                        ? "; its clients hold \(held) they have not finished: they are slow, or stand still" : ""),
                held > 0
                    ? "apus admin consumerStatus -g \(group) -i \(facts.members.first?.id ?? "") -s"
                    : "apus admin consumerProgress -g \(group)")
        }
    }

    private mutating func judge(_ sample: WhyFacts.Sample, _ topic: WhyFacts.Topic) {
        let name = "\(sample.wanted.isTag ? "tags" : sample.wanted.type) '\(sample.wanted.expression)'"
        if let failure = sample.failure {
            return cause(
                "the broker cannot apply the filter \(name) of \(topic.name): \(failure)",
                "apus plugin list; apus status")
        }
        guard sample.looked > 0, !sample.wanted.isAll, sample.matched < sample.looked else { return }
        let rest = sample.looked - sample.matched
        let skipped =
            sample.skipped > 0 ? "; \(sample.skipped) of them lie before the group's offset: it will not get them" : ""
        let seen = Self.list(sample.seen)
        let text: String
        if sample.wanted.isTag {
            let tags = Subscription(topic: topic.name, tags: sample.wanted.expression).tags ?? []
            let hints = tags.filter { sample.seen[$0] == nil }.sorted().compactMap { tag in
                Spelling.nearest(to: tag, among: sample.seen.keys, bytesMax: Self.nameBytesMax).map {
                    "is \($0) meant instead of \(tag)?"
                }
            }
            text =
                "of the last \(sample.looked) messages of \(topic.name) \(sample.matched) have \(name)\(skipped). "
                + "Tags there: \(seen.isEmpty ? "none" : seen)"
                + (sample.untagged > 0 ? ", without a tag: \(sample.untagged)" : "")
                + (hints.isEmpty ? "" : "; " + hints.joined(separator: " "))
        } else {
            let missing = SQLNames.names(in: sample.wanted.expression).filter { sample.seen[$0] == nil }
            let hints = missing.map { name in
                "no message has the property \(name)"
                    + (Spelling.nearest(to: name, among: sample.seen.keys, bytesMax: Self.nameBytesMax).map {
                        " (is \($0) meant?)"
                    } ?? "")
            }
            text =
                "of the last \(sample.looked) messages of \(topic.name) \(sample.matched) match \(name)\(skipped). "
                + "Properties there: \(seen.isEmpty ? "none" : seen)"
                + (hints.isEmpty ? "" : "; " + hints.joined(separator: ", "))
        }
        let command: ShellCommand = "apus admin printMsg -t \(topic.name)"
        if sample.matched == 0 { cause(text, command) } else { note("\(rest) not chosen: " + text, command) }
    }

    /// At most twelve, the most frequent first.
    private static func list(_ counts: [String: Int]) -> String {
        let sorted = counts.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
        let shown = sorted.prefix(12).map { "\($0.key) (\($0.value))" }.joined(separator: ", ")
        return sorted.count > 12 ? shown + ", …" : shown
    }
}

/// The names of properties in an SQL92 expression, as far as they can be found without compiling it.
enum SQLNames {
    private static let keywords: Set<String> = [
        "AND", "OR", "NOT", "IS", "NULL", "BETWEEN", "IN", "TRUE", "FALSE", "CONTAINS", "STARTSWITH", "ENDSWITH",
        "PLUGIN",
    ]

    static func names(in expression: String) -> [String] {
        var names: [String] = []
        var name = ""
        var isQuoted = false
        for character in expression + " " {
            if character == "'" {
                isQuoted.toggle()
            } else if !isQuoted,
                character.isLetter || character == "_" || character == "$"
                    || (!name.isEmpty && (character.isNumber || character == "." || character == "-"))
            {
                name.append(character)
                continue
            }
            if !name.isEmpty, !keywords.contains(name.uppercased()), !names.contains(name) { names.append(name) }
            name = ""
        }
        return names
    }
}
