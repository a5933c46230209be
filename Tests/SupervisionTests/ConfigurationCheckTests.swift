import Foundation
import Supervision
import Testing

/// `apusd --check` and `--print-configuration`: what they show, and that they leave no trace.
@Suite struct ConfigurationCheckTests {
    @Test func whoOnlyLooksRemembersNoDisk() throws {
        let folder = NSTemporaryDirectory() + "apus-looking-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        var looking = try DiskRegister(dataDirectory: folder, isReadOnly: true)
        let entries = try looking.entries(for: ["\(folder)/disk0", "\(folder)/disk1"]) { "broker-\($0)" }
        #expect(entries.map(\.brokerName) == ["broker-0", "broker-1"])
        _ = try looking.guarded("\(folder)/store", brokerName: "own")
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder) == [])
        var starting = try DiskRegister(dataDirectory: folder)
        _ = try starting.entries(for: ["\(folder)/disk0"]) { "broker-\($0)" }
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder) == [DiskRegister.fileName])
    }

    @Test func theListingHasEverySettingOfEveryWorkerOnce() throws {
        var raw = RawConfiguration()
        raw.common = ["brokerName": "x", "listenPort": "20911"]
        raw.nameserver = ["listenPort": "19876"]
        let platform = try PlatformConfiguration(
            raw, .init(dataDirectory: "/d", executables: "/x", plugins: "/x/plugins"))
        let lines = platform.listing.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        #expect(lines.count { $0.hasPrefix("# ") } == 4, "name server, broker, filter, gateway: \(lines)")
        #expect(lines.contains("listenPort=19876") && lines.contains("listenPort=20911"))
        #expect(lines.contains("pluginDirectory=/x/plugins") && lines.contains("storePathRootDir=/d/store"))
    }
}
