import Foundation
import NIOCore
import Testing

@testable import Replication

@Suite("the HA protocol without a socket")
struct HAProtocolTests {
    static let log = HASession.Log(minimum: 0, written: 10_000, fileSize: 4096)

    func report(_ offset: Int64) -> [UInt8] { withUnsafeBytes(of: offset.bigEndian) { Array($0) } }

    @Test("a report arrives in any pieces, and the last of several counts")
    func reportPieces() {
        for pieceSize in 1...24 {
            var session = HASession()
            let bytes = report(5) + report(0x0102_0304_0506_0708) + report(77)
            var rest = bytes[...]
            while !rest.isEmpty {
                session.received(rest.prefix(pieceSize))
                rest = rest.dropFirst(pieceSize)
            }
            #expect(session.acknowledged == 77)
        }
        var session = HASession()
        session.received(report(5).prefix(7))
        #expect(session.acknowledged == nil)
    }

    @Test("0 asks from the beginning of the last file, anything else from there")
    func beginning() {
        var empty = HASession()
        empty.received(report(0))
        #expect(empty.judge(Self.log) == .carryOn)
        #expect(empty.next == 8192)
        var other = HASession()
        other.received(report(4097))
        #expect(other.judge(Self.log) == .carryOn)
        #expect(other.next == 4097)
        var fresh = HASession()
        fresh.received(report(0))
        #expect(fresh.judge(.init(minimum: 0, written: 0, fileSize: 4096)) == .carryOn)
        #expect(fresh.next == 0)
    }

    @Test("transfers have at most the batch size and never cross a file's end")
    func transfers() {
        var session = HASession(batchSize: 3000)
        #expect(session.nextTransfer(Self.log) == nil)
        session.received(report(1))
        _ = session.judge(Self.log)
        var transfers: [HASession.Transfer] = []
        while let transfer = session.nextTransfer(Self.log) { transfers.append(transfer) }
        #expect(
            transfers == [
                .init(offset: 1, size: 3000), .init(offset: 3001, size: 1095), .init(offset: 4096, size: 3000),
                .init(offset: 7096, size: 1096), .init(offset: 8192, size: 1808),
            ])
        #expect(session.heartbeat == .init(offset: 10_000, size: 0))
    }

    @Test("a slave that is ahead, too far behind or impossible is refused with the reason")
    func refusals() {
        func judgement(_ offset: Int64, _ log: HASession.Log = Self.log) -> HASession.Judgement {
            var session = HASession()
            session.received(report(offset))
            return session.judge(log)
        }
        #expect(judgement(10_000) == .carryOn)
        guard case .close(let ahead) = judgement(10_001) else {
            Issue.record("a slave with more than the master was taken")
            return
        }
        #expect(ahead.contains("holds messages the master does not have"))
        guard case .close(let behind) = judgement(100, .init(minimum: 4096, written: 10_000, fileSize: 4096)) else {
            Issue.record("a slave that needs deleted files was taken")
            return
        }
        #expect(behind.contains("Empty its store"))
        #expect(judgement(-1) != .carryOn)
        // A slave that claims more than it was sent.
        var session = HASession(batchSize: 100)
        session.received(report(1))
        #expect(session.judge(Self.log) == .carryOn)
        _ = session.nextTransfer(Self.log)
        session.received(report(200))
        #expect(session.judge(Self.log) != .carryOn)
    }

    @Test("a master whose log went back parts with a slave that has more")
    func masterWentBack() {
        var session = HASession()
        session.received(report(1))
        #expect(session.judge(Self.log) == .carryOn)
        while session.nextTransfer(Self.log) != nil {}
        #expect(session.judge(.init(minimum: 0, written: 9_000, fileSize: 4096)) != .carryOn)
    }

    func header(_ offset: Int64, _ size: Int32) -> ByteBuffer {
        var buffer = ByteBuffer(integer: offset)
        buffer.writeInteger(size)
        return buffer
    }

    @Test("a receiver takes the stream apart whatever its pieces", arguments: [1, 2, 5, 11, 12, 13, 50, 1000])
    func receiverPieces(pieceSize: Int) throws {
        var stream = header(100, 0)
        var body = ByteBuffer()
        var at: Int64 = 100
        for size in [1, 30, 500] {
            var head = header(at, Int32(size))
            stream.writeBuffer(&head)
            let bytes = (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ size) }
            stream.writeBytes(bytes)
            body.writeBytes(bytes)
            at += Int64(size)
        }
        var receiver = HAReceiver(next: 100)
        var got = ByteBuffer()
        var heartbeats = 0
        while stream.readableBytes > 0 {
            var piece = stream.readSlice(length: min(pieceSize, stream.readableBytes)) ?? ByteBuffer()
            while let event = try receiver.read(&piece) {
                switch event {
                case .heartbeat: heartbeats += 1
                case .bytes(let offset, var bytes):
                    #expect(offset == 100 + Int64(got.readableBytes))
                    #expect(bytes.readableBytes > 0)
                    got.writeBuffer(&bytes)
                }
            }
            #expect(piece.readableBytes == 0)
        }
        #expect(got == body)
        #expect(heartbeats == 1)
        #expect(receiver.next == 631)
    }

    @Test("a receiver refuses another place and impossible sizes; an empty log takes any place")
    func receiverRefusals() throws {
        var elsewhere = HAReceiver(next: 100)
        var input = header(101, 4)
        #expect(throws: HAReceiver.Failure.offset(master: 101, slave: 100)) { try elsewhere.read(&input) }
        for size: Int32 in [-1, Int32(HAProtocol.maximumBody) + 1, .max] {
            var receiver = HAReceiver(next: 100)
            var input = header(100, size)
            #expect(throws: HAReceiver.Failure.size(size)) { try receiver.read(&input) }
        }
        var empty = HAReceiver(next: 0)
        var far = header(1 << 30, 2)
        far.writeBytes([1, 2])
        #expect(try empty.read(&far) == .bytes(at: 1 << 30, ByteBuffer(bytes: [1, 2])))
        #expect(empty.next == 1 << 30 + 2)
        // But none a log cannot go on from.
        for place in [Int64.max, 1 << 61, -1, .min] {
            var empty = HAReceiver(next: 0)
            var input = header(place, 2)
            #expect(throws: HAReceiver.Failure.offset(master: place, slave: 0)) { try empty.read(&input) }
        }
    }
}
