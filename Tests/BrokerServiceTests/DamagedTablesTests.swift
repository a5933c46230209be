import FastJSON
import Foundation
import MessageStore
import RemotingProtocol
import Testing

@testable import BrokerService

/// Flipped bits in each table under config/: found, said, and the backup serves.
@Suite struct DamagedTablesTests {
    typealias File = Broker.ConfigurationFile

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
