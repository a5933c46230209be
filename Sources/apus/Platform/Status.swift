import ArgumentParser
import FastJSON
import LinuxSystem

struct Status: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show the workers of a running platform.",
        discussion: """
            Without --data-dir the platform `apus up` started, else that of the service.

            EXIT STATUS: 0 when every worker serves, 1 when one does not or not all it should (a disk is full, a \
            plugin is out of use or fails; or the platform starts, stops or does not answer), 3 when nothing runs.
            """)

    @OptionGroup var directory: ControlClient.DataDirectory

    @Flag(help: "As a JSON object: state, times in milliseconds, memory in bytes, workers.")
    var json = false

    /// As `StatusReport` writes it.
    struct Report {
        struct Worker {
            var kind: String
            var index: Int64
            var pid: Int64
            var state: String
            var uptimeMilliseconds: Int64
            var restarts: Int64
            var rssBytes: Int64
            var cpuMilliseconds: Int64
            var detail: String
            var status: String
            /// What keeps it from doing all its work; empty when it serves.
            var trouble: String
            var lastFailure: String

            init(_ json: JSONValue) {
                func text(_ key: String) -> String { json[key]?.string ?? "" }
                func number(_ key: String) -> Int64 { json[key]?.integer ?? 0 }
                kind = text("kind")
                index = number("index")
                pid = number("pid")
                state = text("state")
                uptimeMilliseconds = number("uptimeMillis")
                restarts = number("restarts")
                rssBytes = number("rssBytes")
                cpuMilliseconds = number("cpuMillis")
                detail = text("detail")
                status = text("status")
                trouble = text("trouble")
                lastFailure = text("lastFailure")
            }
        }
        var pid: Int64
        var state: String
        var uptimeMilliseconds: Int64
        var rssBytes: Int64
        var cpuMilliseconds: Int64
        var dataDirectory: String
        var nameserver: String
        var brokers: [String]
        var console: String
        var workers: [Worker]

        /// Nothing starts, waits, stops or has failed, and no worker is kept from its work.
        var allServe: Bool {
            state == "running" && workers.allSatisfy { $0.state == "ready" && $0.trouble.isEmpty }
        }

        init(_ json: JSONValue) {
            pid = json["pid"]?.integer ?? 0
            state = json["state"]?.string ?? ""
            uptimeMilliseconds = json["uptimeMillis"]?.integer ?? 0
            rssBytes = json["rssBytes"]?.integer ?? 0
            cpuMilliseconds = json["cpuMillis"]?.integer ?? 0
            dataDirectory = json["dataDirectory"]?.string ?? ""
            nameserver = json["nameserver"]?.string ?? ""
            brokers = json["brokers"]?.array?.compactMap(\.string) ?? []
            console = json["console"]?.string ?? ""
            workers = json["workers"]?.array?.map(Worker.init) ?? []
        }
    }

    func run() throws {
        guard directory.runningPid != nil else {
            if json { print("{\"state\":\"stopped\"}") } else { print(directory.nothingRuns) }
            throw ExitCode(3)  // as systemctl status says for what is not running
        }
        let answer: String
        do {
            answer = try ControlClient(directory).ask("status")
        } catch {
            StandardError.write("apus status: the platform on \(directory.path) does not answer: \(error)\n")
            throw ExitCode(1)
        }
        let report = try Report(JSONValue(parsing: answer))
        show(report, answer)
        if !report.allServe { throw ExitCode(1) }
    }

    private func show(_ report: Report, _ answer: String) {
        if json { return print(answer) }
        print("\(report.state) for \(Status.time(report.uptimeMilliseconds)), data in \(report.dataDirectory)")
        let console = report.console.isEmpty ? "" : ", HTTP \(report.console)"
        print("name server \(report.nameserver), broker \(report.brokers.joined(separator: ", "))\(console)")
        print("")
        var rows = [["WORKER", "PID", "STATE", "UP", "RESTARTS", "RSS", "CPU", ""]]
        rows.append([
            "supervisor", String(report.pid), report.state, Status.time(report.uptimeMilliseconds), "",
            Status.size(report.rssBytes), Status.cpu(report.cpuMilliseconds), "",
        ])
        for worker in report.workers {
            var note = worker.status.isEmpty ? worker.detail : worker.status
            // First, because the rest of the line may be long.
            if !worker.trouble.isEmpty { note = "\(worker.trouble); \(note)" }
            if worker.state != "ready", !worker.lastFailure.isEmpty { note = worker.lastFailure }
            // Why it is not the process it was, while that is news.
            if worker.state == "ready", worker.uptimeMilliseconds < 3_600_000, !worker.lastFailure.isEmpty {
                note += "; before: \(worker.lastFailure)"
            }
            rows.append([
                "\(worker.kind)-\(worker.index)", worker.pid == 0 ? "-" : String(worker.pid), worker.state,
                worker.pid == 0 ? "-" : Status.time(worker.uptimeMilliseconds), String(worker.restarts),
                worker.pid == 0 ? "-" : Status.size(worker.rssBytes),
                worker.pid == 0 ? "-" : Status.cpu(worker.cpuMilliseconds), note,
            ])
        }
        print(Status.table(rows))
    }

    /// Numbers (PID and from UP on) to the right, text to the left.
    static func table(_ rows: [[String]]) -> String {
        // Details and failures hold names and text from clients and plugins.
        let rows = rows.map { $0.map { PlainText.escaped($0) } }
        let widths = (0..<(rows.first?.count ?? 0)).map { column in rows.map { $0[column].count }.max() ?? 0 }
        return rows.map { row in
            let cells = row.enumerated().map { column, cell in
                let pad = String(repeating: " ", count: widths[column] - cell.count)
                return [1, 3, 4, 5, 6].contains(column) ? pad + cell : cell + pad
            }
            let line = cells.joined(separator: "  ")
            return String(line.reversed().drop { $0 == " " }.reversed())
        }.joined(separator: "\n")
    }

    static func time(_ milliseconds: Int64) -> String {
        let seconds = milliseconds / 1000
        return switch seconds {
        case ..<10: "\(fixed(Double(milliseconds) / 1000, 1)) s"
        case ..<120: "\(seconds) s"
        case ..<7200: "\(seconds / 60) min"
        case ..<172_800: "\(seconds / 3600) h"
        default: "\(seconds / 86400) d"
        }
    }

    static func size(_ bytes: Int64) -> String { "\(fixed(Double(bytes) / 1_048_576, 1)) MB" }

    static func cpu(_ milliseconds: Int64) -> String { "\(fixed(Double(milliseconds) / 1000, 2)) s" }
}
