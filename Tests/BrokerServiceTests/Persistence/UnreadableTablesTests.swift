import FastJSON
import Foundation
import MetadataStore
import RemotingProtocol
import TestFolders
import Testing

@testable import BrokerService

/// No broker writes a table that its next start cannot read, whatever a request, an older release or another program
/// has put into it.
@Suite struct UnreadableTablesTests {
    /// A group with a field that nests so deep.
    private func group(_ name: String, depth: Int, padding: Int = 0) -> String {
        let field = String(repeating: "[", count: depth) + String(repeating: "]", count: depth)
        let text = String(repeating: "z", count: padding)
        return
            #"{"groupName":"\#(name)","retryMaxTimes":7,"x":\#(field),"y":"\#(text)"}"#
    }

    @Test("fields a broker does not know are kept over a restart up to a bound, and refused in words beyond")
    func unknownFields() throws {
        let harness = try BrokerHarness()
        let folder = harness.folder
        defer { try? FileManager.default.removeItem(at: folder) }
        let connection = try harness.connect()
        func make(_ text: String, list: Bool) throws -> RemotingCommand {
            let body = list ? #"{"groupConfigList":[\#(text)]}"# : text
            let code: RequestCode = list ? .updateAndCreateSubscriptionGroupList : .updateAndCreateSubscriptionGroup
            return try connection.invoke(code, body: Array(body.utf8))
        }
        for list in [false, true] {
            for (text, words) in [
                (group("Deep", depth: 60), "nest 60 deep, at most 16"), (group("Deep", depth: 17), "nest 17 deep"),
                (group("Deep", depth: 1, padding: 17_000), "at most 16384"),
                (
                    #"{"groupName":"Deep",{"a":[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]}:1}"#,
                    "nest 21 deep"
                ),
            ] {
                let refused = try make(text, list: list)
                #expect(refused.code == ResponseCode.systemError.rawValue, "\(refused)")
                #expect(refused.remark?.contains(words) == true, "\(refused.remark ?? "")")
            }
            #expect(try make(group("Good\(list)", depth: 16, padding: 10_000), list: list).code == 0)
        }
        let fields = ["topic": "T", "readQueueNums": "4", "writeQueueNums": "4", "perm": "6"]
        let type = ["topicFilterType": String(repeating: "x", count: 20_000)]
        let refused = try connection.invoke(.updateAndCreateTopic, fields.merging(type) { $1 })
        #expect(refused.code == 1 && refused.remark?.contains("SINGLE_TAG or MULTI_TAG") == true, "\(refused)")
        try harness.drain()
        let log = LogLines()
        let next = try BrokerHarness(folder: folder, log: log)
        #expect(log.lines.isEmpty, "\(log.lines)")
        let kept = try next.onLoop { broker in ["Deep", "Goodfalse", "Goodtrue"].map { broker.groups[$0]?.config } }
        #expect(kept[0] == nil && kept[1]?.otherFields.map(\.value.depth) == [16, 0] && kept[2]?.retryMaxTimes == 7)
        try next.drain()
    }

    @Test("a table an older release wrote too deep is read, its bad entries are put aside")
    func writtenTooDeep() throws {
        let folder = try TestFolder.make("deep")
        defer { try? FileManager.default.removeItem(at: folder) }
        let config = folder.appendingPathComponent("config")
        try FileManager.default.createDirectory(at: config, withIntermediateDirectories: true)
        let text =
            #"{"subscriptionGroupTable":{"Deep":\#(group("Deep", depth: 63)),"Good":\#(group("Good", depth: 3))}}"#
        for name in ["subscriptionGroup.json", "subscriptionGroup.json.bak"] {
            try Data(text.utf8).write(to: config.appendingPathComponent(name))
        }
        let log = LogLines()
        let harness = try BrokerHarness(folder: folder, log: log)
        #expect(log.lines.contains { $0.contains("1 entries of") && $0.contains("nest 63 deep") }, "\(log.lines)")
        let kept = try harness.onLoop { ($0.groups["Good"]?.config.retryMaxTimes, $0.groups["Deep"] == nil) }
        #expect(kept == (7, true))
        let aside = try JSONValue(
            parsing: [UInt8](Data(contentsOf: config.appendingPathComponent("subscriptionGroup.json.refused"))),
            limits: .tables)
        #expect(aside.array?.map { $0["key"]?.string } == ["Deep"])
        try harness.drain()
        // So does a slave with its master's.
        #expect(ConfigurationFile.subscriptionGroups.quality(of: Array(text.utf8)) == .usable)
    }

    @Test("an entry that no request may make is kept when it is there: RocketMQ has no such bound")
    func migrated() throws {
        let folder = try TestFolder.make("migrated")
        defer { try? FileManager.default.removeItem(at: folder) }
        let config = folder.appendingPathComponent("config")
        try FileManager.default.createDirectory(at: config, withIntermediateDirectories: true)
        let groups = [("Many", 900_000), ("Beyond", 1 << 20)].map { name, bytes in
            #""\#(name)":\#(group(name, depth: 3, padding: bytes))"#
        }
        let text = #"{"subscriptionGroupTable":{\#(groups.joined(separator: ","))}}"#
        try Data(text.utf8).write(to: config.appendingPathComponent("subscriptionGroup.json"))
        let attributes = #"{"+a":"\#(String(repeating: "z", count: 900_000))"}"#
        let topic =
            #"{"topicName":"Wide","readQueueNums":3,"writeQueueNums":3,"perm":6,"attributes":\#(attributes)}"#
        try Data(#"{"topicConfigTable":{"Wide":\#(topic)}}"#.utf8).write(
            to: config.appendingPathComponent("topics.json"))
        let harness = try BrokerHarness(folder: folder, log: LogLines())
        let kept = try harness.onLoop {
            (
                $0.groups["Many"]?.config.retryMaxTimes, $0.groups["Beyond"] == nil,
                $0.topics["Wide"]?.config.readQueueNums
            )
        }
        #expect(kept.0 == 7 && kept.1 && kept.2 == 3)
        try harness.drain()
    }

    @Test("a table beyond what a start reads is not written: the former file and its backup stay")
    func notWritten() throws {
        let harness = try BrokerHarness()
        let folder = harness.folder
        defer { try? FileManager.default.removeItem(at: folder) }
        let connection = try harness.connect()
        func make(_ name: String) throws -> RemotingCommand {
            try connection.invoke(
                .updateAndCreateSubscriptionGroup, body: SubscriptionGroupConfig(groupName: name).encoded())
        }
        #expect(try make("First").code == 0 && make("Second").code == 0)
        let file = folder.appendingPathComponent("config/subscriptionGroup.json")
        let before = try Data(contentsOf: file)
        try harness.onLoop { $0.keeper.limits = JSONReader.Limits(depth: 20, bytes: before.count) }
        let refused = try make("Third")
        #expect(refused.code == ResponseCode.systemError.rawValue)
        for words in [
            "not kept for the next start", "could not be read again", "the text is too large", "delete",
            "then say it again",
        ] {
            #expect(refused.remark?.contains(words) == true, "\(refused.remark ?? "")")
        }
        #expect(refused.remark?.contains("free the disk") == false)
        #expect(try Data(contentsOf: file) == before)
        let backup = [UInt8](try Data(contentsOf: URL(fileURLWithPath: file.path + ".bak")))
        #expect(ConfigurationFile.subscriptionGroups.quality(of: backup) == .good)
        try harness.drain()
        #expect(try Data(contentsOf: file) == before)
        let next = try BrokerHarness(folder: folder)
        #expect(try next.onLoop { $0.groups["Second"] != nil && $0.groups["Third"] == nil })
        try next.drain()
    }

    @Test("a table that states a terabyte is not read: its backup serves, and the next write is good")
    func sparse() throws {
        for isBackupThere in [true, false] {
            let harness = try BrokerHarness()
            let folder = harness.folder
            defer { try? FileManager.default.removeItem(at: folder) }
            let connection = try harness.connect()
            for name in ["T0", "T1"] { #expect(try connection.send(topic: name).code == 0) }
            try harness.drain()
            let path = folder.path + "/config/topics.json"
            #expect(truncate(path, 1 << 40) == 0)
            if !isBackupThere { try FileManager.default.removeItem(atPath: path + ".bak") }
            let log = LogLines()
            guard isBackupThere else {
                let error = #expect(throws: BrokerError.self) { try BrokerHarness(folder: folder) }
                #expect("\(error.map { "\($0)" } ?? "")".contains("topics.json has 1099511627776 bytes"))
                continue
            }
            let next = try BrokerHarness(folder: folder, log: log)
            #expect(log.lines.contains { $0.contains("1099511627776 bytes") && $0.contains("backup is used") })
            #expect(try next.connect().send(topic: "T2").code == 0)
            try next.drain()
            let written = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
            #expect(ConfigurationFile.topics.quality(of: written) == .good)
        }
    }
}
