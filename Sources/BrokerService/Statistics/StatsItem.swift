/// Counts of one key over the last minute, hour and day, as RocketMQ's `StatsItem` has them. Samples of running totals
/// are kept: one every 10 s (7 of them), every 10 min (7) and every hour (25). A window is what lies between its first
/// and last sample.
///
/// Counting is three additions. Sampling costs only what has been counted lately: an item without counts in a whole
/// window gives that window's samples back.
final class StatsItem {
    enum Window: Int, CaseIterable {
        case minute, hour, day

        /// Samples kept at most.
        var length: Int { self == .day ? 25 : 7 }
    }

    fileprivate struct Sample {
        var milliseconds: Int64
        var count: Int64
        var bytes: Int64
        var times: Int64
    }

    /// What a window holds.
    struct Snapshot: Equatable {
        var sum: Int64 = 0
        /// Per second.
        var tps: Double = 0
        /// Average per time counted.
        var average: Double = 0
    }

    enum Measure {
        case count, bytes
    }

    private var count: Int64 = 0
    private var bytes: Int64 = 0
    private var times: Int64 = 0
    private var windows: (minute: [Sample], hour: [Sample], day: [Sample]) = ([], [], [])
    /// In the table's list of items that are sampled every 10 s, and in that of all that are sampled at all.
    fileprivate var isLive = false
    fileprivate var isKnown = false
    private unowned let table: StatsTable

    fileprivate init(_ table: StatsTable) { self.table = table }

    /// - Parameter times: 1 for what RocketMQ counts per request, 0 where it knows no average.
    @inline(__always)
    func add(_ count: Int, bytes: Int = 0, times: Int64 = 1) {
        if !isLive { wake() }
        self.count &+= Int64(count)
        self.bytes &+= Int64(bytes)
        self.times &+= times
    }

    /// Counted for the first time, or the first time since it was last forgotten: the windows begin at the last
    /// sampling.
    private func wake() {
        table.wake(self)
        for window in Window.allCases where self[window].isEmpty {
            self[window] = [sample(table.lastMilliseconds(window))]
        }
    }

    private func sample(_ milliseconds: Int64) -> Sample {
        Sample(milliseconds: milliseconds, count: count, bytes: bytes, times: times)
    }

    private subscript(window: Window) -> [Sample] {
        get {
            switch window {
            case .minute: windows.minute
            case .hour: windows.hour
            case .day: windows.day
            }
        }
        _modify {
            switch window {
            case .minute: yield &windows.minute
            case .hour: yield &windows.hour
            case .day: yield &windows.day
            }
        }
    }

    /// `false` when nothing was counted in the whole window, which is empty then.
    fileprivate func take(_ window: Window, _ milliseconds: Int64) -> Bool {
        guard let first = self[window].first else { return false }
        if self[window].count == window.length {
            if first.times == times, first.count == count {
                self[window] = []
                return false
            }
            self[window].removeFirst()
        }
        self[window].append(sample(milliseconds))
        return true
    }

    fileprivate func end() { (isLive, isKnown) = (false, false) }

    func snapshot(_ window: Window, _ measure: Measure) -> Snapshot {
        guard let first = self[window].first, let last = self[window].last, last.milliseconds > first.milliseconds
        else {
            return Snapshot()
        }
        let sum = measure == .count ? last.count - first.count : last.bytes - first.bytes
        let times = last.times - first.times
        return Snapshot(
            sum: sum, tps: Double(sum) * 1000 / Double(last.milliseconds - first.milliseconds),
            average: times > 0 ? Double(sum) / Double(times) : 0)
    }
}

/// All `StatsItem`s of a broker and the clock that samples them (RocketMQ's `BrokerStatsManager`).
final class StatsTable {
    static let sampleIntervalMilliseconds: Int64 = 10_000
    private static let samplesOfTenMinutes = 60
    private static let samplesOfAnHour = 360

    /// Counted within the last minute: looked at every 10 s.
    private var live: [StatsItem] = []
    /// Counted within the last day: looked at every 10 min.
    private var known: [StatsItem] = []
    private var last: (minute: Int64, hour: Int64, day: Int64)
    private var samplings = 0

    /// BROKER_PUT_NUMS and BROKER_GET_NUMS, which RocketMQ keeps under the cluster's name.
    private(set) lazy var brokerPuts = makeItem()
    private(set) lazy var brokerGets = makeItem()
    /// QUEUE_PUT_NUMS and QUEUE_PUT_SIZE of `SCHEDULE_TOPIC_XXXX@QUEUE`: what comes in by delay level. RocketMQ keeps
    /// them for no other topic.
    private(set) var delayed: [Int32: StatsItem] = [:]
    /// QUEUE_GET_NUMS and QUEUE_GET_SIZE of `SCHEDULE_TOPIC_XXXX@QUEUE@SCHEDULE_CONSUMER`: what is delivered, by level
    /// …
    private(set) var delivered: [Int32: StatsItem] = [:]
    /// … and GROUP_GET_NUMS and GROUP_GET_SIZE, of all levels.
    private(set) var deliveredInAll: StatsItem?
    /// SNDBCK_PUT_NUMS, by topic and group.
    private(set) var sendBacks: [String: [String: StatsItem]] = [:]

    init(now: Int64) { last = (now, now, now) }

    func makeItem() -> StatsItem { StatsItem(self) }

    /// A message was stored in a queue of the schedule topic.
    func delayed(queueID: Int32, bytes: Int) {
        let item = delayed[queueID] ?? makeItem()
        delayed[queueID] = item
        item.add(1, bytes: bytes)
    }

    /// A delayed message of that queue was stored again where it was sent to.
    func delivered(queueID: Int32, bytes: Int) {
        let item = delivered[queueID] ?? makeItem()
        delivered[queueID] = item
        item.add(1, bytes: bytes)
        let all = deliveredInAll ?? makeItem()
        deliveredInAll = all
        all.add(1, bytes: bytes)
    }

    func sentBack(topic: String, group: String) {
        let item = sendBacks[topic]?[group] ?? makeItem()
        sendBacks[topic, default: [:]][group] = item
        item.add(1)
    }

    /// SNDBCK_PUT_NUMS by RocketMQ's key, `topic@group`.
    func sendBacks(key: String) -> StatsItem? {
        guard let at = key.firstIndex(of: "@") else { return nil }
        return sendBacks[String(key[..<at])]?[String(key[key.index(after: at)...])]
    }

    /// A topic was deleted, and its statistics with it.
    func forget(topic: String) { sendBacks[topic] = nil }

    /// A group was deleted.
    func forget(group: String) {
        for topic in sendBacks.keys where sendBacks[topic]?.removeValue(forKey: group) != nil {
            if sendBacks[topic]?.isEmpty == true { sendBacks[topic] = nil }
        }
    }

    fileprivate func wake(_ item: StatsItem) {
        item.isLive = true
        live.append(item)
        guard !item.isKnown else { return }
        item.isKnown = true
        known.append(item)
    }

    fileprivate func lastMilliseconds(_ window: StatsItem.Window) -> Int64 {
        switch window {
        case .minute: last.minute
        case .hour: last.hour
        case .day: last.day
        }
    }

    /// To be called every `sampleIntervalMilliseconds`.
    func sample(now: Int64) {
        samplings += 1
        last.minute = now
        live.removeAll { item in
            let isLive = item.take(.minute, now)
            item.isLive = isLive
            return !isLive
        }
        guard samplings % Self.samplesOfTenMinutes == 0 else { return }
        last.hour = now
        for item in known { _ = item.take(.hour, now) }
        guard samplings % Self.samplesOfAnHour == 0 else { return }
        last.day = now
        known.removeAll { item in
            let isKnown = item.take(.day, now)
            if !isKnown { item.end() }
            return !isKnown
        }
    }
}
