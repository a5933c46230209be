import ArgumentParser
import Foundation
import LinuxSystem

struct Status: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show the workers of a running platform.",
        discussion: """
            Without --data-dir the platform `apus up` started, else that of the service. Ends with 0 when a platform \
            answers, 3 when nothing runs, 1 when it does not answer.
            """)

    @OptionGroup var directory: AdminClient.DataDirectory

    @Flag(help: "As a JSON object: state, times in milliseconds, memory in bytes, workers.")
    var json = false

    /// As `StatusReport` writes it.
    struct Report: Decodable {
        struct Worker: Decodable {
            var kind: String
            var index: Int
            var pid: Int
            var state: String
            var uptimeMillis: Int
            var restarts: Int
            var rssBytes: Int
            var cpuMillis: Int
            var detail: String
            var status: String
            var lastFailure: String
        }
        var pid: Int
        var state: String
        var uptimeMillis: Int
        var rssBytes: Int
        var cpuMillis: Int
        var dataDirectory: String
        var nameserver: String
        var brokers: [String]
        var workers: [Worker]
    }

    func run() throws {
        guard directory.runningPid != nil else {
            if json { print("{\"state\":\"stopped\"}") } else { print(directory.nothingRuns) }
            throw ExitCode(3)  // as systemctl status says for what is not running
        }
        let answer: String
        do {
            answer = try AdminClient(directory).ask("status")
        } catch {
            StandardError.write("apus status: the platform on \(directory.path) does not answer: \(error)\n")
            throw ExitCode(1)
        }
        if json {
            print(answer)
            return
        }
        let report = try JSONDecoder().decode(Report.self, from: Data(answer.utf8))
        print("\(report.state) for \(Status.time(report.uptimeMillis)), data in \(report.dataDirectory)")
        print("name server \(report.nameserver), broker \(report.brokers.joined(separator: ", "))")
        print("")
        var rows = [["WORKER", "PID", "STATE", "UP", "RESTARTS", "RSS", "CPU", ""]]
        rows.append([
            "supervisor", String(report.pid), report.state, Status.time(report.uptimeMillis), "",
            Status.size(report.rssBytes), Status.cpu(report.cpuMillis), "",
        ])
        for worker in report.workers {
            var note = worker.status.isEmpty ? worker.detail : worker.status
            if worker.state != "ready", !worker.lastFailure.isEmpty { note = worker.lastFailure }
            // Why it is not the process it was, while that is news.
            if worker.state == "ready", worker.uptimeMillis < 3_600_000, !worker.lastFailure.isEmpty {
                note += "; before: \(worker.lastFailure)"
            }
            rows.append([
                "\(worker.kind)-\(worker.index)", worker.pid == 0 ? "-" : String(worker.pid), worker.state,
                worker.pid == 0 ? "-" : Status.time(worker.uptimeMillis), String(worker.restarts),
                worker.pid == 0 ? "-" : Status.size(worker.rssBytes),
                worker.pid == 0 ? "-" : Status.cpu(worker.cpuMillis), note,
            ])
        }
        print(Status.table(rows))
    }

    /// Numbers (PID and from UP on) to the right, words to the left.
    static func table(_ rows: [[String]]) -> String {
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

    static func time(_ millis: Int) -> String {
        let seconds = millis / 1000
        return switch seconds {
        case ..<10: String(format: "%.1f s", Double(millis) / 1000)
        case ..<120: "\(seconds) s"
        case ..<7200: "\(seconds / 60) min"
        case ..<172_800: "\(seconds / 3600) h"
        default: "\(seconds / 86400) d"
        }
    }

    static func size(_ bytes: Int) -> String { String(format: "%.1f MB", Double(bytes) / 1_048_576) }

    static func cpu(_ millis: Int) -> String { String(format: "%.2f s", Double(millis) / 1000) }
}
