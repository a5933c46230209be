import Foundation
import Testing

@testable import BrokerService

/// The table of units/MIGRATING.md says what `apus migrate check` finds.
@Suite("units/MIGRATING.md: what goes along") struct MigratingPageTests {
    /// A store with one row's peculiarity; everything else in it goes along.
    private static let cases: [String: @Sendable (inout StoreReport) -> Void] = [
        "messages, queues, their offsets, keys": { report in
            report.topics = [topic("T", messages: 7)]
        },
        "consumer groups and their offsets, retries, dead letters": { report in
            report.topics = [topic("T", messages: 7), topic("%RETRY%G", messages: 1), topic("%DLQ%G", messages: 2)]
            report.progress = [.init(group: "G", topic: "T", lag: 3, queues: 1, queuesWithout: 0, offsets: [0: 4])]
            report.returned = [.init(group: "G", retries: 1, deadLetters: 2)]
            report.groupCount = 1
        },
        "messages in delay levels 1 to 18": { report in
            report.delays = [.init(level: 18, delayMilliseconds: 7_200_000, pending: 5, uncounted: 0)]
        },
        "messages in further delay levels: the same `messageDelayLevel`": { report in
            report.delays = [.init(level: 19, delayMilliseconds: nil, pending: 5, uncounted: 0)]
        },
        "transactions without an outcome: their producers are asked": { $0.openTransactions = 3 },
        "timer messages that wait, in the log": { $0.timers.pending = 3 },
        "timer messages that wait, in Apus's own files alone": { report in
            report.timers.pending = 3
            report.timers.onlyInApus = 3
        },
        "timer messages Apus has delivered": { $0.timers.deliveredAgain = 3 },
        "edited and deleted messages, not consumed by all groups": { $0.edits.deleted = 1 },
        "edited and deleted messages all groups have consumed": { $0.edits.behind = 4 },
        "timer messages that were edited or rescheduled": { $0.timers.restored = 2 },
        "settings changed online": { $0.settings = [.init(key: "fileReservedTime", value: "48", file: nil)] },
        "attributes of topics (`+message.type`)": { report in
            report.topics = [topic("T", messages: 7)]
            report.topics[0].attributes = ["message.type": "DELAY"]
        },
        "topics with names of more than 127 bytes": { $0.foreign = [.longTopics(["t"])] },
        "a broker that was killed: up to 10 s of offsets": { report in
            report.writer = .rocketMQ4
            report.isClean = false
        },
        "POP consumers": { $0.foreign = [.pop(groups: ["G"], unrevived: 4)] },
        "static topics": { $0.foreign = [.staticTopics(["T"])] },
        "compacted topics": { $0.foreign = [.compaction(topics: ["T"])] },
        "queues of batches (`BatchCQ`)": { $0.foreign = [.batchQueues(topics: ["T"])] },
        "DLedger's log": { $0.foreign = [.dledger(folders: ["dledger-n0"])] },
        "RocksDB (`storeType`, `configManagerVersion`)": { $0.foreign = [.rocksDB(folders: ["consumequeue_rocksdb"])] },
        "tiered storage": { $0.foreign = [.tieredStore] },
        "queue extensions (`enableConsumeQueueExt`)": { $0.foreign = [.queueExtensions] },
    ]

    private static func topic(_ name: String, messages: Int64) -> StoreReport.Topic {
        let queue = StoreReport.Queue(topic: name, queueID: 0, first: 0, end: messages, logEnd: 900)
        return StoreReport.Topic(name: name, queues: [queue], isKnown: true)
    }

    /// Apus ran on it last and ended in order.
    private static func store() -> StoreReport {
        var log = StoreReport.Log(folder: "/store/commitlog")
        log.files = 1
        log.fileSize = 1 << 30
        log.end = 1000
        log.isEmpty = false
        var report = StoreReport(folder: "/store", log: log)
        report.writer = .apus
        report.queueFileSize = 6_000_000
        return report
    }

    private static func word(_ report: StoreReport, _ target: StoreTarget) -> String {
        let weights = StoreFindings(report).concerning([target]).map(\.weight)
        return weights.contains(.decide) ? "decide" : weights.contains(.note) ? "note" : "yes"
    }

    private func rows() throws -> [String: [String]] {
        let page = try String(
            contentsOf: GoldenFlow.folder.deletingLastPathComponent().deletingLastPathComponent()
                .deletingLastPathComponent().appendingPathComponent("units/MIGRATING.md"), encoding: .utf8)
        var rows: [String: [String]] = [:]
        for line in page.split(separator: "\n") where line.hasPrefix("| ") && !line.hasPrefix("| what") {
            let cells = line.split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) }
            try #require(cells.count == 4, "\(line)")
            rows[cells[0]] = Array(cells[1...])
        }
        return rows
    }

    @Test("a store without anything peculiar goes along in all directions")
    func plain() {
        #expect(StoreTarget.allCases.map { Self.word(Self.store(), $0) } == ["yes", "yes", "yes"])
    }

    @Test("every row of the table, in all three directions")
    func table() throws {
        let rows = try rows()
        #expect(Set(rows.keys) == Set(Self.cases.keys))
        for (row, cells) in rows {
            guard let change = Self.cases[row] else { continue }
            var report = Self.store()
            change(&report)
            let said = cells.map { String($0.prefix { $0.isLetter }) }
            #expect(StoreTarget.allCases.map { Self.word(report, $0) } == said, "\(row)")
        }
    }

    @Test("deliveries RocketMQ's file does not count, Apus's own files and names: for the way back alone")
    func wayBack() {
        var report = Self.store()
        report.delays = [.init(level: 3, delayMilliseconds: 10_000, pending: 0, uncounted: 2)]
        #expect(StoreTarget.allCases.map { Self.word(report, $0) } == ["yes", "decide", "decide"])
        report = Self.store()
        report.topics = [Self.topic("rmq_sys_UNDELIVERABLE", messages: 2)]
        report.ownFiles = [.init(name: "config/deletedTopics.json", bytes: 40, meaning: "")]
        report.brokerName = "broker-b"
        #expect(StoreTarget.allCases.map { Self.word(report, $0) } == ["yes", "note", "note"])
        let texts = StoreFindings(report).all.map { $0.text + " " + ($0.remedy ?? "") }
        for words in ["UNDELIVERABLE", "topics were deleted", "1 file or folder of Apus's", "brokerName=broker-b"] {
            #expect(texts.contains { $0.contains(words) }, "\(words): \(texts)")
        }
    }

    @Test("what has to be decided has a remedy, always")
    func remedies() {
        for (row, change) in Self.cases {
            var report = Self.store()
            change(&report)
            let findings = StoreFindings(report).all.filter { $0.weight == .decide }
            #expect(findings.allSatisfy { $0.remedy?.isEmpty == false }, "\(row)")
        }
    }
}
