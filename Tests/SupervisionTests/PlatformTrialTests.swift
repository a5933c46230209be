import Foundation
import LinuxSystem
import SettingTable
import Supervision
import Testing
import WorkerProtocol

/// `apus config check` starts nothing, and tries everything.
@Suite struct PlatformTrialTests {
    private final class Folder {
        let path = NSTemporaryDirectory() + "apus-trial-\(UUID().uuidString)"
        init() throws { try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true) }
        deinit { try? FileManager.default.removeItem(atPath: path) }
        func write(_ name: String, _ text: String) throws {
            try FileManager.default.createDirectory(
                atPath: ("\(path)/\(name)" as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
            try text.write(toFile: "\(path)/\(name)", atomically: true, encoding: .utf8)
        }
    }

    private func platform(_ common: [String: String], data: String) throws -> (PlatformConfiguration, RawConfiguration)
    {
        var raw = RawConfiguration()
        raw.common = common
        raw.nameserver["listenPort"] = "0"
        if raw.common["listenPort"] == nil { raw.common["listenPort"] = "0" }
        return (try PlatformConfiguration(raw, .init(dataDirectory: data, executables: "/x")), raw)
    }

    @Test func portsThatAreTakenAreAllNamedAndFreeOnesStayFree() throws {
        let folder = try Folder()
        var sockets = try (0..<3).map { _ in
            SharedDescriptor(try ListenSocket.tcp(address: "127.0.0.1", port: 0))
        }
        let ports = try sockets.map { try ListenSocket.port(of: $0.raw) }
        sockets.removeLast()
        let (configuration, raw) = try platform(
            [
                "listenPort": String(ports[0]), "fastListenPort": String(ports[1]), "haListenPort": String(ports[2]),
            ], data: folder.path)
        var trial = PlatformTrial()
        let found = trial.portProblems(configuration, raw).map(\.text)
        #expect(
            found.count == 2 && found[0].contains("port \(ports[0]) is in use") && found[1].contains("\(ports[1])"),
            "\(found)")
        let again = SharedDescriptor(try ListenSocket.tcp(address: "127.0.0.1", port: ports[2]))
        #expect(try ListenSocket.port(of: again.raw) == ports[2])
        // The platform that runs there has them.
        trial.running = 1
        #expect(trial.portProblems(configuration, raw).isEmpty && trial.portsNotTried?.contains("pid 1") == true)
        withExtendedLifetime(sockets) {}
    }

    @Test func foldersAreLookedAtAsTheirUserFindsThem() throws {
        let folder = try Folder()
        try folder.write("file", "")
        try FileManager.default.createDirectory(atPath: folder.path + "/store", withIntermediateDirectories: true)
        chmod(folder.path + "/store", 0o755)
        func refusals(_ store: String, _ account: Account = .own) throws -> [String] {
            let (configuration, raw) = try platform(["storePathRootDir": store], data: folder.path)
            return PlatformTrial(account: account).folderProblems(configuration, raw).map(\.text)
                .filter { $0.hasPrefix("storePathRootDir") }
        }
        #expect(try refusals(folder.path + "/store").isEmpty && refusals(folder.path + "/a/b/c").isEmpty)
        #expect(try refusals(folder.path + "/file").first?.contains("is no folder") == true)
        let stranger = Account(name: "apus", user: 65_000, groups: [65_000])
        #expect(try refusals(folder.path + "/store", stranger).first?.contains("apus may not write to") == true)
        #expect(try refusals(folder.path + "/new", stranger).first?.contains("install -d -o apus") == true)
        chmod(folder.path + "/store", 0o777)
        #expect(try refusals(folder.path + "/store", stranger).isEmpty)
        // Nothing was made.
        #expect(!FileManager.default.fileExists(atPath: folder.path + "/a"))
    }

    @Test func whatSystemdLetsAServiceWrite() throws {
        #expect(UnitRules.unit(of: "/etc/apus/apus.toml") == "apus.service")
        #expect(UnitRules.unit(of: "/etc/apus/broker.toml") == "apus@broker.service")
        #expect(UnitRules.unit(of: "/etc/apus/x/apus.toml") == nil && UnitRules.unit(of: "/home/u/apus.toml") == nil)
        let folder = try Folder()
        #expect(UnitRules(unit: "apus@b.service", root: folder.path) == nil)
        try folder.write(
            "usr/lib/systemd/system/apus@.service",
            "[Service]\nUser=apus\nStateDirectory=apus/instances/%i\nProtectSystem=strict\nProtectHome=yes\nPrivateTmp=yes\n"
        )
        try folder.write("etc/systemd/system/apus@b.service.d/disk.conf", "[Service]\nReadWritePaths=/data0 -/data1\n")
        try folder.write("usr/lib/systemd/system/apus@.service.d/old.conf", "[Service]\nReadWritePaths=/gone\n")
        let rules = try #require(UnitRules(unit: "apus@b.service", root: folder.path))
        #expect(rules.user == "apus" && rules.stateFolders == ["/var/lib/apus/instances/b"])
        #expect(
            rules.writable.sorted() == ["/data0", "/data1", "/gone"] && rules.required.sorted() == ["/data0", "/gone"])
        func problems(_ store: String) throws -> [String] {
            let (configuration, raw) = try platform(["storePathRootDir": store], data: "/var/lib/apus/instances/b")
            return PlatformTrial(account: .own, unit: rules).folderProblems(configuration, raw).map(\.text)
        }
        #expect(try problems("/data0/store").allSatisfy { !$0.hasPrefix("storePathRootDir") })
        #expect(
            try problems("/data0/store").contains {
                $0.contains("there is no /gone, which apus@b.service names in ReadWritePaths=")
            })
        #expect(
            try problems("/data9/store").contains {
                $0.contains("systemd does not let apus@b.service write to /data9/store: add ReadWritePaths=")
            })
        #expect(try problems("/home/u/store").contains { $0.contains("ProtectHome=yes") })
        #expect(try problems("/tmp/store").contains { $0.contains("PrivateTmp=") })
    }
}
