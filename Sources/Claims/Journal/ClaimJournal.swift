import MessageModel

/// Encodes what happens as entries, until the tick is committed. It knows no files, only which one its bytes are for.
struct ClaimJournal {
    /// Acknowledgements that share an entry: those of one table within 64 offsets, with no other entry between.
    private struct Finished {
        let table: ClaimTable
        var start: Int64
        /// Bit i: `start + i`; bit 0 is set.
        var bits: UInt64
        let isWithdrawn: Bool
    }

    /// `JournalReference.file` of the file that is written.
    private let file: UInt32
    /// The time of the last block, milliseconds since 1970.
    private(set) var blockTime: Int64
    /// Of the entries not sealed yet.
    private var time: Int64?
    private var entries = EntryBytes()
    private var finished: Finished?
    /// Clients this file has the names of.
    private var clients: Set<UInt32>
    /// Blocks to be written.
    private(set) var sealed = EntryBytes()

    /// - Parameters:
    ///   - blockTime: the header's time, or that of the file's last block.
    ///   - clients: that are in the file already.
    init(for header: ClaimFile.Header, blockTime: Int64, clients: Set<UInt32> = []) {
        file = JournalReference.file(header)
        self.blockTime = blockTime
        self.clients = clients
    }

    var isEmpty: Bool { sealed.isEmpty && entries.isEmpty && finished == nil }

    /// Makes a block of the entries of the tick.
    /// - Parameter wall: the block's time, milliseconds since 1970, if no entry has one: that of acknowledgements.
    mutating func seal(at wall: Int64? = nil) {
        flushFinished()
        guard !entries.isEmpty else { return }
        let now = time ?? wall ?? blockTime
        var payload = EntryBytes()
        payload.signed(now &- blockTime)
        sealed.number(UInt64(payload.count + entries.count))
        let checksum = sealed.count
        sealed.fixed32(0)
        sealed.append(payload)
        sealed.append(entries)
        sealed.setChecksum(at: checksum, from: checksum + 4, to: sealed.count)
        entries.removeAll()
        blockTime = now
        time = nil
    }

    /// The sealed blocks were written.
    mutating func written() { sealed.removeAll() }

    // MARK: - Entries

    mutating func define(_ table: ClaimTable) {
        begin(.define, table)
        entries.text(table.group.text)
        entries.text(table.topic.text)
        entries.signed(Int64(table.queueID))
        entries.signed(table.floor)
        table.journalled = JournalReference(file: file, next: table.floor, offset: table.floor)
    }

    mutating func remove(_ table: ClaimTable) { begin(.remove, table) }

    mutating func retain(_ table: ClaimTable, from min: Int64) { bound(.retain, table, min) }

    mutating func lower(_ table: ClaimTable, to max: Int64) { bound(.lower, table, max) }

    mutating func reset(_ table: ClaimTable, to offset: Int64) { bound(.reset, table, offset) }

    private mutating func bound(_ kind: EntryKind, _ table: ClaimTable, _ offset: Int64) {
        begin(kind, table)
        let reference = table.reference(in: file)
        entries.signed(offset &- reference.next)
        table.journalled = JournalReference(file: file, next: offset, offset: reference.offset)
    }

    /// - Parameters: as of `ClaimTable.claim`, checked.
    mutating func claim(
        _ table: ClaimTable, _ offsets: [Int64], next: Int64, popTime: Int64, wall: Int64, invisible: Int64,
        client: ClaimClient, attemptID: [UInt8]?
    ) {
        precondition(offsets.count <= ClaimFile.claimMax, "a claim has \(offsets.count) offsets")
        define(client, table)
        let first = offsets.first ?? next
        let last = offsets.last ?? next
        let isConsecutive = last - first == Int64(offsets.count - 1)
        begin(.claim, table, flags(table, attemptID) | (isConsecutive ? EntryKind.plain : 0))
        delivery(popTime: popTime, wall: wall, invisible: invisible, client: client, attemptID: attemptID)
        entries.number(UInt64(offsets.count))
        var expected = table.reference(in: file).next
        for (index, offset) in offsets.enumerated() {
            if index == 0 {
                // The table's own `next` is at least what the file has of it; absolute in a file that has nothing yet.
                entries.signed(offset &- expected)
            } else if !isConsecutive {
                entries.number(UInt64(bitPattern: offset &- expected))
            }
            expected = offset + 1
        }
        entries.signed(next &- expected)
        table.journalled = JournalReference(file: file, next: next, offset: table.reference(in: file).offset)
    }

    /// - Parameters: as of `ClaimTable.reclaim`, checked.
    mutating func reclaim(
        _ table: ClaimTable, _ offset: Int64, popTime: Int64, wall: Int64, invisible: Int64, client: ClaimClient,
        attemptID: [UInt8]?
    ) {
        define(client, table)
        begin(.reclaim, table, flags(table, attemptID))
        self.offset(offset, table)
        delivery(popTime: popTime, wall: wall, invisible: invisible, client: client, attemptID: attemptID)
    }

    /// - Parameter isWithdrawn: no client has acknowledged it.
    mutating func finish(_ table: ClaimTable, _ offset: Int64, isWithdrawn: Bool = false) {
        if let open = finished, open.table === table, open.isWithdrawn == isWithdrawn {
            let distance = offset &- open.start
            if distance > 0, distance < 64 {
                finished?.bits |= 1 << UInt64(distance)
                return
            }
            if distance < 0, distance > -64, open.bits.leadingZeroBitCount >= -distance {
                finished?.bits = open.bits << UInt64(-distance) | 1
                finished?.start = offset
                return
            }
        }
        flushFinished()
        finished = Finished(table: table, start: offset, bits: 1, isWithdrawn: isWithdrawn)
    }

    /// Several messages that clients have acknowledged.
    /// - Parameter bits: bit i stands for `offset + i`; the first is set.
    mutating func finish(_ table: ClaimTable, _ offset: Int64, bits: UInt32) {
        if let open = finished, open.table === table, !open.isWithdrawn {
            let distance = offset &- open.start
            if distance > 0, distance < 64, bits.leadingZeroBitCount + 32 >= distance {
                finished?.bits |= UInt64(bits) << UInt64(distance)
                return
            }
        }
        flushFinished()
        finished = Finished(table: table, start: offset, bits: UInt64(bits), isWithdrawn: false)
    }

    private mutating func flushFinished() {
        guard let open = finished else { return }
        finished = nil
        let flags = (open.bits == 1 ? EntryKind.plain : 0) | (open.isWithdrawn ? EntryKind.withdrawn : 0)
        begin(.finish, open.table, flags)
        offset(open.start, open.table)
        if open.bits != 1 { entries.number(open.bits >> 1) }
    }

    mutating func abandon(_ table: ClaimTable, _ offset: Int64, wall: Int64) {
        begin(.abandon, table)
        self.offset(offset, table)
        entries.signed(relative(wall))
    }

    mutating func change(
        _ table: ClaimTable, _ offset: Int64, popTime: Int64, wall: Int64, invisible: Int64, hasFailed: Bool
    ) {
        begin(.change, table, hasFailed ? EntryKind.plain : 0)
        self.offset(offset, table)
        entries.signed(relative(wall))
        entries.signed(popTime &- wall)
        entries.number(UInt64(invisible))
    }

    mutating func reopen(_ table: ClaimTable, popTime: Int64, wall: Int64, invisible: Int64, client: ClaimClient) {
        define(client, table)
        begin(.reopen, table)
        delivery(popTime: popTime, wall: wall, invisible: invisible, client: client, attemptID: nil)
    }

    // MARK: - Parts

    private mutating func begin(_ kind: EntryKind, _ table: ClaimTable, _ flags: UInt8 = 0) {
        flushFinished()
        if entries.count > ClaimFile.blockMax { seal() }
        entries.byte(kind.rawValue | flags)
        entries.number(table.number)
    }

    private func flags(_ table: ClaimTable, _ attemptID: [UInt8]?) -> UInt8 {
        (table.isOrdered ? EntryKind.ordered : 0) | (attemptID != nil ? EntryKind.attempt : 0)
    }

    private mutating func offset(_ offset: Int64, _ table: ClaimTable) {
        let reference = table.reference(in: file)
        entries.signed(offset &- reference.offset)
        table.journalled = JournalReference(file: file, next: reference.next, offset: offset)
    }

    private mutating func delivery(
        popTime: Int64, wall: Int64, invisible: Int64, client: ClaimClient, attemptID: [UInt8]?
    ) {
        entries.signed(relative(wall))
        entries.signed(popTime &- wall)
        entries.number(UInt64(invisible))
        entries.number(client.number)
        if let attemptID { entries.block(attemptID) }
    }

    private mutating func relative(_ wall: Int64) -> Int64 {
        guard let time else {
            time = wall
            return 0
        }
        return wall &- time
    }

    /// The client's name goes before the first entry of a file with its number.
    private mutating func define(_ client: ClaimClient, _ table: ClaimTable) {
        guard client.number != 0, let name = table.registry?.clients[client.number],
            clients.insert(client.number).inserted
        else { return }
        flushFinished()
        entries.byte(EntryKind.client.rawValue)
        entries.number(client.number)
        entries.text(name)
    }
}
