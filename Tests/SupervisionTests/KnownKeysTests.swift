import Foundation
import LinuxSystem
import SettingTable
import Systemd
import Testing
import WorkerProtocol

@testable import Supervision

/// Every key the sources ask settings for is in the table, so that no operator is told it has no effect; and what the
/// table says has an effect is asked for somewhere.
@Suite struct KnownKeysTests {
    private static func sources() throws -> [(name: String, text: String)] {
        var root = URL(fileURLWithPath: #filePath)
        for _ in 0..<3 { root.deleteLastPathComponent() }
        let folder = root.appendingPathComponent("Sources")
        let files = try #require(FileManager.default.enumerator(at: folder, includingPropertiesForKeys: nil))
        var found: [(name: String, text: String)] = []
        for case let file as URL in files where file.pathExtension == "swift" {
            if file.path.contains("/SettingTable/") || file.path.contains("/apus/") { continue }
            found.append((file.lastPathComponent, try String(contentsOf: file, encoding: .utf8)))
        }
        return found
    }

    @Test func allKeysTheSourcesReadAreKnown() throws {
        let known = Set(SettingTable.all.map(\.name)).union(SettingTable.told)
        // Those of `WorkerProtocol.Settings`, of BrokerConfiguration (`case "key":`, `integer("key")`) and of
        // StoreConfiguration.
        let anywhere = /[sS]ettings(?:\.(?:string|int|bool)\(|\[)"([A-Za-z0-9]+)"/
        let own = /(?:\braw\(|\bset\(|configuration\.(?:integer|flag)\()"([a-z][A-Za-z0-9]+)"(?:\)|, \\\.)/
        var missing: Set<String> = []
        for (name, text) in try Self.sources() {
            var keys = text.matches(of: anywhere).map(\.1)
            keys += text.matches(of: own).map(\.1)
            switch name {
            case "BrokerConfiguration.swift": keys += text.matches(of: /(?:case |^ +)"([A-Za-z0-9]{3,})":/).map(\.1)
            case "StoreConfiguration.swift":
                keys += text.matches(of: /(?:text|integer|flag)\("([A-Za-z0-9]+)"/).map(\.1)
            default: break
            }
            for key in keys where !known.contains(String(key)) { missing.insert("\(key) (\(name))") }
        }
        #expect(missing.isEmpty, "add to Sources/SettingTable: \(missing.sorted())")
    }

    @Test func whatHasAnEffectIsReadSomewhere() throws {
        let all = try Self.sources().map(\.text).joined()
        let unread = SettingTable.all.filter { setting in
            guard case .holds = setting.effect else { return false }
            return !all.contains("\"\(setting.name)\"")
        }
        #expect(unread.map(\.name) == [])
    }
}
