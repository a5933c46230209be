import FastJSON
import TestTools
import Testing

@Suite("fastjson's dialect is read and written")
struct JSONTests {
    @Test("whole numbers of up to 64 bits are read exactly, with either sign")
    func wholeNumbers() throws {
        var value: Int64 = 1
        var all: [Int64] = [0, .max, .min, .max - 1, .min + 1]
        for digit in 1...18 {
            all += [value, value - 1, value + 1, -value, value * 9]
            if digit < 18 { value = value &* 10 &+ Int64(digit % 10) }
        }
        for number in all {
            for text in [String(number), "\(number)L", number >= 0 ? "+\(number)" : "\(number)"] {
                #expect(try JSONValue(parsing: text).integer == number, "\(text)")
            }
        }
        #expect(try JSONValue(parsing: "-0").integer == 0)
        #expect(try JSONValue(parsing: "0000000000000000000012").integer == 12)
        for text in ["-", "+", "9223372036854775808", "-9223372036854775809", "1e3"] {
            let value = try? JSONValue(parsing: text)
            if case .integer = value { Issue.record("\(text) is no whole number of 64 bits") }
        }
    }

    @Test(
        "what RocketMQ writes is read",
        arguments: [
            (#"{"a":1,"b":[true,null,"x"]}"#, #"{"a":1,"b":[true,null,"x"]}"#),
            (#" { "a" : -1.5e3 , 'b' : 'its' , } "#, #"{"a":-1500.0,"b":"its"}"#),
            (#"{0:"10.0.0.1:10911",1:"x"}"#, #"{0:"10.0.0.1:10911",1:"x"}"#),
            (
                #"{"offsetTable":{{"brokerName":"a","queueId":0}:{"maxOffset":5}}}"#,
                #"{"offsetTable":{{"brokerName":"a","queueId":0}:{"maxOffset":5}}}"#
            ),
            (#"{a_b:1,$ref:"..",c.d:2}"#, #"{"a_b":1,"$ref":"..","c.d":2}"#),
            (#""\u4e2d\ud83d\ude00\x41\t\/""#, "\"中😀A\\t/\""),
            ("[1L,2,,3]", "[1,2,3]"),
            ("123456789012345678901234567890", "1.2345678901234568e+29"),
            ("9223372036854775807", "9223372036854775807"),
        ])
    func reads(text: String, written: String) throws {
        let value = try JSONValue(parsing: text)
        #expect(value.text() == written)
        #expect(try JSONValue(parsing: value.text()) == value)
    }

    @Test(
        "what is not JSON is refused with its place",
        arguments: [
            ("", JSONError.Reason.unexpectedEnd, 0), ("{", .unexpectedEnd, 1), ("[1 2]", .unexpectedByte, 3),
            ("{\"a\" 1}", .unexpectedByte, 5), ("\"abc", .unexpectedEnd, 4), ("\"\\q\"", .badEscape, 3),
            ("\"\\u12g4\"", .badEscape, 5), ("1 2", .trailingBytes, 2), ("-", .badNumber, 0), ("1e999", .badNumber, 0),
            ("nul", .unexpectedByte, 0), ("]", .unexpectedByte, 0), ("{{}:", .unexpectedEnd, 4),
        ])
    func refuses(text: String, reason: JSONError.Reason, offset: Int) {
        #expect(throws: JSONError(reason: reason, offset: offset)) { try JSONValue(parsing: text) }
    }

    @Test("nesting is bounded, for values and for keys")
    func depth() throws {
        let deep = String(repeating: "[", count: 64) + String(repeating: "]", count: 64)
        #expect(try JSONValue(parsing: deep).array != nil)
        #expect(throws: JSONError(reason: .tooDeep, offset: 64)) { try JSONValue(parsing: "[" + deep + "]") }
        #expect(throws: JSONError(reason: .tooDeep, offset: 64)) {
            try JSONValue(parsing: String(repeating: "{", count: 100_000))
        }
    }

    @Test("control characters and separators of properties survive")
    func escapes() throws {
        let text = "KEYS\u{1}k\u{2}TAGS\u{1}\"\\\n\u{7f}中"
        #expect(JSONValue.string(text).text() == "\"KEYS\\u0001k\\u0002TAGS\\u0001\\\"\\\\\\n\\u007F中\"")
        #expect(try JSONValue(parsing: JSONValue.string(text).text()) == .string(text))
        #expect(JSONValue.string("中😀").text([.standard]) == #""\u4E2D\uD83D\uDE00""#)
        #expect(try JSONValue(parsing: #""\ud800x""#) == .string("\u{fffd}x"))
    }

    @Test("config files look as fastjson's prettyFormat writes them, byte for byte")
    func pretty() throws {
        // Excerpts of config/consumerOffset.json, topics.json and consumerFilter.json written by RocketMQ 4.9.8.
        let offsets =
            "{\n\t\"offsetTable\":{\n\t\t\"GoldenRetry@G_GOLDEN_RETRY\":{0:1,1:1,2:0,3:0\n\t\t},\n"
            + "\t\t\"%RETRY%G_GOLDEN_TagA@G_GOLDEN_TagA\":{0:0\n\t\t}\n\t}\n}"
        let topics =
            "{\n\t\"dataVersion\":{\n\t\t\"counter\":14,\n\t\t\"timestamp\":1795246464550\n\t},\n"
            + "\t\"topicConfigTable\":{\n\t\t\"GoldenTx\":{\n\t\t\t\"order\":false,\n\t\t\t\"perm\":6\n\t\t}\n\t}\n}"
        let empty = "{\n\t\"filterDataByTopic\":{}\n}"
        for text in [offsets, topics, empty] {
            #expect(try JSONValue(parsing: text).text([.pretty]) == text)
        }
    }

    @Test("standard JSON quotes number keys and can sort")
    func standard() throws {
        let value = try JSONValue(parsing: #"{"b":{1:"y",0:"x"},"a":2}"#)
        #expect(value.text([.standard, .sorted]) == #"{"a":2,"b":{"0":"x","1":"y"}}"#)
    }

    @Test("equality passes over the order of members and the quotes of keys")
    func equality() throws {
        #expect(try JSONValue(parsing: #"{"a":1,"b":{0:2}}"#) == JSONValue(parsing: #"{"b":{"0":2},"a":1}"#))
        #expect(try JSONValue(parsing: #"{"a":1}"#) != JSONValue(parsing: #"{"a":1,"b":null}"#))
        #expect(try JSONValue(parsing: "[1,2]") != JSONValue(parsing: "[2,1]"))
    }

    @Test("accessors convert as Java's setters do")
    func accessors() throws {
        let value = try JSONValue(parsing: #"{"n":"12","t":"true","s":7,"f":2.0,"x":null}"#)
        #expect(value["n"]?.integer == 12)
        #expect(value["t"]?.bool == true)
        #expect(value["s"]?.string == "7")
        #expect(value["f"]?.integer == 2)
        #expect(value["x"]?.isNull == true)
        #expect(value["y"] == nil)
        #expect(try JSONValue(parsing: "4294967296").int32 == nil)
    }

    @Test("mutated texts are read or refused, never trap; what is read reads back equal")
    func mutations() {
        let seeds = [
            #"{"brokerDatas":[{"brokerAddrs":{0:"1.2.3.4:10911"},"cluster":"c"}],"filterServerTable":{}}"#,
            #"{"a":"\u0001\ud83d\ude00","b":[1,-2.5e7,null,{{"q":1}:{}}],'c':true}"#,
        ]
        let seed = UInt64.random(in: 0...UInt64.max)
        print("JSON mutations: seed \(seed)")
        var random = SplitMix(state: seed)
        for _ in 0..<20_000 {
            var bytes = Array(seeds[Int(random.next() % 2)].utf8)
            for _ in 0...(random.next() % 4) {
                switch random.next() % 3 {
                case 0: bytes[Int(random.next() % UInt64(bytes.count))] = UInt8(truncatingIfNeeded: random.next())
                case 1 where bytes.count > 1: bytes.remove(at: Int(random.next() % UInt64(bytes.count)))
                default:
                    let pieces = Array("{}[]\",:\\u0\u{1}".utf8)
                    bytes.insert(
                        pieces[Int(random.next() % UInt64(pieces.count))],
                        at: Int(random.next() % UInt64(bytes.count)))
                }
            }
            guard let value = try? JSONValue(parsing: bytes) else { continue }
            #expect((try? JSONValue(parsing: value.bytes())) == value, "seed \(seed): \(bytes)")
        }
    }

    @Test("depth and size are bounded by the reader's limits, and a writer that knows them writes nothing beyond")
    func limits() throws {
        func nested(_ depth: Int) -> String {
            String(repeating: "[", count: depth) + String(repeating: "]", count: depth)
        }
        let (foreign, tables) = (JSONReader.Limits.foreign, JSONReader.Limits.tables)
        #expect(tables.depth >= foreign.depth + 8 && tables.bytes >= 16 * foreign.bytes)
        for limits in [foreign, tables] {
            let deepest = try JSONValue(parsing: Array(nested(limits.depth).utf8), limits: limits)
            #expect(deepest.depth == limits.depth)
            #expect(try deepest.bytes(.pretty, within: limits) == Array(nested(limits.depth).utf8))
            let error = #expect(throws: JSONError.self) {
                try JSONValue(parsing: Array(nested(limits.depth + 1).utf8), limits: limits)
            }
            #expect(error?.reason == .tooDeep)
            let unwritten = #expect(throws: JSONError.self) {
                try JSONValue.array([deepest]).bytes(.pretty, within: limits)
            }
            #expect(unwritten?.reason == .tooDeep)
        }
        let small = JSONReader.Limits(depth: 3, bytes: 20)
        let text = Array(#"{"a":[1,2,3,4,5,67]}"#.utf8)
        #expect(try JSONValue(parsing: text, limits: small).bytes([], within: small) == text)
        #expect(throws: JSONError(reason: .tooLarge, offset: 20)) { try JSONValue(parsing: text + [32], limits: small) }
        #expect(throws: JSONError(reason: .tooLarge, offset: 23)) {
            try JSONValue(parsing: text).bytes(.pretty, within: small)
        }
        // A key may be an object, whose text is written as it is.
        let key = try JSONValue(parsing: #"{{"q":[[1]]}:{}}"#)
        #expect(key.depth == 4)
        #expect(throws: JSONError.self) { try key.bytes([], within: small) }
        #expect(try JSONValue(parsing: #"{"[[[[":1}"#).bytes([], within: small).count == 10)
        #expect(JSONValue.null.depth == 0)
    }
}
