import Claims
import FastJSON
import Foundation
import MessageModel
import NIOConcurrencyHelpers
import RemotingProtocol
import StoreFormat
import TestFolders
import TestTools
import Testing
import WorkerProtocol

@testable import BrokerService

@Suite struct PopTests {
    private func withTopic(
        _ topic: String, messages: Int, queueID: Int32 = 0, clock: ShiftedClock? = nil,
        _ body: (BrokerHarness, RawConnection) throws -> Void
    ) throws {
        let harness = try BrokerHarness(clock: clock) { TagFilterDouble.attach(to: $0) }
        defer { try? harness.end() }
        let connection = try harness.connect()
        for index in 0..<messages { _ = try connection.send(topic: topic, queueID: queueID, body: "m\(index)") }
        try body(harness, connection)
    }

    @Test("a popped message is no other client's until its time is over")
    func hides() throws {
        try withTopic("Hides", messages: 5) { (harness, first) throws in
            let second = try harness.connect()
            let one = try first.pop(RawConnection.popFields(topic: "Hides", count: 3))
            #expect(one.bodies == ["m0", "m1", "m2"])
            #expect(one.rest == 2)
            let two = try second.pop(RawConnection.popFields(topic: "Hides"))
            #expect(two.bodies == ["m3", "m4"])
            #expect(two.rest == 0)
            let none = try first.pop(RawConnection.popFields(topic: "Hides"))
            #expect(none.code == ResponseCode.pollingTimeout.rawValue)
            #expect(none.fields["restNum"] == "0")
            // Another group has all of them.
            #expect(try first.pop(RawConnection.popFields(topic: "Hides", group: "H")).messages.count == 5)
        }
    }

    @Test("what is not acknowledged comes again within moments of its deadline, counted, under a new handle")
    func comesAgain() throws {
        try withTopic("Again", messages: 3) { (_, connection) throws in
            let popped = try connection.pop(RawConnection.popFields(topic: "Again", invisible: 300))
            #expect(popped.messages.map(\.reconsumeTimes) == [0, 0, 0])
            #expect(try connection.acknowledge(popped.messages[1], topic: "Again") == 0)
            #expect(try connection.committed(topic: "Again") == 0)
            let began = Date()
            let again = try connection.pop(
                RawConnection.popFields(topic: "Again", invisible: 60_000, poll: 5000))
            let waited = Date().timeIntervalSince(began)
            #expect(waited < 1, "waited \(waited) s for a deadline 0.3 s away")
            #expect(again.bodies == ["m0", "m2"])
            #expect(again.messages.map(\.reconsumeTimes) == [1, 1])
            // The handles of the first delivery are worth nothing now, and are answered as if they were.
            #expect(try connection.acknowledge(popped.messages[0], topic: "Again") == 0)
            #expect(try connection.committed(topic: "Again") == 0)
            #expect(try connection.acknowledge(again.messages[0], topic: "Again") == 0)
            #expect(try connection.committed(topic: "Again") == 2)
            #expect(try connection.acknowledge(again.messages[1], topic: "Again") == 0)
            #expect(try connection.committed(topic: "Again") == 3)
            #expect(try connection.acknowledge(again.messages[1], topic: "Again") == 0)
        }
    }

    /// A power cut takes the log's end, or a slave that lags becomes the master: the offsets are those of before.
    @Test("a group's offset ahead of its queue skips no new message")
    func offsetAheadOfTheLog() throws {
        let harness = try BrokerHarness()
        let connection = try harness.connect()
        for index in 0..<3 { _ = try connection.send(topic: "Ahead", body: "m\(index)") }
        let popped = try connection.pop(RawConnection.popFields(topic: "Ahead"))
        for message in popped.messages { #expect(try connection.acknowledge(message, topic: "Ahead") == 0) }
        try harness.drain()
        let file = harness.folder.appendingPathComponent("config/consumerOffset.json")
        let text = try String(contentsOf: file, encoding: .utf8)
        #expect(text.contains("0:3"))
        try text.replacing("0:3", with: "0:200").write(to: file, atomically: true, encoding: .utf8)
        let next = try BrokerHarness(folder: harness.folder)
        let again = try next.connect()
        _ = try again.send(topic: "Ahead", body: "new 0")
        #expect(try again.pop(RawConnection.popFields(topic: "Ahead", count: 1)).bodies == ["new 0"])
        try next.drain()
        let third = try BrokerHarness(folder: harness.folder)
        defer { try? third.end() }
        let last = try third.connect()
        _ = try last.send(topic: "Ahead", body: "new 1")
        #expect(try last.pop(RawConnection.popFields(topic: "Ahead")).bodies == ["new 1"])
    }

    @Test("a consumer sets the time at which a message comes again")
    func changesTheTime() throws {
        try withTopic("Change", messages: 2) { (_, connection) throws in
            let popped = try connection.pop(RawConnection.popFields(topic: "Change", invisible: 300))
            let (code, longer) = try connection.change(popped.messages[0], topic: "Change", invisible: 60_000)
            #expect(code == 0)
            #expect(longer.handle != popped.messages[0].handle)
            let (_, _) = try connection.change(popped.messages[1], topic: "Change", invisible: 0)
            // The second one is due at once, the first one not even after its first deadline.
            #expect(
                try connection.pop(RawConnection.popFields(topic: "Change")).messages.map(\.offset) == [1])
            #expect(throws: RawConnection.TimedOut.self) {
                try connection.post(.popMessage, RawConnection.popFields(topic: "Change", poll: 5000))
                _ = try connection.receive(timeoutMilliseconds: 600)
            }
            #expect(try connection.acknowledge(longer, topic: "Change") == 0)
            #expect(try connection.committed(topic: "Change") == 1)
        }
    }

    @Test("one message wakes one of those who wait, and it at once")
    func wakesOne() throws {
        try withTopic("Wake", messages: 0) { (harness, producer) throws in
            _ = try producer.send(topic: "Wake", queueID: 3, body: "first")
            let waiting = try (0..<3).map { _ in try harness.connect() }
            let first = try waiting[0].pop(RawConnection.popFields(topic: "Wake"))
            #expect(first.bodies == ["first"])
            for connection in waiting {
                try connection.post(.popMessage, RawConnection.popFields(topic: "Wake", poll: 10_000))
            }
            let asked = try producer.invoke(
                .pollingInfo, ["consumerGroup": "G", "topic": "Wake", "queueId": "-1"])
            #expect(asked.extFields["pollingNum"] == "3")
            _ = try producer.send(topic: "Wake", queueID: 1, body: "second")
            let answers = waiting.compactMap { try? $0.receive(timeoutMilliseconds: 300) }
            #expect(answers.count == 1)
            let bodies = try answers.map { try PopReply($0).bodies }
            #expect(bodies == [["second"]])
            let left = try producer.invoke(
                .pollingInfo, ["consumerGroup": "G", "topic": "Wake", "queueId": "-1"])
            #expect(left.extFields["pollingNum"] == "2")
        }
    }

    @Test("a pop that waits in vain is answered before its client stops waiting")
    func waitsInVain() throws {
        try withTopic("Vain", messages: 1) { (_, connection) throws in
            _ = try connection.pop(RawConnection.popFields(topic: "Vain"))
            let born = Int64(Date().timeIntervalSince1970 * 1000)
            let began = Date()
            let answer = try connection.pop(RawConnection.popFields(topic: "Vain", poll: 500, born: born))
            #expect(answer.code == ResponseCode.pollingTimeout.rawValue)
            #expect((0.3...0.55).contains(Date().timeIntervalSince(began)))
            // A request that was too long under way is not worked on.
            let late = try connection.pop(RawConnection.popFields(topic: "Vain", poll: 500, born: born - 5000))
            #expect(late.code == ResponseCode.pollingTimeout.rawValue)
        }
    }

    @Test("what a filter does not want is finished, and never delivered")
    func filters() throws {
        try withTopic("Tags", messages: 0) { (_, connection) throws in
            for tag in ["A", "B", "A", "C", "B"] {
                _ = try connection.send(topic: "Tags", body: tag, properties: "TAGS\u{1}\(tag)")
            }
            let popped = try connection.pop(RawConnection.popFields(topic: "Tags", expression: "B || C"))
            #expect(popped.messages.map(\.offset) == [1, 3, 4])
            #expect(popped.rest == 0)
            #expect(try connection.committed(topic: "Tags") == 1)
            for message in popped.messages { try connection.acknowledge(message, topic: "Tags") }
            #expect(try connection.committed(topic: "Tags") == 5)
            _ = try connection.send(topic: "Tags", body: "A", properties: "TAGS\u{1}A")
            let none = try connection.pop(RawConnection.popFields(topic: "Tags", expression: "B || C"))
            #expect(none.code == ResponseCode.pollingTimeout.rawValue)
            #expect(try connection.committed(topic: "Tags") == 6)
        }
    }

    @Test("an ordered group has a queue's next messages when it has finished these")
    func ordered() throws {
        try withTopic("Order", messages: 6) { (_, connection) throws in
            let fields = RawConnection.popFields(
                topic: "Order", queueID: 0, count: 2, isOrdered: true, attempt: "first")
            let popped = try connection.pop(fields)
            #expect(popped.bodies == ["m0", "m1"])
            #expect(popped.fields["reviveQid"] == "999")
            #expect(
                try connection.pop(
                    RawConnection.popFields(topic: "Order", queueID: 0, count: 2, isOrdered: true, attempt: "second")
                ).code == ResponseCode.pollingTimeout.rawValue)
            // The same attempt is the same client, which did not get its answer.
            let repeated = try connection.pop(fields)
            #expect(repeated.bodies == ["m0", "m1"])
            #expect(repeated.fields["orderCountInfo"] == nil)
            for message in repeated.messages { try connection.acknowledge(message, topic: "Order") }
            #expect(try connection.committed(topic: "Order") == 2)
            let next = try connection.pop(
                RawConnection.popFields(topic: "Order", queueID: 0, count: 2, invisible: 200, isOrdered: true))
            #expect(next.bodies == ["m2", "m3"])
            try connection.acknowledge(next.messages[0], topic: "Order")
            let again = try connection.pop(
                RawConnection.popFields(topic: "Order", queueID: 0, count: 2, poll: 5000, isOrdered: true))
            #expect(again.bodies == ["m3", "m4"])
            #expect(again.fields["orderCountInfo"] == "0 qo0%3 1")
        }
    }

    @Test("claims outlive the broker's process")
    func restart() throws {
        let folder = try TestFolder.make("pop")
        defer { try? FileManager.default.removeItem(at: folder) }
        let harness = try BrokerHarness(folder: folder)
        let connection = try harness.connect()
        for index in 0..<4 { _ = try connection.send(topic: "Restart", body: "m\(index)") }
        let popped = try connection.pop(RawConnection.popFields(topic: "Restart", count: 3, invisible: 2000))
        try connection.acknowledge(popped.messages[0], topic: "Restart")
        connection.close()
        try harness.drain()

        let next = try BrokerHarness(folder: folder)
        defer { try? next.drain() }
        let client = try next.connect()
        #expect(try client.committed(topic: "Restart") == 1)
        #expect(try client.pop(RawConnection.popFields(topic: "Restart")).bodies == ["m3"])
        try client.acknowledge(popped.messages[2], topic: "Restart")
        let again = try client.pop(RawConnection.popFields(topic: "Restart", poll: 5000))
        #expect(again.bodies == ["m1"])
        #expect(again.messages.map(\.reconsumeTimes) == [1])
    }

    @Test("a topic made again has nothing claimed, and a reset gives messages again")
    func reset() throws {
        try withTopic("Reset", messages: 3) { (_, connection) throws in
            _ = try connection.pop(RawConnection.popFields(topic: "Reset"))
            let commit = try connection.invoke(
                .updateConsumerOffset,
                ["consumerGroup": "G", "topic": "Reset", "queueId": "0", "commitOffset": "1"])
            #expect(commit.code == 0)
            #expect(try connection.pop(RawConnection.popFields(topic: "Reset")).bodies == ["m1", "m2"])
            #expect(try connection.invoke(.deleteTopicInBroker, ["topic": "Reset"]).code == 0)
            _ = try connection.send(topic: "Reset", body: "new")
            #expect(try connection.pop(RawConnection.popFields(topic: "Reset")).bodies == ["new"])
        }
    }

    @Test("offsets cloned onto a group that pops are where it goes on: once, at once, and they move on")
    func clonedOnto() throws {
        try withTopic("Cloned", messages: 5) { (harness, connection) throws in
            func clone(_ source: String) throws -> RemotingCommand {
                try connection.invoke(
                    .cloneGroupOffset, ["srcGroup": source, "destGroup": "G", "topic": "Cloned", "offline": "true"])
            }
            func take(_ popped: PopReply) throws -> [String] {
                for message in popped.messages { #expect(try connection.acknowledge(message, topic: "Cloned") == 0) }
                return popped.bodies
            }
            #expect(try take(connection.pop(RawConnection.popFields(topic: "Cloned"))).count == 5)
            let commit = try connection.invoke(
                .updateConsumerOffset,
                ["consumerGroup": "Source", "topic": "Cloned", "queueId": "0", "commitOffset": "2"])
            #expect(commit.code == 0)
            #expect(try clone("Source").code == 0)
            #expect(try connection.committed(topic: "Cloned") == 2)
            #expect(try take(connection.pop(RawConnection.popFields(topic: "Cloned"))) == ["m2", "m3", "m4"])
            #expect(try connection.committed(topic: "Cloned") == 5)
            let none = try connection.pop(RawConnection.popFields(topic: "Cloned"))
            #expect(none.code == ResponseCode.pollingTimeout.rawValue)
            // A pop that waits already gets them.
            let waiting = try harness.connect()
            try waiting.post(.popMessage, RawConnection.popFields(topic: "Cloned", poll: 20_000))
            try eventually("the pop waits") { try harness.onLoop { $0.popWaiters.count == 1 } }
            #expect(try clone("Source").code == 0)
            #expect(try take(try PopReply(waiting.receive(timeoutMilliseconds: 5000))) == ["m2", "m3", "m4"])
            let same = try clone("G")
            #expect(same.code == ResponseCode.systemError.rawValue && same.remark?.contains("both [G]") == true)
            #expect(try connection.committed(topic: "Cloned") == 5)
        }
    }

    @Test("who holds a table of offsets another one displaces finds that it counts no more")
    func displaced() throws {
        let offsets = ConsumerOffsetManager()
        let (topic, group) = (try TopicName("T"), try GroupName("G"))
        let first = offsets.make(topic, group)
        let second = offsets.make(topic, group)
        #expect(first.isGone && !second.isGone)
    }

    @Test("a pop that waits while its topic or group is deleted brings none of it, and makes no claims of it")
    func deletedWhileWaiting() throws {
        try withTopic("Gone", messages: 6) { (harness, connection) throws in
            for message in try connection.pop(RawConnection.popFields(topic: "Gone")).messages {
                try connection.acknowledge(message, topic: "Gone")
            }
            let waiting = try harness.connect()
            for isGroup in [false, true] {
                try waiting.post(.popMessage, RawConnection.popFields(topic: "Gone", poll: 20_000))
                try eventually("the pop waits") { try harness.onLoop { $0.popWaiters.count == 1 } }
                let deleted =
                    try isGroup
                    ? connection.invoke(.deleteSubscriptionGroup, ["groupName": "G", "cleanOffset": "true"])
                    : connection.invoke(.deleteTopicInBroker, ["topic": "Gone"])
                #expect(deleted.code == 0)
                let answer = try waiting.receive(timeoutMilliseconds: 5000)
                #expect(answer.code == ResponseCode.pollingTimeout.rawValue)
                #expect(try harness.onLoop { $0.claims.store.tables.count } == 0)
                for index in 0..<3 { _ = try connection.send(topic: "Gone", body: "new \(index)") }
                let popped = try connection.pop(RawConnection.popFields(topic: "Gone"))
                #expect(popped.bodies.suffix(3) == ["new 0", "new 1", "new 2"])
                #expect(popped.messages.allSatisfy { $0.reconsumeTimes == 0 })
                for message in popped.messages { try connection.acknowledge(message, topic: "Gone") }
            }
        }
    }

    @Test("several messages are acknowledged at once, by bits")
    func batch() throws {
        try withTopic("Batch", messages: 12) { (_, connection) throws in
            let popped = try connection.pop(RawConnection.popFields(topic: "Batch"))
            let popTime = try #require(Int64(popped.fields["popTime"] ?? ""))
            // All but the third and the tenth.
            let bits = Data([0b1111_1011, 0b0000_1101]).base64EncodedString()
            let entry = JSONValue.fields([
                ("b", .string(bits)), ("c", .string("G")), ("it", .integer(60_000)), ("pt", .integer(popTime)),
                ("q", .integer(0)), ("r", .string("0")), ("rq", .integer(0)), ("so", .integer(0)),
                ("t", .string("Batch")),
            ])
            let body = JSONValue.fields([("acks", .array([entry])), ("brokerName", .string("broker-a"))])
            #expect(try connection.invoke(.batchAckMessage, body: body.bytes()).code == 0)
            #expect(try connection.committed(topic: "Batch") == 2)
            try connection.acknowledge(popped.messages[2], topic: "Batch")
            #expect(try connection.committed(topic: "Batch") == 9)
            try connection.acknowledge(popped.messages[9], topic: "Batch")
            #expect(try connection.committed(topic: "Batch") == 12)
            #expect(try connection.invoke(.batchAckMessage, body: Array("{\"acks\":7}".utf8)).code == 1)
            let many = Data(repeating: 0xFF, count: 513).base64EncodedString()
            let tooMany = "{\"acks\":[{\"b\":\"\(many)\",\"c\":\"G\",\"t\":\"Batch\",\"q\":0}]}"
            #expect(
                try connection.invoke(.batchAckMessage, body: Array(tooMany.utf8)).code
                    == ResponseCode.invalidParameter.rawValue)
        }
    }

    @Test("a new group begins with the first message, or with the last")
    func begins() throws {
        try withTopic("Begin", messages: 3) { (_, connection) throws in
            #expect(
                try connection.pop(RawConnection.popFields(topic: "Begin", group: "Last", initMode: 1)).bodies == ["m2"]
            )
            #expect(try connection.pop(RawConnection.popFields(topic: "Begin", group: "First")).messages.count == 3)
        }
    }

    @Test("looking at what could be popped claims nothing; waiting for it ends when there is something")
    func looks() throws {
        try withTopic("Look", messages: 2) { (harness, connection) throws in
            let peeked = try connection.invoke(
                .peekMessage, ["consumerGroup": "G", "topic": "Look", "queueId": "-1", "maxMsgNums": "1"])
            #expect(peeked.code == 0)
            #expect(peeked.extFields["restNum"] == "1")
            #expect(NormalizedAnswer.messages(peeked.body).count == 1)
            let question = [
                "consumerGroup": "G", "topic": "Look", "queueId": "-1", "pollTime": "5000", "bornTime": "0",
            ]
            #expect(try connection.invoke(.notification, question).extFields["hasMsg"] == "true")
            #expect(try connection.pop(RawConnection.popFields(topic: "Look")).messages.count == 2)
            let waiting = try harness.connect()
            try waiting.post(.notification, question)
            #expect(throws: RawConnection.TimedOut.self) { try waiting.receive(timeoutMilliseconds: 150) }
            _ = try connection.send(topic: "Look")
            #expect(try waiting.receive().extFields["hasMsg"] == "true")
            #expect(try connection.pop(RawConnection.popFields(topic: "Look")).messages.count == 1)
        }
    }

    @Test("requests that cannot be carried out are refused with cause")
    func refusals() throws {
        try withTopic("Refuse", messages: 1) { (_, connection) throws in
            func code(_ change: (inout [String: String]) -> Void) throws -> Int32 {
                var fields = RawConnection.popFields(topic: "Refuse")
                change(&fields)
                return try connection.invoke(.popMessage, fields).code
            }
            #expect(try code { $0["topic"] = "None" } == ResponseCode.topicNotExist.rawValue)
            #expect(try code { $0["maxMsgNums"] = "33" } == ResponseCode.invalidParameter.rawValue)
            #expect(try code { $0["queueId"] = "99" } == ResponseCode.invalidParameter.rawValue)
            #expect(try code { $0["invisibleTime"] = "-2" } == ResponseCode.invalidParameter.rawValue)
            #expect(try code { $0["invisibleTime"] = String(Int64.max) } == ResponseCode.invalidParameter.rawValue)
            #expect(try code { $0["bornTime"] = String(Int64.min) } == 0)
            #expect(try code { $0["exp"] = nil } == ResponseCode.pollingTimeout.rawValue)
            #expect(try code { $0["initMode"] = nil } == ResponseCode.systemError.rawValue)
            let good = PoppedMessage(
                queueID: 0, offset: 0, body: "", reconsumeTimes: 0, handle: "0 1 60000 0 0 broker-a 0 0")
            #expect(try connection.acknowledge(good, topic: "Refuse") == 0)
            var bad = good
            bad.handle = "0 1 60000"
            #expect(try connection.acknowledge(bad, topic: "Refuse") == ResponseCode.messageIllegal.rawValue)
            bad = good
            bad.queueID = 99
            #expect(try connection.acknowledge(bad, topic: "Refuse") == ResponseCode.messageIllegal.rawValue)
            bad = good
            bad.offset = 7
            bad.handle = "0 1 60000 0 0 broker-a 0 7"
            #expect(try connection.acknowledge(bad, topic: "Refuse") == ResponseCode.noMessage.rawValue)
            bad.handle = "0 \(Int64.max) \(Int64.max) 0 0 broker-a 0 0"
            bad.offset = 0
            #expect(try connection.change(bad, topic: "Refuse", invisible: 5).code == 0)
        }
    }

    @Test("a code beyond 16 bits is understood in the binary header too")
    func binaryCodes() throws {
        try withTopic("Binary", messages: 1) { (_, connection) throws in
            let answer = try connection.invoke(
                .popMessage, RawConnection.popFields(topic: "Binary"), serialization: .rocketMQ)
            #expect(try PopReply(answer).bodies == ["m0"])
        }
    }

    @Test("a client that goes while the filter worker is asked leaves the queue to the others")
    func abandoned() throws {
        let compilations = NIOLockedValueBox<[UInt64]>([])
        let harness = try BrokerHarness { broker in
            broker.filters.connect { message in
                guard case .filterCompile(let request, _, _) = message else { return }
                compilations.withLockedValue { $0.append(request) }
            }
        }
        defer { try? harness.end() }
        let connection = try harness.connect()
        for tag in ["A", "B"] {
            _ = try connection.send(topic: "Gone", body: tag, properties: "TAGS\u{1}\(tag)")
        }
        let leaving = try harness.connect()
        try leaving.post(.popMessage, RawConnection.popFields(topic: "Gone", expression: "B"))
        // A pull that waits shows when the connection has ended.
        try leaving.post(.pullMessage, RawConnection.pullFields(topic: "Gone", offset: 2, suspendMilliseconds: 15_000))
        try eventually("the pull waits") { try harness.onLoop { $0.heldPulls } == 1 }
        try eventually("the expression is compiled") { !compilations.withLockedValue { $0.isEmpty } }
        leaving.close()
        try eventually("the connection has ended") { try harness.onLoop { $0.heldPulls } == 0 }
        try harness.onLoop { broker in
            for request in compilations.withLockedValue({ $0 }) {
                broker.filters.receive(
                    .filterCompiled(request: request, result: .tagsCodes([TagsCode.of("B")])))
            }
        }
        #expect(try connection.pop(RawConnection.popFields(topic: "Gone", expression: "B")).bodies == ["B"])
    }

    @Test("a message acknowledged while a pop asks the filter worker is not handed out again by it")
    func acknowledgedMeanwhile() throws {
        let compilations = NIOLockedValueBox<[UInt64]>([])
        let harness = try BrokerHarness { broker in
            broker.filters.connect { message in
                guard case .filterCompile(let request, _, _) = message else { return }
                compilations.withLockedValue { $0.append(request) }
            }
        }
        defer { try? harness.end() }
        let connection = try harness.connect()
        for body in ["m0", "m1", "m2"] {
            _ = try connection.send(topic: "Late", body: body, properties: "TAGS\u{1}B")
        }
        // Without an expression nothing is compiled.
        let first = try connection.pop(RawConnection.popFields(topic: "Late", count: 2, expression: ""))
        #expect(first.bodies == ["m0", "m1"])
        for message in first.messages { _ = try connection.change(message, topic: "Late", invisible: 0) }
        let due = try connection.pop(RawConnection.popFields(topic: "Late", count: 1, invisible: 1, expression: ""))
        #expect(due.bodies == ["m0"])
        let asking = try harness.connect()
        let opaque = try asking.post(
            .popMessage, RawConnection.popFields(topic: "Late", poll: 10_000, expression: "B"))
        try eventually("the expression is compiled") { !compilations.withLockedValue { $0.isEmpty } }
        // Its deadline has passed, and no other client has it.
        #expect(try connection.acknowledge(due.messages[0], topic: "Late") == 0)
        try harness.onLoop { broker in
            for request in compilations.withLockedValue({ $0 }) {
                broker.filters.receive(
                    .filterCompiled(request: request, result: .tagsCodes([TagsCode.of("B")])))
            }
        }
        let answer = try asking.receive()
        #expect(answer.opaque == opaque)
        #expect(try PopReply(answer).bodies == ["m1", "m2"])
    }
}
