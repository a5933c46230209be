import MessageModel
import RemotingProtocol

/// States of a broker in which it refuses some requests, in the order in which they are looked at.
struct BrokerStates: OptionSet, Sendable {
    let rawValue: UInt8

    /// It cannot go on, and leaves although it was not asked to stop.
    static let withdrawn = BrokerStates(rawValue: 1)
    /// It is being stopped.
    static let draining = BrokerStates(rawValue: 2)
    /// brokerRole=SLAVE.
    static let slave = BrokerStates(rawValue: 4)
    /// The moment of startAcceptSendRequestTimeStamp has not come.
    static let early = BrokerStates(rawValue: 8)
    /// Too many messages wait for disk or slave.
    static let busy = BrokerStates(rawValue: 16)

    /// As the README shows them.
    var text: String {
        let names: [(BrokerStates, String)] = [
            (.withdrawn, "withdrawn"), (.draining, "draining"), (.slave, "slave"), (.early, "early"), (.busy, "busy"),
        ]
        return names.filter { contains($0.0) }.map(\.1).joined(separator: ", ")
    }
}

/// Decides which requests are refused at the moment, and why: withdrawn → draining → slave → early → busy. The store
/// reports a full disk, message by message, because the broker's own may use its reserve (`AppendRefusal`).
///
/// On the event loop.
final class Admission {
    /// How a request is refused.
    enum Refusal: Sendable {
        /// Not at all.
        case never
        /// A message: with the fields of an answer to a send.
        case send
        /// A message a consumer sends back (36).
        case sendBack
        /// The end of a transaction (37): a slave answers SLAVE_NOT_AVAILABLE.
        case transaction
        /// A timer message that is recalled (370).
        case recall
        /// A pop: who has which message is for the master to know.
        case pop
        /// What a client reports of popped messages: also while the broker takes leave.
        case claim
        /// A change of topics or groups: a slave's are its master's.
        case tables

        /// The states in which it is.
        var states: BrokerStates {
            switch self {
            case .never: []
            case .send: [.withdrawn, .draining, .slave, .early, .busy]
            case .sendBack: [.withdrawn, .draining, .slave, .busy]
            case .transaction, .recall, .pop: [.withdrawn, .draining, .slave]
            case .claim, .tables: [.slave]
            }
        }
    }

    /// What an answer that refuses consists of.
    struct Answer {
        var code: ResponseCode
        var remark: String
        var fields: [(String, String)] = []
    }

    private let brokerName: String
    private let regionID: String
    private let sendResponseFields: [(String, String)]
    private let gate: AckGate
    private let now: () -> Int64

    /// Kept up to date, because it is looked at for each message: all but `busy`.
    private var states: BrokerStates = []
    private var withdrawal = ""
    private var settings: Settings

    private struct Settings {
        /// Milliseconds since 1970; 0: at once.
        var startMilliseconds: Int64
        var sendsWaitingMax: Int
        var syncFlush: Bool

        init(_ configuration: BrokerConfiguration) {
            startMilliseconds = configuration.startAcceptSendRequestTimeStamp
            sendsWaitingMax = configuration.sendsWaitingMax
            syncFlush = configuration.syncFlush
        }
    }

    init(_ environment: BrokerEnvironment, _ gate: AckGate) {
        let configuration = environment.configuration
        brokerName = configuration.brokerName
        regionID = configuration.regionID
        sendResponseFields = environment.sendResponseFields
        self.gate = gate
        now = environment.now
        settings = Settings(configuration)
        if configuration.isSlave { states.insert(.slave) }
        if settings.startMilliseconds > 0 { states.insert(.early) }
    }

    // MARK: - States

    /// Settings have been changed.
    func settingsChanged(_ configuration: BrokerConfiguration) {
        settings = Settings(configuration)
        if settings.startMilliseconds > 0 { states.insert(.early) } else { states.remove(.early) }
        if configuration.isSlave { states.insert(.slave) } else { states.remove(.slave) }
    }

    /// - Parameter reason: why, as a text for senders.
    func withdraw(because reason: String) {
        withdrawal = reason
        states.insert(.withdrawn)
    }

    var isDraining: Bool {
        get { states.contains(.draining) }
        set { if newValue { states.insert(.draining) } else { states.remove(.draining) } }
    }

    /// Messages are taken, from clients and from the broker itself, if there are not too many.
    var takesMessages: Bool { states.isDisjoint(with: [.withdrawn, .draining, .slave]) }

    // MARK: - brokerPermission

    /// When `brokerPermission` lost its write, milliseconds since 1970; 0 when the broker started without.
    var writeWithdrawnMilliseconds: Int64 = 0

    /// Routes have been without `brokerPermission`'s write for so long that every producer that follows them has
    /// stopped sending here.
    ///
    /// RocketMQ refuses messages for ordered topics only, and trusts in the routes for the others. If those were
    /// refused at once, operators who drain a broker would cause errors at its producers. If they never were, the
    /// setting would not affect producers that do not ask for routes.
    var refusesWrites: Bool { now() - writeWithdrawnMilliseconds >= Self.routesSpreadMilliseconds }

    /// Twice the time between two looks of a client at its routes.
    static let routesSpreadMilliseconds: Int64 = 60_000

    // MARK: - Requests

    /// What a request of this row is answered while it is refused; `nil`: it is carried out.
    @inline(__always)
    func refusal(of kind: Refusal, in refusedIn: BrokerStates) -> Answer? {
        let isBusy = gate.waitingCount >= settings.sendsWaitingMax
        if states.isDisjoint(with: refusedIn), !isBusy || !refusedIn.contains(.busy) { return nil }
        return firstRefusal(of: kind)
    }

    @inline(never)
    private func firstRefusal(of kind: Refusal) -> Answer? {
        let refused = kind.states
        if !refused.isDisjoint(with: [.withdrawn, .draining, .slave]), let reason = reasonNotToTakeMessages {
            return answer(kind, reason)
        }
        if refused.contains(.early), let reason = reasonToBeEarly {
            return Answer(code: .systemError, remark: reason, fields: fields(kind))
        }
        if refused.contains(.busy), let reason = reasonToBeBusy {
            return Answer(code: .systemBusy, remark: reason, fields: fields(kind))
        }
        return nil
    }

    private func fields(_ refusal: Refusal) -> [(String, String)] {
        switch refusal {
        case .send: sendResponseFields
        case .recall: [("\(PropertyName.region)", regionID)]
        case .never, .sendBack, .transaction, .pop, .claim, .tables: []
        }
    }

    private func answer(_ refusal: Refusal, _ reason: String) -> Answer? {
        let isSlave = states.contains(.slave)
        switch refusal {
        case .never: return nil
        case .send, .sendBack, .pop, .claim:
            return Answer(code: .serviceNotAvailable, remark: reason, fields: fields(refusal))
        case .transaction: return Answer(code: isSlave ? .slaveNotAvailable : .serviceNotAvailable, remark: reason)
        case .recall:
            return Answer(
                code: isSlave ? .slaveNotAvailable : .serviceNotAvailable, remark: "recall failed, \(reason)",
                fields: fields(refusal))
        case .tables:
            guard isSlave else { return nil }
            return Answer(
                code: .systemError,
                remark: "Can't modify topic or subscription group from slave broker, "
                    + "please execute it from master broker.")
        }
    }

    // MARK: - Reasons

    /// Why messages are refused at the moment, as a text for the sender; `nil` when they are not.
    private var reasonNotToTakeMessages: String? {
        if states.contains(.withdrawn) { return "service not available now. \(withdrawal)" }
        if states.contains(.draining) {
            return "service not available now. the broker \(brokerName) is being stopped; "
                + "the client will find another one"
        }
        if states.contains(.slave) {
            return "service not available now. this broker is a slave (brokerRole=SLAVE) and takes no messages; "
                + "send to the master of \(brokerName)"
        }
        return nil
    }

    /// The operator wants no messages before a moment that has not come.
    private var reasonToBeEarly: String? {
        get {
            guard states.contains(.early) else { return nil }
            guard now() < settings.startMilliseconds else {
                states.remove(.early)
                return nil
            }
            return "broker unable to service, until \(settings.startMilliseconds) "
                + "(startAcceptSendRequestTimeStamp, milliseconds since 1970)"
        }
    }

    /// More messages wait for disk or slave than may. Connections have been held back before that
    /// (`AckGate.waitingPerConnectionMax`), so there are very many of them.
    private var reasonToBeBusy: String? {
        guard gate.waitingCount >= settings.sendsWaitingMax else { return nil }
        let remedy =
            settings.syncFlush
            ? """
            the disk is slower than the producers (flushDiskType=SYNC_FLUSH): send more slowly, or give it a faster \
            disk
            """
            : """
            the slave is slower than the producers (brokerRole=SYNC_MASTER): send more slowly, or see what holds the \
            slave up
            """
        return "[OVERLOAD]system busy, start flow control for a while: \(gate.waitingCount) messages wait to be "
            + "acknowledged (sendThreadPoolQueueCapacity=\(settings.sendsWaitingMax)); \(remedy)"
    }
}
