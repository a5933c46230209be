import ArgumentParser
import Foundation
import LinuxSystem

/// One worker anew, the others untouched.
struct Restart: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Restart one worker of a running platform: it drains and starts again; connects wait meanwhile.",
        discussion: "Answers when the worker serves again. Only its process changes; nothing acknowledged is lost.")

    @OptionGroup var directory: AdminClient.DataDirectory

    @Argument(
        help: ArgumentHelp("KIND@N as in broker-store@1; N may be left out where there is one.", valueName: "WORKER"))
    var worker: String

    @Option(help: ArgumentHelp("How long to wait for it to serve again.", valueName: "SECONDS"))
    var timeout = 120

    private struct Answer: Decodable {
        var error: String?
        var kind: String?
        var index: Int?
        var pid: Int?
    }

    mutating func validate() throws {
        guard worker.allSatisfy({ $0.isLetter || $0.isNumber || $0 == "@" || $0 == "-" }), !worker.isEmpty else {
            throw ValidationError("\(worker): a worker is called like broker-store@1")
        }
    }

    func run() throws {
        guard directory.runningPid != nil else { throw failure("nothing runs on \(directory.path)") }
        let start = MonotonicClock.milliseconds
        let answer: Answer
        do {
            let text = try AdminClient(directory).ask("restart \(worker)")
            answer = try JSONDecoder().decode(Answer.self, from: Data(text.utf8))
        } catch {
            throw failure("the platform on \(directory.path) does not answer: \(error)")
        }
        if let reason = answer.error { throw failure(reason) }
        let name = "\(answer.kind ?? "")@\(answer.index ?? 0)"
        let former = answer.pid ?? 0
        let end = start + Int64(timeout) * 1000
        var last = ""
        while MonotonicClock.milliseconds < end {
            usleep(5_000)
            guard let text = try? AdminClient(directory).ask("status"),
                let report = try? JSONDecoder().decode(Status.Report.self, from: Data(text.utf8))
            else { throw failure("the platform on \(directory.path) ended meanwhile") }
            guard let now = report.workers.first(where: { $0.kind == answer.kind && $0.index == answer.index }) else {
                throw failure("\(name) is not part of the platform any more")
            }
            last = now.lastFailure.isEmpty ? now.state : "\(now.state): \(now.lastFailure)"
            guard now.pid != former, now.state == "ready" else { continue }
            let seconds = String(format: "%.2f", Double(MonotonicClock.milliseconds - start) / 1000)
            print("restarted \(name) in \(seconds) s (pid \(former) → \(now.pid))")
            return
        }
        throw failure("\(name) does not serve after \(timeout) s: \(last)")
    }

    private func failure(_ reason: String) -> ExitCode {
        StandardError.write("apus restart: \(reason)\n")
        return ExitCode(1)
    }
}
