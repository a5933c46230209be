import FastJSON
import Foundation

/// A connection of HTTP/1.1 to a gateway, request by request, with nothing between a test and the bytes.
final class HTTPClient: Sendable {
    struct Answer: Sendable, CustomStringConvertible {
        var status = 0
        /// By names in lower case.
        var headers: [String: String] = [:]
        var body: [UInt8] = []

        var text: String { String(decoding: body, as: UTF8.self) }
        var json: JSONValue { (try? JSONValue(parsing: body)) ?? .null }
        /// Those of a received batch.
        var messages: [JSONValue] { json["messages"]?.array ?? [] }
        var handles: [String] { messages.compactMap { $0["handle"]?.string } }
        var bodies: [String] { messages.compactMap { $0["body"]?.string } }
        var description: String { "\(status) \(headers) \(text.prefix(500))" }
    }

    let authority: String
    private let socket: RawSocket

    /// - Parameter console: as the ready line has it: `http://127.0.0.1:8080`.
    init(_ console: String?) throws {
        guard let console, console.hasPrefix("http://") else {
            throw ScenarioFailure("no gateway: \(console ?? "nil")")
        }
        authority = String(console.dropFirst(7))
        socket = try RawSocket(authority)
    }

    /// One request and its answer.
    func ask(
        _ method: String, _ target: String, _ body: String? = nil, headers: [String: String] = [:],
        within limit: Duration = .seconds(20)
    ) async throws -> Answer {
        send(method, target, body, headers: headers)
        return try await answer(within: limit)
    }

    /// A request whose answer is read later, or never.
    func send(_ method: String, _ target: String, _ body: String? = nil, headers: [String: String] = [:]) {
        var fields = ["Host": authority]
        if let body {
            fields["Content-Type"] = "application/json"
            fields["Content-Length"] = String(body.utf8.count)
        }
        fields.merge(headers) { $1 }
        let head = fields.map { "\($0.key): \($0.value)\r\n" }.joined()
        write(Array("\(method) \(target) HTTP/1.1\r\n\(head)\r\n\(body ?? "")".utf8))
    }

    func write(_ bytes: [UInt8]) {
        var rest = bytes[...]
        while !rest.isEmpty {
            var polled = pollfd(fd: socket.descriptor, events: Int16(POLLOUT), revents: 0)
            guard poll(&polled, 1, 10_000) > 0 else { return }
            let count = socket.writeSome(rest)
            guard count > 0 else { return }
            rest = rest.dropFirst(count)
        }
    }

    func answer(within limit: Duration = .seconds(20)) async throws -> Answer {
        let deadline = ContinuousClock.now + limit
        var answer = Answer()
        let head = try await line(until: deadline).split(separator: " ")
        guard head.count > 1, let status = Int(head[1]) else { throw ScenarioFailure("no status line: \(head)") }
        answer.status = status
        while true {
            let field = try await line(until: deadline)
            if field.isEmpty { break }
            guard let colon = field.firstIndex(of: ":") else { throw ScenarioFailure("no field: \(field)") }
            answer.headers[field[..<colon].lowercased()] = field[field.index(after: colon)...]
                .trimmingCharacters(in: .whitespaces)
        }
        if status == 100 { return try await self.answer(within: limit) }
        if let length = answer.headers["content-length"].flatMap({ Int($0) }) {
            answer.body = try await bytes(length, until: deadline)
        }
        return answer
    }

    /// The next event of a stream: its name and data. Comments are read over.
    func event(within limit: Duration = .seconds(20)) async throws -> (name: String, data: JSONValue) {
        let deadline = ContinuousClock.now + limit
        var name = ""
        while true {
            let line = try await line(until: deadline)
            if line.hasPrefix("event: ") { name = String(line.dropFirst(7)) }
            if line.hasPrefix("data: ") { return (name, try JSONValue(parsing: String(line.dropFirst(6)))) }
        }
    }

    /// Whether the gateway has ended the connection.
    var isClosed: Bool { socket.isClosedByPeer }

    private func line(until deadline: ContinuousClock.Instant) async throws -> String {
        var line: [UInt8] = []
        while line.last != UInt8(ascii: "\n") { line += try await bytes(1, until: deadline) }
        return String(decoding: line.dropLast(line.suffix(2) == [13, 10] ? 2 : 1), as: UTF8.self)
    }

    private func bytes(_ count: Int, until deadline: ContinuousClock.Instant) async throws -> [UInt8] {
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: min(count, 64 << 10))
        while bytes.count < count {
            let got = recv(socket.descriptor, &chunk, min(chunk.count, count - bytes.count), Int32(MSG_DONTWAIT))
            if got > 0 {
                bytes += chunk[..<got]
            } else if got < 0, errno == EAGAIN {
                guard ContinuousClock.now < deadline else { throw ScenarioFailure("no answer in time: \(bytes.count)") }
                var polled = pollfd(fd: socket.descriptor, events: Int16(POLLIN), revents: 0)
                if poll(&polled, 1, 0) == 0 { try await Task.sleep(for: .milliseconds(2)) }
            } else if got == 0 {
                throw ScenarioFailure("the gateway closed the connection after \(bytes.count) bytes")
            } else {
                throw ScenarioFailure("reading: \(String(cString: strerror(errno)))")
            }
        }
        return bytes
    }
}
