import Foundation
import NIOPosix
import RemotingProtocol
import RemotingTransport
import StoreJudge
import Testing

extension PlatformTests {
    /// Store directories Apache RocketMQ wrote, opened by a real broker-store and asked over the wire; what there is to
    /// find the judge says, which reads the files by itself.
    @Suite("T24 Apache's stores over the wire", .serialized)
    struct T24_GoldenStores {
        enum Golden: String, CaseIterable, CustomTestStringConvertible {
            case clean = "golden-4.9.8-clean"
            case killed = "golden-4.9.8-killed"
            case store5 = "golden-5.3.3"

            var testDescription: String { rawValue }

            /// As the store was before we had it.
            var rules: StoreJudge.Rules {
                var rules =
                    self == .store5
                    ? StoreJudge.Rules(log: 67_108_864, queue: 60_000, slots: 5000, entries: 20_000)
                    : StoreJudge.Rules(log: 1_048_576, queue: 2000, slots: 500, entries: 2000)
                rules.isClean = self != .killed
                // mqadmin deleted it while the messages were in the log.
                rules.deletedQueues = ["AdmTopic/3"]
                return rules
            }

            /// The sizes it was made with; and nothing of it is deleted for its age.
            var settings: [String] {
                [
                    "mappedFileSizeCommitLog=\(rules.mappedFileSizeCommitLog)",
                    "mappedFileSizeConsumeQueue=\(rules.mappedFileSizeConsumeQueue)",
                    "maxHashSlotNum=\(rules.maxHashSlotNum)", "maxIndexNum=\(rules.maxIndexNum)",
                    "fileReservedTime=1000000", "diskMaxUsedSpaceRatio=99", "cleanFileForciblyEnable=false",
                    "diskReservedBytes=0", "allocateAheadBytes=0",
                ].flatMap { ["--set", $0] }
            }

            func unpack(into store: String) async throws {
                try FileManager.default.createDirectory(atPath: store, withIntermediateDirectories: true)
                let archive = "\(Binaries.packageRoot)/Tests/Fixtures/store/\(rawValue).tar.gz"
                let outcome = try await Program.run(
                    "/usr/bin/tar", ["-xzf", archive, "--strip-components=1", "-C", store])
                guard outcome.status == 0 else { throw ScenarioFailure(outcome.errorText) }
            }
        }

        @Test(
            "every message by queue, offset id, unique key, key and time; offsets and times of every queue",
            .timeLimit(.minutes(5)), arguments: Golden.allCases)
        func everythingIsServed(_ golden: Golden) async throws {
            let folder = try TemporaryFolder()
            let store = folder.file("data/store")
            try await golden.unpack(into: store)
            let judge = try StoreJudge(store, rules: golden.rules)
            try #require(judge.judge() == [])
            // Before the broker writes its own table. It makes this one of Apache's topics as soon as there are half
            // messages.
            let known = try topics(of: store).union(["RMQ_SYS_TRANS_HALF_TOPIC"])
            let platform = try await Platform.start(in: folder, golden.settings)
            let client = try await RemotingClient.connect(
                to: platform.broker, group: MultiThreadedEventLoopGroup.singleton)
            let asker = Asker(
                client: client, judge: judge, deleted: golden.rules.deletedQueues, topics: known)
            try await asker.queues()
            try await asker.records()
            await client.close()
            print("T24 \(golden.rawValue): \(asker.counts)")
            let least = Asker.Counts(byQueue: 500, byID: 500, byUniqueKey: 400, byKey: 50, times: 1000, queues: 20)
            #expect(asker.counts.reaches(least), "\(asker.counts)")

            // What Apache wrote is still there byte for byte, in a directory RocketMQ accepts.
            try await platform.stop()
            var rules = golden.rules
            rules.isClean = true
            let after = try StoreJudge(store, rules: rules)
            #expect(after.judge() == [])
            #expect(Array(after.records.prefix(judge.records.count)) == judge.records)
        }

        /// Those Apache's broker knew.
        private func topics(of store: String) throws -> Set<String> {
            let table = try JSONSerialization.jsonObject(
                with: Data(contentsOf: URL(fileURLWithPath: store + "/config/topics.json")))
            let topics = try #require((table as? [String: Any])?["topicConfigTable"] as? [String: Any])
            return Set(topics.keys)
        }
    }

    /// Asks a broker for everything a judge has read.
    private final class Asker {
        struct Counts {
            var byQueue = 0
            var byID = 0
            var byUniqueKey = 0
            var byKey = 0
            var times = 0
            var queues = 0

            func reaches(_ least: Counts) -> Bool {
                byQueue >= least.byQueue && byID >= least.byID && byUniqueKey >= least.byUniqueKey
                    && byKey >= least.byKey && times >= least.times && queues >= least.queues
            }
        }

        private let client: RemotingClient
        private let judge: StoreJudge
        private let deleted: Set<String>
        private let topics: Set<String>
        private(set) var counts = Counts()

        init(client: RemotingClient, judge: StoreJudge, deleted: Set<String>, topics: Set<String>) {
            self.client = client
            self.judge = judge
            self.deleted = deleted
            self.topics = topics
        }

        // MARK: - Queues

        /// PULL_MESSAGE (11), GET_MIN_OFFSET (31), GET_MAX_OFFSET (30), SEARCH_OFFSET_BY_TIMESTAMP (29).
        func queues() async throws {
            let wanted = Dictionary(grouping: judge.records.filter(\.entersQueue)) {
                StoreJudge.QueueName(topic: $0.topic, queueID: $0.queueID)
            }
            for (name, records) in wanted where !deleted.contains(name.description) {
                let place = ["topic": name.topic, "queueId": String(name.queueID)]
                guard topics.contains(name.topic) else {
                    // The broker's own notes on transactions: RocketMQ 4 has no topic for them and shows them to
                    // no consumer, except by id and key.
                    let reply = try await client.invoke(QueueReader.request(place, 0))
                    #expect(reply.responseCode == .topicNotExist, "\(name): \(reply.code)")
                    #expect(name.topic == "RMQ_SYS_TRANS_OP_HALF_TOPIC")
                    continue
                }
                let first = try await number(.getMinOffset, place)
                let end = try await number(.getMaxOffset, place)
                #expect(first == Int64(records[0].queueOffset), "\(name) begins at \(first)")
                let found = try await pull(place, from: first, to: end)
                #expect(Array(found.prefix(records.count)) == records, "\(name) by queue")
                // Waiting messages are delivered while we ask: new records, behind Apache's.
                let newest = judge.records.last?.storeTime ?? 0
                #expect(found.dropFirst(records.count).allSatisfy { $0.storeTime > newest }, "\(name)")
                #expect(end == first + Int64(found.count), "\(name) ends at \(end)")
                counts.byQueue += records.count
                counts.queues += 1
                try await times(place, found, until: records.count)
            }
        }

        private func pull(_ place: [String: String], from first: Int64, to end: Int64) async throws -> [LogRecord] {
            var found: [LogRecord] = []
            var offset = first
            while offset < end {
                let reply = try await client.invokeSuccessfully(QueueReader.request(place, offset))
                let next = try reply.integer("nextBeginOffset")
                guard next > offset else { throw ScenarioFailure("\(place) stands still at \(offset) of \(end)") }
                found += try LogRecord.all(reply.body)
                offset = next
            }
            return found
        }

        /// The message stored nearest to a time: at each one's own time, a little before and behind it, and far away on
        /// both sides.
        private func times(_ place: [String: String], _ found: [LogRecord], until count: Int) async throws {
            let own = found.prefix(count).map(\.storeTime)
            let far = [1, (own.last ?? 0) + (found.count == count ? 1_000_000_000 : 1)]
            for time in Set(own.flatMap { [$0 - 1, $0, $0 + 7] } + far) {
                let offset = try await number(
                    .searchOffsetByTimestamp, place.merging(["timestamp": String(time)]) { $1 })
                let answer = found.first { $0.queueOffset == Int(offset) }
                let nearest = found.map { abs($0.storeTime - time) }.min()
                #expect(answer.map { abs($0.storeTime - time) } == nearest, "\(place) at \(time): \(offset)")
                counts.times += 1
            }
        }

        private func number(_ code: RequestCode, _ fields: [String: String]) async throws -> Int64 {
            try await client.invokeSuccessfully(RemotingCommand(code, extFields: fields)).integer("offset")
        }

        // MARK: - Records

        /// VIEW_MESSAGE_BY_ID (33), and QUERY_MESSAGE (12) by unique key and by key, within the message's own
        /// millisecond and just beside it.
        func records() async throws {
            for record in judge.records {
                let shown = try await client.invokeSuccessfully(
                    RemotingCommand(.viewMessageByID, extFields: ["offset": String(record.physicalOffset)]))
                #expect(try LogRecord.all(shown.body) == [record], "\(record.physicalOffset) by id")
                counts.byID += 1
                // Rolled back: RocketMQ does not index it.
                guard record.transaction != 12 else { continue }
                let time = record.storeTime
                if let unique = record.property("UNIQ_KEY") {
                    for (begin, end) in [(time, time), (0, Int.max)] {
                        #expect(try await query(record, unique, begin, end, isUnique: true), "\(unique) \(begin)")
                    }
                    // Without an end the beginning hides nothing, unless there is a later copy (`QueryTests`).
                    for (begin, end) in [(time + 1, Int.max - 1), (0, time - 1)] {
                        #expect(try await !query(record, unique, begin, end, isUnique: true), "\(unique) \(begin)")
                    }
                    counts.byUniqueKey += 1
                }
                for key in (record.property("KEYS") ?? "").split(separator: " ").map(String.init) {
                    #expect(try await query(record, key, time, time), "\(key) at \(time)")
                    #expect(try await !query(record, key, time + 1, time + 1), "\(key) behind \(time)")
                    counts.byKey += 1
                }
            }
        }

        /// Whether a query finds exactly this record; an answer with as many as it may have shows not all.
        private func query(
            _ record: LogRecord, _ key: String, _ begin: Int, _ end: Int, isUnique: Bool = false
        ) async throws -> Bool {
            var fields = [
                "topic": record.topic, "key": key, "maxNum": "64", "beginTimestamp": String(begin),
                "endTimestamp": String(end),
            ]
            if isUnique { fields["_UNIQUE_KEY_QUERY"] = "true" }
            let reply = try await client.invoke(RemotingCommand(.queryMessage, extFields: fields))
            if reply.responseCode == .queryNotFound { return false }
            guard reply.code == 0 else { throw ScenarioFailure("\(fields): \(reply.code) \(reply.remark ?? "")") }
            let found = try LogRecord.all(reply.body)
            return found.contains(record) || (!isUnique && begin == end && found.count == 64)
        }
    }
}
