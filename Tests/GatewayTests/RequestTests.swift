import FastJSON
import RocketMQClient
import Testing

@testable import Gateway

@Suite struct RequestTests {
    private func sending(_ text: String) throws(Problem) -> RequestBodies.Sending {
        try RequestBodies.sending(try RequestBodies.object(Array(text.utf8), Shapes.send), topic: "T")
    }

    private func cause(_ text: String) -> String {
        do throws(Problem) {
            _ = try sending(text)
            return "taken"
        } catch {
            return error.status == 400 ? error.cause : "\(error)"
        }
    }

    @Test func oneMessageHasAllItsMembers() throws {
        let one = try sending(
            """
            {"body":"hällo","tag":"en","keys":["a","b"],"properties":{"price":"3"},"orderingKey":"Ann"}
            """)
        let message = try #require(one.messages.first)
        #expect(!one.isBatch && one.messages.count == 1)
        #expect(message.topic == "T" && message.body == Array("hällo".utf8) && message.tag == "en")
        #expect(message.keys == ["a", "b"] && message.properties["price"] == "3" && message.shardKey == "Ann")
        #expect(message.delivery == .immediate)
        guard case .orderingKey("Ann") = one.selector else { return #expect(Bool(false), "\(one.selector)") }
        #expect(try sending(#"{"bodyBase64":"AAH/"}"#).messages[0].body == [0, 1, 255])
        let delayed = try sending(#"{"body":"","delayMilliseconds":1500}"#).messages[0]
        #expect(delayed.delivery == .after(.milliseconds(1500)))
        let timed = try sending(#"{"body":"","deliverAt":1700000000000}"#).messages[0]
        #expect(timed.delivery == .at(milliseconds: 1_700_000_000_000))
    }

    @Test func aBatchIsOne() throws {
        let batch = try sending(#"{"messages":[{"body":"a","orderingKey":"k"},{"body":"b","orderingKey":"k"}]}"#)
        #expect(batch.isBatch && batch.messages.map(\.body) == [[97], [98]])
        guard case .orderingKey("k") = batch.selector else { return #expect(Bool(false), "\(batch.selector)") }
    }

    @Test(arguments: [
        (#"{"body":"a""#, "the body is not JSON"), ("", "the body is not JSON"), ("[]", "the body is no JSON object"),
        ("7", "the body is no JSON object"), ("null", "the body is no JSON object"), ("{}", "body is missing"),
        (#"{"body":1}"#, "body is not a text"), (#"{"body":null}"#, "body is not a text"),
        (#"{"body":"a","bodyBase64":"YQ=="}"#, "body and bodyBase64 are both given"),
        (#"{"bodyBase64":"!"}"#, "bodyBase64 is no base 64"), (#"{"body":"a","tags":"x"}"#, "there is no member tags"),
        (#"{"body":"a","tag":""}"#, "tag is not a text of 1"), (#"{"body":"a","keys":"k"}"#, "keys is not an array"),
        (#"{"body":"a","keys":["a b"]}"#, "a key has a blank"), (#"{"body":"a","keys":[1]}"#, "keys is not an array"),
        (#"{"body":"a","properties":{"a":1}}"#, "properties is not an object of texts"),
        (#"{"body":"a","properties":{"TAGS":"x"}}"#, "TAGS is a name of RocketMQ's own"),
        (#"{"body":"a","properties":{"TIMER_DELAY_MS":"x"}}"#, "is a name of RocketMQ's own"),
        (#"{"body":"a","delayMilliseconds":-1}"#, "delayMilliseconds is not a whole number"),
        (#"{"body":"a","delayMilliseconds":1.5}"#, "delayMilliseconds is not a whole number"),
        (#"{"body":"a","delayMilliseconds":99999999999999999999}"#, "delayMilliseconds is not a whole number"),
        (#"{"body":"a","delayMilliseconds":1,"deliverAt":1}"#, "are both given"),
        (#"{"messages":[]}"#, "messages is not an array of 1 to"),
        (#"{"messages":[{"body":"a"},{"body":2}]}"#, "messages[1].body is not a text"),
        (#"{"messages":[{"body":"a","delayMilliseconds":5}]}"#, "messages[0] is delayed"),
        (#"{"messages":[{"body":"a"},{"body":"b","orderingKey":"k"}]}"#, "messages[1] has another orderingKey"),
        (#"{"body":"a","messages":[{"body":"a"}]}"#, "beside messages stand members"),
        (#"{"messages":[{"messages":[]}]}"#, "there is no member messages[0].messages"),
        (String(repeating: "[", count: 100_000), "the body is not JSON"),
        (String(repeating: #"{"a":"#, count: 20), "the body is not JSON"),
    ])
    func whatCannotBeIsRefusedWithItsPlace(text: String, expected: String) {
        #expect(cause(text).contains(expected), "\(cause(text))")
    }

    @Test func boundsOfReceivingAreChecked() throws {
        func object(_ text: String) throws(Problem) -> JSONValue {
            try RequestBodies.object(Array(text.utf8), Shapes.receive)
        }
        let value = try object(
            #"{"max":32,"waitMilliseconds":1000,"invisibleMilliseconds":2000,"filter":"a","filterType":"SQL92"}"#)
        let request = RequestBodies.receiving({ value[$0] }, topic: "T", group: "g")
        #expect(request.messagesMax == 32 && request.wait == .seconds(1) && request.timeout == .seconds(2))
        #expect(request.expression == "a" && request.expressionType == "SQL92")
        for wrong in [#"{"max":0}"#, #"{"max":33}"#, #"{"waitMilliseconds":60001}"#, #"{"invisibleMilliseconds":1}"#] {
            #expect(throws: Problem.self) { try object(wrong) }
        }
    }

    @Test func textsThatAreNoHandlesAreNamed() throws {
        let value = try JSONValue(parsing: #"{"handles":["MSAxIDIgMyA0IDAgYiAwIDU","!"]}"#)
        do throws(Problem) {
            _ = try RequestBodies.handles(value, topic: "T", group: "g")
            Issue.record("taken")
        } catch {
            #expect(error.status == 400 && error.cause == "handles[1] is no handle")
        }
    }

    @Test func failuresHaveStatusCodeCauseAndRemedy() throws {
        let missing = Problem(.topicNotFound(topic: "T", nameServers: ["n:1"]))
        #expect(missing.status == 404 && missing.code == "topic-not-found" && missing.cause.contains("'T'"))
        let away = Problem(.noNameServer(addresses: ["n:1"], cause: "refused"))
        #expect(away.status == 503 && away.headers.contains { $0 == ("retry-after", "1") })
        let body = try JSONValue(parsing: away.answer.body)
        #expect(["title", "status", "code", "cause", "remedy"].allSatisfy { body[$0] != nil })
        #expect(Problem(.connectionFailed(address: "b:1", cause: "x")).status == 503)
        #expect(Problem(.malformedAnswer(address: "b:1", reason: "x")).status == 502)
        #expect(Problem(.notSupported("old")).status == 501)
    }
}
