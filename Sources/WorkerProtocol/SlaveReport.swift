/// One connected slave, as the replication worker of its master sees it.
package struct SlaveReport: Hashable, Sendable {
    /// `IP:port` of its connection.
    package var address: String
    /// Physical offset up to which it has the log; -1 before its first report.
    package var acknowledged: Int64
    /// Physical offset of what it is sent next; -1 before its first report.
    package var next: Int64
    /// Of the commit log, over the last seconds.
    package var bytesPerSecond: Int64

    package init(address: String, acknowledged: Int64, next: Int64, bytesPerSecond: Int64) {
        self.address = address
        self.acknowledged = acknowledged
        self.next = next
        self.bytesPerSecond = bytesPerSecond
    }
}

/// Bytes of the last whole second. Seconds are given, of any clock that does not go back; a value type of one thread.
package struct ByteRate: Sendable {
    private var second: Int64 = .min
    private var bytes: Int64 = 0
    private var before: Int64 = 0

    package init() {}

    /// Bytes that left in the second `now`; seconds never go back.
    package mutating func add(_ count: Int, second now: Int64) {
        turn(now)
        bytes &+= Int64(count)
    }

    /// What the second before `now` brought.
    package mutating func perSecond(at now: Int64) -> Int64 {
        turn(now)
        return before
    }

    private mutating func turn(_ now: Int64) {
        guard now != second else { return }
        before = second != .min && now == second + 1 ? bytes : 0
        bytes = 0
        second = now
    }
}

extension WireWriter {
    mutating func slaves(_ reports: [SlaveReport]) {
        integer(UInt32(reports.count))
        for report in reports {
            string(report.address)
            integer(report.acknowledged)
            integer(report.next)
            integer(report.bytesPerSecond)
        }
    }
}

extension WireReader {
    mutating func slaves() throws(WorkerMessageError) -> [SlaveReport] {
        var reports: [SlaveReport] = []
        // An address takes 4 bytes at least.
        for _ in 0..<(try count(of: 28)) {
            reports.append(
                SlaveReport(
                    address: try string(), acknowledged: try integer(), next: try integer(),
                    bytesPerSecond: try integer()))
        }
        return reports
    }
}
