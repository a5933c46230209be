import RemotingProtocol

/// One request code that the broker answers.
///
/// A class, so that finding it copies nothing.
final class RequestRow: Sendable {
    /// Carries a request out on the event loop. The frame is valid inside this call only.
    /// - Throws: the request cannot be understood; it is answered with code 1 and the reason.
    typealias Processor = (borrowing Request) throws(RemotingDecodeError) -> Void

    let code: RequestCode
    /// RocketMQ's constant; in lower case the label of metrics.
    let name: String
    let action: RequestAction
    let resources: [RequestResource]
    /// While the broker is in one of these states the request is refused before its processor sees it.
    let refusedIn: BrokerStates
    let refusal: Admission.Refusal
    /// Bytes of the body, at most. Messages and heartbeats are bounded by their frame, everything else is JSON that is
    /// read on the event loop.
    let bodyBytesMax: Int
    /// Bytes of the header, at most. Those of messages contain properties, those of pulls an expression.
    let headerBytesMax: Int
    /// One line for the README.
    let text: String
    let processor: @Sendable (Processors) -> Processor

    init(
        _ code: RequestCode, _ name: String, _ action: RequestAction, _ resources: [RequestResource],
        refused refusal: Admission.Refusal = .never, hasMessageBody: Bool = false,
        hasExpression: Bool = false, _ text: String,
        _ processor: @escaping @Sendable (Processors) -> Processor
    ) {
        self.code = code
        self.name = name
        self.action = action
        self.resources = resources
        refusedIn = refusal.states
        self.refusal = refusal
        bodyBytesMax = hasMessageBody ? .max : ControlBody.bytesMax
        headerBytesMax = hasMessageBody || hasExpression ? .max : ControlBody.headerBytesMax
        self.text = text
        self.processor = processor
    }
}

/// Every request code the broker answers: what it touches, when it is refused, what carries it out. A code that is not
/// here is answered with REQUEST_CODE_NOT_SUPPORTED, and the connection is kept.
///
/// `Broker.dispatch` calls the processors of messages and offsets directly, by the same rows: a method taken from a row
/// is an allocation for each request.
enum RequestTable {
    static let rows: [RequestRow] =
        sendRows + pullRows + popRows + clientRows + offsetRows + queryRows + topicRows + groupRows + brokerRows
        + statsRows

    static let byCode = Index(rows)

    /// Finds a row by its code in a few nanoseconds.
    struct Index: Sendable {
        /// Rows of codes below 1024 by code.
        private let low: [RequestRow?]
        private let high: [Int32: RequestRow]

        fileprivate init(_ rows: [RequestRow]) {
            var low = [RequestRow?](repeating: nil, count: 1024)
            var high: [Int32: RequestRow] = [:]
            for row in rows {
                let code = row.code.rawValue
                let isKnown = low.indices.contains(Int(code)) ? low[Int(code)] != nil : high[code] != nil
                precondition(!isKnown, "request code \(code) has two rows")
                // RocketMQ's binary header has 16 bits for a code.
                if code > Int32(Int16.max) { high[Int32(Int16(truncatingIfNeeded: code))] = row }
                if low.indices.contains(Int(code)) { low[Int(code)] = row } else { high[code] = row }
            }
            (self.low, self.high) = (low, high)
        }

        @inline(__always)
        subscript(code: Int32) -> RequestRow? {
            if let index = Int(exactly: code), low.indices.contains(index) { return low[index] }
            return high[code]
        }
    }

    /// The table of the README, in the order of codes.
    static var markdown: String {
        var lines = [
            "| code | name | action | touches | refused while the broker is | what it does |",
            "|---:|---|---|---|---|---|",
        ]
        for row in rows.sorted(by: { $0.code.rawValue < $1.code.rawValue }) {
            let touches = row.resources.map(\.text).joined(separator: ", ")
            lines.append(
                "| \(row.code.rawValue) | `\(row.name)` | \(row.action.rawValue) | \(touches) | "
                    + "\(row.refusedIn.text) | \(row.text) |")
        }
        return lines.joined(separator: "\n")
    }
}
