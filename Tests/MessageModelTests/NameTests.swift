import MessageModel
import TestTools
import Testing

@Suite("names of topics and groups are checked, and only so made")
struct NameTests {
    /// Each would leave the store's folder, overwrite another topic's files, or be no file name.
    static let escaping = [
        "", ".", "..", "../x", "/etc/x", "a/b", "a/../../b", "a\u{0}b", ".hidden", "a\nb", "a\u{7f}", "%RETRY%../../x",
        "a/", "\u{1b}[31m", " ", "\t",
    ]

    @Test("what is no single component of a path is refused, new or existing", arguments: escaping)
    func refused(_ name: String) {
        #expect(throws: NameError.self) { try TopicName(name) }
        #expect(throws: NameError.self) { try TopicName(existing: name) }
        #expect(throws: NameError.self) { try GroupName(name) }
        #expect(throws: NameError.self) { try GroupName(existing: name) }
    }

    @Test("new names have RocketMQ's characters and lengths; its remark says so")
    func newNames() throws {
        #expect(try TopicName("%RETRY%a_B-9|x").text == "%RETRY%a_B-9|x")
        #expect(TopicName.problem(" ")?.description == "The specified topic is blank.")
        for odd in ["a.b", "ä", "a b", "a:b", "a@b"] {
            #expect(
                TopicName.problem(odd)?.description.contains("illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$")
                    == true)
            #expect(GroupName.problem(odd)?.description.contains("group contains illegal characters") == true)
        }
        #expect(TopicName.problem(String(repeating: "a", count: 127)) == nil)
        #expect(TopicName.problem(String(repeating: "a", count: 128))?.description.contains("longer") == true)
        #expect(GroupName.problem(String(repeating: "a", count: 255)) == nil)
        #expect(GroupName.problem(String(repeating: "a", count: 256))?.description.contains("longer") == true)
    }

    @Test("odd names of stores RocketMQ has written stay readable")
    func existingNames() throws {
        for odd in ["a.b", "ä", "a b", "a:b", "a@b", "broker.example.org", String(repeating: "a", count: 255)] {
            #expect(try TopicName(existing: odd).text == odd)
            #expect(try GroupName(existing: odd).text == odd)
        }
        #expect(throws: NameError.self) { try TopicName(existing: String(repeating: "a", count: 256)) }
        let bytes: [UInt8] = [0x61, 0xff, 0x62]
        #expect(bytes.withUnsafeBytes { bytes in try? TopicName(existing: bytes) } == nil)
    }

    @Test("a group's topics exist only where a record has room for their names")
    func groupTopics() throws {
        #expect(try GroupName("g").retryTopic?.text == "%RETRY%g")
        #expect(try GroupName("g").deadLetterTopic?.text == "%DLQ%g")
        let longest = try GroupName(String(repeating: "g", count: 120))
        #expect(longest.retryTopic?.text.utf8.count == 127)
        let longer = try GroupName(String(repeating: "g", count: 121))
        #expect(longer.retryTopic == nil)
        #expect(longer.deadLetterTopic != nil)
        #expect(try GroupName(String(repeating: "g", count: 123)).deadLetterTopic == nil)
    }

    @Test("random bytes: whatever is taken is one component of a path, and new names are a part of existing ones")
    func randomNames() {
        let seed = UInt64.random(in: .min ... .max)
        print("seed \(seed)")
        var random = SplitMix(state: seed)
        let alphabet: [UInt8] = [0, 10, 32, 37, 45, 46, 46, 47, 47, 64, 65, 95, 97, 122, 124, 127, 0xc3, 0xa4, 0xff]
        var taken = 0
        for _ in 0..<20_000 {
            let count = Int(random.next() % 8)
            let bytes = (0..<count).map { _ in alphabet[Int(random.next() % UInt64(alphabet.count))] }
            let existing = bytes.withUnsafeBytes { bytes in try? TopicName(existing: bytes) }
            let isNew = bytes.withUnsafeBytes { TopicName.problem($0) == nil }
            if isNew { #expect(existing != nil, "\(bytes)") }
            guard let existing else { continue }
            taken += 1
            #expect(Array(existing.text.utf8) == bytes)
            #expect(!bytes.contains(47) && !bytes.contains(0) && bytes.first != 46 && !bytes.isEmpty)
        }
        #expect(taken > 100)
    }
}
