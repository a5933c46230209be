import Foundation
import NIOCore
import NIOPosix
import RemotingProtocol
import RemotingTransport
import StoreFormat
import Testing

extension PlatformTests {
    /// Subscriptions that need the filter worker for every batch.
    @Suite("T09 filters", .serialized)
    struct T09_Filters {
        static let topic = "Filtered"
        static let queues = 4

        /// Message n has the properties `n` and `color` (red, green, blue in turn) and the body `message-n`.
        static func fill(_ platform: Platform, _ numbers: Range<Int>) async throws {
            let client = try await RemotingClient.connect(
                to: platform.broker, group: MultiThreadedEventLoopGroup.singleton)
            for number in numbers {
                let color = ["red", "green", "blue"][number % 3]
                let properties = "n\u{1}\(number)\u{2}color\u{1}\(color)\u{2}TAGS\u{1}\(color)\u{2}WAIT\u{1}true"
                let reply = try await client.invoke(
                    RemotingCommand(
                        .sendMessageV2,
                        extFields: [
                            "a": "T09", "b": topic, "c": "TBW102", "d": String(queues), "e": String(number % queues),
                            "f": "0", "g": "1", "h": "0", "i": properties, "j": "0", "k": "false", "m": "false",
                        ], body: Array("message-\(number)".utf8)))
                guard reply.code == 0 else {
                    throw ScenarioFailure("send \(number): \(reply.code) \(reply.remark ?? "")")
                }
            }
            await client.close()
        }

        /// Reads every queue once with an expression, as an official client pulls: asks again after "busy", goes on at
        /// `nextBeginOffset` after "nothing matched". Returns the bodies and how often it was told to come back.
        static func consume(
            _ platform: Platform, type: String, _ expression: String, upTo ends: [Int64],
            between: () async throws -> Void = {}
        ) async throws -> (bodies: [String], retries: Int) {
            var client: RemotingClient?
            var bodies: [String] = []
            var retries = 0
            let deadline = ContinuousClock.now + .seconds(60)
            for queue in 0..<queues {
                var offset: Int64 = 0
                while offset < ends[queue] {
                    guard ContinuousClock.now < deadline else {
                        throw ScenarioFailure("queue \(queue) is stuck at \(offset) after \(retries) retries")
                    }
                    try await between()
                    do {
                        if client?.isActive != true {
                            client = try await RemotingClient.connect(
                                to: platform.broker, group: MultiThreadedEventLoopGroup.singleton)
                        }
                        guard let connection = client else { continue }
                        let reply = try await connection.invoke(
                            RemotingCommand(
                                .pullMessage,
                                extFields: [
                                    "consumerGroup": "T09", "topic": topic, "queueId": String(queue),
                                    "queueOffset": String(offset), "maxMsgNums": "8", "sysFlag": "4",
                                    "commitOffset": "0", "suspendTimeoutMillis": "0", "subscription": expression,
                                    "subVersion": "0", "expressionType": type,
                                ]), timeout: .seconds(5))
                        switch reply.responseCode {
                        case .success?, .pullRetryImmediately?, .pullOffsetMoved?:
                            let next = try #require(reply.extFields["nextBeginOffset"].flatMap { Int64($0) })
                            #expect(next >= offset, "the offset went back from \(offset) to \(next)")
                            offset = next
                            bodies += Self.bodies(reply.body)
                        case .systemBusy?, .pullNotFound?:
                            retries += 1
                            try await Task.sleep(for: .milliseconds(20))
                        default:
                            throw ScenarioFailure("pull: \(reply.code) \(reply.remark ?? "")")
                        }
                    } catch let failure as ScenarioFailure {
                        throw failure
                    } catch {
                        retries += 1
                        client?.closeNow()
                        client = nil
                    }
                }
            }
            await client?.close()
            return (bodies, retries)
        }

        static func bodies(_ bytes: [UInt8]) -> [String] {
            var found: [String] = []
            bytes.withUnsafeBytes { all in
                var rest = UnsafeRawBufferPointer(rebasing: all[...])
                while case .record(let view) = CommitLogRecord.parse(rest) {
                    found.append(String(decoding: view.body, as: UTF8.self))
                    rest = UnsafeRawBufferPointer(rebasing: rest[view.totalSize...])
                }
            }
            return found
        }

        static func names(_ numbers: some Sequence<Int>) -> [String] { numbers.map { "message-\($0)" }.sorted() }

        @Test("SQL92 through the wire: what matches and nothing else, none twice", .timeLimit(.minutes(2)))
        func sql92() async throws {
            let platform = try await Platform.start()
            try await Self.fill(platform, 0..<600)
            let ends = try await platform.queueSizes(topic: Self.topic, queues: Self.queues)
            #expect(ends.reduce(0, +) == 600)
            let cases: [(String, (Int) -> Bool)] = [
                ("n >= 100 AND color = 'red'", { $0 >= 100 && $0 % 3 == 0 }),
                (
                    "n BETWEEN 17 AND 29.5 OR color IN ('blue') AND n < 50",
                    { (17...29).contains($0) || $0 % 3 == 2 && $0 < 50 }
                ),
                ("TAGS = 'green'", { $0 % 3 == 1 }), ("missing IS NOT NULL", { _ in false }), ("n >= 0", { _ in true }),
            ]
            for (expression, wanted) in cases {
                let (bodies, _) = try await Self.consume(platform, type: "SQL92", expression, upTo: ends)
                #expect(bodies.sorted() == Self.names((0..<600).filter(wanted)), "\(expression)")
            }
            // A wrong expression is refused with its place, at the pull and at the client's own check.
            let reply = try await platform.ask(
                platform.broker,
                RemotingCommand(
                    .checkClientConfig,
                    body: Array(
                        """
                        {"clientId":"c","group":"T09","subscriptionData":{"classFilterMode":false,"codeSet":[],\
                        "expressionType":"SQL92","subString":"a >> 3 bogus (","subVersion":1,"tagsSet":[],\
                        "topic":"\(Self.topic)"}}
                        """.utf8)))
            #expect(reply.responseCode == .subscriptionParseFailed)
            #expect(reply.remark?.contains("3") == true && reply.remark?.contains("expected") == true, "\(reply)")
            try await platform.stop()
        }

        @Test(
            "kill -9 of the filter worker during filtered consumption: none skipped, none unfiltered, none doubled",
            .timeLimit(.minutes(2)))
        func kills() async throws {
            let platform = try await Platform.start()
            try await Self.fill(platform, 0..<600)
            let ends = try await platform.queueSizes(topic: Self.topic, queues: Self.queues)
            var pulls = 0
            var kills = 0
            let (bodies, retries) = try await Self.consume(
                platform, type: "SQL92", "color = 'red' AND n > 10", upTo: ends
            ) {
                pulls += 1
                if pulls % 12 == 5, kills < 5, let pid = platform.pid(of: "filter") {
                    kills += 1
                    kill(pid, SIGKILL)
                }
            }
            #expect(kills >= 3)
            #expect(retries > 0, "the kills were never noticed")
            #expect(bodies.sorted() == Self.names((11..<600).filter { $0 % 3 == 0 }))
            try await platform.stop()
        }
    }
}
