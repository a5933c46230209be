import Foundation
import LinuxSystem
import NIOCore
import NIOPosix
import TestTools
import Testing
import WorkerProtocol

@testable import Replication

@Suite("against the recorded conversation of two Apache brokers", .serialized)
struct GoldenStreamTests {
    @Test("our slave takes Apache's stream and ends with the same bytes")
    func slaveTakesRecordedStream() async throws {
        let golden = try GoldenStream()
        let expected = golden.log()
        #expect(expected.count == 0x39b9)
        let slave = try await SlaveHarness(store: FakeStore())
        // A master that plays the recording: pieces as recorded, each after the slave's first report.
        let recorded = try await RecordedMaster(pieces: golden.conversation.filter { !$0.fromSlave }.map(\.bytes))
        try await slave.restartStore()
        try await slave.find(port: recorded.port)
        try await eventually { slave.store.written == Int64(expected.count) }
        #expect(try slave.store.contents() == expected)
        try await eventually { recorded.reports.last == Int64(expected.count) }
        #expect(recorded.reports.first == 0)
        #expect(recorded.reports == recorded.reports.sorted(), "reports never go back")
        try await slave.stop()
        try await recorded.stop()
    }

    @Test("our master's stream satisfies the recorded slave")
    func masterSatisfiesRecordedSlave() async throws {
        let golden = try GoldenStream()
        let expected = golden.log()
        let store = try FakeStore()
        let master = try await MasterHarness(store: store, times: HATimes(heartbeatMilliseconds: 100))
        let socket = try BlockingClient(port: master.port)
        var receiver = HAReceiver(next: 0)
        var got: [UInt8] = []
        // The slave's recorded reports, each once it has as much as it had then; the log grows to that point first.
        for report in golden.conversation.filter({ $0.fromSlave }).map(\.bytes) {
            let offset = report.reduce(Int64(0)) { $0 << 8 | Int64($1) }
            if Int(offset) > store.written { store.append(Array(expected[Int(store.written)..<Int(offset)])) }
            while got.count < Int(offset) {
                var input = ByteBuffer(bytes: try socket.read())
                while let event = try receiver.read(&input) {
                    if case .bytes(_, let bytes) = event { got += Array(bytes.readableBytesView) }
                }
            }
            try socket.write(report)
            try await eventually { master.acknowledged == offset }
        }
        #expect(got == expected)
        #expect(master.slaves == 1)
        // Then only heartbeats come.
        var input = ByteBuffer(bytes: try socket.read())
        #expect(try receiver.read(&input) == .heartbeat)
        socket.end()
        try await eventually { master.slaves == 0 }
        #expect(master.acknowledged == Int64(expected.count))
        try await master.stop()
    }
}
