import TestDisk
import Testing

@testable import Claims

/// What clients do.
extension ModelRun {
    /// A handle of now or before, or an invented one.
    mutating func handle() -> Oracle.Handle {
        if random.chance(95),
            let recent = oracle.handles.suffix(random.chance(80) ? 60 : 2000).randomElement(using: &random)
        {
            return recent
        }
        return Oracle.Handle(
            queue: queue(), offset: Int64.random(in: -5...200, using: &random),
            popTime: machine.clock.wall + Int64.random(in: 5_000_000...10_000_000, using: &random), delivery: -1)
    }

    mutating func acknowledge() {
        for _ in 0..<Int.random(in: 1...20, using: &random) {
            let handle = handle()
            guard let table = machine.store.table(group: "group", topic: "topic", queueID: handle.queue) else {
                continue
            }
            let outcome = table.acknowledge(handle.offset, popTime: handle.popTime)
            expect((outcome == .finished) == oracle.isCurrent(handle), "\(outcome) for \(handle)")
            guard outcome == .finished else { continue }
            oracle.note(.acknowledged, handle.queue, handle.offset, at: machine.clock.wall)
            oracle.finish(handle.queue, handle.offset)
        }
    }

    mutating func change() { change(handle(), invisible: one(of: [0, 100, 3000, 100_000]), hasFailed: false) }

    /// It comes again by one of the strategies a topic may have: the interval, times the attempts, or twice as long
    /// each time; with or without jitter.
    mutating func fail() {
        let handle = handle()
        let attempt = Int64(max(1, oracle.tables[handle.queue]?.messages[handle.offset]?.attempt ?? 1))
        let interval = one(of: [0, 500, 3000])
        var delay = one(of: [interval, interval * attempt, min(3_600_000, interval << min(attempt - 1, 20))])
        if random.chance(50) { delay += Int64.random(in: -delay / 5...delay / 5, using: &random) }
        change(handle, invisible: delay, hasFailed: true)
    }

    private mutating func change(_ handle: Oracle.Handle, invisible: Int64, hasFailed: Bool) {
        guard let table = machine.store.table(group: "group", topic: "topic", queueID: handle.queue) else { return }
        let isOrdered = table.isOrdered
        let popTime = table.change(
            handle.offset, popTime: handle.popTime, invisible: invisible, at: machine.clock.now, hasFailed: hasFailed)
        expect((popTime != nil) == oracle.isCurrent(handle), "changed \(handle)")
        guard let popTime, var message = oracle.tables[handle.queue]?.messages[handle.offset] else { return }
        expect(isOrdered ? popTime == message.popTime : popTime > message.popTime, "the new handle is the old one")
        if !isOrdered { deliveries += 1 }
        message.delivery = isOrdered ? message.delivery : deliveries
        message.popTime = popTime
        message.until = machine.clock.steady + invisible
        message.untilWall = machine.clock.wall + invisible
        message.isDue = invisible == 0
        message.given = invisible
        message.hasFailed = hasFailed
        oracle.tables[handle.queue]?.messages[handle.offset] = message
        oracle.note(hasFailed ? .failed : .rescheduled, handle.queue, handle.offset, at: machine.clock.wall)
        oracle.handles.append(
            .init(queue: handle.queue, offset: handle.offset, popTime: popTime, delivery: message.delivery))
    }
}

/// What happens to queues.
extension ModelRun {
    mutating func retain(_ queue: Int32) {
        guard let next = oracle.tables[queue]?.next, random.chance(50) else { return }
        let bound = Int64.random(in: 0...next + 5, using: &random)
        guard bound > minimum[queue] ?? 0 else { return }
        minimum[queue] = bound
        maximum[queue] = max(maximum[queue] ?? 0, bound)
        machine.store.retain(table(queue), from: bound)
        if oracle.tables[queue].map({ $0.floor < bound }) == true {
            let left = oracle.tables[queue]?.messages.filter { $0.key >= bound } ?? [:]
            oracle.tables[queue]?.messages = left
            oracle.tables[queue]?.next = max(next, bound)
            if oracle.tables[queue]?.messages.isEmpty == true { oracle.tables[queue]?.attemptID = nil }
        }
    }

    mutating func reset(_ queue: Int32) {
        guard oracle.tables[queue] != nil, random.chance(50) else { return }
        let offset = Int64.random(
            in: (minimum[queue] ?? 0)...max(minimum[queue] ?? 0, maximum[queue] ?? 0), using: &random)
        table(queue).reset(to: offset)
        oracle.tables[queue]?.next = offset
        oracle.tables[queue]?.messages = [:]
        oracle.tables[queue]?.attemptID = nil
    }

    /// One queue's own topic would be simpler; here all queues of the topic go.
    mutating func recreate(_ queue: Int32) {
        guard random.chance(40) else { return }
        machine.store.removeTables(topic: "topic")
        oracle.tables = [:]
        oracle.trails = [:]
        minimum = [:]
        maximum = [:]
    }

    mutating func abandonOrDrop(_ queue: Int32) {
        guard oracle.tables[queue] != nil else { return }
        let table = table(queue)
        if random.chance(50) {
            expire()
            for (offset, _) in table.due(limit: 3) {
                table.drop(due: offset)
                oracle.note(.withdrawn, queue, offset, at: machine.clock.wall)
                oracle.finish(queue, offset)
            }
        } else if let (offset, message) = oracle.tables[queue]?.messages
            .filter({ !$0.value.isDue && !$0.value.hasFailed }).min(by: { $0.key < $1.key })
        {
            // Expiry may be behind: then it is due already, and stays as it is.
            guard table.inHand(offset)?.isDue == false else { return }
            abandon(queue, offset, message)
            // Its client says that it has it all the same, and gives it back again.
            while random.chance(40), let message = oracle.tables[queue]?.messages[offset] {
                change(
                    .init(queue: queue, offset: offset, popTime: message.popTime, delivery: message.delivery),
                    invisible: 3000, hasFailed: false)
                guard let changed = oracle.tables[queue]?.messages[offset], random.chance(80) else { return }
                abandon(queue, offset, changed)
            }
        }
    }

    private mutating func abandon(_ queue: Int32, _ offset: Int64, _ message: Oracle.Message) {
        table(queue).abandon([offset], at: machine.clock.now)
        var message = message
        message.isDue = true
        message.attempt = max(0, message.attempt - 1)
        message.given = 0
        message.until = machine.clock.steady
        message.untilWall = machine.clock.wall
        oracle.note(.takenBack, queue, offset, at: machine.clock.wall)
        oracle.tables[queue]?.messages[offset] = message
    }
}
