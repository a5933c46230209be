import RemotingProtocol
import RemotingTransport

/// After a start the tables are empty until the brokers have registered again. A client that asks for a topic would be
/// answered that it does not exist. With half of the brokers back it would rebalance its queues over those. Such
/// questions wait until the brokers that were registered before the restart are back, or `milliseconds` are over. So an
/// answer comes late instead of being wrong.
///
/// A name server with which no broker was registered holds nothing.
struct StartHold {
    static let milliseconds: Int64 = 2_000
    /// More questions than that are answered at once.
    static let questionsMax = 10_000

    struct RouteQuestion {
        var topic: String
        var isStandard: Bool
    }

    enum Asked {
        case route(RouteQuestion)
        case clusterInfo
    }

    struct Question {
        let connection: RemotingConnection
        let address: ReturnAddress
        let asked: Asked

        init(_ connection: RemotingConnection, _ address: ReturnAddress, _ asked: Asked) {
            self.connection = connection
            self.address = address
            self.asked = asked
        }
    }

    /// Brokers (`RouteTables.identity`) that have not come back yet.
    private(set) var awaited: Set<String>
    private var questions: [Question] = []

    init(awaiting brokers: Set<String>) {
        awaited = brokers
    }

    var isActive: Bool { !awaited.isEmpty }

    /// False: answer it now.
    mutating func hold(_ question: Question) -> Bool {
        guard isActive, questions.count < Self.questionsMax else { return false }
        questions.append(question)
        return true
    }

    /// A broker has come back. Answers the questions when it was the last one.
    mutating func registered(_ broker: String) -> [Question] {
        guard isActive else { return [] }
        awaited.remove(broker)
        return isActive ? [] : end()
    }

    /// No broker is waited for any more. Answers all questions.
    mutating func end() -> [Question] {
        defer {
            awaited = []
            questions = []
        }
        return questions
    }
}
