import Foundation
import LinuxSystem
import MessageModel
import NIOCore
import NIOPosix
import TestTools
import Testing
import WorkerProtocol

@testable import Replication

/// Bytes that differ everywhere, so that a piece at a wrong place shows.
func patterned(_ count: Int, seed: Int = 0) -> [UInt8] {
    var state = UInt64(truncatingIfNeeded: seed) &* 0x9E37_79B9_7F4A_7C15 | 1
    return (0..<count).map { _ in
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return UInt8(truncatingIfNeeded: state)
    }
}

@Suite("master and slave together", .serialized)
struct MasterSlaveTests {
    @Test("everything arrives byte for byte, across files, while the log grows", arguments: [500, 32 * 1024])
    func identical(batchSize: Int) async throws {
        let master = try await MasterHarness(store: FakeStore(), batchSize: batchSize)
        let slave = try await SlaveHarness(store: FakeStore())
        try await slave.restartStore()
        // An empty slave begins with the master's last file: it is to be there before the first is full.
        master.store.append(patterned(1))
        try await slave.find(port: master.port)
        try await eventually { slave.store.written == master.store.written }
        for round in 0..<40 {
            master.store.append(patterned(round * 997 % 20_000 + 1, seed: round))
            // Now and then the slave has all there is, and the next append finds it waiting.
            if round % 8 == 0 { try await eventually { slave.store.written == master.store.written } }
        }
        try await eventually { slave.store.written == master.store.written }
        #expect(try slave.store.contents() == master.store.contents())
        try await eventually { master.acknowledged == master.store.written }
        #expect(slave.backend.messages.first == .replicaState(connected: true, master: "127.0.0.1:\(master.port)"))
        try await slave.stop()
        try await master.stop()
    }

    @Test("the HA port takes 16 connections from one address, 64 in all, and others while there is room")
    func admission() async throws {
        let master = try await MasterHarness(store: FakeStore())
        for address in 1...3 as ClosedRange<UInt32> {
            let answers = try await master.admit(17, from: HostAddress(ipv4: 0x0A00_0000 + address, port: 1))
            #expect(answers.prefix(16).allSatisfy { $0 == nil })
            #expect(answers.last??.contains("from this address: 16 are open") == true, "\(answers)")
        }
        let last = try await master.admit(17, from: HostAddress(ipv4: 0x0A00_0009, port: 1))
        #expect(last.prefix { $0 == nil }.count == 64 - 3 * 16)
        try await master.stop()
    }

    @Test("a slow broker-store is not run over: bytes in flight are bounded")
    func backPressure() async throws {
        let master = try await MasterHarness(store: FakeStore(fileSize: 64 << 20))
        master.store.append(patterned(24 << 20))
        let slave = try await SlaveHarness(store: FakeStore(fileSize: 64 << 20, startingAt: 0))
        slave.backend.delay = 20
        master.store.append([1, 2, 3])
        try await slave.restartStore()
        try await slave.find(port: master.port)
        try await eventually { slave.store.written == master.store.written }
        #expect(try slave.store.contents() == master.store.contents())
        // One read of the socket may add to what was let in.
        #expect(slave.backend.mostWaiting <= Int(ReplicationSlave.inFlightMaximum) + (4 << 20))
        #expect(slave.backend.largestChunk <= ReplicationSlave.pieceMaximum)
        try await slave.stop()
        try await master.stop()
    }

    @Test("either worker and the slave's broker-store restarted under load: still byte-identical")
    func restartsUnderLoad() async throws {
        let store = try FakeStore()
        let replica = try FakeStore()
        var master = try await MasterHarness(store: store)
        var slave = try await SlaveHarness(store: replica)
        slave.backend.delay = 1
        try await slave.restartStore()
        let port = master.port
        try await slave.find(port: port)
        // Where the replica's log ended at the last restart.
        var mark: Int64 = 0
        for round in 0..<60 {
            store.append(patterned(5000 + round * 31, seed: round))
            // Bytes are on their way again before the next restart.
            if round % 5 == 3 { try await eventually { replica.written > mark } }
            if round % 5 == 4 { mark = replica.written }
            switch round % 15 {
            case 4:
                try await master.stop()
                master = try await MasterHarness(store: store, port: port)
            case 9:
                try await slave.stop()
                slave = try await SlaveHarness(store: replica)
                slave.backend.delay = 1
                try await slave.restartStore()
                try await slave.find(port: port)
            case 14:
                try await slave.restartStore()
            default: break
            }
        }
        try await eventually { replica.written == store.written }
        #expect(try replica.contents() == store.contents())
        try await eventually { master.acknowledged == store.written }
        try await slave.stop()
        try await master.stop()
    }

    @Test("an empty slave of a grown master begins with the master's last file")
    func lastFileOnly() async throws {
        let master = try await MasterHarness(store: FakeStore(fileSize: 4096))
        master.store.append(patterned(10_000))
        let slave = try await SlaveHarness(store: FakeStore(fileSize: 4096))
        try await slave.restartStore()
        try await slave.find(port: master.port)
        try await eventually { slave.store.written == 10_000 }
        #expect(try slave.store.contents(from: 8192) == master.store.contents(from: 8192))
        try await slave.stop()
        try await master.stop()
    }

    @Test("a slave with more than its master is refused loudly on both sides, and nothing is written")
    func slaveAhead() async throws {
        let master = try await MasterHarness(store: FakeStore())
        master.store.append(patterned(1000))
        let slave = try await SlaveHarness(store: FakeStore())
        slave.store.append(patterned(1500, seed: 9))
        try await slave.restartStore()
        try await slave.find(port: master.port)
        try await eventually { master.book.lines.contains { $0.contains("holds messages the master does not have") } }
        try await eventually { slave.book.lines.contains { $0.contains("why it refuses this slave's position") } }
        // Also when the master's log grows past the gap later.
        func refusals() -> Int {
            master.book.lines.count { $0.contains("holds messages the master does not have") }
        }
        let before = refusals()
        master.store.append(patterned(400, seed: 2))
        // The next attempt meets the grown log; of an attempt that was on its way the one after it is certain to.
        try await eventually { refusals() >= before + 2 }
        #expect(slave.store.written == 1500)
        #expect(master.acknowledged == 0)
        try await slave.stop()
        try await master.stop()
    }

    @Test("bytes the broker-store refuses are asked for again, with patience")
    func refusedBytes() async throws {
        let master = try await MasterHarness(store: FakeStore())
        master.store.append(patterned(3000))
        let slave = try await SlaveHarness(store: FakeStore())
        slave.backend.refuse = "the disk is full"
        try await slave.restartStore()
        try await slave.find(port: master.port)
        try await eventually { slave.book.lines.contains { $0.contains("the disk is full") } }
        slave.backend.refuse = nil
        try await eventually { slave.store.written == 3000 }
        #expect(try slave.store.contents() == master.store.contents())
        #expect(slave.book.lines.filter { $0.contains("the disk is full") }.count == 1)
        try await slave.stop()
        try await master.stop()
    }

    @Test("nothing is sent or judged while the master's store is not open")
    func notReady() async throws {
        let master = try await MasterHarness(store: FakeStore())
        master.store.append(patterned(1000))
        master.store.watermarks.atomicStore(slot: WatermarkSlot.ready, 0)
        let slave = try await SlaveHarness(store: FakeStore())
        try await slave.restartStore()
        try await slave.find(port: master.port)
        try await eventually { try await master.connections == 1 }
        // The master has looked at its log again, and every event loop has had its turn.
        EventFD.signal(master.store.event.raw)
        for _ in 0..<3 {
            try await master.turn()
            _ = try await slave.isConnected
        }
        #expect(slave.store.written == 0)
        master.store.watermarks.atomicStore(slot: WatermarkSlot.ready, 1)
        EventFD.signal(master.store.event.raw)
        try await eventually { slave.store.written == 1000 }
        try await slave.stop()
        try await master.stop()
    }

    @Test("after a restart of broker-store only what a present slave has of its log is acknowledged")
    func shorterLog() async throws {
        let master = try await MasterHarness(store: FakeStore())
        master.store.append(patterned(1000))
        let slave = try BlockingClient(port: master.port)
        try slave.write(report(1000))
        try await eventually { master.acknowledged == 1000 }
        // It has the same log afterwards.
        master.store.close()
        try await eventually { master.acknowledged == .max }
        master.store.reopen(at: 1000)
        try await eventually { master.acknowledged == 1000 }
        // It has lost its end, and the slave is ahead.
        master.store.close()
        master.store.reopen(at: 500)
        try await eventually { master.slaves == 0 }
        master.store.append(patterned(100))
        try await master.turn()
        #expect(master.acknowledged == 0)
        let other = try BlockingClient(port: master.port)
        try other.write(report(600))
        try await eventually { master.acknowledged == 600 }
        // No restart was seen, and the log is shorter all the same.
        master.store.reopen(at: 300)
        try await eventually { master.acknowledged == 0 }
        slave.end()
        other.end()
        try await master.stop()
    }

    @Test("a connection is a slave that senders wait for once it has reported what fits the log")
    func silentConnection() async throws {
        let master = try await MasterHarness(store: FakeStore())
        master.store.append(patterned(1000))
        let client = try BlockingClient(port: master.port)
        try await eventually { try await master.connections == 1 }
        #expect(master.slaves == 0)
        try client.write(report(1000))
        try await eventually { master.slaves == 1 }
        let ahead = try BlockingClient(port: master.port)
        try ahead.write(report(2000))
        try await eventually { master.book.lines.contains { $0.contains("holds messages the master does not have") } }
        #expect(master.slaves == 1)
        client.end()
        try await eventually { master.slaves == 0 }
        ahead.end()
        // One that reports while the store is closed counts when it is open.
        master.store.close()
        let early = try BlockingClient(port: master.port)
        try early.write(report(1000))
        try await eventually { try await master.connections == 1 }
        #expect(master.slaves == 0)
        master.store.reopen(at: 1000)
        try await eventually { master.slaves == 1 }
        early.end()
        try await master.stop()
    }

    private func report(_ offset: Int64) -> [UInt8] { withUnsafeBytes(of: offset.bigEndian) { Array($0) } }

    @Test("silence ends a connection on either side, heartbeats keep it")
    func silence() async throws {
        let times = HATimes(heartbeatMilliseconds: 30, housekeepingMilliseconds: 200)
        let master = try await MasterHarness(store: FakeStore(), times: times)
        master.store.append(patterned(10))
        let mute = try BlockingClient(port: master.port)
        let slave = try await SlaveHarness(store: FakeStore(), times: times)
        try await slave.restartStore()
        try await slave.find(port: master.port)
        try await eventually { try await master.connections == 2 }
        try await eventually { try await master.connections == 1 }
        try await eventually { master.slaves == 1 }
        #expect(master.book.lines.contains { $0.contains("was silent for 200 ms") })
        // Its reports go on for longer than the silence that ended the other.
        let report = master.lastReport
        try await eventually { master.lastReport >= report + 300 }
        #expect(master.slaves == 1)
        #expect(try await slave.isConnected)
        mute.end()
        // A master that accepts and says nothing.
        let deaf = try await RecordedMaster(pieces: [])
        let other = try await SlaveHarness(store: FakeStore(), times: times)
        try await other.restartStore()
        try await other.find(port: deaf.port)
        try await eventually { other.book.lines.contains { $0.contains("the master was silent for 200 ms") } }
        for harness in [slave, other] { try await harness.stop() }
        try await deaf.stop()
        try await master.stop()
    }

    @Test("a master that sends from another place is left, and nothing is written")
    func wrongPlace() async throws {
        var header = ByteBuffer(integer: Int64(77))
        header.writeInteger(Int32(3))
        header.writeBytes([1, 2, 3])
        let recorded = try await RecordedMaster(pieces: [Array(header.readableBytesView)])
        let slave = try await SlaveHarness(store: FakeStore())
        slave.store.append(patterned(50))
        try await slave.restartStore()
        try await slave.find(port: recorded.port)
        try await eventually {
            slave.book.lines.contains { $0.contains("the master sends from 77 on, this slave's log ends at 50") }
        }
        try await eventually { recorded.connections >= 2 }
        #expect(slave.store.written == 50)
        try await slave.stop()
        try await recorded.stop()
    }
}
