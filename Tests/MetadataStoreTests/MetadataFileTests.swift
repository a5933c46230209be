import LinuxSystem
import Synchronization
import TestDisk
import Testing

@testable import MetadataStore

/// Files under config/: every flipped bit is found, the backup serves, and what others write is theirs.
@Suite struct MetadataFileTests {
    private let clock = MovedClock()
    let disk: SimulatedDisk
    let file: MetadataFile
    let path = "/store/config/topics.json"
    let old = Array("{\"version\":1,\"queues\":4}".utf8)
    let new = Array("{\"version\":2,\"queues\":4}".utf8)

    init() throws {
        let clock = clock
        disk = SimulatedDisk(now: { clock.now })
        file = MetadataFile(path: path, disk: disk)
        try file.save(old)
        clock.advance(5000)
        try file.save(new)
    }

    private func load(_ disk: SimulatedDisk) throws -> MetadataFile.Loaded {
        try MetadataFile(path: path, disk: disk).load { !$0.isEmpty }
    }

    @Test func moreThanItsReaderTakes() throws {
        let small = MetadataFile(path: path, disk: disk, bytesMax: 4096)
        try disk.open(path, .readWrite).truncate(to: 5000)
        guard case .backup(old, let reason) = try small.load(isGood: { !$0.isEmpty }) else {
            Issue.record("the backup was not used")
            return
        }
        #expect(reason.contains("has 5000 bytes"))
        try disk.open(path + ".bak", .readWrite).truncate(to: 5000)
        #expect(throws: MetadataError.self) { try small.load { _ in true } }
        #expect(MetadataFile.bytesMax == 1 << 30)
    }

    @Test func everyBitOfTheFile() throws {
        for byte in new.indices {
            for bit in 0..<8 {
                let image = disk.afterKill()
                image.flip(path, byte: byte, bit: bit)
                guard case .backup(old, let reason) = try load(image) else {
                    Issue.record("byte \(byte) bit \(bit) was not found")
                    return
                }
                #expect(reason.contains(path) && reason.contains("checksum"))
            }
        }
    }

    @Test func everyBitOfBackupAndSums() throws {
        for victim in [path + ".bak", "/store/config/.topics.json.apus"] {
            for byte in 0..<(disk.bytes(victim)?.count ?? 0) {
                let image = disk.afterKill()
                image.flip(victim, byte: byte, bit: byte % 8)
                guard case .current(new) = try load(image) else {
                    Issue.record("\(victim) \(byte)")
                    return
                }
            }
        }
    }

    @Test func bothDamagedIsSaid() throws {
        disk.flip(path, byte: 3, bit: 1)
        disk.flip(path + ".bak", byte: 3, bit: 1)
        #expect(throws: MetadataError.self) { try load(disk) }
    }

    /// The backup takes the file's place, stays the backup, and the damaged bytes are kept to be looked at.
    @Test func restoring() throws {
        disk.flip(path, byte: 12, bit: 0)
        let damaged = disk.bytes(path)
        guard case .backup(let bytes, _) = try load(disk) else {
            Issue.record("not found")
            return
        }
        try file.restore(bytes)
        guard case .current(old) = try load(disk) else {
            Issue.record("not restored")
            return
        }
        #expect(disk.bytes(path + ".bak") == old && disk.bytes(path + ".damaged") == damaged)
    }

    /// Damaged bytes never replace a good backup, even when they were never loaded.
    @Test func savingOverDamage() throws {
        disk.flip(path, byte: 12, bit: 0)
        try file.save(Array("{\"version\":3}".utf8))
        #expect(disk.bytes(path + ".bak") == old)
    }

    @Test func whatOthersWriteIsTheirs() throws {
        clock.advance(1)
        let theirs = Array("{\"version\":2,\"queues\":8}".utf8)
        let handle = try disk.open(path, .replace)
        try theirs.withUnsafeBytes { bytes in
            let result: Result<Void, SystemError> = Result { () throws(SystemError) in try handle.write(bytes, at: 0) }
            try result.get()
        }
        guard case .current(theirs) = try load(disk) else {
            Issue.record("an edited file was refused")
            return
        }
        // And is the next backup.
        try file.save(new)
        #expect(disk.bytes(path + ".bak") == theirs)
    }

    /// The first file has a copy too, and so has one that takes the place of a damaged file without a backup.
    @Test func everySaveLeavesABackup() throws {
        let disk = SimulatedDisk(now: { [clock] in clock.now })
        try MetadataFile(path: path, disk: disk).save(old)
        #expect(disk.bytes(path + ".bak") == old)
        for byte in old.indices {
            let image = disk.afterKill()
            image.flip(path, byte: byte, bit: byte % 8)
            guard case .backup(old, _) = try load(image) else {
                Issue.record("byte \(byte) was not found")
                return
            }
            // The copy has a checksum of its own.
            image.flip(path + ".bak", byte: byte, bit: byte % 8)
            #expect(throws: MetadataError.self) { _ = try load(image) }
        }
        disk.flip(path, byte: 1, bit: 1)
        try disk.remove(path + ".bak")
        clock.advance(1)
        try MetadataFile(path: path, disk: disk).save(new)
        #expect(disk.bytes(path) == new && disk.bytes(path + ".bak") == new)
    }

    /// A kill at any step of the first save leaves nothing, or the whole file.
    @Test func firstSaveIsAllOrNothing() throws {
        final class Images: @unchecked Sendable { var all: [SimulatedDisk] = [] }
        let images = Images()
        let disk = SimulatedDisk(now: { [clock] in clock.now })
        disk.watcher.withLock { $0 = { _ in images.all.append(disk.afterKill()) } }
        try MetadataFile(path: path, disk: disk).save(old)
        #expect(images.all.count > 8)
        for (step, image) in images.all.enumerated() {
            switch try load(image) {
            case .absent, .current(old), .backup(old, _): break
            case let other: Issue.record("before step \(step): \(other)")
            }
        }
    }
}
