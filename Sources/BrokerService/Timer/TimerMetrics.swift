import FastJSON
import RemotingProtocol

/// How many timer messages wait for each topic (RocketMQ 5's `config/timermetrics`, GET_TIMER_METRICS). The counts hang
/// at the topics, so that counting makes no strings.
///
/// They are written every few seconds. What was delivered between that and a crash stays counted, until nothing waits
/// any more: then all are zero again. Confined to the broker's loop.
final class TimerMetrics {
    private(set) var dataVersion = DataVersion()
    private(set) var isDirty = false
    /// The sequence from which on messages have not been counted. nil: RocketMQ's file, which does not contain it.
    private(set) var countedTo: Int64? = 0
    private var total: Int64 = 0
    private let topics: TopicConfigManager

    init(_ topics: TopicConfigManager) { self.topics = topics }

    /// A message was taken in.
    func tookIn(_ topic: TopicEntry?, sequence: Int64, now: Int64) {
        // Taken in again after a restart.
        guard sequence >= countedTo ?? 0 else { return }
        countedTo = sequence + 1
        change(topic, by: 1, now)
    }

    /// A message was delivered, cancelled or given up.
    func left(_ topic: TopicEntry?, now: Int64) { change(topic, by: -1, now) }

    private func change(_ topic: TopicEntry?, by count: Int64, _ now: Int64) {
        guard let topic, topic.waitingTimers.count + count >= 0 else { return }
        topic.waitingTimers.count += count
        topic.waitingTimers.changedMilliseconds = now
        total += count
        dataVersion.next(now: now)
        isDirty = true
    }

    /// Nothing waits.
    func reset(now: Int64) {
        guard total != 0 else { return }
        for topic in topics.all where topic.waitingTimers.count != 0 {
            change(topic, by: -topic.waitingTimers.count, now)
        }
        total = 0
    }

    /// RocketMQ has counted what its queue held when it stopped.
    func assumeCounted(to end: Int64) { countedTo = countedTo ?? end }

    func markWritten() { isDirty = false }

    // MARK: - config/timermetrics

    func load(_ json: JSONValue) throws(RemotingDecodeError) {
        dataVersion =
            try json["dataVersion"].map { value throws(RemotingDecodeError) in try DataVersion(json: value) }
            ?? DataVersion()
        countedTo = json["countedTo"]?.integer
        for member in json["timingCount"]?.object?.members ?? [] {
            guard let topic = topics[member.key], let count = member.value["count"]?.integer, count >= 0,
                count <= Int64(Int32.max) * 1000
            else { continue }
            topic.waitingTimers = TopicEntry.WaitingTimers(
                count: count, changedMilliseconds: member.value["timeStamp"]?.integer ?? 0)
            total += count
        }
    }

    /// - Parameter forFile: with what only Apus reads.
    func json(forFile: Bool) -> JSONValue {
        let counts = topics.all.filter { $0.waitingTimers.changedMilliseconds > 0 }.map { topic in
            (
                topic.name,
                Optional(
                    JSONValue.fields([
                        ("count", .integer(topic.waitingTimers.count)),
                        ("timeStamp", .integer(topic.waitingTimers.changedMilliseconds)),
                    ]))
            )
        }
        return .fields([
            ("countedTo", forFile ? countedTo.map { .integer($0) } : nil),
            (
                "dataVersion",
                .fields([
                    ("counter", .integer(dataVersion.counter)), ("stateVersion", .integer(dataVersion.stateVersion)),
                    ("timestamp", .integer(dataVersion.timestamp)),
                ])
            ),
            ("timingCount", .fields(counts)),
        ])
    }
}

extension TimerMetrics: PersistentTable {
    var fileJSON: JSONValue { json(forFile: true) }
    func load(file json: JSONValue) throws -> [RefusedEntry] {
        try load(json)
        return []
    }
}
