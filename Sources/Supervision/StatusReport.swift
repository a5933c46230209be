import LinuxSystem
import WorkerProtocol

/// The answer of the control socket to `status`: one line of JSON.
package struct StatusReport: Sendable {
    /// Of the supervisor.
    package var pid: Int32
    /// `starting`, `running`, `stopping` or `stopped`.
    package var state: String
    /// Since the supervisor's start, in milliseconds.
    package var uptimeMilliseconds: Int64
    /// Absolute.
    package var dataDirectory: String
    /// Its address as others find it; empty: unknown.
    package var nameserver: String
    /// Their addresses as others find them.
    package var brokers: [String]
    /// The gateway's address; empty: there is none.
    package var console: String
    /// As in `systemctl status`.
    package var statusLine: String
    /// In launch order.
    package var workers: [SupervisorState.Worker]
    /// Milliseconds of the monotonic clock.
    package var now: Int64

    private static func status(_ worker: SupervisorState.Worker) -> String {
        worker.note.isEmpty ? worker.status : worker.status.isEmpty ? worker.note : "\(worker.status); \(worker.note)"
    }

    /// Bytes and milliseconds; times of a worker count from its last launch.
    package var json: String {
        let rows = workers.map { worker -> String in
            let statistics = worker.pid > 0 ? ProcessStatistics(pid: worker.pid) : nil
            let fields: [(String, String)] = [
                ("kind", JSONText.string(worker.id.kind.rawValue)), ("index", String(worker.id.index)),
                ("pid", String(worker.pid)), ("state", JSONText.string(worker.phaseName)),
                ("uptimeMillis", String(worker.isRunning ? now - worker.launchedAt : 0)),
                ("restarts", String(worker.restarts)), ("rssBytes", String(statistics?.residentBytes ?? 0)),
                ("anonymousBytes", String(statistics?.anonymousBytes ?? 0)),
                ("cpuMillis", String(statistics?.cpuMilliseconds ?? 0)), ("detail", JSONText.string(worker.detail)),
                ("status", JSONText.string(StatusReport.status(worker))),
                ("trouble", JSONText.string(worker.trouble)),
                ("lastFailure", JSONText.string(worker.lastFailure)),
            ]
            return JSONText.object(fields)
        }
        let own = ProcessStatistics(pid: pid)
        return JSONText.object([
            ("pid", String(pid)), ("state", JSONText.string(state)), ("uptimeMillis", String(uptimeMilliseconds)),
            ("rssBytes", String(own?.residentBytes ?? 0)), ("cpuMillis", String(own?.cpuMilliseconds ?? 0)),
            ("dataDirectory", JSONText.string(dataDirectory)), ("nameserver", JSONText.string(nameserver)),
            ("brokers", "[" + brokers.map(JSONText.string).joined(separator: ",") + "]"),
            ("console", JSONText.string(console)), ("statusLine", JSONText.string(statusLine)),
            ("workers", "[" + rows.joined(separator: ",") + "]"),
        ])
    }
}

/// Writes the little JSON the supervisor needs; it never reads any.
enum JSONText {
    static func object(_ fields: [(String, String)]) -> String {
        "{" + fields.map { "\(string($0.0)):\($0.1)" }.joined(separator: ",") + "}"
    }

    static func string(_ text: String) -> String {
        var out = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": out += "\\\""
            case "\\": out += "\\\\"
            case "\n": out += "\\n"
            case "\t": out += "\\t"
            case _ where scalar.value < 0x20:
                let digits = String(scalar.value, radix: 16)
                out += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: out.unicodeScalars.append(scalar)
            }
        }
        return out + "\""
    }
}
