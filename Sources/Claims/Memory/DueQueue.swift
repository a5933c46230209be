/// The due messages of a table, those that have been due longest first. Entries are not taken out when their message
/// is handed out or finished: readers skip what is not valid any more.
struct DueQueue {
    /// 16 bytes.
    struct Entry {
        /// The offset of a single message, or the start of a run.
        let offset: Int64
        /// Names the entry of a single message; 0 for a run, which becomes due once.
        let number: UInt64
    }

    private var entries: [Entry] = []
    private var head = 0
    private var lastNumber: UInt64 = 0

    /// Valid ones and others.
    var count: Int { entries.count - head }

    /// Enters a run after all others.
    mutating func append(runStartingAt start: Int64) {
        entries.append(Entry(offset: start, number: 0))
    }

    /// Enters a message after all others; returns the entry's number, which is not 0.
    mutating func append(_ offset: Int64) -> UInt64 {
        lastNumber += 1
        entries.append(Entry(offset: offset, number: lastNumber))
        return lastNumber
    }

    /// Drops entries that are not valid any more from the front, and everywhere when there are many more entries than
    /// `messages`.
    mutating func clean(messages: Int, isValid: (Entry) -> Bool) {
        if messages == 0 {
            entries = []
            head = 0
            return
        }
        while head < entries.count, !isValid(entries[head]) { head += 1 }
        if count > 256, count > 2 * messages {
            entries = entries[head...].filter(isValid)
            head = 0
        } else if head > 256, head > entries.count / 2 {
            entries.removeFirst(head)
            head = 0
        }
    }

    /// Drops the entries from an offset on. None is valid, but a run that begins there again would make one so.
    mutating func truncate(to bound: Int64) {
        entries = entries[head...].filter { $0.offset < bound }
        head = 0
    }

    /// Calls `body` with each entry from the front until it returns false.
    func forEach(while body: (Entry) -> Bool) {
        var index = head
        while index < entries.count, body(entries[index]) { index += 1 }
    }
}
