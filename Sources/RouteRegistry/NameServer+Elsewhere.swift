import Logging
import NIOCore
import RemotingProtocol
import RemotingTransport

/// REGISTER_BROKER (103) as far as its header contains it; the body, which may hold ten thousand topics, is read by
/// `parse`, on any thread.
struct RegistrationRequest: Sendable {
    enum Body: Sendable {
        case read(TopicConfigSerializeWrapper, filterServers: [String]?)
        /// It is not what the broker has sent.
        case damaged
    }

    /// Without its topics.
    let broker: BrokerRegistration
    /// Milliseconds; 5.x brokers may ask for another time than 120 s.
    let expiresAfter: Int64
    private let crc: Int32
    private let isCompressed: Bool
    private let isOld: Bool

    init(_ frame: RemotingFrame) throws(RemotingDecodeError) {
        let fields = frame.extFields
        crc = try fields.int32("bodyCrc32") ?? 0
        broker = BrokerRegistration(
            clusterName: try fields.required("clusterName"), brokerAddr: try fields.required("brokerAddr"),
            brokerName: try fields.required("brokerName"), brokerID: try fields.requiredInt64("brokerId"),
            haServerAddr: try fields.required("haServerAddr"))
        isCompressed = fields.bool("compressed") ?? false
        isOld = frame.version < RemotingVersion.registerBrokerBody && !isCompressed
        expiresAfter = try fields.clamped(.heartbeatTimeout) ?? 0
    }

    func parse(_ bytes: UnsafeRawBufferPointer) throws(RemotingDecodeError) -> Body {
        if crc != 0, crc != Zlib.crc32(bytes) { return .damaged }
        if isOld {
            return .read(
                bytes.isEmpty ? TopicConfigSerializeWrapper() : try TopicConfigSerializeWrapper(body: bytes),
                filterServers: nil)
        }
        guard !bytes.isEmpty else { return .read(TopicConfigSerializeWrapper(), filterServers: []) }
        let body = try RegisterBrokerBody(body: bytes, compressed: isCompressed)
        return .read(body.topicConfigSerializeWrapper, filterServers: body.filterServerList)
    }
}

/// Requests whose bodies or answers are large: those are read and made on another thread, and no other
/// request waits for them. Their connection is not read from meanwhile.
extension NameServer {
    /// A body that is larger is read elsewhere.
    static let bytesAtOnce = 32 << 10
    /// With more topics lists of them are made elsewhere.
    static let topicsAtOnce = 1000

    private var hasElsewhere: Bool { elsewhere != nil && eventLoop != nil }

    /// How large a compressed one is shows only when it is inflated.
    func isReadElsewhere(_ frame: RemotingFrame) -> Bool {
        hasElsewhere && (frame.body.count > Self.bytesAtOnce || frame.extFields.bool("compressed") == true)
    }

    func allTopics(_ frame: RemotingFrame, _ connection: RemotingConnection) -> Answer? {
        list(frame, connection) { $0.topics }
    }

    func topicsOfCluster(
        _ frame: RemotingFrame, _ connection: RemotingConnection
    ) throws(RemotingDecodeError) -> Answer? {
        let cluster = try frame.extFields.required("cluster")
        return list(frame, connection) { $0.topics(of: cluster) }
    }

    func unitTopics(_ frame: RemotingFrame, _ connection: RemotingConnection) -> Answer? {
        list(frame, connection) { $0.topics { $0 & 1 != 0 } }
    }

    func topicsUnitsSubscribeTo(_ frame: RemotingFrame, _ connection: RemotingConnection) -> Answer? {
        list(frame, connection) { $0.topics { $0 & 2 != 0 } }
    }

    func commonTopicsUnitsSubscribeTo(_ frame: RemotingFrame, _ connection: RemotingConnection) -> Answer? {
        list(frame, connection) { $0.topics { $0 & 3 == 2 } }
    }

    /// A list of topics: made here when there are few, and elsewhere when there are many.
    private func list(
        _ frame: RemotingFrame, _ connection: RemotingConnection,
        _ select: @escaping @Sendable (RouteTables) -> [String]
    ) -> Answer? {
        let tables = self.tables
        guard hasElsewhere, tables.topicCount > Self.topicsAtOnce else {
            return .body(TopicList(topicList: select(tables)))
        }
        make(frame.returnAddress, connection) {
            Answer.body(TopicList(topicList: select(tables)))
        } then: { answer, finish in
            finish(answer)
        }
        return nil
    }

    func registerElsewhere(
        _ request: RegistrationRequest, _ frame: RemotingFrame, _ connection: RemotingConnection
    ) {
        if let refusal = refusal(of: request.broker) {
            return connection.respond(to: frame.returnAddress, refusal.code, remark: refusal.remark)
        }
        let bytes = [UInt8](frame.body)
        make(frame.returnAddress, connection) {
            bytes.withUnsafeBytes { bytes in
                Result { () throws(RemotingDecodeError) in try request.parse(bytes) }
            }
        } then: { [unowned self] parsed, finish in
            switch parsed {
            case .success(let body):
                // Others have registered meanwhile.
                if let refusal = refusal(of: request.broker) { return finish(refusal) }
                guard let entry = beginRegistration(request, body, connection.id) else {
                    return finish(.damagedRegistration)
                }
                enterInSlices(entry, finish)
            case .failure(let error): finish(Answer(code: .systemError, remark: error.description))
            }
        }
    }

    /// Topics entered in one turn of the loop.
    static let topicsPerSlice = 500

    private func enterInSlices(_ entry: Entry, _ finish: @escaping (Answer) -> Void) {
        entering.append((entry, finish))
        // One slice a turn, however many registrations there are.
        if entering.count == 1 { enterSome() }
    }

    private func enterSome() {
        guard !entering.isEmpty else { return }
        enter(&entering[0].entry, atMost: Self.topicsPerSlice)
        if entering[0].entry.topics.isDone {
            let (entry, finish) = entering.removeFirst()
            finish(registered(entry))
        }
        guard !entering.isEmpty, let eventLoop = self.eventLoop else { return }
        let this = NIOLoopBound(self, eventLoop: eventLoop)
        // A moment ahead: what is handed to `execute` runs in the same turn.
        eventLoop.scheduleTask(in: .microseconds(200)) { this.value.enterSome() }
    }

    /// Makes something on the other thread and answers with what `then` makes of it; nothing of a connection that has
    /// closed meanwhile.
    private func make<Made: Sendable>(
        _ address: ReturnAddress, _ connection: RemotingConnection, _ work: @escaping @Sendable () -> Made,
        then: @escaping (Made, @escaping (Answer) -> Void) -> Void
    ) {
        guard let elsewhere = self.elsewhere, let eventLoop = self.eventLoop else { return }
        connection.awaitsAnswer = true
        let finish = NIOLoopBound(
            { [unowned self] (made: Made) in
                guard !connection.isClosed else { return }
                then(made) { answer in
                    connection.awaitsAnswer = false
                    connection.respond(
                        to: address, answer.code, remark: answer.remark, fields: answer.fields, body: answer.body)
                    self.logEvents()
                }
            }, eventLoop: eventLoop)
        elsewhere {
            let made = work()
            eventLoop.execute { finish.value(made) }
        }
    }
}
