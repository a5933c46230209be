import FastJSON
import RocketMQClient
import Testing

@testable import apus

@Suite("apus why: what the facts mean")
struct WhyTests {
    private static let queues = (0..<2).map { MessageQueue(topic: "T", brokerName: "a", queueID: $0) }

    /// A group that gets everything.
    private func healthy() -> WhyFacts {
        var facts = WhyFacts(group: "G", nameServers: "ns:9876")
        facts.brokers = [
            WhyFacts.Broker(
                name: "a", address: "10.0.0.1:10911",
                config: WhyFacts.GroupConfig(consumeEnable: true, consumeBroadcastEnable: true, retryMaxTimes: 16))
        ]
        facts.members = [
            WhyFacts.Member(id: "c1@1", address: "c1:1", hasAnswered: true, queues: Set(Self.queues))
        ]
        facts.wanted = [WhyFacts.Wanted(topic: "T", type: "TAG", expression: "*")]
        facts.consumeFromWhere = "CONSUME_FROM_LAST_OFFSET"
        facts.topics = [
            WhyFacts.Topic(
                name: "T", permissions: ["a": 6], isSubscribed: true,
                queues: Self.queues.map { WhyFacts.Queue(queue: $0, minimum: 0, end: 10, consumed: 10) })
        ]
        return facts
    }

    private func causes(_ change: (inout WhyFacts) -> Void) -> [WhyFinding] {
        var facts = healthy()
        change(&facts)
        return WhyDiagnosis(facts).findings.filter { $0.weight == .cause }
    }

    @Test("a group that gets everything has no finding")
    func nothing() {
        let diagnosis = WhyDiagnosis(healthy())
        #expect(diagnosis.findings == [] && !diagnosis.hasCause)
        #expect(WhyCommand.lines(diagnosis).first == "nothing keeps messages from group G")
    }

    /// What clients say of themselves comes through the broker as they said it.
    @Test("numbers, names and tags of a hostile client break neither the tool, nor its lines, nor a shell")
    func hostile() {
        var facts = healthy()
        let id = "x'; touch /tmp/y; '\n  ! all is well\u{1B}[2J"
        facts.members = (0..<2).map { _ in
            WhyFacts.Member(
                id: id, address: "c:1", hasAnswered: true, cached: .max, failedPerHour: .max)
        }
        facts.topics[0].queues = Self.queues.map {
            WhyFacts.Queue(queue: $0, minimum: 0, end: .max, consumed: $0.queueID == 0 ? -1 : .min)
        }
        facts.topics[0].queues.append(
            WhyFacts.Queue(queue: Self.queues[0], minimum: .max, end: .min, consumed: .max))
        let diagnosis = WhyDiagnosis(facts)
        let lines = WhyCommand.lines(diagnosis)
        #expect(!lines.contains { $0.contains("\n") || $0.contains("\u{1B}") })
        let quoted = "'x'\\''; touch /tmp/y; '\\''\\n  ! all is well\\u001b[2J'"
        let commands = diagnosis.findings.compactMap(\.command)
        #expect(commands.contains("apus admin consumerStatus -g G -i \(quoted)"), "\(commands)")
        #expect(commands.contains { $0.hasPrefix("apus admin allocateMQ -t T -i 'x'\\''; touch") }, "\(commands)")
    }

    @Test("each cause is found, alone, with the command to type next")
    func each() throws {
        let cases: [(String, String, (inout WhyFacts) -> Void)] = [
            ("no consumer of the group is connected", "apus consume --topic T --group G", { $0.members = [] }),
            (
                "consumeEnable is false", "updateSubGroup -b 10.0.0.1:10911 -g G -s true",
                {
                    $0.brokers[0].config?.consumeEnable = false
                }
            ),
            (
                "consumeBroadcastEnable is false", "-d true",
                {
                    $0.isBroadcast = true
                    $0.brokers[0].config?.consumeBroadcastEnable = false
                }
            ),
            (
                "does not answer: connection refused", "apus status",
                { $0.brokers[0].unreachable = "connection refused" }
            ),
            ("subscribe to different things", "consumerStatus -g G", { $0.brokers[0].inconsistency = "skipped 3" }),
            (
                "no broker has a topic 'T'", "updateTopic -c DefaultCluster -t T",
                {
                    $0.topics = [WhyFacts.Topic(name: "T", permissions: nil, isSubscribed: true)]
                }
            ),
            (
                "may not be read on broker a (permission 2)", "updateTopicPerm -b 10.0.0.1:10911 -t T -p 6",
                {
                    $0.topics[0].permissions = ["a": 2]
                }
            ),
            (
                "no client of the group subscribes to T; they subscribe to Tt", "consumerConnection -g G",
                {
                    $0.wanted[0].topic = "Tt"
                    $0.topics[0].isSubscribed = false
                }
            ),
            (
                "1 of 2 queues of T belong to no client: a/1", "allocateMQ -t T -i c1",
                {
                    $0.members[0].queues = [Self.queues[0]]
                }
            ),
            (
                "beyond the end of 1 queues", "resetOffsetByTime -g G -t T -s now",
                {
                    $0.topics[0].queues[0] = WhyFacts.Queue(queue: Self.queues[0], minimum: 0, end: 10, consumed: 11)
                }
            ),
            (
                "holds no message", "apus send --topic T",
                {
                    $0.topics[0].queues = Self.queues.map { WhyFacts.Queue(queue: $0, minimum: 3, end: 3, consumed: 3) }
                }
            ),
            (
                "0 have tags 'blu'. Tags there: blue (7), red (3)", "printMsg -t T",
                {
                    let wanted = WhyFacts.Wanted(topic: "T", type: "TAG", expression: "blu")
                    $0.topics[0].samples = [
                        WhyFacts.Sample(wanted: wanted, looked: 10, matched: 0, seen: ["blue": 7, "red": 3])
                    ]
                }
            ),
            (
                "no message has the property prize (is price meant?)", "printMsg -t T",
                {
                    let wanted = WhyFacts.Wanted(topic: "T", type: "SQL92", expression: "prize > 3 AND x = 'prices'")
                    $0.topics[0].samples = [
                        WhyFacts.Sample(wanted: wanted, looked: 9, matched: 0, skipped: 9, seen: ["price": 9, "x": 9])
                    ]
                }
            ),
            (
                "cannot apply the filter NONE 'z'", "apus plugin list",
                {
                    let wanted = WhyFacts.Wanted(topic: "T", type: "NONE", expression: "z")
                    $0.topics[0].samples = [WhyFacts.Sample(wanted: wanted, failure: "no plugin for NONE")]
                }
            ),
        ]
        for (text, command, change) in cases {
            let found = causes(change)
            #expect(found.count == 1, "\(text): \(found.map(\.text))")
            #expect(found.first?.text.contains(text) == true, "\(found.map(\.text))")
            #expect(found.first?.command?.contains(command) == true, "\(found.first?.command ?? "-")")
        }
    }

    @Test("a tag that is nearly one there is asked about; what was skipped is counted")
    func hints() throws {
        var facts = healthy()
        facts.topics[0].samples = [
            WhyFacts.Sample(
                wanted: WhyFacts.Wanted(topic: "T", type: "TAG", expression: "bleu || rot"), looked: 10, matched: 0,
                skipped: 4, seen: ["blue": 7], untagged: 3)
        ]
        let text = try #require(WhyDiagnosis(facts).findings.first?.text)
        #expect(text.contains("is blue meant instead of bleu?") && text.contains("without a tag: 3"))
        #expect(text.contains("4 of them lie before the group's offset"))
        let long = String(repeating: "n", count: 127)
        facts.topics[0].samples = [
            WhyFacts.Sample(
                wanted: WhyFacts.Wanted(topic: "T", type: "TAG", expression: long), looked: 10, matched: 0,
                seen: [long.dropLast() + "m": 7])
        ]
        #expect(WhyDiagnosis(facts).findings.first?.text.contains("m meant instead of n") == true)
    }

    @Test("retries, dead letters, lost and early messages are notes, not causes")
    func notes() {
        var facts = healthy()
        facts.retries = 2
        facts.deadLetters = 1
        facts.topics[0].queues = [
            WhyFacts.Queue(queue: Self.queues[0], minimum: 15, end: 20, consumed: 10),
            WhyFacts.Queue(queue: Self.queues[1], minimum: 0, end: 3, consumed: 0),
        ]
        let diagnosis = WhyDiagnosis(facts)
        let text = diagnosis.findings.map(\.text).joined(separator: "\n")
        #expect(!diagnosis.hasCause)
        #expect(text.contains("2 messages wait to be delivered to the group again"))
        #expect(text.contains("1 messages were given up"))
        #expect(text.contains("5 messages of T were deleted") && text.contains("8 messages of T wait"))
        facts.topics[0].queues = [WhyFacts.Queue(queue: Self.queues[0], minimum: 0, end: 3, consumed: 0)]
        #expect(WhyDiagnosis(facts).findings.contains { $0.text.contains("a new group begins at the end") })
    }

    @Test("names in SQL92: outside of quotes, no keywords, each once")
    func names() {
        #expect(SQLNames.names(in: "a > 5 AND b_1 = 'c d' and NOT (a IS NULL) OR x IN ('y')") == ["a", "b_1", "x"])
        #expect(SQLNames.names(in: "'it''s' = q") == ["q"])
        #expect(SQLNames.names(in: "") == [])
    }

    @Test("as JSON: findings and facts")
    func json() throws {
        var facts = healthy()
        facts.members = []
        let json = WhyCommand.json(WhyDiagnosis(facts))
        #expect(json["findings"]?.array?.first?["weight"]?.string == "cause")
        #expect(json["facts"]?["topics"]?.array?.first?["queues"]?.array?.count == 2)
        #expect(try JSONValue(parsing: Array(json.text().utf8)) == json)
    }
}
