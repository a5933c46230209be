import Foundation
import RocketMQClient
import Testing

@testable import apus

@Suite("apus: pure parts of send and consume")
struct ToolTests {
    @Test("columns of a line become topic, tag, key and body; the last takes the rest")
    func columns() throws {
        let layout = try LineLayout(columns: "tag,_,key,body", separator: "\t")
        let message = try #require(
            layout.message(Array("t\tskipped\tk\tbody\twith\ttabs".utf8), topic: "T", tag: nil, key: nil))
        #expect(message.topic == "T" && message.tag == "t" && message.keys == ["k"])
        #expect(String(decoding: message.body, as: UTF8.self) == "body\twith\ttabs")
        let empty = try #require(layout.message(Array("\t\t\tb".utf8), topic: "T", tag: "fixed", key: nil))
        #expect(empty.tag == "fixed" && empty.keys == [])
        #expect(layout.message(Array("only\ttwo".utf8), topic: "T", tag: nil, key: nil) == nil)

        let wide = try LineLayout(columns: "topic,body", separator: "::")
        let other = try #require(wide.message(Array("A::b:c".utf8), topic: nil, tag: nil, key: nil))
        #expect(other.topic == "A" && String(decoding: other.body, as: UTF8.self) == "b:c")

        let sharded = try LineLayout(columns: "shard,body", separator: " ")
        #expect(sharded.message(Array("ann b c".utf8), topic: "T", tag: nil, key: nil)?.shardKey == "ann")
        #expect(sharded.message(Array(" b".utf8), topic: "T", tag: nil, key: nil)?.shardKey == nil)

        let plain = try LineLayout(columns: nil, separator: "\t")
        #expect(plain.message([], topic: "T", tag: nil, key: nil)?.body == [])
    }

    @Test(
        "column lists that make no sense are refused", arguments: ["tag", "body,body", "tag,tag,body", "colour,body"])
    func wrongColumns(list: String) {
        #expect(throws: (any Error).self) { try LineLayout(columns: list, separator: "\t") }
    }

    @Test("times are local, or milliseconds; what is no time is refused")
    func times() throws {
        let minute = try #require(MessageTime(argument: "2026-11-21T17:30")).milliseconds
        #expect(AdminTime.milliseconds(minute) == "2026-11-21 17:30:00,000")
        #expect(MessageTime(argument: "2026-11-21T17:30:05")?.milliseconds == minute + 5000)
        #expect(MessageTime(argument: String(minute))?.milliseconds == minute)
        for text in [
            "", "0", "-5", "17:30", "2026-11-21", "2026-11-31T10:00", "2026-11-21T24:01", "2026-11-21T10", "aTb",
            "2026-11-21T10:00:00:00", "2026-11-21T10:0x", "99999999999999999999",
        ] {
            #expect(MessageTime(argument: text) == nil, "\(text)")
        }
    }

    @Test("on a terminal a message's text stays text; elsewhere every byte is as it was sent")
    func terminal() throws {
        let body = Array("two\nlines \u{1B}]0;title\u{7} \u{202E}".utf8) + [0xFF]
        let message = ReceivedMessage(
            topic: "T", queue: MessageQueue(topic: "T", brokerName: "b", queueID: 0), body: body,
            properties: ["TAGS": "a\rb"])
        func line(escapes: Bool, json: Bool = false) throws -> [UInt8] {
            var output: [UInt8] = []
            let format = try MessageFormat(columns: "tag,body", separator: "\t", json: json, escapes: escapes)
            format.write(message, to: &output)
            return output
        }
        #expect(try line(escapes: false) == Array("a\rb\t".utf8) + body + [0x0A])
        let shown = String(decoding: try line(escapes: true), as: UTF8.self)
        #expect(shown == "a\\rb\ttwo\\nlines \\u001b]0;title\\u0007 \\u202e\u{FFFD}\n")
        let json = String(decoding: try line(escapes: true, json: true), as: UTF8.self)
        #expect(!json.dropLast().unicodeScalars.contains { $0.value < 0x20 || $0 == "\u{202E}" })
        // It is still the same text to a reader of JSON.
        let read = try JSONSerialization.jsonObject(with: Data(json.utf8)) as? [String: Any]
        #expect(read?["body"] as? String == String(decoding: body, as: UTF8.self))
        #expect(Columns("%-4s|").line("a\u{1B}b") == "a\\u001bb|")
    }

    @Test("lines of a file come back whole, whatever their length and end")
    func lines() throws {
        let path = NSTemporaryDirectory() + "apus-lines-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: path) }
        let long = String(repeating: "x", count: 700_000)
        let expected = ["first", "", long, "ümläut", "last without newline"]
        try expected.joined(separator: "\n").write(toFile: path, atomically: false, encoding: .utf8)
        var reader = try LineReader(path: path)
        let interrupt = Interrupt()
        var found: [String] = []
        while let line = try reader.next(unless: interrupt) { found.append(String(decoding: line, as: UTF8.self)) }
        #expect(found == expected)
        #expect(reader.consumed == reader.size)
        #expect(throws: CommandFailure.self) { _ = try LineReader(path: "/nonexistent") }
    }

    @Test("numbers for people")
    func numbers() {
        #expect(grouped(0) == "0")
        #expect(grouped(1_234_567) == "1 234 567")
        #expect(
            throughput(messages: 2000, bytes: 4_000_000, in: .seconds(2))
                == "2 000 messages, 4 000 000 bytes in 2.0 s (1 000/s, 2.0 MB/s)")
    }
}

@Suite("a command that is not there")
struct UnknownCommandTests {
    @Test("is named, with the one that is meant")
    func misspelt() {
        #expect(
            UnknownCommand(["sned", "--topic", "x"], of: Apus.self)?.description
                == "there is no command 'apus sned'; is send meant?\n  See 'apus --help' for those there are.")
        let topics = UnknownCommand(["admin", "topicLst"], of: Apus.self)?.description
        #expect(topics?.hasPrefix("there is no command 'apus admin topicLst'; is topicList meant?\n") == true)
        let far = UnknownCommand(["config", "launch"], of: Apus.self)?.description
        #expect(far == "there is no command 'apus config launch'\n  See 'apus config --help' for those there are.")
        #expect(UnknownCommand(["topicLst"], of: MQAdmin.self)?.description.contains("'mqadmin topicLst'") == true)
    }

    @Test(
        "what the parser knows is left to it",
        arguments: [
            [], ["--version"], ["-h"], ["help", "sned"], ["up", "x"], ["send", "file"], ["admin"],
            ["admin", "help", "x"],
            ["admin", "topicList", "x"], ["plugin", "test", "f"],
        ])
    func others(_ words: [String]) {
        #expect(UnknownCommand(words, of: Apus.self) == nil)
    }
}
