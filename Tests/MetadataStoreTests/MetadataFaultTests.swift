import Foundation
import Synchronization
import TestDisk
import Testing

@testable import MetadataStore

/// Disks that refuse, and power cuts: a metadata file holds the old or the new bytes.
@Suite struct MetadataFaultTests {
    /// A metadata file is loadable after a power cut at any moment, and holds the old or the new bytes.
    @Test func powerCuts() throws {
        var random = SeededGenerator(seed: 5)
        let clock = MovedClock()
        var disk = SimulatedDisk(now: { clock.now })
        var saved = -1
        for round in 0..<2000 {
            // Files of two saves differ in their times, too.
            clock.advance(1)
            let file = MetadataFile(path: "/store/config/topics.json", disk: disk)
            let steps = Int.random(in: 0...12, using: &random)
            let fault = DiskFault()
            disk.fault.withLock {
                $0 = { call, path in call == "open" || call == "stat" ? nil : fault.answer("any", path) }
            }
            fault.set("any", path: "", code: EIO, after: steps)
            do {
                try file.save(Array("{\(round)}".utf8))
                saved = round
            } catch {}
            let cut = disk.afterPowerCut(&random)
            let loaded = try MetadataFile(path: "/store/config/topics.json", disk: cut).load {
                $0.first == 123 && $0.last == 125
            }
            switch loaded {
            case .empty: Issue.record("round \(round): an empty file")
            case .absent: #expect(saved == -1, "round \(round)")
            case .current(let bytes), .backup(let bytes, _):
                let value = Int(String(decoding: bytes.dropFirst().dropLast(), as: UTF8.self)) ?? -2
                #expect(value >= saved && value <= round, "round \(round): \(value), \(saved) was saved")
            }
            if random.chance(50) {
                disk = cut
                if case .current(let bytes) = loaded {
                    saved = Int(String(decoding: bytes.dropFirst().dropLast(), as: UTF8.self)) ?? -2
                }
            }
        }
    }

    @Test func fallsBackToTheBackup() throws {
        let disk = SimulatedDisk()
        let file = MetadataFile(path: "/c/x.json", disk: disk)
        guard case .absent = try file.load(isGood: { _ in true }) else {
            Issue.record("something was there")
            return
        }
        try file.save([1])
        try file.save([2])
        guard case .current([2]) = try file.load(isGood: { _ in true }) else {
            Issue.record("not the newest")
            return
        }
        guard case .backup([1], let reason) = try file.load(isGood: { $0 == [1] }) else {
            Issue.record("no backup")
            return
        }
        #expect(reason.contains("/c/x.json"))
        #expect(throws: MetadataError.self) { try file.load(isGood: { _ in false }) }
    }
}
