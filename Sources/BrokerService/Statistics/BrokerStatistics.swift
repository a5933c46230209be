import Glibc

/// Counts messages in and out. It has their rates over the last 10 s, 1 min and 10 min, which RocketMQ prints, and the
/// totals of the last two midnights. From these tools compute how many there were today and yesterday.
struct BrokerStatistics {
    /// Ten minutes of samples and the one to compare with.
    static let samplesMax = 61

    private struct Sample {
        var milliseconds: Int64
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
    let bootMilliseconds: Int64

    private(set) var putTimes = PutTimes()
    /// Messages of `putTotal` whose write has been timed.
    private var timed: Int64 = 0
    private var samplings = 0

    /// Totals at a midnight (local time) since the broker started.
    private(set) var todayMorning: (put: Int64, get: Int64) = (0, 0)
    private(set) var yesterdayMorning: (put: Int64, get: Int64) = (0, 0)
    private var dayOfYear: Int32

    init(bootMilliseconds: Int64) {
        self.bootMilliseconds = bootMilliseconds
        dayOfYear = Self.dayOfYear(bootMilliseconds)
        sample(now: bootMilliseconds)
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

    /// Messages put since the last write: all of them are written by the next.
    var untimed: Int64 { putTotal - timed }

    /// That write is done. - Parameter milliseconds: what it took.
    mutating func wrote(in milliseconds: Int64) {
        putTimes.add(untimed, milliseconds: milliseconds)
        timed = putTotal
    }

    private static func dayOfYear(_ milliseconds: Int64) -> Int32 {
        var time = time_t(milliseconds / 1000)
        var parts = tm()
        localtime_r(&time, &parts)
        return parts.tm_yday
    }

    mutating func sample(now: Int64) {
        samplings += 1
        if samplings % 6 == 0 { putTimes.nextMinute() }
        let day = Self.dayOfYear(now)
        if day != dayOfYear {
            dayOfYear = day
            yesterdayMorning = todayMorning
            todayMorning = (putTotal, getTotal)
        }
        if samples.count == Self.samplesMax { samples.removeFirst() }
        samples.append(
            Sample(milliseconds: now, put: putTotal, found: pullsFound, missed: pullsMissed, transferred: getTotal))
    }

    private func rates(now: Int64, _ total: Int64, _ value: (Sample) -> Int64) -> String {
        [1, 6, 60].map { back in
            let sample = samples[max(0, samples.count - back)]
            let seconds = Double(max(1, now - sample.milliseconds)) / 1000
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

/// How long it took to write the messages of the last minute, in RocketMQ's classes (`StoreStatsService`). Here
/// messages are written a tick at a time: all messages of one write took as long as it did.
struct PutTimes {
    /// Upper ends of the classes in milliseconds; the first is for what took less than one, the last has no end.
    static let bounds: [Int64] = [1, 10, 50, 100, 200, 500, 1000, 2000, 3000, 4000, 5000, 10_000]
    private static let names = [
        "<=0ms", "0~10ms", "10~50ms", "50~100ms", "100~200ms", "200~500ms", "500ms~1s", "1~2s", "2~3s", "3~4s", "4~5s",
        "5~10s", "10s~",
    ]

    private var current = [Int64](repeating: 0, count: PutTimes.names.count)
    private var last = [Int64](repeating: 0, count: PutTimes.names.count)
    /// Milliseconds the slowest write took since the broker started.
    private(set) var longest: Int64 = 0

    mutating func add(_ messages: Int64, milliseconds: Int64) {
        current[Self.bounds.firstIndex { milliseconds < $0 } ?? Self.bounds.count] += messages
        longest = max(longest, milliseconds)
    }

    mutating func nextMinute() {
        last = current
        for index in current.indices { current[index] = 0 }
    }

    /// `[<=0ms]:12 [0~10ms]:3 …`, of the last whole minute.
    var distribution: String {
        zip(Self.names, last).map { "[\($0)]:\($1) " }.joined()
    }

    /// Milliseconds within which that share of the last minute's messages was written, as near as the classes show.
    func percentile(_ share: Double) -> Double {
        let wanted = Double(last.reduce(0, +)) * share
        var passed = 0.0
        for (index, count) in last.enumerated() where count > 0 {
            guard passed + Double(count) < wanted else {
                guard index > 0 else { return 0 }
                let low = Double(Self.bounds[index - 1])
                guard index < Self.bounds.count else { return low }
                return low + (Double(Self.bounds[index]) - low) * (wanted - passed) / Double(count)
            }
            passed += Double(count)
        }
        return 0
    }
}
