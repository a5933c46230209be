import ArgumentParser
import FastJSON
import Glibc
import LinuxSystem

/// One worker anew, the others untouched.
struct Restart: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Restart one worker of a running platform: it drains and starts again; connects wait meanwhile.",
        discussion: "Answers when the worker serves again. Only its process changes; nothing acknowledged is lost.")

    @OptionGroup var directory: ControlClient.DataDirectory

    @Argument(
        help: ArgumentHelp("KIND@N as in broker-store@1; N may be left out where there is one.", valueName: "WORKER"),
        completion: Completions.worker)
    var worker: String

    @Option(help: ArgumentHelp("How long to wait for it to serve again.", valueName: "SECONDS"))
    var timeout = 120

    mutating func validate() throws {
        guard 1...86_400 ~= timeout else { throw ValidationError("--timeout must be 1 to 86400") }
        guard worker.allSatisfy({ $0.isLetter || $0.isNumber || $0 == "@" || $0 == "-" }), !worker.isEmpty else {
            throw ValidationError("\(worker): a worker is called like broker-store@1")
        }
    }

    func run() throws {
        guard directory.runningPid != nil else { throw failure("nothing runs on \(directory.path)") }
        let start = MonotonicClock.milliseconds
        let answer: JSONValue
        do {
            answer = try ControlClient(directory).answer(to: "restart \(worker)")
        } catch {
            throw failure("the platform on \(directory.path) does not answer: \(error)")
        }
        if let reason = answer["error"]?.string { throw failure(reason) }
        let kind = answer["kind"]?.string ?? ""
        let index = answer["index"]?.integer ?? 0
        let name = "\(kind)@\(index)"
        let former = answer["pid"]?.integer ?? 0
        let end = start + Int64(timeout) * 1000
        var last = ""
        while MonotonicClock.milliseconds < end {
            usleep(5_000)
            guard let report = try? Status.Report(ControlClient(directory).answer(to: "status")) else {
                throw failure("the platform on \(directory.path) ended meanwhile")
            }
            guard let now = report.workers.first(where: { $0.kind == kind && $0.index == index }) else {
                throw failure("\(name) is not part of the platform any more")
            }
            last = now.lastFailure.isEmpty ? now.state : "\(now.state): \(now.lastFailure)"
            guard now.pid != former, now.state == "ready" else { continue }
            let seconds = fixed(Double(MonotonicClock.milliseconds - start) / 1000, 2)
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
