import BrokerService
import Foundation
import MessageStore
import NIOCore
import RemotingProtocol
import StoreFormat
import TestTools
import Testing

/// What an acknowledgement promises is true when it is sent.
@Suite struct AckGateTests {
    @Test("SYNC_FLUSH answers after the flush")
    func syncFlush() throws {
        let harness = try BrokerHarness([("flushDiskType", "SYNC_FLUSH")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        for number in 0..<20 {
            let answer = try connection.send(topic: "Sync", body: "m\(number)")
            #expect(answer.code == 0)
            #expect(answer.extFields["queueOffset"] == String(number))
            #expect(try harness.onLoop { $0.store.flushedOffset == $0.store.writtenOffset })
        }
        // Who does not want to wait does not.
        #expect(try connection.send(topic: "Sync", properties: "WAIT\u{1}false").code == 0)
    }

    @Test("SYNC_MASTER without a slave stores the message and says so")
    func noSlave() throws {
        let harness = try BrokerHarness([("brokerRole", "SYNC_MASTER")])
        defer { try? harness.end() }
        let connection = try harness.connect()
        let answer = try connection.send(topic: "Double")
        #expect(answer.code == ResponseCode.slaveNotAvailable.rawValue)
        #expect(answer.extFields["queueOffset"] == "0")
        #expect(try connection.send(topic: "Double").extFields["queueOffset"] == "1")
    }

    @Test("SYNC_MASTER waits for the slave, and no longer than slaveTimeout")
    func slave() throws {
        let harness = try BrokerHarness(
            [("brokerRole", "SYNC_MASTER"), ("slaveTimeout", "200")],
            onPlatform: { platform, _ in platform.slaves = (1, 0) })
        defer { try? harness.end() }
        let connection = try harness.connect()
        try connection.post(
            .sendMessageV2,
            [
                "a": "P", "b": "Double", "c": "TBW102", "d": "4", "e": "0", "f": "0", "g": "0", "h": "0", "m": "false",
            ], body: [1])
        #expect(throws: RawConnection.TimedOut.self) { try connection.receive(timeoutMilliseconds: 50) }
        try harness.onLoop { broker in
            harness.platform.slaves.ackOffset = broker.store.writtenOffset.rawValue
            broker.slavesMoved()
        }
        #expect(try connection.receive().code == 0)
        let late = try connection.send(topic: "Double")
        #expect(late.code == ResponseCode.flushSlaveTimeout.rawValue)
    }

    @Test("SYNC_MASTER: an offset no log of this broker has reached acknowledges nothing")
    func foreignAcknowledgement() throws {
        let harness = try BrokerHarness(
            [("brokerRole", "SYNC_MASTER"), ("slaveTimeout", "200")],
            onPlatform: { platform, _ in platform.slaves = (1, 1 << 40) })
        defer { try? harness.end() }
        let connection = try harness.connect()
        #expect(try connection.send(topic: "Double").code == ResponseCode.flushSlaveTimeout.rawValue)
        try harness.onLoop { $0.slavesMoved() }
        #expect(try connection.send(topic: "Double").code == ResponseCode.flushSlaveTimeout.rawValue)
    }

    @Test("SYNC_MASTER waits while it is not known what slaves have, and does not take them for far behind")
    func unknownAcknowledgement() throws {
        let harness = try BrokerHarness(
            [("brokerRole", "SYNC_MASTER"), ("slaveTimeout", "200"), ("haSlaveFallbehindMax", "1")],
            onPlatform: { platform, _ in platform.slaves = (1, .max) })
        defer { try? harness.end() }
        let connection = try harness.connect()
        #expect(try connection.send(topic: "Double").code == ResponseCode.flushSlaveTimeout.rawValue)
        try harness.onLoop { _ in harness.platform.slaves.ackOffset = 0 }
        #expect(try connection.send(topic: "Double").code == ResponseCode.slaveNotAvailable.rawValue)
    }

    @Test("a write the disk refuses is answered with its cause, and leaves no hole", arguments: [ENOSPC, EIO])
    func failedWrite(_ error: Int32) throws {
        let disk = FailingDisk()
        let harness = try BrokerHarness(disk: disk)
        defer { try? harness.end() }
        let connection = try harness.connect()
        #expect(try connection.send(topic: "Disk", body: "first").code == 0)
        disk.error = error
        for _ in 0..<3 {
            let refused = try connection.send(topic: "Disk", body: "refused")
            #expect(refused.code == ResponseCode.serviceNotAvailable.rawValue)
            #expect(refused.remark?.contains("commitlog") == true, "\(refused.remark ?? "")")
        }
        disk.error = nil
        // The store takes messages again by itself.
        var answer = try connection.send(topic: "Disk", body: "second")
        try eventually(within: .seconds(20)) {
            if answer.code != 0 { answer = try connection.send(topic: "Disk", body: "second") }
            return answer.code == 0
        }
        #expect(answer.extFields["queueOffset"] == "1")
        let pulled = try connection.invoke(.pullMessage, RawConnection.pullFields(topic: "Disk"))
        #expect(NormalizedAnswer(pulled, to: RemotingCommand(.pullMessage)).body.count == 2)
    }

    @Test("a one-way message is stored and not answered")
    func oneway() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        try connection.post(
            .sendMessageV2,
            [
                "a": "P", "b": "OneWay", "c": "TBW102", "d": "4", "e": "0", "f": "0", "g": "0", "h": "0", "m": "false",
            ], body: [1], oneway: true)
        let next = try connection.send(topic: "OneWay")
        #expect(next.extFields["queueOffset"] == "1")
    }

    @Test("batches of one tick each get their own message ids, and their messages the broker's properties")
    func batchesOfOneTick() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        _ = try connection.send(topic: "Batches")
        var frames = ByteBuffer()
        for batch in 0..<5 {
            var body: [UInt8] = []
            for number in 0...batch {
                MessageBatch.append(
                    body: Array("\(batch)/\(number)".utf8), properties: Array("TAGS\u{1}t\(batch)".utf8), to: &body)
            }
            var command = RemotingCommand(
                .sendBatchMessage,
                extFields: [
                    "a": "P", "b": "Batches", "c": "TBW102", "d": "4", "e": "0", "f": "0", "g": "0", "h": "0",
                    "m": "true",
                ], body: body)
            command.opaque = Int32(1000 + batch)
            command.encode(into: &frames, serialization: .json)
        }
        try connection.send(Array(frames.readableBytesView))
        var ids: [String] = []
        var next = 1
        for batch in 0..<5 {
            let answer = try connection.receive()
            #expect(answer.code == 0)
            #expect(answer.opaque == Int32(1000 + batch))
            #expect(answer.extFields["queueOffset"] == String(next))
            let own = (answer.extFields["msgId"] ?? "").split(separator: ",").map(String.init)
            #expect(own.count == batch + 1)
            ids += own
            next += batch + 1
        }
        let pulled = try connection.invoke(
            .pullMessage, RawConnection.pullFields(topic: "Batches", offset: 1))
        let messages = try MessageExt.decodeAll(pulled.body)
        #expect(messages.map(\.offsetMessageID) == ids)
        #expect(messages.first?.tags == "t0")
        #expect(messages.allSatisfy { $0.properties["CLUSTER"] == "DefaultCluster" })
    }
}
