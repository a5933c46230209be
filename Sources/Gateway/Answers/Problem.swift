import FastJSON
package import RocketMQClient

/// Why a request was refused or could not be carried out: problem details (RFC 9457) with a code for programs, and
/// cause and remedy for people.
package struct Problem: Error, Sendable, CustomStringConvertible {
    /// 400 to 599.
    package var status: Int
    /// For programs: words with hyphens, such as `topic-not-found`.
    package var code: String
    /// What is wrong.
    package var cause: String
    /// What to do about it.
    package var remedy: String
    /// Fields of HTTP, such as `retry-after`.
    package var headers: [(name: String, value: String)] = []
    /// The server's own answer, if one refused.
    var refusal: ServerRefusal?
    /// Further members of the body.
    var members: [(String, JSONValue)] = []

    package init(_ status: Int, _ code: String, _ cause: String, remedy: String) {
        self.status = status
        self.code = code
        self.cause = cause
        self.remedy = remedy
    }

    /// Cause and remedy, for a log.
    package var description: String { "\(cause); \(remedy)" }

    /// The answer that says so.
    package var answer: GatewayAnswer {
        var fields: [(String, JSONValue?)] = [
            ("title", .string(Self.titles[status] ?? "Error")), ("status", .integer(status)), ("code", .string(code)),
            ("cause", .string(cause)), ("remedy", .string(remedy)),
        ]
        if let refusal {
            fields.append(
                (
                    "rocketmq",
                    .fields([
                        ("code", .integer(refusal.code)), ("name", refusal.codeName.map { .string($0) }),
                        ("remark", refusal.remark.map { .string($0) }), ("server", .string(refusal.address)),
                    ])
                ))
        }
        fields += members.map { ($0, $1) }
        var answer = GatewayAnswer.json(.fields(fields), status: status, type: "application/problem+json")
        answer.headers += headers
        return answer
    }

    /// What a route may answer besides success, for the OpenAPI document.
    static let titles: [Int: String] = [
        400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
        409: "Conflict", 413: "Content Too Large", 415: "Unsupported Media Type", 501: "Not Implemented",
        502: "Bad Gateway", 503: "Service Unavailable",
    ]

    /// A mistake in what the client sent.
    static func invalid(_ cause: String, remedy: String = "GET /openapi.json describes each request") -> Problem {
        Problem(400, "invalid-request", cause, remedy: remedy)
    }

    /// Trying again may help: name server or broker is away, or there is too much to do.
    package static func unavailable(_ code: String, _ cause: String, remedy: String) -> Problem {
        var problem = Problem(503, code, cause, remedy: remedy)
        problem.headers = [("retry-after", "1")]
        return problem
    }
}

extension Problem {
    /// The failure of a call to name servers and brokers.
    package init(_ error: RocketMQClientError) {
        let text = error.description
        switch error {
        case .invalidArgument: self = .invalid(text)
        case .closed:
            self = .unavailable("gateway-stops", "the gateway is about to end", remedy: "send the request again")
        case .noNameServer:
            self = .unavailable(
                "no-name-server", text,
                remedy: "start the name server, or correct namesrvAddr in [gateway] (apus config show)")
        case .topicNotFound(let topic, _):
            self.init(
                404, "topic-not-found", text,
                remedy: "make it: apus admin updateTopic -t \(topic) -c DefaultCluster, or correct its name")
        case .queueNotFound:
            self.init(
                409, "queue-not-found", text, remedy: "give the topic queues or permissions (apus admin updateTopic)")
        case .brokerNotFound, .connectionFailed, .connectionClosed, .timedOut:
            self = .unavailable(
                "broker-unavailable", text, remedy: "send the request again; apus status says whether the broker runs")
        case .refused(let refusal):
            self.init(refusal, text)
        case .notSupported: self.init(501, "not-supported", text, remedy: "upgrade the broker")
        case .malformedAnswer:
            self.init(
                502, "malformed-answer", text, remedy: "check that brokers and name servers are RocketMQ's or Apus's")
        case .sendAbandoned(let failure):
            self.init(failure.last)
        case .partlyDone: self.init(502, "partly-done", text, remedy: "send the request again")
        case .notFound: self.init(404, "not-found", text, remedy: "check the names in the request")
        }
    }

    private init(_ refusal: ServerRefusal, _ text: String) {
        switch refusal.codeName {
        case "topicNotExist":
            self.init(
                404, "topic-not-found", text, remedy: "make the topic (apus admin updateTopic), or correct its name")
        case "subscriptionGroupNotExist":
            self.init(404, "group-not-found", text, remedy: "make the group (apus admin updateSubGroup)")
        case "noPermission":
            self.init(403, "no-permission", text, remedy: "give the topic, group or broker the permission")
        case "subscriptionParseFailed", "invalidParameter", "messageIllegal", "noMessage":
            self.init(400, "refused-by-broker", text, remedy: "correct what the broker's remark names")
        case "systemBusy", "serviceNotAvailable", "flushDiskTimeout":
            self = .unavailable("broker-busy", text, remedy: "send the request again")
        case "requestCodeNotSupported": self.init(501, "not-supported", text, remedy: "upgrade the broker")
        default: self.init(502, "refused-by-broker", text, remedy: "see the broker's remark, and its log")
        }
        self.refusal = refusal
    }
}
