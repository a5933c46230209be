import Claims
import MessageModel
import MessageStore
import RemotingProtocol
import StoreFormat

/// What consumers report of messages they have popped: ACK_MESSAGE (200051), BATCH_ACK_MESSAGE (200151),
/// CHANGE_MESSAGE_INVISIBLETIME (200053). A handle of a delivery that is over changes nothing and is answered with
/// success, as RocketMQ does. Confined to the broker's event loop.
final class PoppedMessageProcessor {
    /// Messages of one BATCH_ACK_MESSAGE, at most: what a turn of the loop may take.
    static let acknowledgementsMax = 4096

    private let environment: BrokerEnvironment
    private let tables: BrokerTables
    private let storage: StoreAccess
    private let claims: GroupClaims
    private let waiters: PopWaiters
    let deadLetters: PopDeadLetters
    /// Of the delays after failures; a test may set its seed.
    var jitter = RetryJitter()

    /// `invisibleTime` of a failed message: it comes again by the strategy of its topic.
    static let failed: Int64 = -1
    /// Bytes of a reason that are kept.
    static let reasonBytesMax = 512

    init(
        _ environment: BrokerEnvironment, _ tables: BrokerTables, _ storage: StoreAccess, _ claims: GroupClaims,
        _ waiters: PopWaiters, _ deadLetters: PopDeadLetters
    ) {
        self.environment = environment
        self.tables = tables
        self.storage = storage
        self.claims = claims
        self.waiters = waiters
        self.deadLetters = deadLetters
    }

    func acknowledge(_ request: borrowing Request) throws(RemotingDecodeError) {
        let header = try PoppedMessageHeader(request.frame)
        let named: Named
        switch find(header, mayBeEnd: true) {
        case .found(let message): named = message
        case .refused(let code, let remark): return request.answer(code, remark: remark)
        }
        if let table = named.table, table.isOrdered { claims.leases.heard(request.client, table) }
        acknowledge(named.table, named.handle.queueOffset, popTime: named.handle.popTime)
        request.answer(.success)
        environment.scheduleTick()
    }

    private func acknowledge(_ table: ClaimTable?, _ offset: Int64, popTime: Int64) {
        guard let table, table.acknowledge(offset, popTime: popTime) == .finished else { return }
        wakeIfFree(table)
    }

    /// The last message of an ordered batch is done: the next one may be had.
    private func wakeIfFree(_ table: ClaimTable) {
        guard table.isOrdered, table.claimedCount == 0 else { return }
        waiters.stir(topic: table.topic.text, group: table.group.text, queueID: table.queueID)
    }

    func acknowledgeBatch(_ request: borrowing Request) throws(RemotingDecodeError) {
        let body = try BatchAckBody(request.body)
        let count = body.entries.reduce(0) { $0 + $1.bits.reduce(0) { $0 + $1.nonzeroBitCount } }
        guard count <= Self.acknowledgementsMax else {
            return request.answer(
                .invalidParameter,
                remark: "\(count) messages are acknowledged at once, at most \(Self.acknowledgementsMax): divide them "
                    + "among several requests")
        }
        for entry in body.entries {
            let topicName = entry.kind.topic(of: entry.topic, group: entry.group)
            guard let topic = tables.topics[topicName], let group = tables.groups[entry.group],
                let table = claims.find(group: group, topic: topic, queueID: entry.queueID)
            else { continue }
            if table.isOrdered { claims.leases.heard(request.client, table) }
            var finished = 0
            for index in stride(from: 0, to: entry.bits.count, by: 8) {
                var bits: UInt64 = 0
                for (place, byte) in entry.bits[index..<min(index + 8, entry.bits.count)].enumerated() {
                    bits |= UInt64(byte) << UInt64(place * 8)
                }
                guard bits != 0 else { continue }
                // Offsets that are none of the queue's name no claim.
                finished += table.acknowledge(
                    from: entry.startOffset +| Int64(index * 8), bits: bits, popTime: entry.popTime)
            }
            if finished > 0 { wakeIfFree(table) }
        }
        request.answer(.success)
        environment.scheduleTick()
    }

    func changeInvisibleTime(_ request: borrowing Request) throws(RemotingDecodeError) {
        let header = try PoppedMessageHeader(request.frame)
        let invisible = try request.extFields.requiredInt64("invisibleTime")
        guard invisible == Self.failed || PopMessageProcessor.invisibleBounds.contains(invisible) else {
            return request.answer(
                .invalidParameter,
                remark: "invisibleTime \(invisible) is not within 0 to "
                    + "\(PopMessageProcessor.invisibleBounds.upperBound) milliseconds, or -1 for a failed message, "
                    + "which comes again by the strategy of its topic (apus.retry.strategy)")
        }
        let named: Named
        switch find(header, mayBeEnd: false) {
        case .found(let message): named = message
        case .refused(let code, let remark): return request.answer(code, remark: remark)
        }
        if let table = named.table, table.isOrdered { claims.leases.heard(request.client, table) }
        if invisible == Self.failed { return fail(named, request) }
        let time = claims.time
        let handle = named.handle
        if let table = named.table {
            switch table.state(of: handle.queueOffset, at: time) {
            // A renewal that was on its way when the failure was reported. Handles of ordered queues stay the same.
            case .failed where table.isOrdered: return request.answer(.success)
            case .claimed(_, handle.popTime, _, _) where invisible == 0 && named.origin.policy.givesUp:
                return giveBack(handle, table, request)
            default: break
            }
        }
        guard let table = named.table, !isOver(handle.queueOffset, table, request.client, time),
            let popTime = table.change(handle.queueOffset, popTime: handle.popTime, invisible: invisible, at: time)
        else { return request.answer(.success) }
        request.answer(.success, fields: Self.fields(popTime, time, invisible, handle))
        environment.scheduleTick()
    }

    /// The client has not worked on the message: others may have it at once, and the delivery does not count. Only
    /// where failures are reported as such (-1): elsewhere a delivery counts whatever its end is, as RocketMQ has it.
    private func giveBack(_ handle: PopHandle, _ table: ClaimTable, _ request: borrowing Request) {
        let time = claims.time
        table.abandon([handle.queueOffset], at: time)
        request.answer(.success, fields: Self.fields(handle.popTime, time, 0, handle))
        environment.scheduleTick()
    }

    /// Whether the time of a message was over and another consumer has the queue since. The one before cannot have it
    /// longer, or two would be at work in the queue.
    private func isOver(_ offset: Int64, _ table: ClaimTable, _ client: ClientContext, _ time: ClaimTime) -> Bool {
        guard table.isOrdered, case .due = table.state(of: offset, at: time) else { return false }
        return claims.leases.isAnothers(table, than: client)
    }

    /// An ordered handle keeps its pop time; its time is counted from there.
    private static func fields(
        _ popTime: Int64, _ time: ClaimTime, _ invisible: Int64, _ handle: PopHandle
    ) -> [(String, String)] {
        [
            ("popTime", String(popTime)), ("invisibleTime", String(max(0, time.wall +| invisible -| popTime))),
            ("reviveQid", String(handle.reviveQueue)),
        ]
    }

    // MARK: - Failures

    /// The client could not consume the message. It comes again when the strategy of its topic says: `strategy` in the
    /// answer, by which clients know that -1 was no time. Or it is a dead letter at once (`deadLetter`), with the field
    /// `reason` in it.
    private func fail(_ named: Named, _ request: borrowing Request) {
        let time = claims.time
        let (handle, origin) = (named.handle, named.origin)
        let offset = handle.queueOffset
        guard let table = named.table, let group = named.group,
            let attempts = table.state(of: offset, at: time).attempts
        else { return request.answer(.success) }
        let delay = origin.policy.retry.delay(after: attempts, using: &jitter)
        let mayBeOver = deadLetters.mayTake(attempts: attempts, handle.kind, group: group, origin: origin)
        guard
            var popTime = table.change(
                offset, popTime: handle.popTime, invisible: mayBeOver ? 0 : delay, at: time, hasFailed: true)
        else { return request.answer(.success) }
        environment.scheduleTick()
        if mayBeOver {
            let reason = Self.visible(request.extFields.string("reason") ?? "")
            if let record = record(at: offset, table),
                deadLetters.take(
                    offset, attempts: attempts, record: record, of: table, handle.kind, group: group, origin: origin,
                    failure: reason.isEmpty ? "no reason given" : reason) == .taken
            {
                return request.answer(
                    .success,
                    fields: Self.fields(popTime, time, 0, handle) + [("strategy", "true"), ("deadLetter", "true")])
            }
            // Not its last delivery, or its dead letter is not taken now: it comes again.
            popTime =
                table.change(offset, popTime: popTime, invisible: delay, at: time, hasFailed: true) ?? popTime
        }
        request.answer(.success, fields: Self.fields(popTime, time, delay, handle) + [("strategy", "true")])
    }

    /// What fits into a property: no control characters, not too long.
    private static func visible(_ text: String) -> String {
        var bytes: [UInt8] = []
        for scalar in text.unicodeScalars {
            let isControl = scalar.properties.generalCategory == .control
            let encoded = isControl ? [UInt8(ascii: " ")] : Array(String(scalar).utf8)
            guard bytes.count + encoded.count <= reasonBytesMax else { break }
            bytes += encoded
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    private func record(at offset: Int64, _ table: ClaimTable) -> LogRange? {
        guard let queue = storage.store.consumeQueue(topic: table.topic.text, queueID: table.queueID) else {
            return nil
        }
        var ranges: [LogRange] = []
        guard case .found(let range) = storage.store.selectMessage(queue, at: QueueOffset(offset), into: &ranges) else {
            return nil
        }
        return range
    }

    // MARK: - Finding the message

    private struct Named {
        let handle: PopHandle
        /// nil: it is not known.
        let group: SubscriptionGroupEntry?
        /// The topic the message was sent to.
        let origin: TopicEntry
        /// nil: nothing of this group is claimed in the queue.
        let table: ClaimTable?
    }

    private enum Search {
        case found(Named)
        case refused(ResponseCode, String)
    }

    /// The topic the message lies in. RocketMQ's clients name the retry topic of a copy themselves.
    private func topic(_ header: PoppedMessageHeader, _ handle: PopHandle?) -> TopicEntry? {
        guard let handle, handle.kind != .normal else { return tables.topics[header.topic] }
        let name = String(decoding: header.topic, as: UTF8.self)
        guard !name.hasPrefix(TopicNames.retryPrefix) else { return tables.topics[header.topic] }
        return tables.topics[
            handle.kind.topic(of: name, group: String(decoding: header.consumerGroup, as: UTF8.self))]
    }

    private func find(_ header: PoppedMessageHeader, mayBeEnd: Bool) -> Search {
        let given = PopHandle(header.extraInfo)
        guard let topic = topic(header, given) else {
            return .refused(
                .topicNotExist,
                "topic[\(String(decoding: header.topic, as: UTF8.self))] not exist, apply first please! " + Remarks.faq)
        }
        guard header.queueID >= 0, header.queueID < topic.config.readQueueNums else {
            return .refused(
                .messageIllegal,
                "queueId[\(header.queueID)] is illegal, topic:[\(topic.name)] topicConfig.readQueueNums:"
                    + "[\(topic.config.readQueueNums)]")
        }
        guard let handle = given, handle.queueOffset == header.offset,
            handle.queueID == header.queueID
        else {
            return .refused(
                .messageIllegal,
                "extraInfo is no handle of message \(header.offset) in queue \(header.queueID): it has eight parts, "
                    + "as an answer to a pop gives them")
        }
        let queue = storage.store.consumeQueue(topic: topic.name, queueID: header.queueID)
        let minimum = queue?.minOffset.rawValue ?? 0
        let maximum = queue?.maxOffset.rawValue ?? 0
        guard header.offset >= minimum, header.offset < maximum || mayBeEnd && header.offset == maximum else {
            return .refused(
                .noMessage,
                "request offset not exist, topic:[\(topic.name)] queue \(header.queueID): \(header.offset), there are "
                    + "\(minimum) to \(maximum)")
        }
        let group = tables.groups.table[header.consumerGroup]
        let table = group.flatMap { claims.find(group: $0, topic: topic, queueID: header.queueID) }
        var origin = topic
        if handle.kind != .normal, let group,
            let name = PopRetryTopics.origin(of: topic.name, group: group.name), let known = tables.topics[name]
        {
            origin = known
        }
        return .found(Named(handle: handle, group: group, origin: origin, table: table))
    }
}
