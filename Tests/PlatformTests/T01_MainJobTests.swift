import FastJSON
import Foundation
import RemotingProtocol
import TestTools
import Testing

extension PlatformTests {
    /// A person's real text goes through the platform and comes out the same.
    @Suite("T01 main job", .serialized)
    struct T01_MainJob {
        /// Debian's word list (package wamerican, 104 334 lines); where it is missing, the names of all installed
        /// files.
        static func realLines() throws -> [String] {
            if let words = try? String(contentsOfFile: "/usr/share/dict/words", encoding: .utf8) {
                return words.split(separator: "\n").map(String.init)
            }
            let folder = "/var/lib/dpkg/info"
            let lists = try FileManager.default.contentsOfDirectory(atPath: folder).filter { $0.hasSuffix(".list") }
                .sorted()
            return lists.flatMap { name in
                ((try? String(contentsOfFile: "\(folder)/\(name)", encoding: .utf8)) ?? "").split(separator: "\n").map(
                    String.init)
            }
        }

        /// The tag of a line: what kind of character it starts with.
        static func tag(of line: String) -> String {
            guard let first = line.first else { return "other" }
            return first.isUppercase ? "upper" : first.isLowercase ? "lower" : "other"
        }

        struct Row: Hashable {
            let tag: Substring
            let key: Substring
            let queue: Int
            let offset: Int
            let body: Substring

            init?(_ line: String) {
                let parts = line.split(separator: "\t", maxSplits: 4, omittingEmptySubsequences: false)
                guard parts.count == 5, let queue = Int(parts[2]), let offset = Int(parts[3]) else { return nil }
                tag = parts[0]
                key = parts[1]
                self.queue = queue
                self.offset = offset
                body = parts[4]
            }
        }

        @Test(
            "at least 100 000 real lines: two clustered consumers get each exactly once, byte for byte",
            .timeLimit(.minutes(3)))
        func realTextThroughTheHouse() async throws {
            let lines = try Self.realLines()
            try #require(lines.count >= 100_000, "the data set has \(lines.count) lines")
            let platform = try await Platform.start()
            let input = platform.folder.file("input.tsv")
            let text = lines.enumerated().map { "\(Self.tag(of: $1))\t\($0)\t\($1)\n" }.joined()
            try text.write(toFile: input, atomically: false, encoding: .utf8)

            // The topic first, so that both consumers are members before the first message.
            let created = try await platform.ask(
                platform.broker,
                RemotingCommand(
                    .updateAndCreateTopic,
                    extFields: [
                        "topic": "Words", "defaultTopic": "TBW102", "readQueueNums": "4", "writeQueueNums": "4",
                        "perm": "6",
                        "topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "false",
                    ]))
            #expect(created.code == 0, "creating the topic: \(created.code) \(created.remark ?? "")")
            try await eventually("the name server has the topic's route") {
                try await platform.ask(
                    platform.nameServer, RemotingCommand(.getRouteInfoByTopic, extFields: ["topic": "Words"])
                ).code == 0
            }
            let consumers = try (1...2).map { _ in
                try Program(
                    Binaries.apus,
                    [
                        "consume", "--name-server", platform.nameServer, "--topic", "Words", "--group", "readers",
                        "--columns", "tag,key,queue,offset,body", "--timeout", "6",
                    ])
            }
            try await eventually("the consumers have shared the four queues") {
                let reply = try await platform.ask(
                    platform.broker, RemotingCommand(.getConsumerListByGroup, extFields: ["consumerGroup": "readers"]))
                guard reply.code == 0, let members = try reply.json()["consumerIdList"]?.array else { return false }
                var queues: [Int] = []
                for member in members {
                    let status = try await platform.ask(
                        platform.broker,
                        RemotingCommand(
                            .getConsumerRunningInfo,
                            extFields: ["consumerGroup": "readers", "clientId": member.string ?? ""]))
                    guard status.code == 0 else { return false }
                    // Of its retry topic, too.
                    queues.append(
                        try status.json()["mqTable"]?.object?.members.count { $0.key.contains("Words") } ?? 0)
                }
                return queues == [2, 2]
            }

            let sent = try await platform.apus(
                ["send", "--topic", "Words", "--columns", "tag,key,body", input], within: .seconds(90))
            #expect(sent.status == 0, "apus send: \(sent.errorText)")
            print("T01 \(sent.errorText.trimmingCharacters(in: .whitespacesAndNewlines))")

            var rows: [Row] = []
            for consumer in consumers {
                let status = try await consumer.finish(within: .seconds(60))
                #expect(status == 0, "apus consume: \(consumer.errorText)")
                let own = consumer.lines.compactMap(Row.init)
                #expect(own.count == consumer.lines.count)
                #expect(own.count > lines.count / 10, "a consumer got only \(own.count) of \(lines.count) messages")
                print("T01 \(consumer.errorText.trimmingCharacters(in: .whitespacesAndNewlines))")
                rows += own
            }

            #expect(rows.count == lines.count, "none lost, none doubled")
            // Each place of each queue once, without a gap.
            for (queue, places) in Dictionary(grouping: rows, by: \.queue) {
                #expect(places.map(\.offset).sorted() == Array(0..<places.count), "offsets of queue \(queue)")
            }
            // By line number: every line with its own tag and bytes.
            let byKey = Dictionary(rows.map { (Int($0.key) ?? -1, $0) }, uniquingKeysWith: { first, _ in first })
            #expect(byKey.count == lines.count)
            let wrong = lines.enumerated().filter { number, line in
                guard let row = byKey[number] else { return true }
                return Array(row.body.utf8) != Array(line.utf8) || row.tag != Self.tag(of: line)
            }
            #expect(wrong.isEmpty, "\(wrong.count) lines differ, the first: \(wrong.first.map { "\($0)" } ?? "")")

            // The same store by tag, for a group of its own.
            let upper = lines.filter { Self.tag(of: $0) == "upper" }
            let filtered = try await platform.apus(
                ["consume", "--topic", "Words", "--group", "capitals", "--tag", "upper", "--timeout", "3"])
            #expect(filtered.status == 0, "apus consume --tag: \(filtered.errorText)")
            #expect(
                filtered.lines.sorted() == upper.sorted(),
                "\(filtered.lines.count) of \(upper.count) lines tagged upper")
            try await platform.stop()
        }
    }
}
