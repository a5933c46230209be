import Claims

/// What should be so, kept as simply as possible: it shares no code with the engine.
struct Oracle: Equatable {
    /// A message that was handed out and is not finished.
    struct Message: Equatable {
        /// Names the delivery among all of the run.
        var delivery: Int
        var popTime: Int64
        /// Deadlines by both clocks. `untilWall` is as it was when it was given out.
        var until: Int64
        var untilWall: Int64
        var attempt: Int32
        var client: String
        var isDue = false
        /// What it was given out for, milliseconds.
        var given: Int64
        /// Its client has reported a failure: until its time is over it is in no client's hands.
        var hasFailed = false
    }

    struct Table: Equatable {
        var isOrdered: Bool
        var next: Int64
        var messages: [Int64: Message] = [:]
        /// Of the last pop of an ordered table.
        var attemptID: [UInt8]?

        var floor: Int64 { messages.keys.min() ?? next }
    }

    struct Handle: Equatable {
        var queue: Int32
        var offset: Int64
        var popTime: Int64
        var delivery: Int
    }

    /// What a message has been through. What follows from time, and what no client did, is left out.
    struct Step: Equatable {
        var kind: TrailEvent.Kind
        /// 0 where it is known to the tick only.
        var at: Int64
        var client: String

        static let ends: [TrailEvent.Kind] = [.acknowledged, .withdrawn]
        static let kinds = ends + [.delivered, .deliveredAgain, .rescheduled, .failed, .takenBack]
    }

    var tables: [Int32: Table] = [:]
    /// By queue and offset, since the queue's table was made.
    var trails: [Int32: [Int64: [Step]]] = [:]
    /// Everything clients ever got, and may use again.
    var handles: [Handle] = []

    /// What has passed its deadline is due.
    mutating func expire(steady: Int64) {
        for queue in tables.keys {
            for (offset, message) in tables[queue]?.messages ?? [:] where message.until <= steady {
                tables[queue]?.messages[offset]?.isDue = true
            }
        }
    }

    /// Another process read it from the disk.
    mutating func restart(wall: Int64, steady: Int64) {
        for queue in tables.keys {
            for (offset, message) in tables[queue]?.messages ?? [:] {
                tables[queue]?.messages[offset]?.until = steady + min(message.untilWall - wall, message.given)
                tables[queue]?.messages[offset]?.isDue = false
            }
        }
    }

    /// Whether the handle is that of the present delivery of its message.
    func isCurrent(_ handle: Handle) -> Bool {
        tables[handle.queue]?.messages[handle.offset]?.delivery == handle.delivery
    }

    mutating func note(_ kind: TrailEvent.Kind, _ queue: Int32, _ offset: Int64, at wall: Int64) {
        let client = tables[queue]?.messages[offset]?.client ?? ""
        let step = Step(kind: kind, at: Step.ends.contains(kind) ? 0 : wall, client: client)
        trails[queue, default: [:]][offset, default: []].append(step)
    }

    /// A message is finished; the attempt is over with the last one.
    mutating func finish(_ queue: Int32, _ offset: Int64) {
        tables[queue]?.messages[offset] = nil
        if tables[queue]?.messages.isEmpty == true { tables[queue]?.attemptID = nil }
    }
}
