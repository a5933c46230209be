import TestTools
import Testing

@testable import BrokerService

@Suite("what a topic's attributes say of the delivery of its messages") struct TopicPolicyTests {
    @Test("attributes become values; what is not set is as without attributes")
    func read() {
        #expect(TopicPolicy(attributes: nil) == .standard)
        #expect(TopicPolicy(attributes: ["message.type": "FIFO"]) == .standard)
        let policy = TopicPolicy(attributes: [
            "apus.mode": "QUEUE", "apus.timeout": "5", "apus.retry.count": "2", "apus.retry.strategy": "linear",
            "apus.retry.interval": "7", "apus.retry.jitter": "10", "apus.shard": "true", "apus.priority": "9",
            "apus.archive": "7d", "apus.owner": "billing", "apus.alarm": "mail:a@b.c",
        ])
        #expect(policy.mode == .queue && policy.hasLeases && policy.isPoppedOnly && policy.givesUp)
        #expect(policy.timeoutMilliseconds == 5000 && policy.retryCount == 2 && policy.priority == 9)
        #expect(policy.retry == RetryStrategy(kind: .linear, intervalMilliseconds: 7000, jitterPercent: 10))
        #expect(policy.archive == .days(7))
        #expect(!TopicPolicy(attributes: ["apus.shard": "true"]).hasLeases)
        #expect(TopicPolicy(attributes: ["apus.mode": "SERIAL_QUEUE"]).hasLeases)
        // A table another program has written.
        #expect(TopicPolicy(attributes: ["apus.mode": "queue", "apus.timeout": "-1", "apus.else": "x"]) == .standard)
        #expect(TopicPolicy.problems(in: ["apus.mode": "queue", "apus.priority": "3"]).count == 1)
    }

    @Test(
        "each attribute has its bounds, and a refusal names them",
        arguments: [
            ("apus.mode", ["TOPIC", "QUEUE", "SERIAL_QUEUE"], ["", "queue", "BROADCAST"]),
            ("apus.timeout", ["1", "86400"], ["0", "86401", "-1", "1.5", "", "9999999999999999999999"]),
            ("apus.retry.count", ["0", "1000"], ["1001", "-1", "a"]),
            ("apus.retry.strategy", ["fixed", "linear", "exponential"], ["Fixed", ""]),
            ("apus.retry.interval", ["0", "86400"], ["86401", "+3"]),
            ("apus.retry.jitter", ["0", "100"], ["101"]),
            ("apus.shard", ["true", "false"], ["yes", "1"]),
            ("apus.priority", ["0", "9"], ["10", "-1"]),
            ("apus.archive", ["consumed", "forever", "1d", "3650d"], ["0d", "3651d", "d", "7", "-1d", "never"]),
            (
                "apus.owner", ["", "Zoë <z@e.fr>", String(repeating: "x", count: 128)],
                [String(repeating: "x", count: 129), "a\u{1}b"]
            ),
            ("apus.alarm", [String(repeating: "x", count: 512)], [String(repeating: "x", count: 513), "a,b"]),
        ])
    func bounds(_ key: String, _ good: [String], _ bad: [String]) {
        for value in good { #expect(TopicPolicy.problem(key, value) == nil, "\(key)=\(value)") }
        for value in bad { #expect(TopicPolicy.problem(key, value)?.contains("it is ") == true, "\(key)=\(value)") }
        for value in good where !value.isEmpty && !value.contains(",") {
            #expect(throws: Never.self) { try TopicAttributes.altered(nil, by: ["+" + key: value]) }
        }
        for value in bad {
            #expect(throws: TopicAttributes.Refusal.self) { try TopicAttributes.altered([:], by: ["+" + key: value]) }
        }
        #expect(try! TopicAttributes.altered([key: good[0]], by: ["-" + key: ""]).isEmpty)
    }

    @Test("delays grow by the strategy, have their ends, and none is outside of its jitter")
    func delays() {
        let seed = UInt64.random(in: .min ... .max)
        var random = RetryJitter(seed: seed)
        let fixed = RetryStrategy(kind: .fixed, intervalMilliseconds: 3000)
        #expect((1...5).map { fixed.delay(after: $0, using: &random) } == [3000, 3000, 3000, 3000, 3000])
        let linear = RetryStrategy(kind: .linear, intervalMilliseconds: 3000)
        #expect((1...4).map { linear.delay(after: $0, using: &random) } == [3000, 6000, 9000, 12_000])
        #expect(linear.delay(after: .max, using: &random) == 3 * 24 * 3_600_000)
        let exact = RetryStrategy(kind: .exponential, intervalMilliseconds: 1000, jitterPercent: 0)
        #expect((1...4).map { exact.delay(after: $0, using: &random) } == [1000, 2000, 4000, 8000])
        for attempt in [13, 64, 1000, Int32.max] {
            #expect(exact.delay(after: attempt, using: &random) == RetryStrategy.exponentialMax)
        }
        #expect(exact.delay(after: -5, using: &random) == 1000)
        // No delay is shorter than the interval that was set.
        let long = RetryStrategy(kind: .exponential, intervalMilliseconds: 7_200_000, jitterPercent: 0)
        #expect((1...3).map { long.delay(after: $0, using: &random) } == [7_200_000, 7_200_000, 7_200_000])
        let usual = RetryStrategy(kind: .exponential, intervalMilliseconds: 1000)
        var seen: Set<Int64> = []
        for _ in 0..<500 {
            let delay = usual.delay(after: 3, using: &random)
            #expect(3200...4800 ~= delay, "seed \(seed): \(delay)")
            seen.insert(delay)
            #expect(usual.delay(after: 30, using: &random) <= RetryStrategy.exponentialMax, "seed \(seed)")
        }
        #expect(seen.count > 50, "seed \(seed)")
        let wide = RetryStrategy(kind: .fixed, intervalMilliseconds: 0, jitterPercent: 100)
        #expect(wide.delay(after: 1, using: &random) == 0)
        var (one, other) = (RetryJitter(seed: 7), RetryJitter(seed: 7))
        for attempt in Int32(0)..<9 {
            #expect(usual.delay(after: attempt, using: &one) == usual.delay(after: attempt, using: &other))
        }
    }

    @Test("a shard key belongs to one queue, and keys spread over all")
    func shards() {
        var counts = [Int](repeating: 0, count: 8)
        for number in 0..<800 {
            let queue = Array("order-\(number)".utf8).withUnsafeBytes { TopicPolicy.queue(ofShardKey: $0, queues: 8) }
            counts[Int(queue)] += 1
        }
        #expect(counts.allSatisfy { 50...160 ~= $0 }, "\(counts)")
        // Messages of a key that were stored by an earlier version lie in this queue.
        #expect(Array("order-1".utf8).withUnsafeBytes { TopicPolicy.queue(ofShardKey: $0, queues: 4) } == 2)
        #expect(Array("".utf8).withUnsafeBytes { TopicPolicy.queue(ofShardKey: $0, queues: 0) } == 0)
    }

    @Test("a pop that leaves the time open gets the topic's")
    func invisible() {
        #expect(TopicPolicy.standard.invisibleMilliseconds(wanted: -1) == 60_000)
        #expect(TopicPolicy.standard.invisibleMilliseconds(wanted: 0) == 0)
        let queue = TopicPolicy(attributes: ["apus.mode": "QUEUE"])
        #expect(queue.invisibleMilliseconds(wanted: 0) == 60_000 && queue.invisibleMilliseconds(wanted: 5) == 5)
        #expect(TopicPolicy(attributes: ["apus.timeout": "2"]).invisibleMilliseconds(wanted: 0) == 2000)
    }
}
