import Testing

@testable import BrokerService

@Suite("records of RocketMQ's revive log") struct RevivedPopsTests {
    private static let queue = RevivedPops.Queue(group: "G", topic: "T", queueID: 2)

    private static func ck(_ more: String = "", count: Int = 3, start: Int64 = 10, popTime: Int64 = 1000) -> String {
        #"{"bm":0,"bn":"broker-a","c":"G","it":500,"n":\#(count),"pt":\#(popTime),"q":2,"so":\#(start),"t":"T"\#(more)}"#
    }

    private static func ack(_ offset: Int64, start: Int64 = 10, popTime: Int64 = 1000, broker: String = "broker-a")
        -> String
    {
        #"{"ao":\#(offset),"bn":"\#(broker)","c":"G","pt":\#(popTime),"q":2,"so":\#(start),"t":"T"}"#
    }

    private func left(_ records: [(String, String)]) throws -> (offsets: [Int64], all: RevivedPops.Left?) {
        var pops = RevivedPops(brokerName: "broker-a")
        for (tag, body) in records { try Array(body.utf8).withUnsafeBytes { try pops.add(tag: tag, $0) } }
        let left = pops.left()
        #expect(left.count <= 1)
        return (left[Self.queue]?.messages.map(\.offset) ?? [], left[Self.queue])
    }

    @Test("what was acknowledged is done, whichever record came first and however often")
    func acknowledgements() throws {
        let all = try left([("ck", Self.ck())])
        #expect(all.offsets == [10, 11, 12])
        #expect(all.all?.end == 13)
        #expect(all.all?.messages.first == .init(offset: 10, popTime: 1000, until: 1500))
        #expect(try left([("ack", Self.ack(11)), ("ck", Self.ck()), ("ck", Self.ck())]).offsets == [10, 12])
        #expect(try left([("ck", Self.ck()), ("ack", Self.ack(12)), ("ck", Self.ck())]).offsets == [10, 11])
        let batch = #"{"aol":[10,12],"ao":-1,"bn":"","c":"G","pt":1000,"q":2,"so":10,"t":"T"}"#
        #expect(throws: RevivedPops.Unreadable.self) { try left([("ack", batch)]) }
        #expect(try left([("bAck", batch), ("ck", Self.ck())]).offsets == [11])
        // Another delivery's.
        #expect(try left([("ck", Self.ck()), ("ack", Self.ack(10, popTime: 1001))]).offsets == [10, 11, 12])
        #expect(try left([("ck", Self.ck()), ("ack", Self.ack(10, broker: "broker-b"))]).offsets == [10, 11, 12])
    }

    @Test("offsets with gaps, and bits of what was acknowledged before the record was written")
    func shapes() throws {
        #expect(try left([("ck", Self.ck(#","d":[0,5,9]"#))]).offsets == [10, 15, 19])
        #expect(try left([("ck", Self.ck(#","d":[0,5,9]"#)), ("ack", Self.ack(15))]).offsets == [10, 19])
        #expect(try left([("ck", Self.ck(#","bm":5"#))]).offsets == [11])
        #expect(try left([("ck", Self.ck(#","bm":-1"#, count: 32))]).offsets == [])
        #expect(try left([("ck", #"{"c":"G","t":"T","q":2,"n":1}"#)]).offsets == [0])
        #expect(try left([("ck", Self.ck(count: 0))]).offsets == [])
    }

    @Test("a message handed out again has the time of its last delivery")
    func again() throws {
        let second = Self.ck(count: 1, start: 11, popTime: 1200)
        let both = try left([("ck", second), ("ck", Self.ck()), ("ack", Self.ack(10))])
        #expect(both.offsets == [11, 12])
        #expect(both.all?.messages.first == .init(offset: 11, popTime: 1200, until: 1700))
    }

    @Test(
        "what is none is refused with its cause",
        arguments: [
            ("ck", "no JSON"), ("ck", "[]"), ("ck", "7"), ("ck", ""), ("ck", #"{"t":"T"}"#), ("ck", #"{"c":"G"}"#),
            ("ck", #"{"c":"G","t":""}"#), ("ck", #"{"c":"G","t":"T","so":-1}"#),
            ("ck", #"{"c":"G","t":"T","so":9223372036854775807}"#), ("ck", #"{"c":"G","t":"T","so":1e400}"#),
            ("ck", #"{"c":"G","t":"T","q":4294967296}"#), ("ck", #"{"c":"G","t":"T","n":128}"#),
            ("ck", #"{"c":"G","t":"T","n":-1}"#), ("ck", #"{"c":"G","t":"T","n":3,"d":[0]}"#),
            ("ck", #"{"c":"G","t":"T","n":1,"d":["x"]}"#), ("ck", #"{"c":"G","t":"T","n":1,"d":[-5]}"#),
            ("ck", #"{"c":"G","t":"T","bm":[]}"#), ("ck", #"{"c":"G","t":"T","pt":-1}"#),
            ("ck", #"{"c":"G","t":"T","it":36028797018963969}"#), ("bAck", #"{"c":"G","t":"T"}"#),
            ("bAck", #"{"c":"G","t":"T","aol":[1,null]}"#), ("ack", #"{"c":"G","t":"T","ao":{}}"#),
            ("other", #"{"c":"G","t":"T"}"#),
        ])
    func broken(_ tag: String, _ body: String) {
        var pops = RevivedPops(brokerName: "broker-a")
        #expect(throws: RevivedPops.Unreadable.self, "\(body)") {
            try Array(body.utf8).withUnsafeBytes { try pops.add(tag: tag, $0) }
        }
        #expect(pops.left().values.allSatisfy { $0.messages.isEmpty })
    }
}
