import MessageModel

/// Encodes a registry: what a `ClaimReplay` has made, or a live one.
struct SnapshotEncoder {
    private let header: ClaimFile.Header
    private let toWall: Int64
    private var entries = EntryBytes()
    private(set) var bytes: EntryBytes

    /// - Parameters:
    ///   - time: any, milliseconds since 1970; near to the pop times makes the file small.
    ///   - toWall: what is added to deadlines, so that they lie on the axis of the wall clock.
    init(number: UInt32, time: Int64, toWall: Int64 = 0) {
        self.toWall = toWall
        header = ClaimFile.Header(kind: .snapshot, number: number, time: time)
        bytes = header.encoded
    }

    /// All of it. The tables' references to the journal are lost.
    mutating func encode(_ registry: ClaimRegistry) {
        registry.forgetUnusedClients()
        registry.clients.forEach { number, name in
            begin(.client)
            entries.number(number)
            entries.text(name)
        }
        for table in registry.byNumber.values.sorted(by: { $0.number < $1.number }) { encode(table) }
        begin(.end)
        entries.signed(registry.popTimeMin)
        entries.signed(registry.popTimeMinOfNew)
        entries.number(UInt64(registry.byNumber.count))
        seal()
    }

    private mutating func encode(_ table: ClaimTable) {
        begin(.define)
        entries.number(table.number)
        entries.text(table.group.text)
        entries.text(table.topic.text)
        entries.signed(Int64(table.queueID))
        entries.signed(table.floor)
        begin(
            .state,
            (table.isOrdered ? EntryKind.ordered : 0) | (table.attemptID == nil ? 0 : EntryKind.attempt))
        entries.number(table.number)
        entries.signed(table.next &- table.floor)
        entries.signed(table.popTimeMax)
        entries.signed(table.popTimeMinUnordered)
        if let attemptID = table.attemptID { entries.block(attemptID) }
        guard let open = table.open else { return }
        var last = table.floor
        var runs: [Run] = []
        open.runs.forEach { runs.append($0) }
        for run in runs {
            begin(.run)
            entries.number(table.number)
            entries.signed(run.start &- last)
            entries.number(UInt64(run.unfinished))
            entries.signed(run.popTime &- header.time)
            entries.signed(wall(run.deadline, run.popTime) &- run.popTime)
            entries.number(run.client)
            last = run.start + Int64(31 - run.unfinished.leadingZeroBitCount)
        }
        for (offset, single) in open.singles.byOffset {
            begin(.single, single.waits ? EntryKind.plain : 0)
            entries.number(table.number)
            entries.signed(offset &- last)
            entries.signed(single.popTime &- header.time)
            entries.signed(wall(single.deadline, single.popTime) &- single.popTime)
            entries.number(single.invisible)
            entries.signed(Int64(single.attempt))
            entries.number(single.client)
            last = offset
        }
    }

    /// What is due has passed its deadline: when, is not needed any more.
    private func wall(_ deadline: Int64, _ popTime: Int64) -> Int64 {
        deadline == Run.due ? popTime : deadline +| toWall
    }

    private mutating func begin(_ kind: EntryKind, _ flags: UInt8 = 0) {
        if entries.count > 1 << 16 { seal() }
        entries.byte(kind.rawValue | flags)
    }

    private mutating func seal() {
        var payload = EntryBytes()
        // All blocks have the header's time.
        payload.signed(0)
        bytes.number(UInt64(payload.count + entries.count))
        let checksum = bytes.count
        bytes.fixed32(0)
        bytes.append(payload)
        bytes.append(entries)
        bytes.setChecksum(at: checksum, from: checksum + 4, to: bytes.count)
        entries.removeAll()
    }
}
