import LinuxSystem
import MessageModel

/// Looks for one message of a queue in the journals. The bytes are foreign: what is no journal ends the reading of its
/// file, and nothing traps.
struct TrailReader {
    /// A group's table, and what was found of the message so far.
    private struct Found {
        let group: GroupName
        private(set) var events: [TrailEvent] = []
        private(set) var leftOut = 0
        /// What entries of the present file are relative to.
        var reference = JournalReference()
        /// The table's `next`; nil while it is not known.
        var next: Int64?

        /// When the client's time is over; nil while no client has the message.
        var deadline: Int64? {
            switch events.last?.kind {
            case .delivered, .deliveredAgain, .rescheduled: events.last?.until
            default: nil
            }
        }

        /// Events kept from the beginning; as many at least are kept from the end.
        static let firstMax = 100

        /// A message that no client can consume may have been delivered a million times.
        mutating func append(_ event: TrailEvent) {
            events.append(event)
            guard events.count >= 10 * Self.firstMax else { return }
            let end = events.count - Self.firstMax
            leftOut += end - Self.firstMax
            events.removeSubrange(Self.firstMax..<end)
        }

        mutating func forget() {
            events = []
            leftOut = 0
        }

        /// The client's time was over before `time`; milliseconds since 1970.
        mutating func expire(at time: Int64) {
            guard let deadline, deadline <= time else { return }
            append(TrailEvent(.timedOut, at: deadline, client: events.last?.client ?? ""))
        }
    }

    private let offset: Int64
    /// By the table's number.
    private var found: [UInt32: Found]
    private var begins: Int64?
    private var failure: String?
    /// Of the present file.
    private var blockTime: Int64 = 0
    private var clients: [UInt32: String] = [:]

    /// Bytes read at once: more than any block has, which is at most one claim longer than its limit.
    private static let bufferBytes = 4 << 20

    /// - Parameter groups: of the queue's tables, by table number.
    init(groups: [UInt32: GroupName], offset: Int64) {
        self.offset = offset
        found = groups.mapValues { Found(group: $0) }
    }

    /// What was found until now.
    func trail(at wall: Int64) -> ClaimTrail {
        var parts: [ClaimTrail.Part] = []
        for (_, each) in found.sorted(by: { $0.value.group.text < $1.value.group.text }) {
            var each = each
            each.expire(at: wall)
            parts.append(ClaimTrail.Part(group: each.group, events: each.events, leftOut: each.leftOut))
        }
        return ClaimTrail(groups: parts, begins: begins, failure: failure)
    }

    /// Reads all files, oldest first.
    mutating func read(_ files: TrailFiles) {
        do throws(SystemError) {
            for (number, file) in try files.open() { try read(file, number) }
        } catch {
            failure = "\(error)"
        }
    }

    // MARK: - A file

    private mutating func read(_ file: any DiskFile, _ number: UInt32) throws(SystemError) {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.bufferBytes, alignment: 8)
        defer { buffer.deallocate() }
        var position: Int64 = 0
        while true {
            let count = try file.read(into: buffer, at: position)
            var reader = EntryReader(UnsafeRawBufferPointer(rebasing: buffer[0..<count]))
            var end = 0
            do throws(JournalDamage) {
                if position == 0 { begin(try ClaimFile.Header(&reader, kind: .journal, number: number)) }
                end = reader.position
                while !reader.isAtEnd {
                    try block(&reader)
                    end = reader.position
                }
            } catch {
                // The part of a block is read again from its beginning, with what follows. What is not whole then is
                // being written, or was cut off by a kill.
                guard count == buffer.count, end > 0 else { return }
            }
            guard count == buffer.count else { return }
            position += Int64(end)
        }
    }

    private mutating func begin(_ header: ClaimFile.Header) {
        begins = begins ?? header.time
        blockTime = header.time
        clients = [:]
        let file = JournalReference.file(header)
        for number in Array(found.keys) { found[number]?.reference = JournalReference(file: file) }
    }

    private mutating func block(_ reader: inout EntryReader) throws(JournalDamage) {
        var entries = try reader.payload()
        blockTime = try entries.time(after: blockTime)
        while !entries.isAtEnd { try entry(&entries) }
    }

    // MARK: - Entries

    private mutating func entry(_ entries: inout EntryReader) throws(JournalDamage) {
        let first = try entries.byte()
        let flags = first & 0xF0
        guard let kind = EntryKind(rawValue: first & 0x0F), EntryKind.inJournals.contains(kind) else {
            throw JournalDamage("an entry is of no known kind")
        }
        let number = try entries.number32()
        switch kind {
        case .client: clients[number] = String(decoding: try entries.block(), as: UTF8.self)
        case .define:
            _ = try entries.block()
            _ = try entries.block()
            _ = try entries.signed()
            let floor = try entries.signed()
            found[number]?.reference.next = floor
            found[number]?.reference.offset = floor
            found[number]?.next = floor
        case .claim: try claim(number, flags, &entries)
        case .reclaim:
            let isThis = try isThis(number, &entries)
            let delivery = try entries.delivery(flags, at: blockTime)
            if isThis {
                // It was due: its time was over, even if the wall clock was set back since.
                let deadline = found[number]?.deadline ?? .min
                found[number]?.expire(at: max(delivery.wall, deadline))
                deliver(number, .delivered, delivery)
            }
        case .reopen:
            let delivery = try entries.delivery(0, at: blockTime)
            if isInHand(number) { deliver(number, .deliveredAgain, delivery) }
        case .finish: try finish(number, flags, &entries)
        case .abandon:
            let isThis = try isThis(number, &entries)
            let wall = try entries.time(after: blockTime)
            if isThis { note(number, .takenBack, at: wall) }
        case .change:
            let isThis = try isThis(number, &entries)
            let wall = try entries.time(after: blockTime)
            _ = try entries.time(after: wall)
            let until = wall + (try entries.invisible())
            let kind: TrailEvent.Kind = flags & EntryKind.plain != 0 ? .failed : .rescheduled
            if isThis { note(number, kind, at: wall, until: until) }
        case .reset, .retain, .lower: try bound(number, kind, &entries)
        case .remove: found[number]?.forget()
        case .end, .single, .run, .state: break
        }
    }

    private mutating func claim(
        _ number: UInt32, _ flags: UInt8, _ entries: inout EntryReader
    ) throws(JournalDamage) {
        let delivery = try entries.delivery(flags, at: blockTime)
        let start = found[number]?.reference.next ?? 0
        let (offsets, next) = try entries.claimedOffsets(flags, after: start)
        guard let each = found[number] else { return }
        let begin = each.next ?? offsets.first ?? next
        found[number]?.reference.next = next
        found[number]?.next = next
        guard begin <= offset, offset < next else { return }
        if offsets.contains(offset) {
            deliver(number, .delivered, delivery)
        } else {
            note(number, .filtered, at: delivery.wall)
        }
    }

    private mutating func finish(
        _ number: UInt32, _ flags: UInt8, _ entries: inout EntryReader
    ) throws(JournalDamage) {
        let isFirst = try isThis(number, &entries)
        let bits = flags & EntryKind.plain != 0 ? 0 : try entries.number()
        guard let start = found[number]?.reference.offset else { return }
        let distance = offset &- start
        guard isFirst || ((1..<64).contains(distance) && bits & (1 << UInt64(distance - 1)) != 0) else { return }
        note(number, flags & EntryKind.withdrawn == 0 ? .acknowledged : .withdrawn, at: blockTime)
    }

    private mutating func bound(
        _ number: UInt32, _ kind: EntryKind, _ entries: inout EntryReader
    ) throws(JournalDamage) {
        let bound = (found[number]?.reference.next ?? 0) &+ (try entries.signed())
        guard let each = found[number] else { return }
        found[number]?.reference.next = bound
        switch kind {
        case .retain:
            found[number]?.next = max(each.next ?? bound, bound)
            if offset < bound, isInHand(number) { note(number, .expired, at: blockTime) }
        case .lower:
            found[number]?.next = bound
            // What the queue gets there later is another message.
            if offset >= bound { found[number]?.forget() }
        default:
            found[number]?.next = bound
            if offset >= bound {
                if !each.events.isEmpty { note(number, .reset, at: blockTime) }
            } else if each.events.isEmpty || isInHand(number) {
                note(number, .skipped, at: blockTime)
            }
        }
    }

    private mutating func isThis(_ number: UInt32, _ entries: inout EntryReader) throws(JournalDamage) -> Bool {
        let delta = try entries.signed()
        guard let before = found[number]?.reference.offset else { return false }
        found[number]?.reference.offset = before &+ delta
        return before &+ delta == offset
    }

    /// It was delivered and is not finished.
    private func isInHand(_ number: UInt32) -> Bool {
        switch found[number]?.events.last?.kind {
        case .delivered, .deliveredAgain, .rescheduled, .failed, .timedOut, .takenBack: true
        default: false
        }
    }

    private mutating func deliver(_ number: UInt32, _ kind: TrailEvent.Kind, _ delivery: JournalDelivery) {
        found[number]?.expire(at: delivery.wall)
        found[number]?.append(
            TrailEvent(
                kind, at: delivery.wall, until: delivery.deadline, client: clients[delivery.client.number] ?? ""))
    }

    private mutating func note(_ number: UInt32, _ kind: TrailEvent.Kind, at time: Int64, until: Int64? = nil) {
        found[number]?.expire(at: time)
        let client = found[number]?.events.last?.client ?? ""
        found[number]?.append(TrailEvent(kind, at: time, until: until, client: client))
    }
}
