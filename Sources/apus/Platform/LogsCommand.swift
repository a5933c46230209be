import ArgumentParser
import Glibc
import LinuxSystem
import Supervision

/// The log of a platform, wherever it goes: the journal for a service, the file its standard error was sent to in the
/// foreground.
struct LogsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "logs", abstract: "Show the log of a running platform, of a service also when it does not run.",
        discussion: """
            A service's log is in the journal. A platform in the foreground writes to its standard error: when that \
            is a file, the file is shown; on a terminal the lines stand there.

              apus logs -f
              apus logs broker-store@0 --lines 200
              apus up 2> apus.log &  apus logs -f
            """)

    @OptionGroup var directory: ControlClient.DataDirectory
    @Flag(name: [.customShort("f"), .long], help: "Go on with what is written from now on.") var follow = false
    @Option(
        name: [.customShort("n"), .long], help: ArgumentHelp("How many of the last lines.", valueName: "N"))
    var lines = 100
    @Argument(
        help: ArgumentHelp("Only lines of this worker, such as broker-store@0.", valueName: "WORKER"),
        completion: Completions.worker)
    var worker: String?

    func validate() throws {
        guard lines >= 0 else { throw ValidationError("--lines must not be negative") }
    }

    func run() throws {
        fflush(nil)
        let name = worker.map { String($0.map { $0 == "@" ? "-" : $0 }) }
        guard let pid = directory.runningPid else {
            guard directory.path == StateFolder.ofService || ServiceUnit.state() != nil && directory.dataDir == nil
            else {
                StandardError.write("apus logs: \(directory.nothingRuns)\n")
                throw ExitCode(3)
            }
            return try journal(of: ServiceUnit.name, name)
        }
        switch LogPlace.of(pid) {
        case .journal(let unit): try journal(of: unit, name)
        case .file(let path): try show(path, name)
        case .elsewhere(let what):
            throw CommandFailure(
                "the platform on \(directory.path) (pid \(pid)) writes its log to \(what); to keep it: apus up 2> FILE")
        }
    }

    private func journal(of unit: String, _ worker: String?) throws {
        var arguments = ["journalctl", "--unit", unit, "--lines", String(lines), "--no-pager"]
        if follow { arguments.append("--follow") }
        if let worker { arguments.append("APUS_WORKER=\(worker)") }
        try Program.become("/usr/bin/env", arguments)
    }

    private func show(_ path: String, _ worker: String?) throws {
        guard let worker else {
            return try Program.become(
                "/usr/bin/env", ["tail", "-n", String(lines)] + (follow ? ["-F"] : []) + ["--", path])
        }
        // A line's third field is its worker; what belongs to a line without a time of its own stands with it.
        let script =
            follow
            ? "tail -n +1 -F -- \"$1\" | grep --line-buffered -F -- \" $2 \""
            : "grep -F -- \" $2 \" \"$1\" | tail -n \"$3\""
        try Program.become("/bin/sh", ["-c", script, "apus logs", path, worker, String(lines)])
    }

    private enum Program {
        static func become(_ path: String, _ arguments: [String]) throws {
            var pointers = ([path] + arguments).map { strdup($0) }
            pointers.append(nil)
            execv(path, pointers)
            throw CommandFailure("\(SystemError(errno: errno, call: "exec", subject: path))")
        }
    }
}

/// Where a supervisor's log goes.
enum LogPlace: Equatable {
    case journal(unit: String)
    case file(String)
    /// For people.
    case elsewhere(String)

    static func of(_ pid: Int32) -> LogPlace {
        var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
        let count = readlink("/proc/\(pid)/fd/2", &buffer, buffer.count)
        let target = String(decoding: buffer.prefix(Int(max(0, count))).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        return place(target, unit: MachinePlatforms.found(pid)?.unit)
    }

    static func place(_ target: String, unit: String?) -> LogPlace {
        if target.hasPrefix("socket:"), let unit { return .journal(unit: unit) }
        if target.hasPrefix("/dev/") {
            return .elsewhere(target == "/dev/null" ? "/dev/null" : "the terminal \(target)")
        }
        if target.hasPrefix("/") { return .file(target) }
        if target.isEmpty { return unit.map { .journal(unit: $0) } ?? .elsewhere("a place only its user can see") }
        return .elsewhere("another program (\(target))")
    }
}
