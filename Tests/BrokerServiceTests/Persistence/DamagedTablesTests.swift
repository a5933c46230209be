import FastJSON
import Foundation
import MessageStore
import MetadataStore
import RemotingProtocol
import TestFolders
import Testing

@testable import BrokerService

/// Flipped bits in each table under config/: found, said, and the backup serves.
@Suite struct DamagedTablesTests {
    typealias File = ConfigurationFile

    /// A flipped bit does not change a file's times.
    private func flip(_ url: URL, _ change: (inout [UInt8]) -> Void) throws -> [UInt8] {
        var status = stat()
        #expect(stat(url.path, &status) == 0)
        var bytes = [UInt8](try Data(contentsOf: url))
        change(&bytes)
        try Data(bytes).write(to: url)
        let times = [status.st_atim, status.st_mtim]
        #expect(utimensat(AT_FDCWD, url.path, times, 0) == 0)
        return bytes
    }

    @Test("a flipped bit in any table under config/ is found, said, and its backup serves", arguments: [0, 1, 2])
    func flippedTables(_ bit: Int) throws {
        var harness = try BrokerHarness([("flushConsumerOffsetInterval", "1000"), ("messageDelayLevel", "1s 2s")])
        let folder = harness.folder
        defer { try? FileManager.default.removeItem(at: folder) }
        // Every table is written more than once, so that each has a backup.
        for round in 0..<3 {
            if round > 0 { harness = try BrokerHarness([("messageDelayLevel", "1s 2s")], folder: folder) }
            let connection = try harness.connect()
            for number in 0..<3 {
                let sent = try connection.send(
                    topic: "Topic\(round)\(number)", properties: number == 0 ? "DELAY\u{1}1\u{2}" : "")
                #expect(sent.code == 0)
            }
            _ = try connection.invoke(
                .updateConsumerOffset,
                ["consumerGroup": "G\(round)", "topic": "Topic00", "queueId": "0", "commitOffset": "\(round + 1)"])
            var group = SubscriptionGroupConfig(groupName: "G\(round)")
            group.retryMaxTimes = 7
            _ = try connection.invoke(.updateAndCreateSubscriptionGroup, body: group.encoded())
            try harness.drain()
        }
        let config = folder.appendingPathComponent("config")
        var checked = 0
        for file in File.allCases {
            let url = config.appendingPathComponent(file.rawValue)
            guard FileManager.default.fileExists(atPath: url.path + ".bak") else { continue }
            // The most harmless looking one: a digit or letter that becomes another, in the middle of the file.
            let damaged = try flip(url) { bytes in
                let places = bytes.indices.filter {
                    bytes[$0] > 48 && bytes[$0] < 58 || bytes[$0] > 96 && bytes[$0] < 123
                }
                bytes[places[places.count / 2]] ^= 1 << bit
            }
            let log = LogLines()
            let next = try BrokerHarness([("messageDelayLevel", "1s 2s")], folder: folder, log: log)
            #expect(
                log.lines.contains { $0.contains(url.path) && $0.contains("backup is used") }, "\(file): \(log.lines)")
            #expect(try Data(contentsOf: URL(fileURLWithPath: url.path + ".damaged")) == Data(damaged), "\(file)")
            let connection = try next.connect()
            #expect(try connection.send(topic: "Topic00").code == 0, "\(file)")
            let offset = try connection.invoke(
                .queryConsumerOffset, ["consumerGroup": "G0", "topic": "Topic00", "queueId": "0"])
            #expect(offset.code == 0 && offset.extFields["offset"] == "1", "\(file): \(offset)")
            #expect(try next.onLoop { $0.groups["G0"]?.config.retryMaxTimes } == 7, "\(file)")
            try next.drain()
            #expect(file.quality(of: [UInt8](try Data(contentsOf: url))) == .good, "\(file)")
            checked += 1
        }
        #expect(checked >= 4)
    }

    @Test("a commit of an older release for queue -1 keeps no broker from starting: put aside, named, counted")
    func poisonedOffsets() throws {
        let folder = try TestFolder.make("poison")
        defer { try? FileManager.default.removeItem(at: folder) }
        let config = folder.appendingPathComponent("config")
        try FileManager.default.createDirectory(at: config, withIntermediateDirectories: true)
        let text = "{\"offsetTable\":{\"T@G\":{-1:1,0:7,1:9223372036854775807},\"T@H\":{-1:1}}}"
        for name in ["consumerOffset.json", "consumerOffset.json.bak"] {
            try Data(text.utf8).write(to: config.appendingPathComponent(name))
        }
        let delays = "{\"offsetTable\":{1:-5,2:9223372036854775807,99:3}}"
        try Data(delays.utf8).write(to: config.appendingPathComponent("delayOffset.json"))
        // The log is empty, as its operator means it to be.
        try Data().write(to: folder.appendingPathComponent("begin-anew"))
        let log = LogLines()
        let harness = try BrokerHarness(folder: folder, log: log)
        #expect(
            log.lines.contains { $0.contains("3 entries of") && $0.contains("consumerOffset.json") }, "\(log.lines)")
        #expect(log.lines.contains { $0.contains("2 entries of") && $0.contains("delayOffset.json") }, "\(log.lines)")
        #expect(try harness.onLoop { $0.offsets.offset(topic: "T", group: "G", queueID: 0) } == 7)
        let aside = try JSONValue(
            parsing: [UInt8](Data(contentsOf: config.appendingPathComponent("consumerOffset.json.refused"))))
        #expect(aside.array?.count == 3 && aside.array?.first?["reason"]?.string?.isEmpty == false)
        let connection = try harness.connect()
        #expect(try connection.send(topic: "T", properties: "DELAY\u{1}1\u{2}").code == 0)
        try harness.drain()
    }

    /// Writes offsets once or more, and empties the file as a power cut does.
    private func emptied(_ name: String, rounds: Int, bytes: Data = Data()) throws -> (folder: URL, file: URL) {
        let folder = try TestFolder.make("empty")
        for round in 0..<rounds {
            let harness = try BrokerHarness(folder: folder)
            let connection = try harness.connect()
            #expect(try connection.send(topic: "T\(round)").code == 0)
            let commit = try connection.invoke(
                .updateConsumerOffset,
                ["consumerGroup": "G", "topic": "T0", "queueId": "0", "commitOffset": String(52 + round)])
            #expect(commit.code == 0)
            try harness.drain()
        }
        let file = folder.appendingPathComponent("config/" + name)
        try bytes.write(to: file)
        return (folder, file)
    }

    @Test("an empty table is damage: its backup serves", arguments: ["consumerOffset.json", "topics.json"])
    func emptyWithBackup(_ name: String) throws {
        for bytes in [Data(), Data(" \n".utf8), Data(count: 200)] {
            let (folder, file) = try emptied(name, rounds: 3, bytes: bytes)
            defer { try? FileManager.default.removeItem(at: folder) }
            let log = LogLines()
            let next = try BrokerHarness(folder: folder, log: log)
            #expect(log.lines.contains { $0.contains(file.path) && $0.contains("backup is used") }, "\(log.lines)")
            #expect(try next.onLoop { $0.offsets.offset(topic: "T0", group: "G", queueID: 0) ?? 0 } >= 52)
            #expect(try next.onLoop { $0.topics["T0"] != nil })
            try next.drain()
        }
    }

    @Test(
        "an empty table whose checksums tell of more is not taken for none",
        arguments: ["consumerOffset.json", "topics.json"])
    func emptyWithoutBackup(_ name: String) throws {
        let (folder, file) = try emptied(name, rounds: 3)
        defer { try? FileManager.default.removeItem(at: folder) }
        try FileManager.default.removeItem(atPath: file.path + ".bak")
        do {
            _ = try BrokerHarness(folder: folder)
            Issue.record("the broker began with nothing")
        } catch {
            #expect("\(error)".contains(file.path) && "\(error)".contains("restore"), "\(error)")
        }
        // Moved away, as the text says, it begins without.
        try FileManager.default.removeItem(at: file)
        let next = try BrokerHarness(folder: folder)
        #expect(try next.connect().send(topic: "T0").code == 0)
        try next.drain()
    }

    @Test("an empty table of RocketMQ's, of which nothing is known, is said and begun without")
    func emptyUnknown() throws {
        let folder = try TestFolder.make("empty")
        defer { try? FileManager.default.removeItem(at: folder) }
        let config = folder.appendingPathComponent("config")
        try FileManager.default.createDirectory(at: config, withIntermediateDirectories: true)
        let file = config.appendingPathComponent("topics.json")
        try Data().write(to: file)
        let log = LogLines()
        let harness = try BrokerHarness(folder: folder, log: log)
        #expect(log.lines.contains { $0.contains(file.path) && $0.contains("empty") }, "\(log.lines)")
        try harness.drain()
    }

    /// JSON that is not the table is refused: nothing of it would be loaded, silently.
    @Test func shapes() throws {
        func quality(_ file: File, _ text: String) -> MetadataFile.Quality { file.quality(of: Array(text.utf8)) }
        for name in ["topics", "subscriptionGroup", "consumerOffset", "delayOffset"] {
            let file = try #require(File(rawValue: name + ".json"))
            let good = [UInt8](try Data(contentsOf: GoldenFlow.folder.appendingPathComponent(name + ".json")))
            #expect(file.quality(of: good) == .good, "Apache's \(name).json")
            let text = String(decoding: good, as: UTF8.self)
            for key in ["topicConfigTable", "subscriptionGroupTable", "offsetTable"] where text.contains("\"\(key)\"") {
                let other = text.replacing("\"\(key)\"", with: "\"\(key.dropLast())d\"")
                #expect(quality(file, other) == .unusable, "\(name)")
            }
            for text in ["{}", "[]", "", "7", " ", "\u{0}\u{0}\u{0}"] {
                #expect(quality(file, text) == .unusable, "\(name): \(text)")
            }
            for other in File.allCases
            where other != file && other.rawValue.contains("Offset") != name.contains("Offset") {
                #expect(other.quality(of: good) == .unusable, "\(name).json as \(other)")
            }
        }
        #expect(quality(.topics, "{\"topicConfigTable\":{\"A\":{\"topicName\":\"B\"}}}") == .usable)
        #expect(quality(.consumerOffsets, "{\"offsetTable\":{\"TopicAGroup\":{0:1}}}") == .unusable)
        #expect(quality(.consumerOffsets, "{\"offsetTable\":{\"T@G\":{\"x\":1}}}") == .usable)
        #expect(quality(.consumerOffsets, "{\"offsetTable\":{\"T@G\":{-1:1}}}") == .usable)
        #expect(quality(.consumerOffsets, "{\"offsetTable\":{\"T@../G\":{0:1}}}") == .usable)
        #expect(quality(.consumerOffsets, "{\"offsetTable\":{\"T@G\":{0:1,\"1\":2}}}") == .good)
        #expect(quality(.delayOffsets, "{\"offsetTable\":{1:\"x\"}}") == .usable)
        #expect(quality(.autoCreatedTopics, "[\"a\"]") == .good && quality(.autoCreatedTopics, "[{}]") == .unusable)
    }
}
