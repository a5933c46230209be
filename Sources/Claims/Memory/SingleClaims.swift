/// A message that was redelivered, or whose time was changed.
struct Single {
    /// Milliseconds since 1970.
    var popTime: Int64
    /// Milliseconds of the store's axis of time, or `Run.due`.
    var deadline: Int64
    /// Its entry in the `DueQueue`; 0 while it is claimed.
    var dueNumber: UInt64 = 0
    /// Deliveries that count.
    var attempt: Int32
    /// What it was given out for, milliseconds: a restart makes it no longer, whatever the wall clock shows.
    var invisible: UInt32
    /// A `ClaimClient`'s number.
    var client: UInt32
    /// The client has reported a failure: until the deadline it is in no client's hands.
    var hasFailed = false

    /// Whether it waits for the next delivery after a failure.
    var waits: Bool { !isDue && hasFailed }

    var isDue: Bool { dueNumber != 0 }
}

/// The messages of a table that are in no run: redelivered ones, and those whose time was changed.
struct SingleClaims {
    private struct Deadline: Comparable {
        let time: Int64
        let offset: Int64

        static func < (left: Self, right: Self) -> Bool { (left.time, left.offset) < (right.time, right.offset) }
    }

    private(set) var byOffset: [Int64: Single] = [:]
    /// Every offset of the dictionary, and some that were in it.
    private var offsets = MinimumHeap<Int64>()
    /// Every deadline of a claimed message, and some that are over.
    private var deadlines = MinimumHeap<Deadline>()

    var isEmpty: Bool { byOffset.isEmpty }
    /// At most the earliest deadline; `Run.due` when there is none.
    var earliest: Int64 { deadlines.first?.time ?? Run.due }

    subscript(offset: Int64) -> Single? { byOffset[offset] }

    /// Enters a message, or changes what is known of it.
    mutating func set(_ offset: Int64, to single: Single) {
        if byOffset.updateValue(single, forKey: offset) == nil {
            offsets.insert(offset)
            if offsets.count > 64, offsets.count > 2 * byOffset.count {
                offsets.replace(with: Array(byOffset.keys))
            }
        }
        guard single.deadline != Run.due else { return }
        deadlines.insert(Deadline(time: single.deadline, offset: offset))
        if deadlines.count > 64, deadlines.count > 2 * byOffset.count { sortDeadlines() }
    }

    mutating func remove(_ offset: Int64) {
        byOffset[offset] = nil
        if byOffset.isEmpty { self = Self() }
    }

    /// The lowest offset.
    mutating func lowest() -> Int64? {
        while let first = offsets.first {
            if byOffset[first] != nil { return first }
            offsets.removeFirst()
        }
        return nil
    }

    /// The message with the earliest deadline, if it has passed: to be made due by `set`.
    mutating func firstExpired(at time: Int64) -> (offset: Int64, single: Single)? {
        while let first = deadlines.first, first.time <= time {
            deadlines.removeFirst()
            if let single = byOffset[first.offset], single.deadline == first.time { return (first.offset, single) }
        }
        return nil
    }

    /// Changes time and client of every message.
    mutating func changeAll(_ body: (inout Single) -> Void) {
        for index in byOffset.values.indices { body(&byOffset.values[index]) }
        sortDeadlines()
    }

    private mutating func sortDeadlines() {
        deadlines.replace(
            with: byOffset.compactMap {
                $0.value.deadline == Run.due ? nil : Deadline(time: $0.value.deadline, offset: $0.key)
            })
    }
}
