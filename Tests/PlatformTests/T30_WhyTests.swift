import FastJSON
import Foundation
import NIOCore
import NIOPosix
import RemotingProtocol
import RemotingTransport
import TestTools
import Testing

extension PlatformTests {
    /// The question every operator is asked: why does my consumer get nothing?
    @Suite("T30 apus why", .serialized)
    struct T30_Why {
        private func causes(_ platform: Platform, _ words: String...) async throws -> [JSONValue] {
            let outcome = try await Program.run(
                Binaries.apus, ["why", "--json", "-n", platform.nameServer] + words, within: .seconds(40))
            #expect(outcome.status == 0, "\(outcome)")
            let json = try JSONValue(parsing: Array(outcome.lines.joined().utf8))
            return (json["findings"]?.array ?? []).filter { $0["weight"]?.string == "cause" }
        }

        private func texts(_ causes: [JSONValue]) -> String {
            causes.map { "\($0["text"]?.string ?? "") → \($0["command"]?.string ?? "")" }.joined(separator: "\n")
        }

        @Test(
            "a wrong tag, a wrong property, a closed group, no consumer there: each is named", .timeLimit(.minutes(2)))
        func causes() async throws {
            let platform = try await Platform.start()
            let absent = texts(try await causes(platform, "--group", "Nobody", "--topic", "Orders"))
            #expect(absent.contains("no broker has a topic 'Orders'") && absent.contains("no consumer of the group"))

            for number in 0..<12 {
                let sent = try await platform.ask(
                    platform.broker,
                    RemotingCommand(
                        .sendMessageV2,
                        extFields: [
                            "a": "P", "b": "Orders", "c": "TBW102", "d": "2", "e": String(number % 2), "f": "0",
                            "g": "1",
                            "h": "0", "i": "TAGS\u{1}blue\u{2}price\u{1}\(number)", "j": "0", "k": "false",
                            "m": "false",
                        ], body: Array("order \(number)".utf8)))
                #expect(sent.code == 0, "\(sent.remark ?? "")")
            }
            try await eventually("the route is registered") {
                try await platform.route(of: "Orders") == ["broker-a"]
            }
            let consumer = try Program(
                Binaries.apus,
                [
                    "consume", "--topic", "Orders", "--group", "Billing", "--tag", "bleu", "--from", "first",
                    "--name-server", platform.nameServer,
                ])
            defer { consumer.send(signal: SIGKILL) }
            try await eventually("the consumer has its queues") {
                let found = try await causes(platform, "--group", "Billing")
                let text = texts(found)
                return found.count == 1 && text.contains("of the last 12 messages of Orders 0 have tags 'bleu'")
                    && text.contains("is blue meant instead of bleu?") && text.contains("blue (12)")
            }

            // The broker's own filter decides about SQL92.
            let client = try await RemotingClient.connect(
                to: platform.broker, group: MultiThreadedEventLoopGroup.singleton, timeout: .seconds(5), inbound: nil)
            let beat = """
                {"clientID":"sql@1","consumerDataSet":[{"consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET","consumeType":\
                "CONSUME_PASSIVELY","groupName":"Prices","messageModel":"CLUSTERING","subscriptionDataSet":[{\
                "classFilterMode":false,"codeSet":[],"expressionType":"SQL92","subString":"prise > 3","subVersion":1,\
                "tagsSet":[],"topic":"Orders"}],"unitMode":false}],"producerDataSet":[]}
                """
            let greeted = try await client.invoke(
                RemotingCommand(.heartBeat, body: Array(beat.utf8)), timeout: .seconds(5))
            #expect(greeted.code == 0)
            let prices = texts(try await causes(platform, "--group", "Prices"))
            #expect(prices.contains("of the last 12 messages of Orders 0 match SQL92 'prise > 3'"), "\(prices)")
            #expect(prices.contains("no message has the property prise (is price meant?)"), "\(prices)")

            let closed = try await Program.run(
                Binaries.apus,
                [
                    "admin", "updateSubGroup", "-b", platform.broker, "-g", "Prices", "-s", "false", "-n",
                    platform.nameServer,
                ])
            #expect(closed.status == 0, "\(closed)")
            #expect(texts(try await causes(platform, "--group", "Prices")).contains("its consumeEnable is false"))
            await client.close()

            let lines = try await Program.run(
                Binaries.apus, ["why", "--group", "Billing", "-n", platform.nameServer], within: .seconds(40))
            #expect(
                lines.lines.first == "group Billing:" && lines.lines.contains { $0.contains("→ apus admin printMsg") })
            #expect(lines.lines.contains { $0.contains("broker-a") && $0.contains("@") }, "\(lines.lines)")
            try await platform.stop()
        }
    }
}
