import Foundation
import LinuxSystem
import Supervision
import Testing
import WorkerProtocol

/// A folder of one test.
final class Folder {
    let path = NSTemporaryDirectory() + "apus-disks-\(UUID().uuidString.prefix(8))"
    init() throws { try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true) }
    deinit { try? FileManager.default.removeItem(atPath: path) }

    func disk(_ name: String) throws -> String {
        let disk = "\(path)/\(name)"
        try FileManager.default.createDirectory(atPath: disk, withIntermediateDirectories: true)
        return disk
    }

    func register() throws -> DiskRegister { try DiskRegister(dataDirectory: "\(path)/data") }

    /// What the settings say, and what a start with them makes of it.
    func entries(_ disks: [String]) throws -> [DiskRegister.Entry] {
        var register = try register()
        return try register.entries(for: disks) { PlatformConfiguration.brokerName(nil, index: $0) }
    }

    /// As a broker does when it has become ready on its disk.
    func serve(_ entry: DiskRegister.Entry) throws {
        try DiskMark(identity: entry.identity, slot: entry.slot, brokerName: entry.brokerName).write(in: entry.path)
        var register = try register()
        try register.served(identity: entry.identity)
    }
}

@Suite struct DiskRegisterTests {
    @Test func namesStayWithTheirDisksHoweverTheyAreListed() throws {
        let folder = try Folder()
        let (a, b, c) = (try folder.disk("a"), try folder.disk("b"), try folder.disk("c"))
        let first = try folder.entries([a, b])
        #expect(first.map(\.brokerName) == ["broker-a", "broker-b"])
        for entry in first { try folder.serve(entry) }
        #expect(try folder.entries([b, a]).map(\.brokerName) == ["broker-b", "broker-a"])
        // One goes: its number stays its own.
        #expect(try folder.entries([b]).map(\.slot) == [1])
        #expect(try folder.entries([c, b]).map(\.brokerName) == ["broker-c", "broker-b"])
        #expect(try folder.entries([a, b, c]).map(\.slot) == [0, 1, 2])
        #expect(try folder.entries([a]).map(\.served) == [true])
    }

    /// Mounted at the other's place: the mark says who is who.
    @Test func disksThatHaveMovedKeepTheirNames() throws {
        let folder = try Folder()
        let (a, b) = (try folder.disk("a"), try folder.disk("b"))
        for entry in try folder.entries([a, b]) { try folder.serve(entry) }
        try FileManager.default.moveItem(atPath: a, toPath: "\(folder.path)/x")
        try FileManager.default.moveItem(atPath: b, toPath: a)
        try FileManager.default.moveItem(atPath: "\(folder.path)/x", toPath: b)
        #expect(try folder.entries([a, b]).map(\.brokerName) == ["broker-b", "broker-a"])
        // The platform's memory is gone, the disks' own is not.
        try FileManager.default.removeItem(atPath: "\(folder.path)/data/disks")
        #expect(try folder.entries([a, b]).map(\.brokerName) == ["broker-b", "broker-a"])
    }

    @Test func missingDiskKeepsItsPlace() throws {
        let folder = try Folder()
        let (a, b) = (try folder.disk("a"), try folder.disk("b"))
        for entry in try folder.entries([a, b]) { try folder.serve(entry) }
        try FileManager.default.removeItem(atPath: a)
        let entries = try folder.entries([a, b])
        #expect(entries.map(\.brokerName) == ["broker-a", "broker-b"])
        #expect(entries.map(\.served) == [true, true])
    }

    @Test func aCopiedDiskIsRefusedInWords() throws {
        let folder = try Folder()
        let (a, b) = (try folder.disk("a"), try folder.disk("b"))
        for entry in try folder.entries([a]) { try folder.serve(entry) }
        try FileManager.default.copyItem(atPath: "\(a)/.apus-disk", toPath: "\(b)/.apus-disk")
        let error = #expect(throws: ConfigurationError.self) { try folder.entries([a, b]) }
        #expect(error?.description.contains("both carry the mark of broker-a") == true)
    }

    @Test func damagedRegisterNamesItsLine() throws {
        let folder = try Folder()
        _ = try folder.entries([try folder.disk("a")])
        try "nonsense\n".write(toFile: "\(folder.path)/data/disks", atomically: true, encoding: .utf8)
        let error = #expect(throws: ConfigurationError.self) { try folder.register() }
        #expect(error?.description.contains("line 1") == true)
    }

    /// Each ended the supervisor: as a character, as 32 bits, in a port.
    @Test(arguments: ["-98", "-1", "10000", "4294967296", "9223372036854775807", "1e3", "x"])
    func aNumberNoBrokerHasIsNone(_ slot: String) throws {
        let folder = try Folder()
        let disk = try folder.disk("a")
        try "id=0123\nslot=\(slot)\nbrokerName=broker-a\n".write(
            toFile: "\(disk)/\(DiskMark.fileName)", atomically: false, encoding: .utf8)
        #expect(try folder.entries([disk]).map(\.slot) == [0])
        try "- 01 new broker-x /x\n\(slot) 0123 served broker-a \(disk)\n".write(
            toFile: "\(folder.path)/data/disks", atomically: true, encoding: .utf8)
        let error = #expect(throws: ConfigurationError.self) { try folder.register() }
        #expect(error?.description.contains("line 2 is not SLOT") == true)
        #expect(error?.description.contains("with - or 0 to 9999 as SLOT") == true)
    }

    @Test func twoLinesOfOneNumberAreRefused() throws {
        let folder = try Folder()
        _ = try folder.entries([try folder.disk("a")])
        try "7 01 served broker-h /h\r\n\r\n7 02 served broker-i /i\r\n".write(
            toFile: "\(folder.path)/data/disks", atomically: true, encoding: .utf8)
        let error = #expect(throws: ConfigurationError.self) { try folder.register() }
        #expect(error?.description.contains("line 3 gives the disk at /i number 7, which the one at /h has") == true)
    }
}
