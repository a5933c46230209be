/// What a request does, in the terms of RocketMQ 5's access control (`org.apache.rocketmq.common.action.Action`).
package enum RequestAction: String, Sendable {
    case publish = "PUB"
    case subscribe = "SUB"
    case publishOrSubscribe = "PUB, SUB"
    case create = "CREATE"
    case update = "UPDATE"
    case delete = "DELETE"
    case get = "GET"
    case list = "LIST"
}

/// What a request touches, and where its frame names it.
package enum RequestResource: Equatable, Sendable {
    /// A header field with a topic's name.
    case topic(StaticString)
    /// A header field with a group's name.
    case group(StaticString)
    /// Names in the body.
    case body
    /// All topics, all groups.
    case allTopics, allGroups
    /// The broker as a whole.
    case cluster

    package static func == (left: Self, right: Self) -> Bool { left.text == right.text }

    /// As the table of the README shows it.
    package var text: String {
        switch self {
        case .topic(let field): "topic `\(field)`"
        case .group(let field): "group `\(field)`"
        case .body: "body"
        case .allTopics: "topics"
        case .allGroups: "groups"
        case .cluster: "cluster"
        }
    }
}

/// Bodies of requests that are no messages, heartbeats or registrations: JSON that is read on the event loop.
package enum ControlBody {
    /// Bytes, at most: a few thousand entries.
    package static let bytesMax = 256 << 10
    /// Bytes of such a request's header, at most: names, numbers, and lists of some hundred names.
    package static let headerBytesMax = 128 << 10

    /// Why a request with such a header is refused, for the answer.
    package static func refusal(code: Int32, headerBytes: Int) -> String {
        """
        a request of code \(code) with a header of \(headerBytes) bytes is not taken, at most \(headerBytesMax): \
        shorten its fields
        """
    }

    /// Why such a request is refused, for the answer.
    package static func refusal(code: Int32, bytes: Int, bytesMax: Int) -> String {
        """
        a request of code \(code) with a body of \(bytes) bytes is not taken, at most \(bytesMax): divide it among \
        several
        """
    }
}
