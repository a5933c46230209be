import MessageModel

/// All tables of a store, with or without a journal: the live ones, and the copies that are replayed from files.
final class ClaimRegistry {
    /// By bytes, as names are.
    struct Key: Hashable {
        let group: String
        let topic: String

        static func == (left: Self, right: Self) -> Bool {
            left.topic.utf8.elementsEqual(right.topic.utf8) && left.group.utf8.elementsEqual(right.group.utf8)
        }

        func hash(into hasher: inout Hasher) {
            var topic = topic
            topic.withUTF8 { hasher.combine(bytes: UnsafeRawBufferPointer($0)) }
            var group = group
            group.withUTF8 { hasher.combine(bytes: UnsafeRawBufferPointer($0)) }
        }
    }

    /// A queue of a topic, by bytes.
    private struct Place: Hashable {
        let topic: String
        let queueID: Int32

        static func == (left: Self, right: Self) -> Bool {
            left.queueID == right.queueID && left.topic.utf8.elementsEqual(right.topic.utf8)
        }

        func hash(into hasher: inout Hasher) {
            var topic = topic
            topic.withUTF8 { hasher.combine(bytes: UnsafeRawBufferPointer($0)) }
            hasher.combine(queueID)
        }
    }

    /// Each with its queues, ascending.
    private var byKey: [Key: [ClaimTable]] = [:]
    /// Those of all groups, by their numbers.
    private var byPlace: [Place: [UInt32: ClaimTable]] = [:]
    private(set) var byNumber: [UInt32: ClaimTable] = [:]
    private var lastNumber: UInt32 = 0
    /// Tables with claims, by their earliest deadline.
    private var byDeadline = IndexedHeap<ClaimTable>()
    var clients = ClientNames()
    var statistics = ClaimStatistics()
    /// Of the last `expire`.
    var now = ClaimTime(wall: 0, steady: 0)
    /// Above the pop times of everything that ever was due, or was forgotten by a reset.
    private(set) var popTimeMin: Int64 = 0
    /// Above the pop times of the tables that were removed: a table made anew begins here.
    private(set) var popTimeMinOfNew: Int64 = 0

    /// Nil for a copy.
    var journal: ClaimJournal?
    weak var observer: (any ClaimObserver)?

    // MARK: - Tables

    func table(_ key: Key, _ queueID: Int32) -> ClaimTable? {
        guard let tables = byKey[key] else { return nil }
        let index = Self.position(of: queueID, in: tables)
        return index < tables.count && tables[index].queueID == queueID ? tables[index] : nil
    }

    func tables(_ key: Key) -> [ClaimTable] { byKey[key] ?? [] }

    /// Those of all groups in one queue, in no order.
    func tables(topic: String, _ queueID: Int32) -> [ClaimTable] {
        (byPlace[Place(topic: topic, queueID: queueID)] ?? [:]).values.map { $0 }
    }

    func tables(where isWanted: (Key) -> Bool) -> [ClaimTable] {
        byKey.flatMap { isWanted($0.key) ? $0.value : [] }
    }

    /// Where a queue's table is or belongs.
    private static func position(of queueID: Int32, in tables: [ClaimTable]) -> Int {
        var low = 0
        var high = tables.count
        while low < high {
            let middle = (low + high) / 2
            if tables[middle].queueID < queueID { low = middle + 1 } else { high = middle }
        }
        return low
    }

    /// Enters a table that is not there.
    /// - Parameter number: from a file; nil for a new one.
    func makeTable(group: GroupName, topic: TopicName, queueID: Int32, at offset: Int64, number: UInt32? = nil)
        -> ClaimTable
    {
        let key = Key(group: group.text, topic: topic.text)
        precondition(table(key, queueID) == nil, "\(group) has a claim table for queue \(queueID) of \(topic) already")
        let number = number ?? freeNumber()
        lastNumber = max(lastNumber, number)
        // Equal names share their memory.
        let like = byKey[key]?.first
        let table = ClaimTable(
            number: number, group: like?.group ?? group, topic: like?.topic ?? topic, queueID: queueID, at: offset,
            popTimeMin: popTimeMinOfNew, registry: self)
        byNumber[number] = table
        byKey[key, default: []].insert(table, at: Self.position(of: queueID, in: byKey[key] ?? []))
        byPlace[Place(topic: table.topic.text, queueID: queueID), default: [:]][number] = table
        statistics.tables += 1
        return table
    }

    /// One that was never given out. When all of them were, the lowest that no table has: its former table's removal is
    /// in the journal before.
    private func freeNumber() -> UInt32 {
        if lastNumber < ClaimFile.entryNumberLimit - 1 { return lastNumber + 1 }
        var number: UInt32 = 1
        while byNumber[number] != nil { number += 1 }
        return number
    }

    /// Tables in no order.
    var tables: some Sequence<ClaimTable> { byNumber.values }

    /// Takes a table out; its holders can go on calling it.
    func remove(_ table: ClaimTable) {
        table.forgetAll()
        deadlineChanged(of: table, to: Run.due)
        popTimeMinOfNew = max(popTimeMinOfNew, table.popTimeMax +| 1)
        popTimeMin = max(popTimeMin, popTimeMinOfNew)
        table.registry = nil
        byNumber[table.number] = nil
        let key = Key(group: table.group.text, topic: table.topic.text)
        byKey[key]?.removeAll { $0 === table }
        if byKey[key]?.isEmpty == true { byKey[key] = nil }
        let place = Place(topic: table.topic.text, queueID: table.queueID)
        byPlace[place]?[table.number] = nil
        if byPlace[place]?.isEmpty == true { byPlace[place] = nil }
        statistics.tables -= 1
    }

    // MARK: - Times

    /// At most the earliest deadline; nil when nothing is claimed.
    var earliest: Int64? { byDeadline.first?.heapKey }

    func noteDue(_ popTime: Int64) { popTimeMin = max(popTimeMin, popTime +| 1) }

    /// From a snapshot.
    func raise(popTimeMin: Int64, ofNew: Int64) {
        self.popTimeMin = max(self.popTimeMin, popTimeMin)
        popTimeMinOfNew = max(popTimeMinOfNew, ofNew)
    }

    /// - Parameter deadline: `Run.due` when nothing is claimed.
    func deadlineChanged(of table: ClaimTable, to deadline: Int64) {
        if table.heapIndex < 0 {
            guard deadline != Run.due else { return }
            table.heapKey = deadline
            byDeadline.insert(table)
        } else if deadline == Run.due {
            byDeadline.remove(table)
        } else {
            byDeadline.setKey(deadline, of: table)
        }
    }

    /// Makes due what has passed its deadline, at most `limit` runs and single messages; true when there is more.
    func expire(at time: Int64, limit: Int) -> Bool {
        var left = limit
        while let table = byDeadline.first, table.heapKey <= time {
            guard left > 0 else { return true }
            let expired = table.expire(at: time, limit: left)
            left -= max(expired, 1)
        }
        return false
    }
}

extension ClaimTable {
    /// Makes due what has passed its deadline, in the order of deadlines; returns the runs and single messages.
    func expire(at time: Int64, limit: Int) -> Int {
        guard let open else { return 0 }
        var expired = 0
        var messages = 0
        var failed = 0
        while expired < limit {
            // At most what is true: a round may find nothing and correct them.
            let earliestRun = open.runs.earliest
            let earliestSingle = open.singles.earliest
            guard min(earliestRun, earliestSingle) <= time, min(earliestRun, earliestSingle) != Run.due else { break }
            if earliestRun <= earliestSingle, let run = open.runs.expireFirst(at: min(time, earliestSingle)) {
                open.due.append(runStartingAt: run.start)
                noteDue(run.popTime)
                count(claimed: -run.unfinished.nonzeroBitCount, due: run.unfinished.nonzeroBitCount)
                messages += run.unfinished.nonzeroBitCount
            } else if let (offset, found) = open.singles.firstExpired(at: min(time, earliestRun)) {
                var due = found
                if found.hasFailed {
                    due.hasFailed = false
                    failedCount -= 1
                    failed += 1
                }
                due.deadline = Run.due
                due.dueNumber = open.due.append(offset)
                open.singles.set(offset, to: due)
                noteDue(due.popTime)
                count(claimed: -1, due: 1)
                messages += 1
            } else {
                continue
            }
            expired += 1
        }
        registry?.statistics.expired += messages
        timeouts &+= UInt32(truncatingIfNeeded: messages - failed)
        settle()
        if messages > 0 { registry?.observer?.messagesDue(in: self) }
        return expired
    }
}
