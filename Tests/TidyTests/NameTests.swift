import Testing

@Suite("names of properties and topics stand in MessageModel and nowhere else")
struct NameTests {
    static let home = "Sources/MessageModel/"

    /// The same text with another meaning.
    static let others: [(file: String, literal: String, meaning: String)] = [
        ("Sources/BrokerService/Tables/TopicAttributes.swift", "DELAY", "a type of messages"),
        ("Sources/apus/Messages/MessageEditCommands.swift", "KEYS", "a placeholder in a command's help"),
        ("Sources/Systemd/JournalLogHandler.swift", "APUS_", "begins fields of the journal"),
    ]

    static func names() throws -> ProtocolNames {
        ProtocolNames(try ["PropertyName", "TopicName"].map { try Repository.text(home + $0 + ".swift") })
    }

    @Test("no literal outside spells one")
    func literals() throws {
        let names = try Self.names()
        #expect(names.names.count > 60, "the scan finds nothing any more")
        var literals = 0
        var unused = Set(Self.others.map { $0.file + " " + $0.literal })
        for file in Repository.files(below: "Sources", endings: [".swift"]) where !file.hasPrefix(Self.home) {
            let source = try Repository.text(file)
            let all = StringLiteral.all(in: source)
            literals += all.count
            for literal in all {
                guard let name = names.name(in: literal.text) else { continue }
                if Self.others.contains(where: { $0.file == file && $0.literal == literal.text }) {
                    unused.remove(file + " " + literal.text)
                    continue
                }
                Issue.record("\(file):\(literal.line) spells \(name): take the constant of MessageModel")
            }
            for name in ProtocolNames.declared(in: source) {
                Issue.record("\(file) declares \(name): it belongs into MessageModel")
            }
        }
        #expect(literals > 5000, "the scan finds nothing any more")
        #expect(unused.isEmpty, "exceptions for nothing: \(unused)")
    }

    @Test("the scan finds each form of a name, and takes no other text for one")
    func planted() throws {
        let names = try Self.names()
        let source = #"""
            let key = "UNIQ_KEY" // "TAGS"
            /// "TAGS" /* "TAGS" */
            let own = Array("CLUSTER\u{1}\(cluster)\u{2}TRACE_ON\u{1}\(on ? "TAGS" : "no")".utf8)
            let retry = "%RETRY%\(group)", text = "they wait in %DLQ%\(group)"
            let topic = "TBW102", path = "consumequeue/SCHEDULE_TOPIC_XXXX/0"
            let prefix = name.hasPrefix("TIMER_") || name == "rmq_sys_OTHER"
            let long = """
                TRAN_MSG
                """
            let sentence = "no id of its producer (UNIQ_KEY)", code = "TIMER_CHECKPOINT", other = "TAGS_OF"
            let fine = "\(PropertyName.tags)\u{1}\(tag)", empty = "", quote = "\"", raw = #"a "b" \(c)"#
            let last = "POP_CK"
            """#
        let found = StringLiteral.all(in: source).compactMap { literal in
            names.name(in: literal.text).map { "\(literal.line) \($0)" }
        }
        #expect(
            found.sorted() == [
                "1 UNIQ_KEY", "12 POP_CK", "3 CLUSTER", "3 TAGS", "4 %DLQ%", "4 %RETRY%", "5 SCHEDULE_TOPIC_XXXX",
                "5 TBW102", "6 TIMER_", "6 rmq_sys_", "7 TRAN_MSG",
            ])
        #expect(
            ProtocolNames.declared(in: "static let new: StaticString = \"TIMER_NEW\"\nlet text: StaticString = \"ok\"")
                == ["TIMER_NEW"])
    }
}
