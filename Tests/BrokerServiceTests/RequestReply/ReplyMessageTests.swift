import Foundation
import RemotingProtocol
import Testing

@Suite("request and reply, through a broker")
struct ReplyMessageTests {
    private func reply(_ connection: RawConnection, _ properties: String) throws -> Int32 {
        try connection.post(
            .sendReplyMessageV2,
            [
                "a": "RG", "b": "DefaultCluster_REPLY_TOPIC", "c": "TBW102", "d": "4", "e": "0", "f": "0",
                "g": "1795246622253", "h": "0", "i": RawConnection.properties(properties), "j": "0", "k": "false",
                "m": "false", "n": "broker-a",
            ], body: Array("reply to ask".utf8))
    }

    private func answer(_ connection: RawConnection, to opaque: Int32) throws -> RemotingCommand {
        while true {
            let frame = try connection.receive()
            if frame.isResponse, frame.opaque == opaque { return frame }
        }
    }

    @Test("a reply is pushed to the client that asked, with Apache's fields, and stored")
    func push() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let asker = try harness.connect()
        try asker.heartbeat("asker@i4", producerGroup: "AG")
        let replier = try harness.connect()
        let opaque = try reply(
            replier, "MSG_TYPE=reply;REPLY_TO_CLIENT=asker@i4;UNIQ_KEY=U1;TTL=10000;CORRELATION_ID=c-1")
        let pushed = try asker.request(.pushReplyMessageToClient)
        #expect(!pushed.isOneway)
        #expect(String(decoding: pushed.body, as: UTF8.self) == "reply to ask")
        #expect(
            Set(pushed.extFields.keys) == [
                "queueId", "flag", "sysFlag", "reconsumeTimes", "storeTimestamp", "unitMode", "defaultTopic",
                "bornHost",
                "defaultTopicQueueNums", "producerGroup", "topic", "bornTimestamp", "storeHost", "properties",
            ])
        #expect(pushed.extFields["topic"] == "DefaultCluster_REPLY_TOPIC")
        #expect(pushed.extFields["storeHost"] == "127.0.0.2:31911")
        let properties = pushed.extFields["properties"] ?? ""
        for part in ["MSG_TYPE\u{1}reply", "CORRELATION_ID\u{1}c-1", "PUSH_REPLY_TIME\u{1}", "TTL\u{1}10000"] {
            #expect(properties.contains(part))
        }
        try asker.answer(pushed)
        let done = try answer(replier, to: opaque)
        #expect(done.code == 0)
        #expect(done.extFields["queueOffset"] == "0")
        #expect(done.extFields["queueId"] == "0")
        #expect(done.extFields["msgId"]?.count == 32)
        #expect(try replier.consume("DefaultCluster_REPLY_TOPIC").map(\.body) == ["reply to ask"])
    }

    @Test("no client to push to: the replier learns it")
    func absent() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let replier = try harness.connect()
        let missing = try answer(replier, to: try reply(replier, "REPLY_TO_CLIENT=gone"))
        #expect(missing.code == ResponseCode.systemError.rawValue)
        #expect(missing.remark == "push reply message fail, channel of <gone> not found.")
        let nobody = try answer(replier, to: try reply(replier, "MSG_TYPE=reply"))
        #expect(nobody.remark == "reply message properties[REPLY_TO_CLIENT] is null")
        let asker = try harness.connect()
        try asker.heartbeat("asker", producerGroup: "AG")
        let opaque = try reply(replier, "REPLY_TO_CLIENT=asker")
        try asker.answer(try asker.request(.pushReplyMessageToClient), .systemError)
        #expect(try answer(replier, to: opaque).remark == "push reply message to askerfail.")
    }
}
