import MessageModel

/// Applies the entries of files to a registry without a journal, whose axis of time is the wall clock. The bytes are
/// foreign: an entry that does not fit the state is damage, and nothing traps.
struct ClaimReplay {
    let registry: ClaimRegistry
    /// `JournalReference.file` of the file that is read.
    private var file: UInt32 = 0
    /// Of the last block, milliseconds since 1970.
    private(set) var blockTime: Int64 = 0
    /// Clients the file has the names of.
    private(set) var clients: Set<UInt32> = []
    /// Whether the last entry of a snapshot was read.
    private(set) var isComplete = false

    init(into registry: ClaimRegistry) { self.registry = registry }

    /// Begins the next file.
    mutating func begin(_ header: ClaimFile.Header) {
        file = JournalReference.file(header)
        blockTime = header.time
        clients = []
        isComplete = false
    }

    /// One block, its checksum at the beginning; the reader stands at its end afterwards.
    /// - Throws: it is not whole. What of it was applied stays; that is little when the checksum was right.
    mutating func block(_ reader: inout EntryReader) throws(JournalDamage) {
        var entries = try reader.payload()
        blockTime = try entries.time(after: blockTime)
        while !entries.isAtEnd { try entry(&entries) }
    }

    private mutating func entry(_ entries: inout EntryReader) throws(JournalDamage) {
        let first = try entries.byte()
        let flags = first & 0xF0
        guard !isComplete, let kind = EntryKind(rawValue: first & 0x0F) else {
            throw JournalDamage("an entry is of no known kind")
        }
        guard (file & 1 == 1 ? EntryKind.inSnapshots : EntryKind.inJournals).contains(kind) else {
            throw JournalDamage("an entry belongs into another kind of file")
        }
        switch kind {
        case .end: try end(&entries)
        case .client: try client(&entries)
        case .define: try define(&entries)
        default: try entry(kind, flags, try table(&entries), &entries)
        }
    }

    private mutating func entry(
        _ kind: EntryKind, _ flags: UInt8, _ table: ClaimTable, _ entries: inout EntryReader
    ) throws(JournalDamage) {
        switch kind {
        case .end, .client, .define: break
        case .claim: try claim(table, flags, &entries)
        case .reclaim: try reclaim(table, flags, &entries)
        case .finish: try finish(table, flags, &entries)
        case .abandon: try abandon(table, &entries)
        case .change: try change(table, flags, &entries)
        case .reset: table.resetWithoutJournal(to: try bound(table, &entries))
        case .retain: _ = table.retainWithoutJournal(from: try bound(table, &entries))
        case .lower: _ = table.lowerWithoutJournal(to: try bound(table, &entries))
        case .remove: registry.remove(table)
        case .reopen:
            let delivery = try delivery(0, &entries)
            table.reopenWithoutJournal(
                popTime: delivery.popTime, wall: delivery.wall, deadline: delivery.deadline,
                invisible: delivery.invisible, client: delivery.client)
        case .single: try single(table, flags, &entries)
        case .run: try run(table, &entries)
        case .state: try state(table, flags, &entries)
        }
    }

    // MARK: - Journal

    private mutating func client(_ entries: inout EntryReader) throws(JournalDamage) {
        let number = try entries.number32()
        guard number > 0, number < ClaimFile.entryNumberLimit,
            let name = String(validating: try entries.block(), as: UTF8.self)
        else { throw JournalDamage("a client has no name or number") }
        registry.clients.define(number, name)
        clients.insert(number)
    }

    private func define(_ entries: inout EntryReader) throws(JournalDamage) {
        let number = try entries.number32()
        guard let group = String(validating: try entries.block(), as: UTF8.self),
            let topic = String(validating: try entries.block(), as: UTF8.self),
            let groupName = try? GroupName(existing: group), let topicName = try? TopicName(existing: topic),
            let queueID = Int32(exactly: try entries.signed()), queueID >= 0
        else { throw JournalDamage("a table has no group, topic or queue") }
        let offset = try entries.signed()
        guard number > 0, number < ClaimFile.entryNumberLimit, offset >= 0, registry.byNumber[number] == nil,
            registry.table(ClaimRegistry.Key(group: group, topic: topic), queueID) == nil
        else { throw JournalDamage("a table is there already") }
        let table = registry.makeTable(
            group: groupName, topic: topicName, queueID: queueID, at: offset, number: number)
        table.journalled = JournalReference(file: file, next: offset, offset: offset)
    }

    private func claim(_ table: ClaimTable, _ flags: UInt8, _ entries: inout EntryReader) throws(JournalDamage) {
        let delivery = try delivery(flags, &entries)
        let reference = table.reference(in: file)
        let (offsets, next) = try entries.claimedOffsets(flags, after: reference.next)
        guard offsets.first ?? next >= table.next else { throw JournalDamage("the offsets of a claim do not ascend") }
        table.claimWithoutJournal(
            offsets, next: next, popTime: delivery.popTime, wall: delivery.wall, invisible: delivery.invisible,
            deadline: delivery.deadline, client: delivery.client)
        table.journalled = JournalReference(file: file, next: next, offset: reference.offset)
        remember(flags, delivery, table)
    }

    private func reclaim(_ table: ClaimTable, _ flags: UInt8, _ entries: inout EntryReader) throws(JournalDamage) {
        let offset = try offset(table, &entries)
        let delivery = try delivery(flags, &entries)
        let single = try take(offset, of: table)
        table.put(
            offset,
            Single(
                popTime: delivery.popTime, deadline: delivery.deadline, attempt: single.attempt +| 1,
                invisible: UInt32(delivery.invisible), client: delivery.client.number))
        remember(flags, delivery, table)
    }

    private func remember(_ flags: UInt8, _ delivery: JournalDelivery, _ table: ClaimTable) {
        table.isOrdered = flags & EntryKind.ordered != 0
        if table.isOrdered { table.attemptID = delivery.attemptID }
        table.settle()
    }

    private func finish(_ table: ClaimTable, _ flags: UInt8, _ entries: inout EntryReader) throws(JournalDamage) {
        let start = try offset(table, &entries)
        _ = try take(start, of: table)
        var bits = flags & EntryKind.plain != 0 ? 0 : try entries.number()
        while bits != 0 {
            _ = try take(start &+ 1 &+ Int64(bits.trailingZeroBitCount), of: table)
            bits &= bits - 1
        }
        table.settle()
    }

    private func abandon(_ table: ClaimTable, _ entries: inout EntryReader) throws(JournalDamage) {
        let offset = try offset(table, &entries)
        let wall = try entries.time(after: blockTime)
        let single = try take(offset, of: table)
        table.put(
            offset,
            Single(
                popTime: single.popTime, deadline: wall, attempt: max(0, single.attempt -| 1), invisible: 0,
                client: single.client))
        table.settle()
    }

    private func change(_ table: ClaimTable, _ flags: UInt8, _ entries: inout EntryReader) throws(JournalDamage) {
        let offset = try offset(table, &entries)
        let wall = try entries.time(after: blockTime)
        let popTime = try entries.time(after: wall)
        let invisible = try entries.invisible()
        let single = try take(offset, of: table)
        table.put(
            offset,
            Single(
                popTime: popTime, deadline: wall + invisible, attempt: single.attempt, invisible: UInt32(invisible),
                client: single.client, hasFailed: flags & EntryKind.plain != 0))
        table.settle()
    }

    // MARK: - Snapshot

    private func state(_ table: ClaimTable, _ flags: UInt8, _ entries: inout EntryReader) throws(JournalDamage) {
        let reference = table.reference(in: file)
        let next = reference.next &+ (try entries.signed())
        let popTimeMax = try entries.time(after: 0)
        let popTimeMin = try entries.time(after: 0)
        guard next >= table.next else { throw JournalDamage("a table ends before it begins") }
        if flags & EntryKind.attempt != 0 { table.attemptID = Array(try entries.block()) }
        table.isOrdered = flags & EntryKind.ordered != 0
        table.next = next
        table.popTimeMax = popTimeMax
        table.noteDue(popTimeMin -| 1)
    }

    private func run(_ table: ClaimTable, _ entries: inout EntryReader) throws(JournalDamage) {
        let start = try offset(table, &entries)
        guard let bits = UInt32(exactly: try entries.number()), bits != 0, start >= 0,
            start < table.next - Int64(31 - bits.leadingZeroBitCount), start > table.open?.runs.lastOffset ?? -1,
            // Runs come first: a message is in one of both.
            table.open?.singles.isEmpty != false
        else { throw JournalDamage("a run is none") }
        let popTime = try entries.time(after: blockTime)
        let deadline = try entries.time(after: popTime)
        let client = try entries.number32()
        table.openClaims().runs.append(
            Run(start: start, popTime: popTime, deadline: deadline, unfinished: bits, client: client))
        table.count(claimed: bits.nonzeroBitCount, due: 0)
        table.journalled.offset = start + Int64(31 - bits.leadingZeroBitCount)
    }

    private func single(_ table: ClaimTable, _ flags: UInt8, _ entries: inout EntryReader) throws(JournalDamage) {
        let offset = try offset(table, &entries)
        let popTime = try entries.time(after: blockTime)
        let deadline = try entries.time(after: popTime)
        let invisible = try entries.invisible()
        guard let attempt = Int32(exactly: try entries.signed()), offset >= 0, offset < table.next,
            table.inHand(offset) == nil
        else { throw JournalDamage("a claim is none") }
        // Negative attempts, which former versions wrote, are none. All claims would be lost with the snapshot.
        table.put(
            offset,
            Single(
                popTime: popTime, deadline: deadline, attempt: max(0, attempt), invisible: UInt32(invisible),
                client: try entries.number32(), hasFailed: flags & EntryKind.plain != 0))
    }

    private mutating func end(_ entries: inout EntryReader) throws(JournalDamage) {
        let popTimeMin = try entries.time(after: 0)
        let ofNew = try entries.time(after: 0)
        let tables = try entries.number()
        guard entries.isAtEnd, tables == UInt64(registry.byNumber.count) else {
            throw JournalDamage("it does not hold as many tables as it says")
        }
        registry.raise(popTimeMin: popTimeMin, ofNew: ofNew)
        for table in registry.byNumber.values { table.settle() }
        isComplete = true
    }

    // MARK: - Parts

    private func delivery(_ flags: UInt8, _ entries: inout EntryReader) throws(JournalDamage) -> JournalDelivery {
        try entries.delivery(flags, at: blockTime)
    }

    private func table(_ entries: inout EntryReader) throws(JournalDamage) -> ClaimTable {
        guard let table = registry.byNumber[try entries.number32()] else {
            throw JournalDamage("an entry is of no known table")
        }
        return table
    }

    private func offset(_ table: ClaimTable, _ entries: inout EntryReader) throws(JournalDamage) -> Int64 {
        let reference = table.reference(in: file)
        let offset = reference.offset &+ (try entries.signed())
        table.journalled = JournalReference(file: file, next: reference.next, offset: offset)
        return offset
    }

    /// A new bound of a table, from 0 on.
    private func bound(_ table: ClaimTable, _ entries: inout EntryReader) throws(JournalDamage) -> Int64 {
        let reference = table.reference(in: file)
        let bound = reference.next &+ (try entries.signed())
        guard bound >= 0 else { throw JournalDamage("an offset is negative") }
        table.journalled = JournalReference(file: file, next: bound, offset: reference.offset)
        return bound
    }

    private func take(_ offset: Int64, of table: ClaimTable) throws(JournalDamage) -> Single {
        guard let single = table.take(offset) else {
            throw JournalDamage("an entry is about a message that is in no client's hands")
        }
        return single
    }
}
