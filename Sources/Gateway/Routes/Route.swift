import FastJSON
import MessageModel

/// What a request asks for.
enum Operation: String, CaseIterable, Sendable {
    case start, health, openAPI, nameServers, sendMessages, receiveMessages, acknowledge, fail, extend, streamMessages
}

/// One row of the route table: how a request is found, what it takes, and what it answers.
struct Route: Sendable {
    let operation: Operation
    let method: String
    /// `/v1/topics/{topic}/messages`.
    let path: String
    /// One line, without a full stop.
    let summary: String
    /// Of the query.
    var query: [Field] = []
    var body: Shape?
    /// The body may be left out.
    var needsBody = true
    /// nil: no JSON.
    var answer: Shape?
    var answerType = "application/json"
    /// It is refused when it comes from a page of another site.
    var changesState = false

    /// Without the leading slash; those in braces are parameters.
    let segments: [Substring]

    init(
        _ operation: Operation, _ method: String, _ path: String, _ summary: String, query: [Field] = [],
        body: Shape? = nil, needsBody: Bool = true, answer: Shape? = nil, answerType: String = "application/json",
        changesState: Bool = false
    ) {
        self.operation = operation
        self.method = method
        self.path = path
        self.summary = summary
        self.query = query
        self.body = body
        self.needsBody = needsBody
        self.answer = answer
        self.answerType = answerType
        self.changesState = changesState
        segments = path.split(separator: "/")
    }

    static func isParameter(_ segment: Substring) -> Bool { segment.first == "{" }

    /// The names in braces.
    var parameters: [String] { segments.filter(Self.isParameter).map { String($0.dropFirst().dropLast()) } }
}

/// All that is served. The OpenAPI document is made of it.
enum RouteTable {
    static let routes: [Route] = [
        Route(.start, "GET", "/", "What is here", answerType: "text/plain"),
        Route(.health, "GET", "/health", "Whether the gateway and a name server serve", answer: Shapes.health),
        Route(.openAPI, "GET", "/openapi.json", "This document", answerType: "application/json"),
        Route(
            .nameServers, "GET", "/rocketmq/nsaddr",
            "Addresses of the name servers, as RocketMQ's clients ask for them", answerType: "text/plain"),
        Route(
            .sendMessages, "POST", "/v1/topics/{topic}/messages",
            "Sends a message or several; answered when a broker has confirmed that they are stored",
            body: Shapes.send, answer: Shapes.sent, changesState: true),
        Route(
            .receiveMessages, "POST", "/v1/topics/{topic}/groups/{group}/receive",
            "Receives messages, and waits for them; each is the group's until it is acknowledged or its time is over",
            body: Shapes.receive, needsBody: false, answer: Shapes.received, changesState: true),
        Route(
            .acknowledge, "POST", "/v1/topics/{topic}/groups/{group}/ack",
            "Messages are consumed: the group does not get them again. One whose time was over comes again, too",
            body: Shapes.ack, answer: Shapes.outcomes, changesState: true),
        Route(
            .fail, "POST", "/v1/topics/{topic}/groups/{group}/nack",
            "Consuming messages failed: they come again, and become dead letters after too many times",
            body: Shapes.nack, answer: Shapes.outcomes, changesState: true),
        Route(
            .extend, "POST", "/v1/topics/{topic}/groups/{group}/extend",
            "Messages stay with their consumer for longer", body: Shapes.extend, answer: Shapes.outcomes,
            changesState: true),
        Route(
            .streamMessages, "GET", "/v1/topics/{topic}/groups/{group}/events",
            "Messages as server-sent events; the data of each is a Delivery, to be acknowledged by its handle",
            query: Shapes.receiving, answerType: "text/event-stream", changesState: true),
    ]

    /// Where a request leads.
    struct Match: Sendable {
        let route: Route
        /// By the names in the route's path, decoded.
        let parameters: [String: String]
        /// By the names of the route's query, checked.
        let query: [String: JSONValue]
    }

    /// - Parameter target: path and query as they were sent.
    /// - Throws: 404 with what there is, 405 with the methods there are, 400 for names and queries that cannot be.
    static func find(_ method: String, _ target: String) throws(Problem) -> Match {
        let parts = target.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        let path = parts.first ?? ""
        let segments = path.dropFirst().split(separator: "/", omittingEmptySubsequences: false)
        let wanted = segments == [""] ? [] : segments
        let fitting = routes.filter { fits($0, wanted) }
        guard path.first == "/", !fitting.isEmpty else { throw unknown(path) }
        guard let route = fitting.first(where: { $0.method == method }) else {
            let allowed = fitting.map(\.method).joined(separator: ", ")
            var problem = Problem(
                405, "method-not-allowed", "\(Shape.shown(String(path))) is not served for \(Shape.shown(method))",
                remedy: "use \(allowed)")
            problem.headers = [("allow", allowed)]
            throw problem
        }
        var parameters: [String: String] = [:]
        for (segment, text) in zip(route.segments, wanted) where Route.isParameter(segment) {
            let name = String(segment.dropFirst().dropLast())
            parameters[name] = try checked(name, PercentEncoding.decode(text))
        }
        return Match(
            route: route, parameters: parameters, query: try query(route, parts.count > 1 ? parts[1] : ""))
    }

    private static func fits(_ route: Route, _ wanted: [Substring]) -> Bool {
        route.segments.count == wanted.count
            && zip(route.segments, wanted).allSatisfy { Route.isParameter($0) ? !$1.isEmpty : $0 == $1 }
    }

    private static func unknown(_ path: Substring) -> Problem {
        var problem = Problem(
            404, "unknown-route", "\(Shape.shown(String(path))) is not served here",
            remedy: "GET /openapi.json describes what is")
        problem.members = [("routes", .strings(routes.map { "\($0.method) \($0.path)" }))]
        return problem
    }

    private static func checked(_ name: String, _ text: String?) throws(Problem) -> String {
        guard let text else { throw .invalid("the \(name) in the path is not percent-encoded UTF-8") }
        do throws(NameError) {
            return name == "topic" ? try TopicName(existing: text).text : try GroupName(existing: text).text
        } catch {
            throw .invalid("the \(name) in the path is no name: \(error)")
        }
    }

    private static func query(_ route: Route, _ text: Substring) throws(Problem) -> [String: JSONValue] {
        var values: [String: JSONValue] = [:]
        for pair in text.split(separator: "&") {
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            let name = parts.first.flatMap { PercentEncoding.decode($0, plusIsBlank: true) } ?? ""
            guard let field = route.query.first(where: { $0.name == name }) else {
                let known = route.query.map(\.name).joined(separator: ", ")
                throw .invalid(
                    "there is no parameter \(Shape.shown(name))",
                    remedy: known.isEmpty ? "leave it out" : "there are \(known)")
            }
            guard let value = PercentEncoding.decode(parts.count > 1 ? parts[1] : "", plusIsBlank: true) else {
                throw .invalid("\(name) is not percent-encoded UTF-8")
            }
            values[name] = try field.value(value)
        }
        return values
    }
}

/// Percent-encoding of paths and queries (RFC 3986).
enum PercentEncoding {
    /// nil: digits are missing, or the bytes are no UTF-8.
    static func decode(_ text: Substring, plusIsBlank: Bool = false) -> String? {
        var bytes: [UInt8] = []
        var rest = text.utf8[...]
        while let byte = rest.popFirst() {
            switch byte {
            case UInt8(ascii: "%"):
                guard let high = rest.popFirst().flatMap(digit), let low = rest.popFirst().flatMap(digit) else {
                    return nil
                }
                bytes.append(high << 4 | low)
            case UInt8(ascii: "+") where plusIsBlank: bytes.append(UInt8(ascii: " "))
            default: bytes.append(byte)
            }
        }
        return String(validating: bytes, as: UTF8.self)
    }

    private static func digit(_ byte: UInt8) -> UInt8? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
        default: nil
        }
    }
}
