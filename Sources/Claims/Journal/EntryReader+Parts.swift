/// What an entry states of messages that go into a client's hands.
struct JournalDelivery {
    /// When, milliseconds since 1970.
    let wall: Int64
    let popTime: Int64
    /// `wall` and the invisible time.
    let deadline: Int64
    let invisible: Int64
    let client: ClaimClient
    let attemptID: [UInt8]?
}

/// Blocks, and the parts that several kinds of entries have.
extension EntryReader {
    /// The next block's payload, its checksum compared; the reader stands at the block's end afterwards.
    /// - Throws: it is not whole.
    mutating func payload() throws(JournalDamage) -> EntryReader {
        let length = try number()
        guard length > 0 else { throw JournalDamage("there are zeros where a block should begin") }
        guard length <= UInt64(remaining) else { throw JournalDamage("a block is cut off") }
        let checksum = try fixed32()
        let payload = try take(Int(length))
        guard ClaimFile.checksum(payload) == checksum else { throw JournalDamage("the checksum of a block is wrong") }
        return EntryReader(payload)
    }

    /// - Parameter time: what it is relative to; milliseconds since 1970.
    mutating func time(after time: Int64) throws(JournalDamage) -> Int64 {
        let value = time &+ (try signed())
        guard ClaimFile.times.contains(value) else { throw JournalDamage("a time is none") }
        return value
    }

    mutating func invisible() throws(JournalDamage) -> Int64 {
        let invisible = try number()
        guard invisible <= UInt64(Int64.claimInvisibleMax) else { throw JournalDamage("a claim is too long") }
        return Int64(invisible)
    }

    /// - Parameter blockTime: milliseconds since 1970.
    mutating func delivery(_ flags: UInt8, at blockTime: Int64) throws(JournalDamage) -> JournalDelivery {
        let wall = try time(after: blockTime)
        let popTime = try time(after: wall)
        let invisible = try invisible()
        let client = ClaimClient(number: try number32())
        let attemptID = flags & EntryKind.attempt != 0 ? Array(try block()) : nil
        return JournalDelivery(
            wall: wall, popTime: popTime, deadline: wall + invisible, invisible: invisible, client: client,
            attemptID: attemptID)
    }

    /// - Parameter start: the table's `next` as the file has it.
    /// - Returns: offsets, ascending, from 0 on, and the `next` after them.
    mutating func claimedOffsets(_ flags: UInt8, after start: Int64) throws(JournalDamage) -> (
        offsets: [Int64], next: Int64
    ) {
        let count = try number()
        guard count <= UInt64(ClaimFile.claimMax) else { throw JournalDamage("a claim has \(count) offsets") }
        var offsets: [Int64] = []
        var expected = start
        for index in 0..<Int(count) {
            if index == 0 {
                expected = expected &+ (try signed())
            } else if flags & EntryKind.plain == 0 {
                expected = expected &+ Int64(bitPattern: try number())
            }
            guard expected >= offsets.last.map({ $0 + 1 }) ?? 0, expected < .max else {
                throw JournalDamage("the offsets of a claim do not ascend")
            }
            offsets.append(expected)
            expected += 1
        }
        let next = expected &+ (try signed())
        guard next > offsets.last ?? -1 else { throw JournalDamage("a claim ends before it begins") }
        return (offsets, next)
    }
}
