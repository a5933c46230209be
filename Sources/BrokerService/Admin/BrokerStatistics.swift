import Glibc

/// Counts messages in and out: their rates over the last 10 s, 1 min and 10 min (RocketMQ prints these three), and the totals
/// of the last two midnights, by which tools tell how many there were today and yesterday.
struct BrokerStatistics {
    /// Ten minutes of samples and the one to compare with.
    static let samplesMax = 61

    private struct Sample {
        var millis: Int64
        var put: Int64
        var found: Int64
        var missed: Int64
        var transferred: Int64
    }

    private(set) var putTotal: Int64 = 0
    private(set) var getTotal: Int64 = 0
    private(set) var pullsFound: Int64 = 0
    private(set) var pullsMissed: Int64 = 0
    private var samples: [Sample] = []
    let bootMillis: Int64

    /// Totals at a midnight (local time) since the broker started.
    private(set) var todayMorning: (put: Int64, get: Int64) = (0, 0)
    private(set) var yesterdayMorning: (put: Int64, get: Int64) = (0, 0)
    private var dayOfYear: Int32

    init(bootMillis: Int64) {
        self.bootMillis = bootMillis
        dayOfYear = Self.dayOfYear(bootMillis)
        sample(now: bootMillis)
    }

    @inline(__always)
    mutating func put(messages: Int) { putTotal &+= Int64(messages) }

    @inline(__always)
    mutating func get(messages: Int) {
        getTotal &+= Int64(messages)
        pullsFound &+= 1
    }

    @inline(__always)
    mutating func missed() { pullsMissed &+= 1 }

    private static func dayOfYear(_ millis: Int64) -> Int32 {
        var time = time_t(millis / 1000)
        var parts = tm()
        localtime_r(&time, &parts)
        return parts.tm_yday
    }

    mutating func sample(now: Int64) {
        let day = Self.dayOfYear(now)
        if day != dayOfYear {
            dayOfYear = day
            yesterdayMorning = todayMorning
            todayMorning = (putTotal, getTotal)
        }
        if samples.count == Self.samplesMax { samples.removeFirst() }
        samples.append(
            Sample(millis: now, put: putTotal, found: pullsFound, missed: pullsMissed, transferred: getTotal))
    }

    private func rates(now: Int64, _ total: Int64, _ value: (Sample) -> Int64) -> String {
        [1, 6, 60].map { back in
            let sample = samples[max(0, samples.count - back)]
            let seconds = Double(max(1, now - sample.millis)) / 1000
            return String(Double(total - value(sample)) / seconds)
        }.joined(separator: " ")
    }

    func putTps(now: Int64) -> String { rates(now: now, putTotal, \.put) }
    func getFoundTps(now: Int64) -> String { rates(now: now, pullsFound, \.found) }
    func getMissTps(now: Int64) -> String { rates(now: now, pullsMissed, \.missed) }
    func getTotalTps(now: Int64) -> String {
        rates(now: now, pullsFound + pullsMissed) { $0.found + $0.missed }
    }
    func getTransferedTps(now: Int64) -> String { rates(now: now, getTotal, \.transferred) }
}
