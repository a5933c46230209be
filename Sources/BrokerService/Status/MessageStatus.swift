import Claims
import FastJSON

/// What has become of a message for one group. XXL-MQ's states, and three more.
enum MessageState: String {
    /// Not handed out.
    case new = "NEW"
    /// Not there yet for any group: its delay, its timer or its transaction is not over.
    case waiting = "WAITING"
    /// In the hands of a client.
    case ing = "ING"
    case success = "SUCCESS"
    /// It was not consumed: to be delivered again, or a dead letter.
    case fail = "FAIL"
    /// It was deleted with its log file before the group had it.
    case expired = "EXPIRED"
    /// It was deleted or withdrawn before the group had it.
    case deleted = "DELETED"
    /// Broadcasting: each member knows for itself. Or the group's offset has passed it and it is deleted: which came
    /// first is not known.
    case unknown = "UNKNOWN"
}

/// A step of a message's way, times in milliseconds since 1970.
struct MessageStep {
    enum Kind: String {
        case delivered = "DELIVERED"
        case deliveredAgain = "DELIVERED_AGAIN"
        case takenBack = "TAKEN_BACK"
        case rescheduled = "RESCHEDULED"
        case failed = "FAILED"
        case timedOut = "TIMED_OUT"
        case acknowledged = "ACKNOWLEDGED"
        case withdrawn = "WITHDRAWN"
        case filtered = "FILTERED"
        case skipped = "SKIPPED"
        case reset = "RESET"
        case expired = "EXPIRED"
        /// A pulling consumer sent it back.
        case sentBack = "SENT_BACK"
        /// It can be pulled again.
        case retried = "RETRIED"
        case deadLetter = "DEAD_LETTER"
    }

    var kind: Kind
    var at: Int64
    var until: Int64?
    var client: String?

    var json: JSONValue {
        .fields([
            ("at", .integer(at)), ("event", .string(kind.rawValue)), ("client", client.map { .string($0) }),
            ("until", until.map { .integer($0) }),
        ])
    }
}

extension MessageStep {
    init(_ event: TrailEvent) {
        let kind: Kind =
            switch event.kind {
            case .delivered: .delivered
            case .deliveredAgain: .deliveredAgain
            case .takenBack: .takenBack
            case .rescheduled: .rescheduled
            case .failed: .failed
            case .timedOut: .timedOut
            case .acknowledged: .acknowledged
            case .withdrawn: .withdrawn
            case .expired: .expired
            case .filtered: .filtered
            case .skipped: .skipped
            case .reset: .reset
            }
        self.init(
            kind: kind, at: event.at, until: event.until, client: event.client.isEmpty ? nil : event.client)
    }
}

/// A group's row of the answer.
struct GroupStatus {
    enum Mode: String {
        case pop = "POP"
        case pull = "PULL"
        case broadcasting = "BROADCASTING"
    }

    var group: String
    var mode: Mode
    var state: MessageState
    /// ING: who has it; of a locked queue: whose it is.
    var client: String?
    /// Milliseconds since 1970: ING since and until when; FAIL: when it is delivered again.
    var since: Int64?
    var until: Int64?
    /// Deliveries so far, and how many the group allows.
    var attempts: Int32?
    var attemptsMax: Int32?
    /// Where its dead letter lies.
    var deadLetter: (topic: String, queueID: Int32, offset: Int64)?
    var trail: [MessageStep] = []
    /// Steps that are not in the list, in the middle: there are very many.
    var stepsLeftOut = 0

    var json: JSONValue {
        .fields([
            ("group", .string(group)), ("mode", .string(mode.rawValue)), ("status", .string(state.rawValue)),
            ("client", client.map { .string($0) }), ("since", since.map { .integer($0) }),
            ("until", until.map { .integer($0) }), ("attempts", attempts.map { .integer($0) }),
            ("attemptsMax", attemptsMax.map { .integer($0) }), ("deadLetter", deadLetterJSON),
            ("trail", .array(trail.map(\.json))), ("stepsLeftOut", .integer(stepsLeftOut)),
        ])
    }

    private var deadLetterJSON: JSONValue? {
        guard let deadLetter else { return nil }
        return .fields([
            ("topic", .string(deadLetter.topic)), ("queueId", .integer(deadLetter.queueID)),
            ("queueOffset", .integer(deadLetter.offset)),
        ])
    }
}
