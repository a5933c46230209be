import NIOCore
import RemotingProtocol
import Testing

@testable import Bench

/// The generator's hand-made frames, read back by the protocol room.
@Suite("Bench frames")
struct FrameTests {
    private func decoded(_ bytes: [UInt8]) throws -> RemotingCommand {
        try bytes.withUnsafeBytes { try RemotingCommand(decoding: $0) }
    }

    @Test("a template is a valid request in both serializations, its patches included", arguments: HeaderForm.allCases)
    func template(form: HeaderForm) throws {
        let template = FrameTemplate(
            code: 310, form: form,
            fields: [("a", "group"), ("i", "UNIQ_KEY\u{1}0000\u{2}q\"\\"), ("g", "0000000000000"), ("e", "3")],
            body: Array("the body".utf8))
        var bytes = template.bytes
        let born = try #require(template.fieldPositions["g"])
        bytes.withUnsafeMutableBytes { frame in
            template.patchOpaque(frame, 1_000_000_007)
            writeDigits(frame, at: born, width: 13, 1_700_000_000_123)
        }
        let command = try decoded(bytes)
        #expect(command.code == 310)
        #expect(command.opaque == 1_000_000_007)
        #expect(
            command.extFields
                == ["a": "group", "i": "UNIQ_KEY\u{1}0000\u{2}q\"\\", "g": "1700000000123", "e": "3"])
        #expect(command.body == Array("the body".utf8))
        #expect(Array(bytes[template.bodyPosition...]) == Array("the body".utf8))
    }

    @Test("a name server's route has queues of a topic's size, and of each broker once")
    func hostileRoute() throws {
        let data = #"{"brokerName":"a","readQueueNums":4611686018427387904,"writeQueueNums":-3,"perm":6}"#
        let body =
            #"{"brokerDatas":[{"brokerName":"a","brokerAddrs":{0:"127.0.0.1:1"}}],"queueDatas":[\#(data),\#(data)]}"#
        func count(writable: Bool) throws -> Int {
            try ControlPlane.queues(inRoute: Array(body.utf8), from: "n", writable: writable).count
        }
        #expect(try count(writable: false) == 65_536 && count(writable: true) == 0)
    }

    @Test("hex and decimal patches keep their width")
    func patches() {
        var bytes = [UInt8](repeating: 0x2E, count: 22)
        bytes.withUnsafeMutableBytes { frame in
            writeHex(frame, at: 1, width: 16, 0xABC)
            writeDigits(frame, at: 18, width: 4, 42)
        }
        #expect(String(decoding: bytes, as: UTF8.self) == ".0000000000000ABC.0042")
    }

    @Test("answers are read without parsing them", arguments: [HeaderSerialization.json, .rocketMQ])
    func responses(serialization: HeaderSerialization) throws {
        var command = RemotingCommand.response(
            .systemBusy, remark: "too \"busy\"",
            extFields: ["nextBeginOffset": "9007199254740993", "minOffset": "0", "msgId": "x"], body: [1, 2, 3])
        command.opaque = 77
        let frame = try encoded(command, serialization)
        try frame.withUnsafeBytes { bytes in
            let view = try ResponseView(UnsafeRawBufferPointer(rebasing: bytes[4...]))
            #expect(view.code == 2)
            #expect(view.opaque == 77)
            #expect(!view.isRequest)
            #expect(view.number("nextBeginOffset") == 9_007_199_254_740_993)
            #expect(view.number("absent") == nil)
            #expect(view.remark.hasPrefix("too"))
            #expect(Array(view.body) == [1, 2, 3])
        }
    }

    @Test("a frame whose header is longer than itself is refused")
    func brokenFrame() {
        let bytes: [UInt8] = [0, 0, 0xFF, 0xFF, 1, 2, 3]
        _ = bytes.withUnsafeBytes { frame in
            #expect(throws: BenchError.self) { try ResponseView(frame) }
        }
    }

    @Test("the buffer gives back what was put in, across growing and moving")
    func buffer() {
        var buffer = WireBuffer(capacity: 16)
        var written: UInt8 = 0
        var read: UInt8 = 0
        for step in 1...200 {
            let room = buffer.reserve(step)
            for index in 0..<step {
                room[index] = written
                written &+= 1
            }
            buffer.commit(step)
            let take = min(buffer.count, step * 2 / 3)
            for byte in buffer.bytes.prefix(take) {
                #expect(byte == read)
                read &+= 1
            }
            buffer.consume(take)
        }
        #expect(
            buffer.bytes.allSatisfy { byte in
                defer { read &+= 1 }
                return byte == read
            })
    }

    @Test("plans out of bounds are refused in words")
    func plans() throws {
        var plan = BenchPlan()
        try plan.check()
        plan.sizes = [0]
        #expect(throws: BenchError.self) { try plan.check() }
        plan.sizes = [1 << 20]
        plan.batch = 16
        #expect(throws: BenchError.self) { try plan.check() }
    }

    private func encoded(_ command: RemotingCommand, _ serialization: HeaderSerialization) throws -> [UInt8] {
        var buffer = ByteBuffer()
        command.encode(into: &buffer, serialization: serialization)
        return Array(buffer.readableBytesView)
    }
}
