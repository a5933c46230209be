import Foundation
import Synchronization

/// What all measurements need.
struct Options: Sendable {
    var nameServer = ""
    var broker = ""
    var brokerPid: pid_t = 0
    /// The platform's data folder.
    var data = ""
}

func fail(_ words: String) -> Never {
    FileHandle.standardError.write(Data((words + "\n").utf8))
    exit(1)
}

func row(_ what: String, _ value: String, _ aim: String = "") {
    let pad = String(repeating: " ", count: max(1, 64 - what.count))
    // Not buffered: a run takes minutes.
    FileHandle.standardOutput.write(Data("\(what)\(pad)\(value)\(aim.isEmpty ? "" : "   (\(aim))")\n".utf8))
}

func text(_ number: Double) -> String {
    number >= 100 ? String(Int(number.rounded())) : String(format: "%.1f", number)
}

/// p50, p99 and the largest of some numbers.
struct Percentiles {
    let sorted: [Double]

    init(_ numbers: some Sequence<Double>) { sorted = numbers.sorted() }

    func at(_ percent: Double) -> Double {
        sorted.isEmpty ? .nan : sorted[min(sorted.count - 1, Int(Double(sorted.count) * percent / 100))]
    }

    func words(_ unit: String) -> String {
        "p50 \(text(at(50)))  p99 \(text(at(99)))  max \(text(sorted.last ?? .nan)) \(unit)"
    }
}

/// Of a process, from /proc.
struct ProcessFigures {
    /// Bytes.
    var resident: Int
    /// Seconds of processor time.
    var cpu: Double

    init(_ pid: pid_t) {
        let memory = (try? String(contentsOfFile: "/proc/\(pid)/statm", encoding: .utf8)) ?? ""
        let pages = memory.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
        resident = pages * Int(sysconf(Int32(_SC_PAGESIZE)))
        let stat = (try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8)) ?? ""
        let fields = stat.split(separator: ")").last?.split(separator: " ") ?? []
        let ticks = fields.count > 12 ? (Double(fields[11]) ?? 0) + (Double(fields[12]) ?? 0) : 0
        cpu = ticks / Double(sysconf(Int32(_SC_CLK_TCK)))
    }

    var megabytes: String { "\(text(Double(resident) / 1_048_576)) MB" }
}

/// Numbers that come from several threads.
final class Collected: Sendable {
    private let stored = Mutex<[Double]>([])

    func add(_ number: Double) { stored.withLock { $0.append(number) } }
    var all: [Double] { stored.withLock { $0 } }
    var count: Int { stored.withLock { $0.count } }
    func clear() { stored.withLock { $0 = [] } }
}

/// Milliseconds of a monotonic clock.
func milliseconds() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) * 1000 + Double(time.tv_nsec) / 1_000_000
}

func wait(seconds: Double, until holds: () async throws -> Bool) async throws -> Bool {
    let end = milliseconds() + seconds * 1000
    while milliseconds() < end {
        if try await holds() { return true }
        try await Task.sleep(for: .milliseconds(2))
    }
    return false
}
