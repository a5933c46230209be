import FastJSON
import Foundation
import MessageModel
import NIOCore
import TestTools
import Testing

@testable import RemotingProtocol

@Suite("bodies, ids and properties")
struct BodyTests {
    /// Made by Python's zlib in the layout of RegisterBrokerBody.encode(true), the last topic as 5.x writes it.
    static let compressed =
        "eNpjYGBQr1ZKzi/NK0ktUrIy1lEqycxNLS5JzC1QsjI0tzQ1MjEzNTU1MDCoZWBgYAZi8ZD8gsxkRwUTBQsFM4VgTz93H9f4EEd3oJSkapBrSFCkqruCIRCiSeqD9TkpGAGhiYJvqE+IJ0hGoVpJG2hhcWJ6ql5JZUGqkpWSm6ebvxLIOsFoJUMDPRA0tDI2MDBUigUKMgAAc0EqkQ=="

    @Test("a compressed registration")
    func compressedRegistration() throws {
        let data = try #require(Data(base64Encoded: Self.compressed))
        let body = try data.withUnsafeBytes { try RegisterBrokerBody(body: $0, compressed: true) }
        let wrapper = body.topicConfigSerializeWrapper
        #expect(wrapper.dataVersion == DataVersion(timestamp: 1_795_246_555_000, counter: 3))
        #expect(wrapper.topicConfigTable.map { $0.topicName } == ["TopicA", "%RETRY%G", "TopicB"])
        #expect(wrapper.topicConfigTable[0].readQueueNums == 4)
        #expect(wrapper.topicConfigTable[0].writeQueueNums == 8)
        #expect(wrapper.topicConfigTable[2].perm == 4)
        #expect(wrapper.topicConfigTable[2].topicFilterType == "MULTI_TAG")
        #expect(wrapper.topicConfigTable[2].attributes == ["+message.type": "FIFO"])
        #expect(body.filterServerList == ["10.0.0.1:3001"])
        #expect(data.withUnsafeBytes { Zlib.crc32($0) } == 942_260_971)

        var ours = body
        ours.topicConfigSerializeWrapper.topicConfigTable[2].attributes = nil
        let back = try ours.compressed().withUnsafeBytes { try RegisterBrokerBody(body: $0, compressed: true) }
        #expect(back == ours)
    }

    /// The scanner reads the clients' own form; whatever it takes, the JSON reader takes as the same.
    @Test("acknowledgements of a batch are read alike by the scanner and as any JSON", arguments: UInt64(1)...8)
    func batchAcknowledgements(seed: UInt64) throws {
        var random = SplitMix(state: seed)
        var (scanned, refused) = (0, 0)
        for _ in 0..<150 {
            let entries = try (0..<Int.random(in: 0...3, using: &random)).map { _ in
                let start = Int64.random(in: 0...(1 << 40), using: &random)
                let handle = try #require(
                    PopHandle("\(start) \(Int64.random(in: 0...(1 << 50), using: &random)) 60000 0 \(start % 3) b 3 9"))
                let offsets = (0..<Int64.random(in: 1...40, using: &random)).map { start + $0 * 3 }
                return BatchAckBody.Entry(
                    group: "group-\(start % 7)", topic: "t%\(start)", handle: handle, offsets: offsets)
            }
            var text = BatchAckBody.encoded(entries, brokerName: "broker-a")
            if entries.isEmpty {
                #expect(text.withUnsafeBytes { BatchAckScanner.entries($0) } == nil)
            } else {
                #expect(text.withUnsafeBytes { BatchAckScanner.entries($0) } == entries)
            }
            for _ in 0..<4 {
                let place = Int.random(in: 0..<text.count, using: &random)
                switch Int.random(in: 0..<4, using: &random) {
                case 0: text[place] = UInt8.random(in: 0...127, using: &random)
                case 1: text.remove(at: place)
                case 2: text.insert(try #require(Array("\"\\{}[],:0-9 ".utf8).randomElement(using: &random)), at: place)
                default: text.insert(contentsOf: text[place..<min(text.count, place + 9)], at: place)
                }
                let found = text.withUnsafeBytes { BatchAckScanner.entries($0) }
                let read = try? text.withUnsafeBytes { bytes throws(RemotingDecodeError) in
                    try BatchAckBody(anyJSON: bytes).entries
                }
                if let found {
                    #expect(found == read, "seed \(seed): \(String(decoding: text, as: UTF8.self))")
                    scanned += 1
                } else {
                    refused += 1
                }
            }
        }
        // Both ways were met.
        #expect(scanned > 10 && refused > 100)
    }

    @Test("a compressed registration that lies about its lengths is refused")
    func badRegistrations() throws {
        let data = try #require(Data(base64Encoded: Self.compressed))
        for count in [0, 1, 10, data.count / 2, data.count - 1] {
            #expect(throws: RemotingDecodeError.self) {
                try data.prefix(count).withUnsafeBytes { try RegisterBrokerBody(body: $0, compressed: true) }
            }
        }
        for plain: [UInt8] in [
            [0xff, 0xff, 0xff, 0xff], [0, 0, 0, 2, 0x7b, 0x7d, 0x7f, 0xff, 0xff, 0xff], [0, 0, 0],
        ] {
            #expect(throws: RemotingDecodeError.self) {
                try Zlib.deflate(plain).withUnsafeBytes { try RegisterBrokerBody(body: $0, compressed: true) }
            }
        }
    }

    @Test("inflating is bounded, and says what is wrong")
    func inflate() throws {
        let bytes = [UInt8](repeating: 7, count: 300_000)
        let packed = Zlib.deflate(bytes)
        #expect(try packed.withUnsafeBytes { try Zlib.inflate($0, bytesMax: 300_000) } == bytes)
        #expect(throws: ZlibError.tooLarge(bytesMax: 299_999)) {
            try packed.withUnsafeBytes { try Zlib.inflate($0, bytesMax: 299_999) }
        }
        #expect(throws: ZlibError.truncated) {
            try packed.dropLast(3).withUnsafeBytes { try Zlib.inflate($0, bytesMax: 300_000) }
        }
        #expect(throws: ZlibError.corrupt) {
            try [UInt8](repeating: 1, count: 9).withUnsafeBytes { try Zlib.inflate($0, bytesMax: 300_000) }
        }
    }

    @Test("route data with number keys, and as standard JSON")
    func route() throws {
        let text =
            #"{"brokerDatas":[{"brokerAddrs":{0:"10.0.0.1:10911",1:"10.0.0.2:10911"},"brokerName":"b","cluster":"c"}],"#
            + #""filterServerTable":{},"queueDatas":[{"brokerName":"b","perm":6,"readQueueNums":4,"topicSynFlag":1,"#
            + #""writeQueueNums":4}]}"#
        let route = try TopicRouteData(text: text)
        #expect(route.brokerDatas[0].brokerAddrs == [0: "10.0.0.1:10911", 1: "10.0.0.2:10911"])
        #expect(route.brokerDatas[0].preferredAddress == "10.0.0.1:10911")
        #expect(route.queueDatas[0].topicSysFlag == 1)
        #expect(route.json.text().contains(#"{0:"10.0.0.1:10911",1:"10.0.0.2:10911"}"#))
        #expect(route.json.text([.standard]).contains(#"{"0":"10.0.0.1:10911","1":"10.0.0.2:10911"}"#))
        #expect(throws: RemotingDecodeError.self) { try TopicRouteData(text: "[]") }
        #expect(throws: RemotingDecodeError.self) { try TopicRouteData(text: #"{"brokerDatas":7}"#) }
    }

    @Test("the C++ client's heartbeat sends enums as numbers")
    func numericEnums() throws {
        let heartbeat = try HeartbeatData(
            text: #"{"clientID":"x","consumerDataSet":[{"groupName":"g","consumeType":1,"messageModel":0,"#
                + #""consumeFromWhere":4,"subscriptionDataSet":[{"topic":"t","subString":"*"}]}],"producerDataSet":[]}"#
        )
        #expect(heartbeat.consumerDataSet[0].consumeType == "CONSUME_PASSIVELY")
        #expect(heartbeat.consumerDataSet[0].messageModel == "BROADCASTING")
        #expect(heartbeat.consumerDataSet[0].consumeFromWhere == "CONSUME_FROM_FIRST_OFFSET")
    }

    @Test("message ids in both address families")
    func messageIDs() throws {
        let id = "7F00000200007CA70000000000000276"
        let (host, physicalOffset) = try #require(OffsetMessageID.parse(id))
        #expect(host.text == "127.0.0.2:31911")
        #expect(physicalOffset == 0x276)
        #expect(OffsetMessageID.text(host: host, physicalOffset: physicalOffset) == id)
        let v6 = HostAddress(ipv6High: 0x2001_0db8_0000_0000, low: 1, port: 10911)
        let long = OffsetMessageID.text(host: v6, physicalOffset: 77)
        #expect(long == "20010DB8000000000000000000000001" + "00002A9F" + "000000000000004D")
        #expect(OffsetMessageID.parse(long)?.host == v6)
        #expect(v6.hostText == "2001:db8:0:0:0:0:0:1")
        #expect(HostAddress(ipv6High: 0, low: 0xffff_7f00_0001, port: 1).text == "127.0.0.1:1")
        #expect(HostAddress(ipv4Text: "10.0.0.1:10911")?.text == "10.0.0.1:10911")
        #expect(HostAddress(ipv4Text: "10.0.0.256:1") == nil)
        for bad in ["", "7F", id + "0", String(repeating: "g", count: 32)] {
            #expect(OffsetMessageID.parse(bad) == nil)
        }
    }

    @Test("the answer to a batch joins the ids of its messages")
    func batchResponse() throws {
        let host = HostAddress(ipv4: 0x7f00_0001, port: 10911)
        for serialization in [HeaderSerialization.json, .rocketMQ] {
            var buffer = ByteBuffer()
            [Int64](0..<64).withUnsafeBufferPointer { offsets in
                ResponseEncoder.encodeSendResponse(
                    into: &buffer, ReturnAddress(opaque: 1, serialization: serialization, isOneway: false),
                    storeHost: host, physicalOffsets: offsets, queueID: -1, queueOffset: .max)
            }
            let command = try buffer.withUnsafeReadableBytes { try RemotingCommand(decoding: $0) }
            let ids = try #require(command.extFields["msgId"]).split(separator: ",")
            #expect(ids.count == 64)
            #expect(OffsetMessageID.parse(String(ids[63]))?.physicalOffset == 63)
            #expect(command.extFields["queueId"] == "-1")
            #expect(command.extFields["queueOffset"] == "9223372036854775807")
        }
    }

    @Test("remarks and fields with anything in them arrive unchanged")
    func hostileText() throws {
        let text = "\"\\\u{0}\u{1f}\u{7f}/中😀\r\n" + String(repeating: "\u{1}", count: 500)
        for serialization in [HeaderSerialization.json, .rocketMQ] {
            var buffer = ByteBuffer()
            ResponseEncoder.encode(
                into: &buffer, ReturnAddress(opaque: .min, serialization: serialization, isOneway: false), .systemError,
                remark: text, fields: [(text, text), ("", "")], body: [1])
            let command = try buffer.withUnsafeReadableBytes { try RemotingCommand(decoding: $0) }
            #expect(command.remark == text)
            #expect(command.extFields == [text: text, "": ""])
            #expect(command.opaque == .min)
        }
    }

    @Test("properties")
    func properties() throws {
        let bytes = MessageProperties.encode([("KEYS", "a b"), ("TAGS", "x"), ("e", "")])
        // Java's rule (MessageDecoder.string2messageProperties): without a value it is no property; the last one of a
        // name counts.
        #expect(MessageProperties.decode(bytes) == ["KEYS": "a b", "TAGS": "x"])
        #expect(MessageProperties.decode(Array("a\u{1}b\u{2}a\u{1}c\u{2}".utf8)) == ["a": "c"])
        bytes.withUnsafeBytes { raw in
            #expect(MessageProperties.value(of: "TAGS", in: raw).map { String(decoding: $0, as: UTF8.self) } == "x")
            #expect(MessageProperties.value(of: "e", in: raw) == nil)
            #expect(MessageProperties.value(of: "TAG", in: raw) == nil)
            #expect(MessageProperties.value(of: "x", in: raw) == nil)
        }
        // RocketMQ 4.9 writes no separator behind the last property of a record.
        #expect(MessageProperties.decode(Array("a\u{1}b\u{2}c\u{1}d".utf8)) == ["a": "b", "c": "d"])
        #expect(MessageProperties.decode(Array("\u{2}\u{2}junk\u{2}".utf8)) == [:])
    }
}
