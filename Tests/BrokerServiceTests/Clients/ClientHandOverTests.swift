import Foundation
import RemotingProtocol
import TestTools
import Testing

@testable import BrokerService

/// A restart as clients see it: their connections go from one broker to the next.
@Suite struct ClientHandOverTests {
    private let heartbeat = Array(
        """
        {"clientID":"c@1","producerDataSet":[{"groupName":"P"}],"consumerDataSet":[{"groupName":"G","consumeType":"CONSUME_PASSIVELY",\
        "messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET","unitMode":false,\
        "subscriptionDataSet":[{"topic":"T","subString":"*","subVersion":1,"expressionType":"TAG","tagsSet":[],"codeSet":[]}]}]}
        """.utf8)

    private func pull(offset: Int) -> [String: String] {
        [
            "consumerGroup": "G", "topic": "T", "queueId": "0", "queueOffset": String(offset), "maxMsgNums": "8",
            // Suspend, and no subscription: that is in the heartbeat.
            "sysFlag": "2", "commitOffset": "0", "suspendTimeoutMillis": "15000", "subVersion": "1",
        ]
    }

    private func send(_ body: String) -> ([String: String], [UInt8]) {
        (
            [
                "producerGroup": "P", "topic": "T", "defaultTopic": "TBW102", "defaultTopicQueueNums": "1",
                "queueId": "0", "sysFlag": "0", "bornTimestamp": "1", "flag": "0", "properties": "",
                "reconsumeTimes": "0", "unitMode": "false", "batch": "false",
            ], Array(body.utf8)
        )
    }

    @Test func clientsKeepConnectionAndRegistration() throws {
        let first = try BrokerHarness()
        let producer = try first.connect()
        let consumer = try first.connect()
        #expect(try producer.invoke(.sendMessage, send("one").0, body: send("one").1).responseCode == .success)
        #expect(try consumer.invoke(.heartBeat, body: heartbeat).responseCode == .success)
        let held = try consumer.post(.pullMessage, pull(offset: 1))
        // Sure to be held: a later request of the connection has been answered.
        #expect(try consumer.invoke(.heartBeat, body: heartbeat).responseCode == .success)

        let given = try first.handOver()
        #expect(given.connections.count == 2)
        // Who waited is told to ask again, and does; it is not read for now. The producer has not noticed anything.
        let answer = try consumer.answer(to: held)
        #expect(answer.responseCode == .pullNotFound)
        let again = try consumer.post(.pullMessage, pull(offset: 1))
        let sent = try producer.post(.sendMessage, send("two").0, body: send("two").1)

        let second = try BrokerHarness(folder: first.folder)
        defer { try? second.end() }
        try second.adopt(given)
        #expect(try producer.answer(to: sent).responseCode == .success)
        let found = try consumer.answer(to: again)
        #expect(found.responseCode == .success, "\(found.code) \(found.remark ?? "")")
        #expect(String(decoding: found.body, as: UTF8.self).contains("two"))
        let members = try producer.invoke(.getConsumerListByGroup, ["consumerGroup": "G"])
        #expect(String(decoding: members.body, as: UTF8.self).contains("c@1"))
    }

    @Test("heartbeats kept for a restart have a bound together, and give their bytes back")
    func bytesOfAll() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        func bytes() throws -> Int { try harness.onLoop { $0.processors.clients.heartbeats.bytes } }
        func heartbeat(_ connection: RawConnection, _ id: String) throws -> Int {
            let topics = (0..<300).map { SubscriptionData(topic: "Topic\($0)", subVersion: 1) }
            let body = HeartbeatData(
                clientID: id, consumerDataSet: [ConsumerData(groupName: "G", subscriptionDataSet: topics)]
            ).encoded()
            #expect(try connection.invoke(.heartBeat, body: body).responseCode == .success)
            return body.count
        }
        let clients = try (0..<3).map { _ in try harness.connect() }
        let one = try heartbeat(clients[0], "c0")
        // It is read on another thread.
        #expect(one > ClientManageProcessor.bytesAtOnce)
        try harness.onLoop { $0.processors.clients.heartbeats.bytesMax = 2 * one }
        for (index, client) in clients.enumerated() { _ = try heartbeat(client, "c\(index)") }
        #expect(try bytes() == 2 * one)
        // The third one is a member like the others.
        #expect(try harness.onLoop { $0.consumers["G"]?.clients.count } == 3)
        _ = try clients[0].invoke(.unregisterClient, ["clientID": "c0", "consumerGroup": "G"])
        #expect(try bytes() == one)
        _ = try heartbeat(clients[2], "c2")
        #expect(try bytes() == 2 * one)
        clients[1].close()
        try eventually { try bytes() == one }
        let given = try harness.handOver()
        defer { for descriptor in given.connections { close(descriptor) } }
        #expect(ClientHandOver.read(try #require(given.clients)).count == 1)
    }

    /// What is half read cannot go on in another process: it ends as it always did.
    @Test func aConnectionWithHalfAFrameEnds() throws {
        let first = try BrokerHarness()
        let half = try first.connect()
        #expect(try half.invoke(.heartBeat, body: heartbeat).responseCode == .success)
        try half.send([0, 0, 1, 0, 0, 0])
        // Time passes: nothing shows that half a frame has been read.
        usleep(50_000)
        let given = try first.handOver()
        #expect(given.connections.isEmpty && given.clients == nil)
        // Notices about its group may come before.
        #expect(throws: RawConnection.Closed.self) { while true { _ = try half.receive() } }
        try FileManager.default.removeItem(at: first.folder)
    }

    /// Bytes of another version, or cut off, are no clients; nothing of them is believed.
    @Test func strangeBytesAreNoClients() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let bytes = Array("APUSCL01".utf8) + [0, 0, 0, 0, 0, 0, 0, 9, 0, 200, 1, 2, 3, 4, 5, 6, 7]
        for length in 0...bytes.count { try harness.adopt(([], Array(bytes[..<length]))) }
        #expect(try harness.connect().invoke(.heartBeat, body: heartbeat).responseCode == .success)
    }
}

extension RawConnection {
    /// Notices from the broker are passed over.
    fileprivate func answer(to opaque: Int32) throws -> RemotingCommand {
        while true {
            let answer = try receive()
            if answer.isResponse, answer.opaque == opaque { return answer }
        }
    }
}
