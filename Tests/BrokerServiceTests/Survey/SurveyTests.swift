import BrokerService
import Foundation
import RemotingProtocol
import StoreFormat
import TestFolders
import Testing

/// `StoreSurvey` reads what `apus migrate check` shows.
@Suite("a store looked at before it moves") struct SurveyTests {
    /// A golden folder of Apache's, unpacked.
    static func unpack(_ name: String) throws -> URL {
        let place = try TestFolder.make("survey")
        let tar = Process()
        tar.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        let archive = GoldenFlow.folder.deletingLastPathComponent().appendingPathComponent("store/\(name).tar.gz")
        tar.arguments = ["tar", "-xzf", archive.path, "--strip-components=1", "-C", place.path]
        try tar.run()
        tar.waitUntilExit()
        try #require(tar.terminationStatus == 0)
        return place
    }

    private func messages(_ report: StoreReport) -> [String: Int64] {
        let topics = report.topics.filter { $0.messages > 0 && !$0.name.hasPrefix("RMQ_SYS_TRANS_OP") }
        return Dictionary(uniqueKeysWithValues: topics.map { ($0.name, $0.messages) })
    }

    private func decisions(_ report: StoreReport, _ target: StoreTarget = .apus) -> [StoreFinding] {
        StoreFindings(report).concerning([target]).filter { $0.weight == .decide }
    }

    // MARK: - Golden stores

    /// What the manifest of the recording says was sent, and mqadmin's consumerProgress after it.
    static let sent: [String: Int64] = [
        "%DLQ%G_GOLDEN_RETRY": 2, "%RETRY%G_GOLDEN_RETRY": 2, "GoldenBatch": 30, "GoldenBig": 12, "GoldenDelay": 8,
        "GoldenMany": 350, "GoldenNormal": 100, "GoldenOne": 5, "GoldenRetry": 2, "GoldenSql": 40, "GoldenTx": 4,
        "RMQ_SYS_TRANS_HALF_TOPIC": 12, "SCHEDULE_TOPIC_XXXX": 12,
    ]

    @Test("RocketMQ 4.9.8, stopped in order: all can move")
    func clean() throws {
        let report = try StoreSurvey.read(try Self.unpack("golden-4.9.8-clean").path)
        #expect(report.writer == .rocketMQ4 && report.isClean)
        #expect(report.log.files == 2 && report.log.fileSize == 1_048_576 && report.log.first == 0)
        #expect(report.log.end == 1_702_292 && report.log.unqueued == 0 && report.log.damage.isEmpty)
        #expect(messages(report) == Self.sent)
        #expect(
            report.queues(of: "GoldenNormal").map { [$0.first, $0.end] } == Array(repeating: [0, 25], count: 4))
        let lag = report.progress.filter { !$0.topic.hasPrefix("%RETRY%") }.map { "\($0.group) \($0.topic) \($0.lag)" }
        #expect(
            lag == ["G_GOLDEN_ALL GoldenNormal 0", "G_GOLDEN_RETRY GoldenRetry 0", "G_GOLDEN_TagA GoldenNormal 6"])
        #expect(report.returned.map { [$0.retries, $0.deadLetters] } == [[0, 2]])
        #expect(report.delays.map { [Int64($0.level), $0.pending] } == [[18, 2]])
        #expect(report.openTransactions == 4 && report.timers.pending == 0)
        #expect(report.tables.isEmpty && report.foreign.isEmpty && report.ownFiles.isEmpty && report.settings.isEmpty)
        #expect(decisions(report).isEmpty)
        #expect(StoreFindings.usualTargets(report.writer) == [.apus])
    }

    @Test("RocketMQ 4.9.8, killed: its delays are older than what it has delivered, and that is said")
    func killed() throws {
        let report = try StoreSurvey.read(try Self.unpack("golden-4.9.8-killed").path)
        #expect(report.writer == .rocketMQ4 && !report.isClean && report.log.end == 1_713_887)
        #expect(messages(report) == Self.sent.merging(["GoldenOne": 60]) { $1 })
        #expect(report.delays.map { [Int64($0.level), $0.pending] } == [[4, 2], [18, 2]])
        let found = decisions(report)
        #expect(found.count == 1 && found[0].text.contains("not stopped in order"), "\(found)")
    }

    @Test("RocketMQ 5.3.3: timers are delivered; static topics are what Apus does not have; POP goes along")
    func five() throws {
        let report = try StoreSurvey.read(try Self.unpack("golden-5.3.3").path)
        #expect(report.writer == .rocketMQ5 && report.isClean && report.log.end == 280_985)
        #expect(report.timers.pending == 0 && report.timers.deliveredAgain == 0)
        #expect(report.topics.first { $0.name == "rmq_sys_wheel_timer" }?.messages == 115)
        #expect(report.openTransactions == 0 && report.delays.isEmpty)
        #expect(report.returned.map { [$0.retries, $0.deadLetters] } == [[0, 1]])
        let pull = report.progress.first { $0.group == "G_C_pull_c_s1bc3" }
        #expect(pull?.lag == 13 && pull?.queues == 1 && pull?.queuesWithout == 1)
        #expect(
            report.foreign == [
                .staticTopics(["StaticTopic"]), .pop(groups: ["BG_GROUP2", "C5Ps26p1"], unrevived: 100),
            ])
        #expect(decisions(report).count == 1)
    }

    /// Paths, contents, times of change, of everything below.
    private func state(_ folder: URL) throws -> [String: String] {
        var found: [String: String] = [:]
        for name in try FileManager.default.subpathsOfDirectory(atPath: folder.path) {
            let path = folder.appendingPathComponent(name)
            let attributes = try FileManager.default.attributesOfItem(atPath: path.path)
            let content = attributes[.type] as? FileAttributeType == .typeRegular ? try Data(contentsOf: path) : Data()
            found[name] = "\(attributes[.modificationDate] ?? "") \(content.count) \(content.hashValue)"
        }
        return found
    }

    @Test(
        "nothing is changed", arguments: ["golden-4.9.8-clean", "golden-4.9.8-killed", "golden-5.3.3"])
    func readsOnly(_ name: String) throws {
        let folder = try Self.unpack(name)
        let before = try state(folder)
        _ = try StoreSurvey.read(folder.path)
        #expect(try state(folder) == before)
    }

    // MARK: - What is no store, or one that is open

    private func refusal(_ folder: String, commitLog: String? = nil) -> String? {
        do {
            _ = try StoreSurvey.read(folder, commitLog: commitLog)
            return nil
        } catch {
            return "\(error)"
        }
    }

    @Test("what is no store is refused, with what to name instead")
    func noStore() throws {
        let place = try TestFolder.make("survey")
        #expect(refusal(place.path + "/none")?.contains("there is no folder") == true)
        #expect(refusal(place.path)?.contains("is no store of RocketMQ or Apus") == true)
        let file = place.appendingPathComponent("file")
        try Data("x".utf8).write(to: file)
        #expect(refusal(file.path)?.contains("is a file") == true)
        try FileManager.default.moveItem(
            at: try Self.unpack("golden-4.9.8-clean"), to: place.appendingPathComponent("store"))
        #expect(refusal(place.path)?.hasSuffix("/store is one: name that") == true)
        #expect(refusal(place.path + "/store/") == nil)
        #expect(refusal(place.path + "/store", commitLog: place.path + "/none")?.contains("storePathCommitLog") == true)
    }

    @Test("while a broker has it open nothing is read")
    func open() throws {
        let harness = try BrokerHarness()
        #expect(refusal(harness.folder.path)?.contains("holds its lock; a broker writes there all the time") == true)
        try harness.drain()
        #expect(refusal(harness.folder.path) == nil)
        try FileManager.default.removeItem(at: harness.folder)
    }

    // MARK: - Damage

    /// The decisions after something was done to the clean golden store.
    private func after(_ change: (URL) throws -> Void) throws -> (report: StoreReport, decisions: [StoreFinding]) {
        let folder = try Self.unpack("golden-4.9.8-clean")
        try change(folder)
        let report = try StoreSurvey.read(folder.path)
        return (report, decisions(report))
    }

    private func cut(_ file: URL, to size: Int) throws {
        let data = try Data(contentsOf: file)
        try data.prefix(size).write(to: file)
    }

    @Test("a truncated table: its backup is used and counted, or nothing is")
    func tables() throws {
        let one = try after { try cut($0.appendingPathComponent("config/topics.json"), to: 2000) }
        #expect(one.decisions.count == 1 && one.decisions[0].text.contains("config/topics.json"), "\(one.decisions)")
        #expect(one.decisions[0].text.contains("its .bak would be used"))
        // The backup is a version older, and does not know the topic of the dead letters.
        #expect(messages(one.report) == Self.sent)
        let both = try after {
            try cut($0.appendingPathComponent("config/consumerOffset.json"), to: 200)
            try cut($0.appendingPathComponent("config/consumerOffset.json.bak"), to: 100)
        }
        #expect(both.report.progress.isEmpty)
        #expect(both.decisions.count == 1, "\(both.decisions)")
        #expect(both.decisions[0].text.contains("config/consumerOffset.json cannot be used"))
        #expect(both.decisions[0].remedy?.contains("consumeFromWhere") == true)
        let entry = try after { folder in
            let file = folder.appendingPathComponent("config/consumerOffset.json")
            let text = try String(contentsOf: file, encoding: .utf8).replacing(
                "GoldenNormal@G_GOLDEN_TagA", with: "GoldenNormal/@G_GOLDEN_TagA")
            for name in ["", ".bak"] {
                try text.write(toFile: file.path + name, atomically: false, encoding: .utf8)
            }
        }
        #expect(entry.report.progress.filter { $0.topic == "GoldenNormal" }.map(\.group) == ["G_GOLDEN_ALL"])
        #expect(entry.decisions.count == 1 && entry.decisions[0].text.contains("1 of its entries are none"))
    }

    @Test("no topics.json: its topics are named")
    func topicsMissing() throws {
        let found = try after { folder in
            for name in ["topics.json", "topics.json.bak"] {
                try FileManager.default.removeItem(at: folder.appendingPathComponent("config/\(name)"))
            }
        }
        #expect(found.decisions.count == 1, "\(found.decisions)")
        #expect(
            found.decisions[0].text.contains(
                "lacks 9 topics with messages (GoldenBatch, GoldenBig, GoldenDelay and 6 more)")
        )
    }

    @Test("an empty log beside full queues: both what Apus and what RocketMQ would do is said")
    func emptyLog() throws {
        let found = try after { try FileManager.default.removeItem(at: $0.appendingPathComponent("commitlog")) }
        #expect(found.report.log.isEmpty && found.report.log.files == 0)
        #expect(found.decisions.count == 1, "\(found.decisions)")
        #expect(found.decisions[0].text.contains("has entries: its disk is not mounted"))
        #expect(found.decisions[0].remedy?.contains("--commit-log DIR") == true)
        // It lies elsewhere: named, all is well.
        let folder = try Self.unpack("golden-4.9.8-clean")
        let elsewhere = try TestFolder.make("survey").appendingPathComponent("log")
        try FileManager.default.moveItem(at: folder.appendingPathComponent("commitlog"), to: elsewhere)
        let report = try StoreSurvey.read(folder.path, commitLog: elsewhere.path)
        #expect(report.log.end == 1_702_292 && decisions(report).isEmpty)
    }

    @Test("a log without its newest file, one with a gap, one with a short file, one with a torn record")
    func logDamage() throws {
        let newest = try after {
            try FileManager.default.removeItem(at: $0.appendingPathComponent("commitlog/00000000000001048576"))
        }
        #expect(newest.decisions.count == 1, "\(newest.decisions)")
        #expect(newest.decisions[0].text.contains("point behind the log's end at 1048576"))
        let gap = try after {
            try FileManager.default.moveItem(
                at: $0.appendingPathComponent("commitlog/00000000000001048576"),
                to: $0.appendingPathComponent("commitlog/00000000000002097152"))
        }
        #expect(gap.decisions.contains { $0.text.contains("nothing holds the bytes 1048576 to 2097151") })
        let short = try after { try cut($0.appendingPathComponent("commitlog/00000000000001048576"), to: 700_000) }
        #expect(short.decisions.contains { $0.text.contains("has 700000 bytes, the others 1048576") })
        let torn = try after { folder in
            let file = folder.appendingPathComponent("commitlog/00000000000001048576")
            var data = try Data(contentsOf: file)
            // Behind the last record.
            data.replaceSubrange(
                (1_702_292 - 1_048_576)..<(1_702_292 - 1_048_576 + 8), with: Data(repeating: 7, count: 8))
            try data.write(to: file)
        }
        #expect(torn.decisions.count == 1 && torn.decisions[0].text.contains("it ends at 1702292 because"))
    }

    @Test("names of files no store comes to, and a topic that is in the table twice")
    func impossible() throws {
        let found = try after { folder in
            for name in ["commitlog/09223372036854775807", "consumequeue/GoldenMany/0/09223372036854000000"] {
                try write("x", folder, name)
            }
            let file = folder.appendingPathComponent("config/topics.json")
            let text = try String(contentsOf: file, encoding: .utf8)
            let entry = """
                "Twice":{"topicName":"Twice","readQueueNums":1,"writeQueueNums":1,"perm":6,"topicFilterType":"SINGLE_TAG",\
                "topicSysFlag":0,"order":false},
                """
            let start = try #require(text.range(of: "\"topicConfigTable\"")?.upperBound)
            let brace = try #require(text[start...].firstIndex(of: "{"))
            var twice = text
            twice.insert(contentsOf: entry + entry, at: text.index(after: brace))
            try Data(twice.utf8).write(to: file)
        }
        #expect(found.report.topics.filter { $0.name == "Twice" }.count == 1)
        #expect(found.report.log.end == 1_702_292)
        #expect(found.report.topics.first { $0.name == "GoldenMany" }?.messages == Self.sent["GoldenMany"])
        #expect(found.decisions.contains { $0.text.contains("09223372036854775807") }, "\(found.decisions)")
    }

    @Test("a queue file that was cut off, one that is empty, and a table of RocketMQ 5's that is no JSON")
    func cutOff() throws {
        let queue = try after {
            try cut($0.appendingPathComponent("consumequeue/GoldenMany/0/00000000000000006000"), to: 100)
            try cut($0.appendingPathComponent("consumequeue/GoldenBig/2/00000000000000000000"), to: 0)
        }
        #expect(queue.report.damagedQueues == ["GoldenBig/2", "GoldenMany/0"] && queue.report.queueFileSize == 2000)
        #expect(queue.report.topics.first { $0.name == "GoldenMany" }?.messages == 305)
        #expect(queue.decisions.count == 1, "\(queue.decisions)")
        #expect(queue.decisions[0].remedy?.contains("a start builds it anew from the log") == true)
        let table = try after { try write("{ not", $0, "config/topicQueueMapping.json") }
        #expect(table.decisions.count == 1)
        #expect(table.decisions[0].text == "config/topicQueueMapping.json cannot be used: it is not readable as JSON")
    }

    @Test("queues that ended early: their messages are in the log, and in no queue yet")
    func unqueued() throws {
        let found = try after { folder in
            // The last two messages of the log are GoldenOne's.
            for topic in try FileManager.default.contentsOfDirectory(atPath: folder.path + "/consumequeue")
            where topic != "GoldenBatch" {
                try FileManager.default.removeItem(at: folder.appendingPathComponent("consumequeue/\(topic)"))
            }
        }
        let records = try Self.recordsBehind(found.report, "GoldenBatch")
        #expect(found.report.log.unqueued == records && records > 100)
    }

    /// Records of the log that enter a queue behind the newest one of a topic, counted here.
    private static func recordsBehind(_ report: StoreReport, _ topic: String) throws -> Int64 {
        let start = report.queues(of: topic).map(\.logEnd).max() ?? 0
        var count: Int64 = 0
        for base in [0, 1_048_576] {
            let data = try Data(
                contentsOf: URL(fileURLWithPath: report.log.folder + "/" + StoreFileName.of(offset: Int64(base))))
            data.withUnsafeBytes { bytes in
                var place = 0
                while case .record(let record) = CommitLogRecord.parse(
                    UnsafeRawBufferPointer(rebasing: bytes[place...]))
                {
                    let type = record.sysFlag & 12
                    if Int64(base + place) >= start, type == 0 || type == 8 { count += 1 }
                    place += record.totalSize
                }
            }
        }
        return count
    }

    // MARK: - Parts only RocketMQ has

    private func write(_ text: String, _ folder: URL, _ name: String) throws {
        let file = folder.appendingPathComponent(name)
        try FileManager.default.createDirectory(
            at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
        try Data(text.utf8).write(to: file)
    }

    @Test("what Apus does not read of RocketMQ's is named, each kind with its remedy")
    func foreignParts() throws {
        let found = try after { folder in
            try write("x", folder, "dledger-n0/data/00000000000000000000")
            try write("", folder, "dledger-empty/data/00000000000000000000")
            try write("MANIFEST-000004\n", folder, "consumequeue_rocksdb/CURRENT")
            try write("MANIFEST-000004\n", folder, "config/consumerOffsets/CURRENT")
            try write("x", folder, "consumequeue_ext/T/0/00000000000000000000")
            try write("{}", folder, "config/tieredStoreMetadata.json")
            let topics = folder.appendingPathComponent("config/topics.json")
            let text = try String(contentsOf: topics, encoding: .utf8)
                .replacing(
                    "\"topicName\":\"GoldenBig\"",
                    with: "\"topicName\":\"GoldenBig\",\"attributes\":{\"cleanup.policy\":\"COMPACTION\"}"
                )
                .replacing(
                    "\"topicName\":\"GoldenSql\"",
                    with: "\"topicName\":\"GoldenSql\",\"attributes\":{\"queue.type\":\"BatchCQ\"}")
            try text.write(to: topics, atomically: false, encoding: .utf8)
        }
        #expect(
            found.report.foreign == [
                .dledger(folders: ["dledger-n0"]),
                .rocksDB(folders: ["consumequeue_rocksdb", "config/consumerOffsets"]),
                .compaction(topics: ["GoldenBig"]), .batchQueues(topics: ["GoldenSql"]), .queueExtensions,
                .tieredStore,
            ])
        #expect(found.decisions.count == 6 && found.decisions.allSatisfy { $0.remedy?.isEmpty == false })
        // They are RocketMQ's: nothing of it concerns a way back.
        #expect(decisions(found.report, .rocketMQ5).isEmpty)
    }

    @Test("names a record of RocketMQ 4 has no room for keep a store from going there")
    func longNames() throws {
        let found = try after { folder in
            let long = String(repeating: "t", count: 200)
            try FileManager.default.copyItem(
                at: folder.appendingPathComponent("consumequeue/GoldenOne"),
                to: folder.appendingPathComponent("consumequeue/\(long)"))
        }
        #expect(decisions(found.report, .rocketMQ4).contains { $0.text.contains("cuts off what follows") })
        #expect(!decisions(found.report, .rocketMQ5).contains { $0.text.contains("cuts off") })
    }

    @Test("messages in a delay level the standard does not have need the same messageDelayLevel")
    func moreLevels() throws {
        let found = try after { folder in
            try FileManager.default.moveItem(
                at: folder.appendingPathComponent("consumequeue/SCHEDULE_TOPIC_XXXX/17"),
                to: folder.appendingPathComponent("consumequeue/SCHEDULE_TOPIC_XXXX/20"))
        }
        #expect(found.report.delays.map { [Int64($0.level), $0.pending] } == [[21, 2]])
        #expect(found.decisions.count == 1 && found.decisions[0].text.contains("beyond the standard 18 (21)"))
    }
}
