import BrokerService
import Foundation
import RemotingProtocol
import Testing

/// The official C++ client compresses the encoded batch as if it were one message's body.
@Suite("compressed batches") struct CompressedBatchTests {
    private static func batch(_ count: Int, size: Int = 40) -> [UInt8] {
        var body: [UInt8] = []
        for number in 0..<count {
            let text = "message \(number) " + String(repeating: "x", count: size)
            MessageBatch.append(
                body: Array(text.utf8), properties: Array("KEYS\u{1}k\(number)\u{2}TAGS\u{1}t\(number % 3)\u{2}".utf8),
                to: &body)
        }
        return body
    }

    @Test(
        "it is taken apart: its messages, each with its own properties and none compressed",
        arguments: [(RequestCode.sendMessage, "1"), (.sendMessageV2, "true"), (.sendBatchMessage, "true")])
    func takenApart(_ code: RequestCode, _ flag: String) throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        // A few are smaller compressed than 4 KiB: what counts is the flag.
        for count in [1, 10, 100, 500] {
            let before = try connection.all("B").count
            let sent = try connection.send(
                topic: "B", bytes: Zlib.deflate(Self.batch(count), level: 5), properties: "", sysFlag: 1, batch: flag,
                code: code)
            #expect(sent.code == 0, "\(sent.remark ?? "")")
            #expect(sent.extFields["msgId"]?.split(separator: ",").count == count)
            let found = try connection.all("B").dropFirst(before)
            #expect(found.map { $0.properties["KEYS"] } == (0..<count).map { "k\($0)" })
            #expect(found.enumerated().allSatisfy { $1.body.hasPrefix("message \($0) x") && $1.sysFlag == 0 })
            #expect(found.enumerated().allSatisfy { $1.properties["TAGS"] == "t\($0 % 3)" })
        }
    }

    @Test("one that cannot be read, or would be too large, is refused with words and leaves nothing behind")
    func refusals() throws {
        let harness = try BrokerHarness([("maxMessageSize", "100000")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        #expect(try connection.makeTopic("B").code == 0)
        let good = Zlib.deflate(Self.batch(100))
        var damaged = good
        damaged[damaged.count / 2] ^= 0x55
        // 50 MB of zeros in 50 KB.
        let bomb = Zlib.deflate([UInt8](repeating: 0, count: 50_000_000))
        let rows: [(String, [UInt8], Int32, String)] = [
            ("damaged", damaged, 1, "zlib stream"), ("cut", Array(good.dropLast(20)), 1, "ends early"),
            ("a bomb", bomb, 1, "inflates to more than 100000 bytes"),
            ("too large", Zlib.deflate(Self.batch(3000)), 1, "inflates to more than 100000 bytes"),
            ("no batch in it", Zlib.deflate(Array("hello".utf8)), 1, "ends inside a message"),
            ("LZ4", [0x04, 0x22, 0x4D, 0x18] + good, 0x101, "LZ4"),
            ("ZSTD", [0x28, 0xB5, 0x2F, 0xFD] + good, 0x201, "ZSTD"), ("empty", [], 1, "holds no message"),
        ]
        for (name, bytes, flag, words) in rows {
            let answer = try connection.send(topic: "B", bytes: bytes, properties: "", sysFlag: flag, batch: "true")
            #expect(answer.code == ResponseCode.messageIllegal.rawValue, "\(name)")
            #expect(answer.remark?.contains(words) == true, "\(name): \(answer.remark ?? "")")
        }
        #expect(try connection.all("B").isEmpty)
    }

    @Test("a batch of messages that are compressed one by one stays as it is")
    func compressedOneByOne() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        var body: [UInt8] = []
        for number in 0..<5 {
            MessageBatch.append(body: Zlib.deflate(Array("m\(number)".utf8)), properties: [], to: &body)
        }
        let sent = try connection.send(
            topic: "B", bytes: body, properties: "", sysFlag: 1, batch: "true", code: .sendBatchMessage)
        #expect(sent.code == 0)
        #expect(try connection.all("B").map(\.sysFlag) == [1, 1, 1, 1, 1])
    }
}
