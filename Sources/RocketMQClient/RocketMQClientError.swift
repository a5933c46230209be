import RemotingProtocol
import RemotingTransport

/// A server's answer with an error code.
public struct ServerRefusal: Sendable, Hashable, CustomStringConvertible {
    /// `host:port` of the server.
    public let address: String
    /// RocketMQ's response code, such as 17 for a topic that does not exist.
    public let code: Int
    /// The code's name in this library; nil for codes it does not know.
    public let codeName: String?
    /// The server's own explanation.
    public let remark: String?

    init(address: String, reply: RemotingCommand) {
        self.address = address
        code = Int(reply.code)
        codeName = reply.responseCode.map { "\($0)" }
        remark = reply.remark
    }

    var responseCode: ResponseCode? { Int32(exactly: code).flatMap(ResponseCode.init) }

    /// The code and the first line of the remark: Apache's remarks continue with hints for Java.
    public var reason: String {
        let name = codeName.map { "\(code) \($0)" } ?? "\(code)"
        let remark = remark?.split(separator: "\n").first.map { ": \($0)" } ?? ""
        return "code \(name)\(remark)"
    }

    /// The server and the reason, in one line.
    public var description: String { "\(address) answered \(reason)" }
}

/// A message that no attempt stored, as far as the answers show.
public struct SendFailure: Sendable {
    /// How many attempts were made.
    public let attempts: Int
    /// Whether every answer stated that the broker takes no messages at present (14), as a broker with a full disk
    /// does.
    public let allUnavailable: Bool
    /// The failure of the last attempt.
    public var last: RocketMQClientError { box[0] }

    /// An array: the error contains this value.
    private let box: [RocketMQClientError]

    init(attempts: Int, allUnavailable: Bool, last: RocketMQClientError) {
        self.attempts = attempts
        self.allUnavailable = allUnavailable
        box = [last]
    }
}

/// Why a call of this library failed. Every public call that throws, throws this type.
public enum RocketMQClientError: Error, Sendable, CustomStringConvertible {
    /// The caller's argument cannot be used; the text names it and its bounds.
    case invalidArgument(String)
    /// The client was closed before or during the call.
    case closed
    /// No name server answered.
    case noNameServer(addresses: [String], cause: String)
    /// No name server knows the topic.
    case topicNotFound(topic: String, nameServers: [String])
    /// The topic has no queue of the wanted kind; the text states which.
    case queueNotFound(topic: String, reason: String)
    /// The broker is registered nowhere, or has no master at present.
    case brokerNotFound(String)
    /// No connection could be made.
    case connectionFailed(address: String, cause: String)
    /// The connection ended before the answer came. The server may have carried out the request.
    case connectionClosed(address: String, cause: String)
    /// No answer came in time. The server may have carried out the request.
    case timedOut(address: String, requestCode: Int, milliseconds: Int)
    /// The server answered no.
    case refused(ServerRefusal)
    /// The server is of a version that cannot do it; the text says what to do.
    case notSupported(String)
    /// The server's answer does not follow the protocol.
    case malformedAnswer(address: String, reason: String)
    /// All attempts to send failed within the time allowed.
    case sendAbandoned(SendFailure)
    /// The change was made at the servers of `done` and failed at those of `failed` (address, reason).
    case partlyDone(done: [String], failed: [(address: String, reason: String)])
    /// Nothing was found; the text states what was looked for.
    case notFound(String)

    /// What failed and why, for people; several lines for `partlyDone`.
    public var description: String {
        switch self {
        case .invalidArgument(let text), .notFound(let text), .notSupported(let text): text
        case .closed: "the client is closed"
        case .noNameServer(let addresses, let cause):
            "no name server answers at \(addresses.joined(separator: ", ")): \(cause)"
        case .topicNotFound(let topic, let nameServers):
            "topic '\(topic)' does not exist at name server \(nameServers.joined(separator: ", "))"
        case .queueNotFound(let topic, let reason): "topic '\(topic)' \(reason)"
        case .brokerNotFound(let text): text
        case .connectionFailed(let address, let cause):
            "cannot connect to \(address): \(cause); check that it runs and is reachable from here"
        case .connectionClosed(let address, let cause): "the connection to \(address) ended: \(cause)"
        case .timedOut(let address, let request, let milliseconds):
            "\(address) did not answer request \(request) within \(milliseconds) ms"
        case .refused(let refusal): refusal.description
        case .malformedAnswer(let address, let reason): "\(address) sent an answer that cannot be read: \(reason)"
        case .sendAbandoned(let failure): failure.last.description
        case .partlyDone(let done, let failed):
            ([done.isEmpty ? "done nowhere" : "done at \(done.joined(separator: ", ")), not everywhere"]
                + failed.map { "  not at \($0.address): \($0.reason)" }).joined(separator: "\n")
        }
    }

    /// The response code of a refusal; nil for every other failure.
    public var responseCode: Int? {
        guard case .refused(let refusal) = self else { return nil }
        return refusal.code
    }

    var refusal: ResponseCode? {
        guard case .refused(let refusal) = self else { return nil }
        return refusal.responseCode
    }

    init(_ error: any Error, address: String) {
        switch error {
        case let error as RocketMQClientError: self = error
        case let error as RemotingDecodeError: self = .malformedAnswer(address: address, reason: error.description)
        case RemotingError.connectFailed(let address, let cause):
            self = .connectionFailed(address: address, cause: cause)
        case RemotingError.connectionClosed(let peer, let reason):
            self = .connectionClosed(address: peer, cause: reason)
        case RemotingError.timedOut(let peer, let request, let milliseconds):
            self = .timedOut(address: peer, requestCode: Int(request), milliseconds: Int(milliseconds))
        case RemotingError.badFrame(let peer, let error):
            self = .malformedAnswer(address: peer, reason: error.description)
        default: self = .connectionFailed(address: address, cause: "\(error)")
        }
    }
}
