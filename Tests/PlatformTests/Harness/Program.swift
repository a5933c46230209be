import Foundation
import Synchronization
import TestTools

/// What a test expected to happen and did not, with the evidence.
struct ScenarioFailure: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) {
        self.description = description
    }
}

/// Programs that were started and not reaped. A scenario that failed midway may leave references behind, so that no
/// `deinit` runs: whatever is left when the test process exits is ended then. Workers of a platform end by themselves
/// with it.
enum LivePrograms {
    private static let pids = Mutex<Set<pid_t>>([])
    private static let atExit: Void = {
        atexit { LivePrograms.endAll() }
    }()

    static func add(_ pid: pid_t) {
        atExit
        pids.withLock { _ = $0.insert(pid) }
    }

    static func remove(_ pid: pid_t) {
        pids.withLock { _ = $0.remove(pid) }
    }

    private static func endAll() {
        for pid in pids.withLock({ $0 }) { kill(pid, SIGKILL) }
    }
}

/// A real process with its pipes: lines of standard output as they come, standard error kept, standard input to write
/// to.
///
/// Ends the process when the last reference goes.
final class Program: Sendable {
    enum Input {
        /// Standard input is empty.
        case nothing
        case file(String)
        case pipe
    }

    struct Output {
        var lines: [String] = []
        var errorText = ""
        var outputHasEnded = false
        var errorHasEnded = false
        var status: Int32?
    }

    let name: String
    let pid: pid_t
    private let state = Mutex(Output())
    private let inputDescriptor = Mutex<Int32>(-1)

    /// - Parameter environment: added to this process's own.
    init(
        _ executable: String, _ arguments: [String], environment: [String: String] = [:], input: Input = .nothing
    ) throws {
        name = "\((executable as NSString).lastPathComponent) \(arguments.first ?? "")"
        var (outputRead, outputWrite) = try Self.pipe()
        var (errorRead, errorWrite) = try Self.pipe()
        var (inputRead, inputWrite): (Int32, Int32) = (-1, -1)
        switch input {
        case .nothing: inputRead = open("/dev/null", O_RDONLY | O_CLOEXEC)
        case .file(let path): inputRead = open(path, O_RDONLY | O_CLOEXEC)
        case .pipe: (inputRead, inputWrite) = try Self.pipe()
        }
        guard inputRead >= 0 else { throw ScenarioFailure("no standard input for \(executable)") }

        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, inputRead, 0)
        posix_spawn_file_actions_adddup2(&actions, outputWrite, 1)
        posix_spawn_file_actions_adddup2(&actions, errorWrite, 2)
        // The test process ignores and blocks signals of its own: a child starts with the defaults.
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var none = sigset_t()
        sigemptyset(&none)
        posix_spawnattr_setsigmask(&attributes, &none)
        var all = sigset_t()
        sigfillset(&all)
        posix_spawnattr_setsigdefault(&attributes, &all)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))

        var variables = ProcessInfo.processInfo.environment
        variables.merge(environment) { $1 }
        let argumentPointers = ([executable] + arguments).map { strdup($0) } + [nil]
        let variablePointers = variables.map { strdup("\($0)=\($1)") } + [nil]
        defer {
            for pointer in argumentPointers + variablePointers { free(pointer) }
        }
        var child = pid_t()
        let outcome = posix_spawn(&child, executable, &actions, &attributes, argumentPointers, variablePointers)
        for descriptor in [inputRead, outputWrite, errorWrite] { close(descriptor) }
        guard outcome == 0 else {
            for descriptor in [inputWrite, outputRead, errorRead] where descriptor >= 0 { close(descriptor) }
            throw ScenarioFailure("cannot start \(executable): \(String(cString: strerror(outcome)))")
        }
        pid = child
        LivePrograms.add(child)
        inputDescriptor.withLock { $0 = inputWrite }
        Self.readLines(of: outputRead, state: self) { output, line in
            output.lines.append(line)
        } end: {
            $0.outputHasEnded = true
        }
        Self.readLines(of: errorRead, state: self) { output, line in
            output.errorText += line + "\n"
        } end: {
            $0.errorHasEnded = true
        }
        outputRead = -1
        errorRead = -1
        outputWrite = -1
        errorWrite = -1
    }

    deinit {
        closeInput()
        if status == nil {
            kill(pid, SIGKILL)
            var raw: Int32 = 0
            waitpid(pid, &raw, 0)
            LivePrograms.remove(pid)
        }
    }

    var lines: [String] { state.withLock { $0.lines } }
    var errorText: String { state.withLock { $0.errorText } }

    /// The exit status, or minus the signal that ended it; nil while it runs.
    var status: Int32? {
        state.withLock { output in
            if output.status == nil {
                var raw: Int32 = 0
                if waitpid(pid, &raw, WNOHANG) == pid {
                    LivePrograms.remove(pid)
                    output.status = raw & 0x7F == 0 ? (raw >> 8) & 0xFF : -(raw & 0x7F)
                }
            }
            return output.status
        }
    }

    func write(_ text: String) {
        let bytes = Array(text.utf8)
        inputDescriptor.withLock { descriptor in
            guard descriptor >= 0 else { return }
            var done = 0
            while done < bytes.count {
                let written = bytes[done...].withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
                guard written > 0 else { return }
                done += written
            }
        }
    }

    func closeInput() {
        inputDescriptor.withLock { descriptor in
            if descriptor >= 0 { close(descriptor) }
            descriptor = -1
        }
    }

    func send(signal: Int32) {
        if status == nil { kill(pid, signal) }
    }

    /// Waits for the end, output included. Kills it and throws when it takes longer.
    @discardableResult
    func finish(within limit: Duration = .seconds(30)) async throws -> Int32 {
        do {
            try await eventually("\(name) ends", within: limit) {
                self.status != nil && self.state.withLock { $0.outputHasEnded && $0.errorHasEnded }
            }
        } catch {
            kill(pid, SIGKILL)
            throw ScenarioFailure("\(error); standard error: \(errorText.suffix(2000))")
        }
        return status ?? -1
    }

    /// Waits for a line of standard output.
    func line(within limit: Duration = .seconds(10), where matches: (String) -> Bool) async throws -> String {
        do {
            try await eventually("\(name) prints the expected line", within: limit) {
                // The process may have ended with the line still on its way through the pipe.
                self.lines.contains(where: matches)
                    || (self.status != nil && self.state.withLock { $0.outputHasEnded })
            }
        } catch {
            throw ScenarioFailure("\(error); printed \(lines.suffix(5)); standard error: \(errorText.suffix(2000))")
        }
        if let line = lines.first(where: matches) { return line }
        throw ScenarioFailure(
            "\(name) ended with \(status ?? -1) before the expected line; standard error: \(errorText.suffix(2000))")
    }

    /// Runs a program to its end.
    static func run(
        _ executable: String, _ arguments: [String], environment: [String: String] = [:], input: Input = .nothing,
        within limit: Duration = .seconds(60)
    ) async throws -> (status: Int32, lines: [String], errorText: String) {
        let program = try Program(executable, arguments, environment: environment, input: input)
        let status = try await program.finish(within: limit)
        return (status, program.lines, program.errorText)
    }

    private static func pipe() throws -> (Int32, Int32) {
        // A socket pair, because it can be made close-on-exec in one step: another thread may be starting a process.
        var ends: [Int32] = [-1, -1]
        let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        guard socketpair(AF_UNIX, kind, 0, &ends) == 0 else {
            throw ScenarioFailure("no pipe: \(String(cString: strerror(errno)))")
        }
        return (ends[0], ends[1])
    }

    private static func readLines(
        of descriptor: Int32, state owner: Program, _ take: @escaping @Sendable (inout Output, String) -> Void,
        end: @escaping @Sendable (inout Output) -> Void
    ) {
        let thread = Thread { [weak owner] in
            var rest: [UInt8] = []
            var chunk = [UInt8](repeating: 0, count: 64 << 10)
            while true {
                let got = read(descriptor, &chunk, chunk.count)
                if got < 0, errno == EINTR { continue }
                guard got > 0 else { break }
                rest += chunk[..<got]
                var lines: [String] = []
                while let newline = rest.firstIndex(of: 0x0A) {
                    lines.append(String(decoding: rest[..<newline], as: UTF8.self))
                    rest.removeFirst(newline + 1)
                }
                owner?.state.withLock { output in
                    for line in lines { take(&output, line) }
                }
            }
            close(descriptor)
            owner?.state.withLock { output in
                if !rest.isEmpty { take(&output, String(decoding: rest, as: UTF8.self)) }
                end(&output)
            }
        }
        thread.start()
    }
}
