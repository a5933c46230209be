import FastJSON
import Histogram

/// The outcome of a run, as a table for people and as JSON for scripts.
package struct BenchReport: Sendable {
    /// What producing, or consuming, came to between warm-up and end.
    package struct Side: Sendable {
        /// Messages acknowledged, or received, in the measured window.
        package let messages: Int
        /// Bytes of bodies produced (by their average size), or of whole records consumed.
        package let bytes: Int
        /// Sends acknowledged, or pulls answered with messages.
        package let requests: Int
        /// Pulls answered without a message in all phases; 0 when producing.
        package let emptyPulls: Int
        /// Reason → number in all phases, of messages or of pulls. A lost connection by itself adds its reason with 0.
        package let failures: [String: Int]
        /// Microseconds: percentile name → value; empty when nothing was timed.
        package let latency: [(name: String, microseconds: Double)]
    }

    /// What a server's process used meanwhile.
    package struct CPU: Sendable {
        /// One entry of `BenchPlan.cpuOf` may match several.
        package let pid: Int32
        /// The entry of `BenchPlan.cpuOf` that matched.
        package let name: String
        /// Nil when the process ended during the run.
        package let seconds: Double?
    }

    /// What was asked for.
    package let plan: BenchPlan
    /// The measured window as it was.
    package let seconds: Double
    /// Nil when the run only consumed.
    package let produced: Side?
    /// Nil when the run only produced.
    package let consumed: Side?
    /// Messages sent in all phases, warm-up included.
    package let sent: Int
    /// Messages acknowledged in all phases.
    package let acknowledged: Int
    /// Messages received in all phases.
    package let received: Int
    /// Messages sent on connections that are open, and not answered at the end of the drain.
    package let unanswered: Int
    /// Of the measured window, one for each process that matched `BenchPlan.cpuOf`.
    package let cpu: [CPU]
    /// CPU time of the generator in the measured window.
    package let ownCPUSeconds: Double

    init(_ run: Run) {
        plan = run.plan
        seconds = Double(run.measuredNanoseconds) / 1e9
        produced = run.plan.produces ? Side(run.produced) : nil
        consumed = run.plan.consumes ? Side(run.consumed) : nil
        sent = run.sent
        acknowledged = run.acknowledged
        received = run.received
        unanswered = run.unanswered
        cpu = zip(run.cpuTargets, run.usedCPU).map { target, used in
            CPU(pid: target.pid, name: target.name, seconds: used.map { Double($0) / 1e9 })
        }
        ownCPUSeconds = Double(run.ownCPU) / 1e9
    }

    /// Messages that the CPU time is divided by: those sent, or those received when the run only consumed.
    package var countedMessages: Int { produced?.messages ?? consumed?.messages ?? 0 }
    /// Failures of both sides, whatever the reason.
    package var failureCount: Int {
        (produced?.failures.values.reduce(0, +) ?? 0) + (consumed?.failures.values.reduce(0, +) ?? 0)
    }

    /// Several lines for people, without a line feed at the end.
    package var table: String {
        var lines: [String] = []
        func side(_ title: String, _ side: Side, unit: String) {
            lines.append(
                "\(title)  \(side.messages) messages in \(fixed(seconds, 2)) s: \(grouped(rate(side.messages))) "
                    + "messages/s, \(fixed(Double(side.bytes) / max(seconds, 1e-9) / 1e6, 1)) MB/s"
                    + (side.messages > side.requests && side.requests > 0
                        ? ", \(fixed(Double(side.messages) / Double(side.requests), 1)) a \(unit)" : ""))
            if !side.latency.isEmpty {
                lines.append(
                    "         latency µs  "
                        + side.latency.map { "\($0.name) \(fixed($0.microseconds, $0.microseconds < 100 ? 1 : 0))" }
                        .joined(
                            separator: "  "))
            }
            for (reason, count) in side.failures.sorted(by: { $0.value > $1.value }) {
                lines.append("         failed \(count): \(reason)")
            }
        }
        if let produced { side("produce", produced, unit: "request") }
        if let consumed { side("consume", consumed, unit: "pull") }
        for process in cpu {
            guard let used = process.seconds else {
                lines.append("cpu      \(process.name) (pid \(process.pid)) ended during the run")
                continue
            }
            lines.append(
                "cpu      \(process.name) (pid \(process.pid)): \(fixed(used, 2)) s, \(perMessage(used)) µs a message, "
                    + "\(fixed(100 * used / max(seconds, 1e-9), 0)) % of a core")
        }
        lines.append("cpu      this generator: \(perMessage(ownCPUSeconds)) µs a message")
        lines.append(
            "total    sent \(sent), acknowledged \(acknowledged), received \(received), unanswered \(unanswered)")
        return lines.joined(separator: "\n")
    }

    /// One object; rates are per second, latencies in microseconds.
    package var json: String {
        func side(_ side: Side?) -> JSONValue? {
            side.map { side in
                .fields([
                    ("messages", .integer(side.messages)), ("bytes", .integer(side.bytes)),
                    ("requests", .integer(side.requests)), ("emptyPulls", .integer(side.emptyPulls)),
                    ("messagesPerSecond", .number(rate(side.messages))),
                    ("latencyMicros", .fields(side.latency.map { ($0.name, .number($0.microseconds)) })),
                    (
                        "failures",
                        .fields(side.failures.sorted { $0.key < $1.key }.map { ($0.key, .integer($0.value)) })
                    ),
                ])
            }
        }
        return JSONValue.fields([
            ("topic", .string(plan.topic)), ("mode", .string(plan.mode.rawValue)), ("seconds", .number(seconds)),
            ("connections", .integer(plan.produceConnections)), ("inFlight", .integer(plan.inFlight)),
            ("batch", .integer(plan.batch)), ("sizes", .array(plan.sizes.map { .integer($0) })),
            ("rate", plan.rate.map { .number($0) }), ("header", .string(plan.form.rawValue)),
            ("produced", side(produced)), ("consumed", side(consumed)),
            ("sent", .integer(sent)), ("acknowledged", .integer(acknowledged)), ("received", .integer(received)),
            ("unanswered", .integer(unanswered)),
            (
                "cpu",
                .array(
                    cpu.map { process in
                        .fields([
                            ("pid", .integer(process.pid)), ("name", .string(process.name)),
                            ("seconds", process.seconds.map { .number($0) }),
                            ("microsPerMessage", process.seconds.map { .number(microseconds($0)) }),
                        ])
                    })
            ),
            ("ownMicrosPerMessage", .number(microseconds(ownCPUSeconds))),
        ]).text()
    }

    private func rate(_ messages: Int) -> Double { Double(messages) / max(seconds, 1e-9) }
    private func microseconds(_ used: Double) -> Double {
        countedMessages == 0 ? 0 : used * 1e6 / Double(countedMessages)
    }
    private func perMessage(_ used: Double) -> String { countedMessages == 0 ? "–" : fixed(microseconds(used), 2) }
}

extension BenchReport.Side {
    fileprivate init(_ tally: Tally) {
        messages = tally.messages
        bytes = tally.bytes
        requests = tally.requests
        emptyPulls = tally.emptyPulls
        failures = tally.failures
        let histogram = tally.latency
        if histogram.totalCount == 0 {
            latency = []
        } else {
            let percentiles: [(String, Double)] = [
                ("p50", 50), ("p90", 90), ("p99", 99), ("p99.9", 99.9), ("p99.99", 99.99), ("max", 100),
            ]
            latency =
                [("mean", histogram.mean / 1000)]
                + percentiles.map { ($0.0, Double(histogram.valueAtPercentile($0.1)) / 1000) }
        }
    }
}

/// A decimal number with so many digits after the point (no Foundation here).
func fixed(_ value: Double, _ digits: Int) -> String {
    guard value.isFinite else { return "–" }
    var scale = 1.0
    for _ in 0..<digits { scale *= 10 }
    let scaled = Int64((value.magnitude * scale).rounded())
    let whole = scaled / Int64(scale)
    let sign = value < 0 && scaled > 0 ? "-" : ""
    guard digits > 0 else { return sign + String(whole) }
    let fraction = String(scaled % Int64(scale))
    return sign + "\(whole)." + String(repeating: "0", count: digits - fraction.count) + fraction
}

/// A whole number with thin groups of three: 1 234 567.
func grouped(_ value: Double) -> String {
    var digits = fixed(value, 0)
    var groups: [Substring] = []
    while digits.count > 3 {
        groups.insert(digits.suffix(3), at: 0)
        digits = String(digits.dropLast(3))
    }
    return ([Substring(digits)] + groups).joined(separator: " ")
}
