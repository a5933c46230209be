import MessageStore
import RemotingProtocol
import RemotingTransport
import StoreFormat

/// Reads a queue for one request: selects, filters, suspends. What a pull encodes today, other kinds of reads will
/// encode otherwise: `ReadRequest.answer`. On the broker's event loop.
final class MessageReader {
    /// Suspended requests of one connection; a client has one for each queue it consumes. More are answered "nothing
    /// found".
    static let heldPerConnectionMax = 16_384

    let environment: BrokerEnvironment
    let storage: StoreAccess
    let hold: PullRequestHold
    let filters: FilterLink
    let skipped: SkippedMessages
    private let tables: BrokerTables
    /// What the read of this moment has found.
    var ranges: [LogRange] = []

    init(
        _ environment: BrokerEnvironment, _ tables: BrokerTables, _ storage: StoreAccess, _ hold: PullRequestHold,
        _ filters: FilterLink
    ) {
        self.environment = environment
        self.tables = tables
        self.storage = storage
        self.hold = hold
        self.filters = filters
        skipped = SkippedMessages(environment: environment, tables: tables, store: storage.store)
    }

    /// Answers the request, or has it read again when there is more to answer. On the event loop.
    /// - Parameter expired: it must be answered now.
    func read(_ request: ReadRequest, expired: Bool) {
        guard !request.client.connection.isClosed else { return request.abandoned() }
        // Held when its topic was deleted: there is nothing to read any more, and nowhere else to begin.
        if expired, tables.topics[request.topic.name] == nil { return answerNothingYet(request) }
        // Suspended when its topic became one that is popped only; a slave learns that from its master.
        if request.maySuspend, request.topic.policy.isPoppedOnly,
            !SubscriptionGroupManager.isOfTools(request.group.name)
        {
            return answerNothingYet(request)
        }
        guard case .compiled(let subscription) = request.filter else { return read(request, nil, expired) }
        filters.prepare(subscription)
        switch subscription.state {
        case .everything: read(request, nil, expired)
        case .tagsCodes(let codes): read(request, codes, expired)
        case .program(let program): readFiltered(request, subscription, program, expired)
        case .unknown, .compiling: awaitCompilation(request, subscription, expired)
        case .refused(let position, let reason):
            let place = position >= 0 ? " at position \(position)" : ""
            refuse(
                request, .subscriptionParseFailed,
                "parse the consumer's subscription failed: \(subscription.type) \(subscription.expression)"
                    + "\(place): \(reason)")
        case .unavailable(let reason, _):
            refuse(
                request, .systemError,
                "The broker does not support consumer to filter message by \(subscription.type): \(reason)")
        }
    }

    private func read(_ request: ReadRequest, _ codes: [Int64]?, _ expired: Bool) {
        let result = request.topic.nameBytes.withUnsafeBytes { topic in
            storage.store.selectMessages(
                topic: topic, queueID: request.queueID, from: QueueOffset(request.queueOffset),
                maxCount: request.maxMessageNums, maxBytes: request.maxMessageBytes ?? Int.max, tagsCodes: codes,
                into: &ranges)
        }
        finish(request, result, expired)
    }

    /// The state of the queue as a read at the pull's offset sees it.
    func look(_ request: ReadRequest) -> GetMessageResult {
        request.topic.nameBytes.withUnsafeBytes { topic in
            storage.store.selectMessages(
                topic: topic, queueID: request.queueID, from: QueueOffset(request.queueOffset), maxCount: 1,
                into: &ranges)
        }
    }

    /// The queue was read: suspends the request if nothing is there yet, and answers it otherwise.
    func finish(_ request: ReadRequest, _ result: GetMessageResult, _ expired: Bool) {
        if isNothingYet(result.status, request), !expired, request.maySuspend,
            hold.mayHold,
            SuspendedReads.of(request.client).count < Self.heldPerConnectionMax
        {
            return hold.hold(request)
        }
        if !request.others.isEmpty, result.status == .found || result.status == .noMatchedMessage {
            skipped.note(request, to: result.nextBeginOffset.rawValue) { request.filter.wants(tagsCode: $1.tagsCode) }
        }
        request.answer(.read(result), ranges)
    }

    /// No message is there yet, and the request's offset is right.
    private func isNothingYet(_ status: GetMessageStatus, _ request: ReadRequest) -> Bool {
        switch status {
        case .noMatchedLogicQueue, .noMessageInQueue: request.queueOffset == 0
        case .offsetFoundNull, .offsetOverflowOne: true
        case .found, .messageWasRemoving, .noMatchedMessage, .offsetOverflowBadly, .offsetTooSmall: false
        }
    }

    func refuse(_ request: ReadRequest, _ code: ResponseCode, _ remark: String) {
        request.answer(.refused(code, remark: remark), [])
    }

    /// A request that cannot be filtered now and may not wait: its offset stays as it is.
    func answerNothingYet(_ request: ReadRequest) {
        var result = look(request)
        result.status = .noMatchedMessage
        result.nextBeginOffset = QueueOffset(request.queueOffset)
        request.answer(.nothingYet(result), [])
    }
}
