import FastJSON
import Foundation
import Logging
import RemotingProtocol
import TestTools
import Testing

@testable import BrokerService

@Suite("lines and counts for operators") struct OperatorNoticeTests {
    @Test("ten lines a second, the rest counted and said with the next")
    func limiter() {
        var limiter = LineLimiter()
        let allowed = (0..<25).map { _ in limiter.allows(at: 1_000).isAllowed }
        #expect(allowed.count { $0 } == 10 && allowed.prefix(10).allSatisfy { $0 })
        let next = limiter.allows(at: 2_000)
        #expect(next.isAllowed && next.omitted == 15)
        #expect(limiter.allows(at: 2_000).omitted == 0)
        for _ in 0..<20 { _ = limiter.allows(at: 3_000) }
        #expect(limiter.takeOmitted() == 10 && limiter.takeOmitted() == 0)
    }

    @Test("a message that is given up: one line, and counts by group")
    func deadLetters() throws {
        let log = LogLines()
        let harness = try BrokerHarness(log: log)
        defer { try? harness.end() }
        let client = try harness.connect()
        _ = try client.send(topic: "T")
        let sent = try client.invoke(.pullMessage, RawConnection.pullFields(topic: "T", group: "G"))
        let offset = try #require(MessageExt.decodeAll(sent.body).first?.physicalOffset)
        let back = try client.invoke(
            .consumerSendMessageBack, ["group": "G", "offset": String(offset), "delayLevel": "-1"])
        #expect(back.code == 0, "\(back.remark ?? "")")
        // A client that retries by itself sends to its retry topic instead.
        let own = try client.invoke(
            .sendMessageV2,
            [
                "a": "G", "b": "%RETRY%G", "c": "TBW102", "d": "1", "e": "0", "f": "0", "g": "1", "h": "0", "i": "",
                "j": "16", "k": "false", "m": "false",
            ], body: Array("x".utf8))
        #expect(own.code == 0, "\(own.remark ?? "")")
        let table = try client.invoke(.getBrokerRuntimeInfo).json()["table"]
        #expect(table?["deadLetters"]?.string == "2" && table?["deadLetters_G"]?.string == "2")
        let lines = log.lines.filter { $0.contains("was given up after") }
        #expect(lines.count == 2)
        #expect(
            lines.first?.contains("consumer group G") == true
                && lines.first?.contains("%DLQ%G queue 0 offset 0") == true)
        #expect(lines.last?.contains("given up after 16 deliveries") == true, "\(lines)")
    }

    @Test("a consumer that leaves: one line with what remains; none when the broker itself ends")
    func leaving() throws {
        var log = LogLines()
        log.logLevel = .notice
        let harness = try BrokerHarness(log: log)
        func consumer(_ id: String) throws -> RawConnection {
            let client = try harness.connect()
            let beat = """
                {"clientID":"\(id)","consumerDataSet":[{"consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET","consumeType":\
                "CONSUME_PASSIVELY","groupName":"G","messageModel":"CLUSTERING","subscriptionDataSet":[],"unitMode":false}],\
                "producerDataSet":[]}
                """
            #expect(try client.invoke(.heartBeat, body: Array(beat.utf8)).code == 0)
            return client
        }
        let first = try consumer("c1")
        let second = try consumer("c2")
        _ = try first.invoke(.unregisterClient, ["clientID": "c1", "consumerGroup": "G"])
        #expect(
            log.lines.contains { $0.contains("consumer c1") && $0.contains("has left group G: one client remains") })
        let third = try consumer("c3")
        second.close()
        _ = try third.invoke(.getConsumerListByGroup, ["consumerGroup": "G"])
        try eventually("a line") {
            log.lines.contains { $0.contains("consumer c2") && $0.contains("has left group G") }
        }
        try harness.end()
        #expect(!log.lines.contains { $0.contains("consumer c3") && $0.contains("has left") })
    }

    @Test("an online change is listed with what it replaces, and gone when the former value is set again")
    func changes() throws {
        let harness = try BrokerHarness([("fileReservedTime", "24")])
        defer { try? harness.end() }
        let client = try harness.connect()
        func change(_ text: String) throws {
            let answer = try client.invoke(.updateBrokerConfig, body: Array(text.utf8))
            #expect(answer.code == 0, "\(answer.remark ?? "")")
        }
        func listed(_ key: String) throws -> String? {
            try client.invoke(.getBrokerRuntimeInfo).json()["table"]?["changedSetting_\(key)"]?.string
        }
        try change("fileReservedTime=48\ndefaultQueryMaxNum=64\n")
        #expect(try listed("fileReservedTime") == "48 (file: 24)")
        #expect(try listed("defaultQueryMaxNum") == "64 (not in the file)")
        try change("fileReservedTime=24\n")
        #expect(try listed("fileReservedTime") == nil)
        // The default, which the file does not name.
        try change("defaultQueryMaxNum=32\n")
        #expect(try listed("defaultQueryMaxNum") == nil)
    }
}
