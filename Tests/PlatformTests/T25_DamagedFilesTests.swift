import Foundation
import RemotingProtocol
import TestTools
import Testing

extension PlatformTests {
    /// What requests and disks have done to files between two starts.
    @Suite("T25 damaged files", .serialized)
    struct T25_DamagedFiles {
        private static func put(_ key: String, to platform: Platform) async throws {
            let fields = ["namespace": "ORDER_TOPIC_CONFIG", "key": key, "value": "b:4"]
            let answer = try await platform.ask(
                platform.nameServer, RemotingCommand(.putKVConfig, extFields: fields))
            #expect(answer.code == 0)
        }

        private static func value(_ key: String, of platform: Platform) async throws -> String? {
            let fields = ["namespace": "ORDER_TOPIC_CONFIG", "key": key]
            let answer = try await platform.ask(
                platform.nameServer, RemotingCommand(.getKVConfig, extFields: fields))
            return answer.code == 0 ? answer.extFields["value"] : nil
        }

        @Test("a damaged kvConfig.json is named, and its backup serves", .timeLimit(.minutes(2)))
        func kvConfig() async throws {
            var platform = try await Platform.start()
            let folder = platform.folder
            try await Self.put("first", to: platform)
            try await Self.put("second", to: platform)
            _ = try await platform.stop()
            let file = folder.file("data/config/kvConfig.json")
            let good = try Data(contentsOf: URL(fileURLWithPath: file))
            for damage in [Data(), good.prefix(good.count / 2), Data("{\"configTable\":7}".utf8)] {
                try damage.write(to: URL(fileURLWithPath: file))
                platform = try await Platform.start(in: folder)
                // The last change may be lost, the one before is not.
                #expect(try await Self.value("first", of: platform) == "b:4")
                try await Self.put("second", to: platform)
                _ = try await platform.stop()
                #expect(platform.program.errorText.contains(file), "\(platform.program.errorText)")
            }
            // Neither file nor backup: the text says which, and what to do.
            for path in [file, file + ".bak"] { try Data("{".utf8).write(to: URL(fileURLWithPath: path)) }
            let refused = try Program(
                Binaries.apus,
                ["up", "--data-dir", folder.file("data"), "--nameserver-port", "0", "--broker-port", "0"])
            try await eventually("the damaged file is named with its remedy", within: .seconds(30)) {
                refused.errorText.contains(file) && refused.errorText.contains("restore one of them")
            }
            refused.send(signal: SIGTERM)
            _ = try await refused.finish()
        }
    }
}
