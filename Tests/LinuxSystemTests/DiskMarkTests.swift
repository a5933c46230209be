import Foundation
import LinuxSystem
import Testing

@Suite struct DiskMarkTests {
    private let folder = NSTemporaryDirectory() + "apus-mark-\(UUID().uuidString.prefix(8))"

    private func with(_ body: () throws -> Void) throws {
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try body()
    }

    @Test func writtenAndReadAgain() throws {
        try with {
            #expect(try DiskMark.read(in: folder) == nil)
            let mark = DiskMark(identity: DiskMark.newIdentity(), slot: 3, brokerName: "broker-d")
            #expect(mark.identity.count == 32)
            try mark.write(in: folder)
            #expect(try DiskMark.read(in: folder) == mark)
            guard case .mark(mark) = DiskMark.read(in: folder, withinMilliseconds: 5_000) else {
                Issue.record("not read in time")
                return
            }
            try DiskProbe.read(in: folder)
            try DiskProbe.write(in: folder)
            #expect(try FileManager.default.contentsOfDirectory(atPath: folder) == [DiskMark.fileName])
        }
    }

    @Test func whatIsNoMarkIsAnError() throws {
        try with {
            try "hello".write(toFile: "\(folder)/\(DiskMark.fileName)", atomically: false, encoding: .utf8)
            #expect(throws: SystemError.self) { try DiskMark.read(in: folder) }
        }
        #expect(DiskMark(parsing: "slot=1\n") == nil)
        // The register of disks would have a line with other words.
        for (id, name) in [("1", "broker a"), ("1 2", "b"), ("1", "b\t"), ("1", "b\u{1}")] {
            #expect(DiskMark(parsing: "id=\(id)\nbrokerName=\(name)\n") == nil, "\(id) \(name)")
        }
        // A broker may be called so.
        #expect(DiskMark(parsing: "id=1\nbrokerName=b\u{3000}c\n")?.brokerName == "b\u{3000}c")
        func slot(_ text: String) -> Int?? { DiskMark(parsing: "id=1\r\nslot=\(text)\r\nbrokerName=b\r\n").map(\.slot) }
        #expect(slot("0") == 0 && slot("9999") == 9999)
        for text in ["-1", "-98", "10000", "9223372036854775807", "one"] { #expect(slot(text) == nil, "\(text)") }
        #expect(DiskMark(parsing: "id=1\nbrokerName=b\n") == DiskMark(identity: "1", slot: nil, brokerName: "b"))
    }

    @Test func smallFilesHaveABound() throws {
        try with {
            try "hello".write(toFile: "\(folder)/small", atomically: false, encoding: .utf8)
            #expect(try DurableFile.read("\(folder)/small", bytesMax: 5) == "hello")
            #expect(throws: SystemError.self) { try DurableFile.read("\(folder)/small", bytesMax: 4) }
            #expect(truncate("\(folder)/small", 1 << 40) == 0)
            let error = #expect(throws: SystemError.self) { try DurableFile.read("\(folder)/small") }
            #expect(error?.errno == EFBIG)
        }
    }

    /// A fifo that no process writes to: the read hangs as on a dead disk, the caller does not.
    @Test func aHangingDiskDoesNotHangTheCaller() throws {
        try with {
            #expect(mkfifo("\(folder)/\(DiskMark.fileName)", 0o600) == 0)
            let start = MonotonicClock.milliseconds
            guard case .noAnswer = DiskMark.read(in: folder, withinMilliseconds: 100) else {
                Issue.record("an answer from nowhere")
                return
            }
            #expect(MonotonicClock.milliseconds - start < 5_000)
            // Lets the thread go.
            let end = open("\(folder)/\(DiskMark.fileName)", O_WRONLY | O_NONBLOCK)
            if end >= 0 { close(end) }
        }
    }

    @Test func aPausedListenerRefusesAndListensAgain() throws {
        let probe = try ListenSocket.tcp(address: "127.0.0.1", port: 0)
        let port = try ListenSocket.port(of: probe.raw)
        ListenSocket.pause(probe.raw)
        // Again, as with every try of a worker whose disk stays away.
        ListenSocket.pause(probe.raw)
        #expect(!ListenSocket.listens(probe.raw, address: "127.0.0.1", port: port))
        #expect(listen(probe.raw, 8) == 0)
        #expect(ListenSocket.listens(probe.raw, address: "127.0.0.1", port: port))
        let client = SharedDescriptor(
            Descriptor(owning: socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)))
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        address.sin_addr.s_addr = in_addr_t(0x7f00_0001).bigEndian
        let connected = withUnsafePointer(to: address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(client.raw, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        #expect(connected == 0)
        guard let accepted = try ListenSocket.accept(probe.raw) else {
            Issue.record("nothing to accept")
            return
        }
        var byte: UInt8 = 0
        let count = read(accepted.raw, &byte, 1)
        #expect(count == -1, "an accepted connection is open")
    }
}
