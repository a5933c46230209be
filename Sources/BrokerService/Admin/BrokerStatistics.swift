/// Counts messages in and out, and their rates over the last 10 s, 1 min and 10 min (RocketMQ prints these three).
struct BrokerStatistics {
    static let sampleIntervalMillis: Int64 = 10_000
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

    init(bootMillis: Int64) {
        self.bootMillis = bootMillis
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

    mutating func sample(now: Int64) {
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
