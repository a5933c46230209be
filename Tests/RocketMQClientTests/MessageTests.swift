import FastJSON
import RemotingProtocol
import Testing

@testable import RocketMQClient

@Suite("RocketMQClient: messages, subscriptions and requests as bytes")
struct MessageTests {
    private let queue = RocketMQClient.MessageQueue(topic: "T", brokerName: "b", queueID: 2)

    @Test(
        "tag expressions",
        arguments: [("*", nil), ("", nil), ("A", ["A"]), (" A ||B ", ["A", "B"])] as [(String, [String]?)])
    func expressions(text: String, tags: [String]?) {
        #expect(Subscription(topic: "T", tags: text).tags == tags.map(Set.init))
    }

    @Test("a subscription is announced with its tags and their hashes; other types with their text")
    func subscriptions() {
        let wire = Subscription(topic: "T", type: "TAG", expression: "b||a").wire
        #expect(wire.subString == "b || a" && wire.tagsSet == ["a", "b"] && wire.codeSet == [97, 98])
        let sql = Subscription(topic: "T", sql92: "price > 10")
        #expect(sql.wire.expressionType == "SQL92" && sql.wire.subString == "price > 10" && sql.tags == nil)
    }

    @Test("tags are compared here, for brokers select by hash")
    func selects() {
        func message(_ tag: String?) -> ReceivedMessage {
            ReceivedMessage(topic: "T", queue: queue, body: [], properties: tag.map { ["TAGS": $0] } ?? [:])
        }
        let some = Subscription(topic: "T", tags: "Aa")
        // "Aa" and "BB" have the same hash.
        #expect(some.selects(message("Aa")) && !some.selects(message("BB")) && !some.selects(message(nil)))
        #expect(Subscription(topic: "T").selects(message(nil)))
    }

    @Test("properties are written as the log has them")
    func properties() throws {
        var message = Message(topic: "T", body: [], tag: "red", keys: ["a", "b"], properties: ["y": "2", "x": "1"])
        let base = "UNIQ_KEY\u{1}ID\u{2}WAIT\u{1}true\u{2}TAGS\u{1}red\u{2}KEYS\u{1}a b\u{2}x\u{1}1\u{2}y\u{1}2"
        #expect(try message.encodedProperties(id: "ID") == base)
        message.delivery = .after(.milliseconds(1500))
        #expect(try message.encodedProperties(id: "ID") == base + "\u{2}TIMER_DELAY_MS\u{1}1500")
        message.delivery = .delayLevel(3)
        #expect(try message.encodedProperties(id: "ID") == base + "\u{2}DELAY\u{1}3")
        message.delivery = .at(milliseconds: 99)
        #expect(try message.encodedProperties(id: "ID") == base + "\u{2}TIMER_DELIVER_MS\u{1}99")
    }

    @Test(
        "what would break the log's form is refused",
        arguments: [
            Message(topic: "", body: []), Message(topic: "T", body: [], tag: "a\u{2}b"),
            Message(topic: "T", body: [], properties: ["": "x"]),
            Message(topic: "T", body: [], properties: ["x": "\u{1}"]),
            Message(topic: "T", body: [], delivery: .delayLevel(0)),
            Message(topic: "T", body: [], delivery: .after(.seconds(-1))),
            Message(topic: "T", body: [], delivery: .after(.seconds(Int64.max))),
        ])
    func refused(message: Message) {
        #expect(throws: RocketMQClientError.self) { try message.encodedProperties(id: "ID") }
    }

    @Test("bytes that are no messages are an error, not a crash")
    func noMessages() {
        for bytes in [Array(repeating: 7, count: 100), [0, 0, 0, 8], [0, 0, 0, 8, 1, 2, 3, 4], [1]] as [[UInt8]] {
            #expect(throws: RocketMQClientError.self) { try ReceivedMessage.decode(bytes, brokerName: "b") }
        }
        #expect((try? ReceivedMessage.decode([], brokerName: "b"))?.isEmpty == true)
    }

    @Test("a message that was sent back has its own topic, and lies in the retry topic's queue")
    func retry() {
        let queue = RocketMQClient.MessageQueue(topic: "%RETRY%G", brokerName: "b", queueID: 0)
        let message = ReceivedMessage(
            topic: "%RETRY%G", queue: queue, body: Array("x".utf8), properties: ["RETRY_TOPIC": "Orders"])
        #expect(message.topic == "Orders" && message.queue == queue && message.text == "x")
    }

    @Test("a pull's flags: commit, wait, with the subscription; a slave takes no offset")
    func pullFlags() {
        func flags(_ change: (inout QueueAccess.Query) -> Void) -> [String?] {
            var query = QueueAccess.Query(queue, offset: 5)
            change(&query)
            let fields = query.command(group: "G").extFields
            return [fields["sysFlag"], fields["commitOffset"], fields["suspendTimeoutMillis"]]
        }
        #expect(flags { _ in } == ["4", "0", "0"])
        #expect(
            flags {
                $0.commit = 4
                $0.wait = .seconds(15)
            } == ["7", "4", "15000"])
        #expect(
            flags {
                $0.commit = 4
                $0.brokerID = 1
            } == ["4", "0", "0"])
    }

    @Test("only brokers with a master can be written; slaves alone can be read")
    func routes() throws {
        let data = try TopicRouteData(
            text: """
                {"brokerDatas":[{"brokerAddrs":{0:"m:1",1:"s:1"},"brokerName":"a","cluster":"C"},
                {"brokerAddrs":{2:"s:2"},"brokerName":"b","cluster":"C"}],
                "queueDatas":[{"brokerName":"a","perm":6,"readQueueNums":2,"writeQueueNums":1,"topicSysFlag":0},
                {"brokerName":"b","perm":6,"readQueueNums":1,"writeQueueNums":1,"topicSysFlag":0},
                {"brokerName":"gone","perm":6,"readQueueNums":9,"writeQueueNums":9,"topicSysFlag":0}]}
                """)
        let route = QueueRoute(data, topic: "T")
        #expect(route.writable.map(\.description) == ["T a/0"])
        #expect(route.readable.map(\.description) == ["T a/0", "T a/1", "T b/0"])
        #expect(route.server(of: "a", preferredID: 1) == "s:1" && route.server(of: "a", preferredID: 7) == "m:1")
        #expect(route.server(of: "b") == "s:2" && route.master(of: "b") == nil && route.server(of: "gone") == nil)
    }

    @Test("the answer to a check-back carries the broker's own fields")
    func checkBack() throws {
        let question = RemotingCommand(
            .checkTransactionState,
            extFields: ["tranStateTableOffset": "7", "commitLogOffset": "99", "msgId": "M", "transactionId": "X"])
        let end = try #require(TransactionEnd(answering: question, group: "G", state: .rollback))
        let fields = end.command.extFields
        #expect(fields["commitOrRollback"] == "12" && fields["fromTransactionCheck"] == "true")
        #expect(fields["tranStateTableOffset"] == "7" && fields["commitLogOffset"] == "99")
        #expect(TransactionEnd(answering: RemotingCommand(.checkTransactionState), group: "G", state: .commit) == nil)
    }
}

@Suite("RocketMQClient: errors and settings")
struct ClientErrorTests {
    @Test("a refusal names the server, the code and the first line of the remark")
    func refusal() {
        let reply = RemotingCommand.response(.topicNotExist, remark: "no topic\nSee http://example.org")
        let refusal = ServerRefusal(address: "h:1", reply: reply)
        #expect(refusal.description == "h:1 answered code 17 topicNotExist: no topic")
        #expect(RocketMQClientError.refused(refusal).responseCode == 17)
        let strange = ServerRefusal(address: "h:1", reply: RemotingCommand(code: 4711))
        #expect(strange.reason == "code 4711" && strange.codeName == nil)
    }

    @Test("name servers come from text with ; or ,; none is an error")
    func nameServers() {
        #expect(ClientSettings(nameServers: "a:1;b:2,c:3").nameServers == ["a:1", "b:2", "c:3"])
        #expect(throws: RocketMQClientError.self) { try AdminClient(ClientSettings(nameServers: ";")) }
    }

    @Test("each client of a process has its own ID, whose first part is an address")
    func identities() {
        let ids = (0..<100).map { _ in ClientIdentity.make() }
        #expect(Set(ids).count == 100)
        #expect(ids.allSatisfy { $0.split(separator: "@").first?.split(separator: ".").count == 4 })
        let keys = UniqueKeys()
        #expect(keys.next().count == 32 && keys.next() != keys.next())
    }

    @Test("consumers that could not work are refused before they start")
    func wrongOptions() {
        func consumer(_ topics: [String], _ change: (inout PushConsumer.Options) -> Void = { _ in }) throws {
            var options = PushConsumer.Options()
            change(&options)
            _ = try PushConsumer(
                ClientSettings(nameServers: "a:1"), group: "G", subscriptions: topics.map { Subscription(topic: $0) },
                options: options, handler: { _ in .success })
        }
        #expect(throws: RocketMQClientError.self) { try consumer([]) }
        #expect(throws: RocketMQClientError.self) { try consumer(["T", "T"]) }
        #expect(throws: RocketMQClientError.self) { try consumer(["T"]) { $0.pullBatchSize = 0 } }
        #expect(throws: RocketMQClientError.self) { try consumer(["T"]) { $0.consumeBatchSize = 2000 } }
        #expect(throws: RocketMQClientError.self) { try consumer(["T"]) { $0.order = .concurrent(0) } }
        #expect(throws: Never.self) { try consumer(["T", "U"]) }
    }

    @Test("a broadcasting consumer's offsets survive in a file of Java's form")
    func broadcastOffsets() throws {
        let queue = RocketMQClient.MessageQueue(topic: "T", brokerName: "b", queueID: 2)
        var offsets = BroadcastOffsets()
        offsets[queue] = 42
        #expect(offsets.json.text() == #"{"offsetTable":{{"brokerName":"b","queueId":2,"topic":"T"}:42}}"#)
        #expect(throws: RocketMQClientError.self) { try offsets.write(to: "/nonexistent/folder/offsets.json") }
        #expect(try BroadcastOffsets(file: "/nonexistent/offsets.json")[queue] == nil)
    }

    @Test("trace records of one message are picked out of a trace message")
    func traces() {
        let pub = ["Pub", "1700000000000", "", "PG", "T", "ID", "", "", "", "", "12", "0", "", "true"]
        let sub = ["SubAfter", "r", "ID", "3", "false", "", "", "1700000000001", "CG"]
        let other = ["Pub", "1", "", "PG", "T", "OTHER", "", "", "", "", "1", "0", "", "true"]
        let text = [pub, other, sub].map { $0.joined(separator: "\u{1}") }.joined(separator: "\u{2}")
        let message = ReceivedMessage(
            topic: "TR", queue: RocketMQClient.MessageQueue(topic: "TR", brokerName: "b", queueID: 0),
            body: Array(text.utf8))
        let records = MessageTraceRecord.records(in: message, of: "ID")
        #expect(records.map(\.group) == ["PG", "CG"] && records.map(\.isSuccess) == [true, false])
        #expect(records.map(\.timestamp) == [1_700_000_000_000, 1_700_000_000_001])
    }
}
