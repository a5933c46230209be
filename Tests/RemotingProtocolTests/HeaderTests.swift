import NIOCore
import RemotingProtocol
import TestTools
import Testing

@Suite("headers in every spelling the formats allow")
struct HeaderTests {
    @Test("members in any order, any white space, escapes resolved, unknown members passed over")
    func freeForm() throws {
        let header = """
            { "version" : 79 ,\r\n "unknown":{"a":[1,"]}",{"b":null}]},"remark":"\\u4e2d\\ud83d\\ude00\\"",
            \t"extFields" : { "i" : "KEYS\\u0001a\\\\b\\u0002", "n":null, "num" : -12, "flag":true } ,
            "opaque":-7, "flag" : "2", "language":"CPP", "code":310 }
            """
        try withFrame(jsonFrame(header, body: [1, 2])) { frame in
            #expect(frame.code == 310)
            #expect(frame.version == 79)
            #expect(frame.opaque == -7)
            #expect(frame.isOneway && !frame.isResponse)
            #expect(frame.language == .cpp)
            #expect(frame.remark == "中😀\"")
            #expect(frame.extFields.string("i") == "KEYS\u{1}a\\b\u{2}")
            #expect(frame.extFields.string("n") == nil)
            let number = try frame.extFields.int32("num")
            #expect(number == -12)
            #expect(frame.extFields.bool("flag") == true)
            #expect(Array(frame.body) == [1, 2])
        }
    }

    @Test("languages by name or number")
    func languages() throws {
        for language in LanguageCode.allCases {
            let name = language.name.withUTF8Buffer { String(decoding: $0, as: UTF8.self) }
            try withFrame(jsonFrame("{\"code\":1,\"language\":\"\(name)\"}")) { #expect($0.language == language) }
            try withFrame(jsonFrame("{\"code\":1,\"language\":\(language.rawValue)}")) {
                #expect($0.language == language)
            }
        }
        try withFrame(jsonFrame("{\"code\":1,\"language\":\"KLINGON\"}")) { #expect($0.language == .other) }
    }

    @Test("strings around the eight-byte steps of the scanner, escapes at every place")
    func stringLengths() throws {
        for count in 0..<40 {
            let plain = String(repeating: "x", count: count)
            try withFrame(jsonFrame("{\"code\":1,\"extFields\":{\"k\":\"\(plain)\"}}")) {
                #expect($0.extFields.string("k") == plain)
            }
            for place in 0...count {
                let head = String(repeating: "é", count: place / 2) + String(repeating: "y", count: place % 2)
                let tail = String(repeating: "z", count: count - place)
                try withFrame(jsonFrame("{\"code\":1,\"extFields\":{\"k\":\"\(head)\\u0001\(tail)\"}}")) {
                    #expect($0.extFields.string("k") == head + "\u{1}" + tail)
                }
            }
        }
    }

    @Test("several strings with escapes each keep their text")
    func manyEscapes() throws {
        let fields = (0..<200).map { "\"k\($0)\":\"\\t\($0)\\n\"" }.joined(separator: ",")
        try withFrame(jsonFrame("{\"code\":1,\"extFields\":{\(fields)}}")) { frame in
            for index in 0..<200 {
                #expect(frame.extFields.dictionary()["k\(index)"] == "\t\(index)\n")
            }
        }
    }

    @Test("the long spelling of a send (10) reads like the short one")
    func longSend() throws {
        let header = """
            {"code":10,"extFields":{"topic":"T","queueId":"3","defaultTopic":"TBW102","producerGroup":"G",
            "bornTimestamp":"1795246557626","flag":"9","sysFlag":"1","defaultTopicQueueNums":"4",
            "properties":"a\\u0001b\\u0002","reconsumeTimes":"2","unitMode":"true","maxReconsumeTimes":"16",
            "batch":"false","other":"x"}}
            """
        try withFrame(jsonFrame(header)) { frame in
            let send = try SendMessageRequestHeader(frame)
            #expect(send.topic.text == "T" && send.producerGroup.text == "G" && send.queueID == 3)
            #expect(send.bornTimestamp == 1_795_246_557_626 && send.flag == 9 && send.sysFlag == 1)
            #expect(send.properties.text == "a\u{1}b\u{2}" && send.reconsumeTimes == 2 && send.unitMode)
            #expect(send.maxReconsumeTimes == 16 && !send.batch && send.defaultTopicQueueNums == 4)
        }
    }

    @Test("a field that is missing or no number is named")
    func fieldErrors() throws {
        func send(_ fields: String) throws -> RemotingDecodeError? {
            try withFrame(jsonFrame("{\"code\":310,\"extFields\":{\(fields)}}")) { frame -> RemotingDecodeError? in
                do throws(RemotingDecodeError) {
                    _ = try SendMessageRequestHeader(frame)
                    return nil
                } catch {
                    return error
                }
            }
        }
        let rest = "\"a\":\"g\",\"b\":\"t\",\"c\":\"d\",\"d\":\"4\",\"f\":\"0\",\"g\":\"1\",\"h\":\"0\""
        #expect(try send(rest) == .missingField("queueId"))
        #expect(try send(rest + ",\"e\":\"x\"") == .badField("queueId"))
        #expect(try send(rest + ",\"e\":\"2147483648\"") == .badField("queueId"))
        #expect(try send(rest + ",\"e\":\"-1\"") == nil)
        #expect(RemotingDecodeError.missingField("queueId").description == "the custom field <queueId> is null")
        try withFrame(jsonFrame("{\"code\":11,\"extFields\":{\"topic\":\"t\"}}")) { frame in
            #expect(throws: RemotingDecodeError.missingField("consumerGroup")) { try PullMessageRequestHeader(frame) }
        }
    }

    @Test(
        "numbers at the ends of their ranges",
        arguments: [
            ("9223372036854775807", Int64.max), ("-9223372036854775808", .min), ("+5", 5), ("-0", 0),
            ("9223372036854775808", nil), ("-9223372036854775809", nil), ("", nil), ("-", nil), ("1 ", nil),
            ("0x10", nil), ("1e3", nil),
        ])
    func numbers(text: String, value: Int64?) throws {
        try withFrame(jsonFrame("{\"code\":1,\"extFields\":{\"n\":\"\(text)\"}}")) { frame in
            if let value {
                let number = try frame.extFields.int64("n")
                #expect(number == value)
            } else {
                #expect(throws: RemotingDecodeError.badField("n")) { try frame.extFields.int64("n") }
            }
        }
    }

    @Test(
        "what is no frame is refused, with the reason",
        arguments: [
            ([], RemotingDecodeError.badFrameLength(-4)),
            ([0, 0, 0, 3, 0, 0, 0, 0], .badFrameLength(3)),
            ([0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0], .badFrameLength(0x7fff_ffff)),
            ([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0], .badFrameLength(-1)),
            ([0, 0, 0, 8, 0, 0, 0, 0], .badFrameLength(8)),
            ([0, 0, 0, 6, 0, 0, 0, 3, 0x7b, 0x7d], .badHeaderLength(3)),
            ([0, 0, 0, 6, 0, 0xff, 0xff, 0xff, 0x7b, 0x7d], .badHeaderLength(0xff_ffff)),
            ([0, 0, 0, 6, 9, 0, 0, 2, 0x7b, 0x7d], .unknownSerialization(9)),
            ([0, 0, 0, 6, 0, 0, 0, 2, 0x7b, 0x7d], .badHeader(offset: 2)),
            ([0, 0, 0, 4, 0, 0, 0, 0], .badHeader(offset: 0)),
            ([0, 0, 0, 6, 1, 0, 0, 2, 0, 1], .badHeader(offset: 0)),
        ] as [([UInt8], RemotingDecodeError)])
    func refuses(bytes: [UInt8], error: RemotingDecodeError) {
        #expect(throws: error) { try withFrame(bytes) { _ in } }
    }

    @Test("lengths inside a ROCKETMQ header that are negative or too large are refused")
    func binaryLengths() throws {
        var fixed: [UInt8] = [0, 10, 0, 1, 0x99, 0, 0, 0, 1, 0, 0, 0, 0]
        func word(_ value: Int32) -> [UInt8] { withUnsafeBytes(of: value.bigEndian) { Array($0) } }
        for remark in [-1, 1, Int32.max, Int32.min] {
            let header = fixed + word(remark) + word(0)
            #expect(throws: RemotingDecodeError.badHeader(offset: 13)) {
                try withFrame(frame(serialization: 1, header: header)) { _ in }
            }
        }
        fixed += word(0)
        for ext in [-1, 1, Int32.max] {
            #expect(throws: RemotingDecodeError.badHeader(offset: 17)) {
                try withFrame(frame(serialization: 1, header: fixed + word(ext))) { _ in }
            }
        }
        let fields: [[UInt8]] = [
            [0, 1, 65], [0xff, 0xff] + word(0), [0, 2, 65, 66] + word(-1), [0, 2, 65, 66] + word(1), [0, 9] + word(0),
        ]
        for field in fields {
            let header = fixed + word(Int32(field.count)) + field
            #expect(throws: RemotingDecodeError.badHeader(offset: 21)) {
                try withFrame(frame(serialization: 1, header: header)) { _ in }
            }
        }
    }

    @Test("the number of fields is bounded")
    func fieldCount() throws {
        let many = (0..<RemotingLimits.headerFields).map { "\"\($0)\":0" }.joined(separator: ",")
        try withFrame(jsonFrame("{\"code\":1,\"extFields\":{\(many)}}")) {
            #expect($0.extFields.dictionary().count == RemotingLimits.headerFields)
        }
        #expect(throws: RemotingDecodeError.tooManyFields) {
            try withFrame(jsonFrame("{\"code\":1,\"extFields\":{\(many),\"x\":0}}")) { _ in }
        }
    }

    @Test("mutated golden frames are parsed or refused, never trap")
    func mutations() {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("frame mutations: seed \(seed)")
        var random = SplitMix(state: seed)
        let scratch = HeaderScratch()
        var parsed = 0
        for round in 0..<30_000 {
            var bytes = GoldenFrame.all[round % GoldenFrame.all.count].bytes
            for _ in 0...Int.random(in: 0...3, using: &random) {
                let place = Int.random(in: 0..<bytes.count, using: &random)
                switch Int.random(in: 0...3, using: &random) {
                case 0: bytes[place] = UInt8.random(in: 0...255, using: &random)
                case 1: bytes[place] ^= 1 << UInt8.random(in: 0...7, using: &random)
                case 2 where bytes.count > 9: bytes.remove(at: place)
                default: bytes.insert(Array("\\\"{}:,u".utf8).randomElement(using: &random) ?? 0, at: place)
                }
            }
            // Most mutations shall reach the header parser: the length is put right again.
            if round % 4 != 0 {
                bytes.replaceSubrange(0..<4, with: withUnsafeBytes(of: UInt32(bytes.count - 4).bigEndian) { Array($0) })
            }
            bytes.withUnsafeBytes { raw in
                guard let frame = try? RemotingFrame.parse(raw, scratch: scratch) else { return }
                parsed += 1
                _ = try? SendMessageRequestHeader(frame)
                _ = try? PullMessageRequestHeader(frame)
                let command = RemotingCommand(frame)
                _ = try? HeartbeatData(body: frame.body)
                _ = try? RegisterBrokerBody(body: frame.body, compressed: round % 2 == 0)
                _ = try? TopicRouteData(body: frame.body)
                _ = try? MessageExt.decodeAll(frame.body)
                var buffer = ByteBuffer()
                command.encode(into: &buffer)
            }
        }
        #expect(parsed > 1000, "seed \(seed)")
    }
}
