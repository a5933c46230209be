import BrokerService
import Foundation
import RemotingProtocol
import TestTools
import Testing

/// What the answer to an edit promises is true when it is sent, as for a send.
@Suite("acknowledgements of edits") struct EditAnswerTests {
    private static let place = RawConnection.place("T", 0)

    @Test("SYNC_MASTER without a slave: made, and the answer says that no slave has it; a recall is a success as ever")
    func noSlave() throws {
        let harness = try BrokerHarness([("brokerRole", "SYNC_MASTER")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        #expect(try connection.send(topic: "T", body: "m").code == ResponseCode.slaveNotAvailable.rawValue)
        let made = try connection.edit("edit", Self.place, body: "edited")
        #expect(made.code == ResponseCode.slaveNotAvailable.rawValue, "\(made)")
        #expect(made.extFields["version"] == "2" && made.extFields["msgId"]?.count == 32)
        #expect(try connection.all("T").map(\.body) == ["edited"])
        let due = RawConnection.nowMilliseconds + 3_600_000
        let timed = try connection.send(
            topic: "T", properties: RawConnection.properties("UNIQ_KEY=u;TIMER_DELIVER_MS=\(due)"))
        let handle = try #require(timed.extFields["recallHandle"], "\(timed)")
        let recalled = try connection.invoke(
            .recallMessage, ["topic": "T", "recallHandle": handle, "producerGroup": "P"])
        #expect(recalled.code == 0, "\(recalled)")
    }

    @Test("SYNC_MASTER with a slave that is late")
    func lateSlave() throws {
        let harness = try BrokerHarness(
            [("brokerRole", "SYNC_MASTER"), ("slaveTimeout", "200")],
            onPlatform: { platform, _ in platform.slaves = (1, 0) })
        defer { try? harness.end() }
        let connection = try harness.connect()
        _ = try connection.send(topic: "T", body: "m", properties: RawConnection.properties("WAIT=false"))
        let made = try connection.edit("delete", Self.place)
        #expect(made.code == ResponseCode.flushSlaveTimeout.rawValue, "\(made)")
        #expect(try connection.consume("T").isEmpty)
    }

    @Test("SYNC_FLUSH on a disk that is late")
    func lateDisk() throws {
        let disk = FailingDisk()
        let harness = try BrokerHarness([("flushDiskType", "SYNC_FLUSH"), ("syncFlushTimeout", "200")], disk: disk)
        defer { try? harness.end() }
        let connection = try harness.connect()
        try connection.send("T", "m")
        disk.isStuck = true
        defer { disk.isStuck = false }
        let made = try connection.edit("edit", Self.place, body: "edited")
        #expect(made.code == ResponseCode.flushDiskTimeout.rawValue, "\(made)")
        #expect(made.extFields["version"] == "2")
        disk.isStuck = false
        #expect(try connection.edit("edit", Self.place, body: "again").code == 0)
        #expect(try connection.all("T").map(\.body) == ["again"])
    }

    @Test("a write the disk refuses: not made, and said so")
    func failedWrite() throws {
        let disk = FailingDisk()
        let harness = try BrokerHarness(disk: disk)
        defer { try? harness.end() }
        let connection = try harness.connect()
        try connection.send("T", "m")
        disk.error = EIO
        let made = try connection.edit("edit", Self.place, body: "edited")
        #expect(made.code == ResponseCode.serviceNotAvailable.rawValue, "\(made)")
        disk.error = nil
        #expect(try connection.all("T").map(\.body) == ["m"])
        try eventually("the store takes messages again", within: .seconds(20)) {
            try connection.edit("edit", Self.place, body: "edited").code == 0
        }
        #expect(try connection.all("T").map(\.body) == ["edited"])
    }

    @Test("groups that have consumed it are named, and counted where they are very many")
    func consumedBy() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        try connection.send("T", "m")
        for number in 0..<260 { try connection.commit("G\(number)", "T", 1) }
        try connection.commit("Late", "T", 0)
        let made = try connection.edit("edit", Self.place, body: "edited")
        #expect(made.code == 0, "\(made)")
        #expect(made.extFields["consumedBy"]?.split(separator: ",").count == 256)
        #expect(made.extFields["consumedByLeftOut"] == "4")
    }
}
