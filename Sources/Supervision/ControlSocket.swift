import Glibc
import LinuxSystem

/// DIR/run/apus.sock: one command a line (`status`, `stop`, `reload`, `restart WORKER`, `plugins`, `pardon PLUGIN`, or
/// as JSON {"command":"status"}), one line of JSON as the answer. Only the platform's own user and root may connect. A
/// client that asked to stop keeps its connection and sees its end when the platform has stopped.
final class ControlSocket {
    enum Command: String {
        case status
        case stop
        case reload
        case restart
        case plugins
        case pardon

        var takesSubject: Bool { self == .restart || self == .pardon }
    }

    private static let connectionsMax = 16
    private static let lineBytesMax = 4096
    /// A connection that asks nothing for so long may be closed for another one.
    private static let idleMillisecondsMax: Int64 = 60_000
    /// Without a free descriptor a connection stays where it waits: looking again at once would take a whole processor.
    private static let pauseMilliseconds: Int64 = 500

    private let listener: SharedDescriptor
    private struct Connection {
        let socket: SharedDescriptor
        var received: [UInt8] = []
        var lastRead = MonotonicClock.milliseconds
        /// It waits for the end of the platform.
        var hasAskedToStop = false
    }
    private var connections: [Int32: Connection] = [:]
    private var pausedUntil: Int64 = 0
    private let answer: (Command, String?) -> String

    init(in directory: Int32, answer: @escaping (Command, String?) -> String) throws(SystemError) {
        listener = SharedDescriptor(try ListenSocket.unix(name: RunDirectory.socketName, inDirectory: directory))
        self.answer = answer
    }

    /// What to poll for reading.
    var descriptors: [Int32] {
        (MonotonicClock.milliseconds < pausedUntil ? [] : [listener.raw]) + connections.keys
    }

    /// True when `fd` was one of ours.
    func readable(_ fd: Int32) -> Bool {
        if fd == listener.raw {
            acceptAll()
            return true
        }
        guard connections[fd] != nil else { return false }
        read(fd)
        return true
    }

    private func acceptAll() {
        do throws(SystemError) {
            // A refused connection harms no other; the client sees it closed.
            while let socket = try ListenSocket.accept(listener.raw) {
                guard ListenSocket.isOwnUser(socket.raw) else { continue }
                if connections.count >= ControlSocket.connectionsMax { closeIdle() }
                guard connections.count < ControlSocket.connectionsMax else { continue }
                let shared = SharedDescriptor(socket)
                connections[shared.raw] = Connection(socket: shared)
            }
        } catch {
            pausedUntil = MonotonicClock.milliseconds + ControlSocket.pauseMilliseconds
        }
    }

    private func closeIdle() {
        let limit = MonotonicClock.milliseconds - ControlSocket.idleMillisecondsMax
        for (fd, connection) in connections where connection.lastRead < limit && !connection.hasAskedToStop {
            connections[fd] = nil
        }
    }

    private func read(_ fd: Int32) {
        var buffer = [UInt8](repeating: 0, count: 1024)
        let count = Glibc.read(fd, &buffer, buffer.count)
        guard count > 0 else {
            if count == 0 || (errno != EAGAIN && errno != EINTR) { connections[fd] = nil }
            return
        }
        connections[fd]?.received += buffer[..<count]
        connections[fd]?.lastRead = MonotonicClock.milliseconds
        while let received = connections[fd]?.received, let end = received.firstIndex(of: UInt8(ascii: "\n")) {
            connections[fd]?.received.removeSubrange(...end)
            let line = String(decoding: received[..<end], as: UTF8.self)
            if line.contains("stop") { connections[fd]?.hasAskedToStop = true }
            write(reply(to: line), to: fd)
        }
        if connections[fd]?.received.count ?? 0 > ControlSocket.lineBytesMax { connections[fd] = nil }
    }

    private func reply(to line: String) -> String {
        // {"command":"stop"} and stop: only the names in a line count.
        let names = line.split { !($0.isLetter || $0.isNumber || "@-_.".contains($0)) }.filter { $0 != "command" }
        guard let command = names.first.flatMap({ Command(rawValue: String($0)) }),
            names.count == (command.takesSubject ? 2 : 1)
        else {
            return JSONText.object([
                (
                    "error",
                    JSONText.string(
                        "unknown command; known: status, stop, reload, restart WORKER, plugins, pardon PLUGIN")
                )
            ])
        }
        return answer(command, names.count == 2 ? String(names[1]) : nil)
    }

    /// An answer fits the socket's buffer many times over; a client that does not read loses its connection.
    private func write(_ text: String, to fd: Int32) {
        let bytes = Array((text + "\n").utf8)
        if Glibc.send(fd, bytes, bytes.count, Int32(MSG_NOSIGNAL)) != bytes.count { connections[fd] = nil }
    }
}
