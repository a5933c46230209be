import MessageModel
import StoreFormat
import Testing

@testable import BrokerService

@Suite("transactions: which are open, and when their producers are asked")
struct OpenTransactionsTests {
    private static let settings = OpenTransactions.Settings(
        timeout: 6000, interval: 60_000, checkMax: 3, keep: 1_000_000)

    private func table() -> OpenTransactions { OpenTransactions(settings: Self.settings, halfOffset: 0, opOffset: 0) }

    private func half(
        _ offset: Int64, at time: Int64, checks: Int = 0, immunity: Int64? = nil, origin: Int64? = nil
    ) -> HalfMessage {
        HalfMessage(
            queueOffset: offset, storeTimestamp: time, checks: checks, immunity: immunity,
            origin: origin)
    }

    @Test("first check after the time-out or the immunity, then at each interval, then no more")
    func times() {
        var open = table()
        open.arrived(half(0, at: 1000))
        open.arrived(half(1, at: 1000, immunity: 30_000))
        #expect(open.nextDue(now: 6999) == nil)
        #expect(open.nextDue(now: 7000) == .check(half(0, at: 1000)))
        // Asked: stored again, the old copy ended.
        open.end(0)
        open.arrived(half(2, at: 7000, checks: 1, origin: 0))
        open.opArrived(naming: [0])
        open.commit()
        #expect(open.count == 2)
        #expect(open.nextDue(now: 30_999) == nil)
        #expect(open.nextDue(now: 31_000) == .check(half(1, at: 1000, immunity: 30_000)))
        open.end(1)
        open.opArrived(naming: [1])
        open.commit()
        #expect(open.nextDue(now: 66_999) == nil)
        #expect(open.nextDue(now: 67_000) == .check(half(2, at: 7000, checks: 1, origin: 0)))
        open.end(2)
        open.arrived(half(3, at: 67_000, checks: 3, origin: 0))
        open.commit()
        #expect(open.nextDue(now: 127_000) == .giveUp(half(3, at: 67_000, checks: 3, origin: 0)))
    }

    @Test("an old message is given up however often it was asked for; its age is that of its first copy")
    func age() {
        var open = table()
        open.arrived(half(0, at: 0))
        open.end(0)
        open.arrived(half(1, at: 900_000, checks: 1, origin: 0))
        open.commit()
        open.postpone(1, until: Int64.max)
        #expect(open.nextDue(now: 999_999) == nil)
        #expect(open.nextDue(now: 1_000_000) == .giveUp(half(1, at: 900_000, checks: 1, origin: 0)))
    }

    @Test("both offsets go on as far as nothing open is left behind")
    func offsets() {
        var open = table()
        for offset in 0..<5 { open.arrived(half(Int64(offset), at: 0)) }
        open.end(1)
        open.opArrived(naming: [1])
        open.end(2)
        open.opArrived(naming: [2])
        open.commit()
        #expect(open.halfOffset == 0)
        #expect(open.opOffset == 0)
        open.end(0)
        open.opArrived(naming: [0])
        open.commit()
        #expect(open.halfOffset == 3)
        #expect(open.opOffset == 3)
        open.end(4)
        open.opArrived(naming: [4])
        open.commit()
        #expect(open.halfOffset == 3)
        #expect(open.opOffset == 3)
        open.end(3)
        open.opArrived(naming: [3])
        open.commit()
        #expect(open.halfOffset == 5)
        #expect(open.opOffset == 5)
    }

    @Test("an outcome the log did not take leaves the transaction open")
    func rollBack() {
        var open = table()
        open.arrived(half(0, at: 0))
        open.end(0)
        #expect(open.find(0) == nil)
        #expect(open.find(copyOf: half(0, at: 0)) == nil)
        open.rollBack(now: 100)
        #expect(open.find(0) != nil)
        #expect(open.find(copyOf: half(0, at: 0)) != nil)
        #expect(open.nextDue(now: 6000) == .check(half(0, at: 0)))
    }

    @Test("of two copies of one transaction the later one is open")
    func copies() {
        var open = table()
        open.arrived(half(0, at: 0, origin: 42))
        open.arrived(half(1, at: 10, checks: 1, origin: 42))
        open.commit()
        #expect(open.count == 1)
        #expect(open.find(copyOf: half(0, at: 0, origin: 42))?.queueOffset == 1)
        #expect(open.halfOffset == 1)
        #expect(open.nextDue(now: 59_999) == nil)
        #expect(open.nextDue(now: 60_010) == .check(half(1, at: 10, checks: 1, origin: 42)))
    }

    @Test("copies RocketMQ's broker has made, which do not say of what: each belongs to the oldest that looks like it")
    func unlinkedCopies() {
        func alike(_ offset: Int64, checks: Int = 0, likeness: Int? = 7) -> HalfMessage {
            HalfMessage(
                queueOffset: offset, storeTimestamp: offset, checks: checks, isOriginKnown: checks == 0,
                likeness: likeness)
        }
        var open = table()
        for half in [alike(0), alike(1), alike(2, checks: 1), alike(3, checks: 2), alike(4, checks: 1)] {
            open.arrived(half)
        }
        open.arrived(alike(5, checks: 1, likeness: nil))
        open.rebuilt()
        #expect(open.count == 3)
        for place in [alike(0), alike(2, checks: 1), alike(3, checks: 2)] {
            #expect(open.find(copyOf: place)?.queueOffset == 3)
        }
        for place in [alike(1), alike(4, checks: 1)] { #expect(open.find(copyOf: place)?.queueOffset == 4) }
        // While it runs nothing is guessed: two that look alike are two.
        open.arrived(alike(6))
        open.arrived(alike(7, checks: 1))
        #expect(open.count == 5)
    }

    @Test("a copy that was only moved is asked for when the first one would have been")
    func moved() {
        var open = table()
        open.arrived(half(0, at: 0))
        open.end(0)
        let isAskedForTheMove = open.arrived(half(1, at: 5000, origin: 0))
        #expect(!isAskedForTheMove)
        open.opArrived(naming: [0])
        open.commit()
        #expect(open.nextDue(now: 5999) == nil)
        #expect(open.nextDue(now: 6000) == .check(half(1, at: 5000, origin: 0)))
        open.end(1)
        let isAskedForTheCheck = open.arrived(half(2, at: 6000, checks: 1, origin: 0))
        #expect(isAskedForTheCheck)
    }

    @Test("what lies before a place of the log, oldest first, the ended left out")
    func lying() {
        var open = table()
        for offset in 0..<4 {
            open.arrived(
                HalfMessage(
                    queueOffset: Int64(offset), physicalOffset: Int64(offset) * 100, storeTimestamp: 0,
                    origin: Int64(offset)))
        }
        open.end(1)
        open.commit()
        #expect(open.lying(before: 300).map(\.queueOffset) == [0, 2])
        #expect(open.lying(before: 0).isEmpty)
    }

    /// A prepared message as it lies in a log.
    private func record<R>(
        queueOffset: Int64 = 3, checks: String? = nil, _ body: (CommitLogRecordView) throws -> R
    ) throws -> R {
        let topic = Array(TopicNames.half.utf8)
        let asked = checks.map { "TRANSACTION_CHECK_TIMES\u{1}\($0)\u{2}" } ?? ""
        let properties = Array("UNIQ_KEY\u{1}u\u{2}\(asked)".utf8)
        let size = CommitLogRecord.size(sysFlag: 0, body: 0, topic: topic.count, properties: properties.count)
        var bytes = [UInt8](repeating: 0, count: size)
        try bytes.withUnsafeMutableBytes { buffer in
            let base = try #require(buffer.baseAddress)
            BigEndian.store(Int32(size), base, 0)
            BigEndian.store(CommitLogRecord.magicV1, base, CommitLogRecord.magicPosition)
            BigEndian.store(queueOffset, base, CommitLogRecord.queueOffsetPosition)
        }
        let start = CommitLogRecord.minimumSize - 3
        bytes[start] = UInt8(topic.count)
        bytes.replaceSubrange((start + 1)..<(start + 1 + topic.count), with: topic)
        bytes[start + topic.count + 2] = UInt8(properties.count)
        bytes.replaceSubrange((size - properties.count)..<size, with: properties)
        return try bytes.withUnsafeBytes { bytes in
            guard case .record(let record) = CommitLogRecord.parse(bytes) else { throw CancellationError() }
            return try body(record)
        }
    }

    @Test(
        "counts of checks no broker comes to",
        arguments: [
            ("-9223372036854775808", 0), ("-1", 0), ("2", 2), ("9223372036854775807", Int(Int32.max)), ("x", 0),
        ])
    func impossibleChecks(_ text: String, _ checks: Int) throws {
        let half = try record(checks: text) { HalfMessage($0) }
        #expect(half.checks == checks)
        var open = table()
        // While the queues are read at the start: a copy looks for what it is a copy of.
        open.arrived(half)
        open.arrived(try record(queueOffset: 4, checks: text) { HalfMessage($0) })
        open.rebuilt()
        open.commit()
        #expect(open.count >= 1)
    }

    @Test("a prepared message stands where its queue has it, whatever number its record has")
    func impossiblePlaces() throws {
        var open = table()
        for (place, number) in [(Int64(0), Int64.max), (1, 1), (2, -7), (3, 3)] {
            let half = try record(queueOffset: number) { HalfMessage($0, at: place) }
            #expect(half.queueOffset == place && half.origin == place)
            open.arrived(half)
        }
        open.rebuilt()
        #expect(open.count == 4 && open.halfOffset == 0)
        for place in Int64(0)..<4 { open.end(place) }
        open.commit()
        #expect(open.count == 0 && open.halfOffset == 4)
    }

    @Test("op messages of RocketMQ 5 name several")
    func opBodies() {
        func offsets(_ text: String) -> [Int64] { Array(text.utf8).withUnsafeBytes { OpMessage.halfOffsets($0) } }
        #expect(offsets("17") == [17])
        #expect(offsets("1,2,3,") == [1, 2, 3])
        #expect(offsets("x") == [])
    }
}
