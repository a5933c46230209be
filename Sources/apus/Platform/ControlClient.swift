import ArgumentParser
import FastJSON
import Glibc
import LinuxSystem
import Supervision

/// Talks to the supervisor of a data directory over DIR/run/apus.sock.
struct ControlClient {
    struct DataDirectory: ParsableArguments {
        @Option(help: ArgumentHelp("The platform's data directory.", valueName: "DIR"), completion: .directory)
        var dataDir: String?

        init() {}

        /// Outside of a command line, which sets the option otherwise. nil: as without the option.
        init(_ path: String?) { dataDir = path }

        /// As apusd chooses it; the service's when one's own platform does not run and that one does.
        var path: String {
            // Below systemd (ExecReload=) the unit's own comes before the user's.
            if let given = dataDir ?? StateFolder.ofUnit { return given }
            guard let own = StateFolder.ofUser else { return StateFolder.ofService }
            return RunDirectory.runningPid(path: "\(own)/run") == nil
                && RunDirectory.runningPid(path: "\(StateFolder.ofService)/run") != nil ? StateFolder.ofService : own
        }

        /// nil: no platform runs there.
        var runningPid: Int32? { RunDirectory.runningPid(path: "\(path)/run") }

        /// That nothing runs, and where something might that this user cannot see.
        var nothingRuns: String {
            (["nothing runs on \(path)"] + MachinePlatforms.remarks(besides: path, isDefault: dataDir == nil))
                .joined(separator: "\n  ")
        }
    }

    private let socket: SharedDescriptor

    init(_ directory: DataDirectory) throws(SystemError) {
        let run = try RunDirectory.open("\(directory.path)/run")
        socket = SharedDescriptor(
            try ListenSocket.connectUnix(name: RunDirectory.socketName, inDirectory: run.raw))
    }

    /// How long a supervisor may take to answer: it does nothing that takes long.
    static let answerMillisecondsMax: Int32 = 10_000
    /// A longer line is no answer of a supervisor's.
    private static let answerBytesMax = 16 << 20

    /// Sends one command and reads the one line that answers it.
    func ask(_ command: String) throws -> String {
        let line = "{\"command\":\"\(command)\"}\n"
        try call("write", "control socket") { write(socket.raw, line, line.utf8.count) }
        var answer: [UInt8] = []
        while answer.last != UInt8(ascii: "\n") {
            var polled = pollfd(fd: socket.raw, events: Int16(POLLIN), revents: 0)
            guard try call("poll", "control socket", { poll(&polled, 1, ControlClient.answerMillisecondsMax) }) == 1
            else {
                throw SystemError(errno: ETIMEDOUT, call: "read", subject: "control socket")
            }
            let piece = try receive()
            guard answer.count + piece.count <= Self.answerBytesMax else {
                throw SystemError(errno: EMSGSIZE, call: "read", subject: "control socket")
            }
            guard !piece.isEmpty else {
                throw SystemError(errno: ECONNRESET, call: "read", subject: "control socket")
            }
            answer += piece
        }
        return String(decoding: answer.dropLast(), as: UTF8.self)
    }

    /// The same, read.
    func answer(to command: String) throws -> JSONValue { try JSONValue(parsing: ask(command)) }

    /// Blocks until the supervisor closes the connection: it has stopped.
    func waitForEnd() {
        while let piece = try? receive(), !piece.isEmpty {}
    }

    private func receive() throws(SystemError) -> ArraySlice<UInt8> {
        var buffer = [UInt8](repeating: 0, count: 65536)
        let count = try call("read", "control socket") { read(socket.raw, &buffer, 65536) }
        return buffer[..<count]
    }
}
