import Claims
import Logging
import MessageModel
import MessageStore
import NIOCore
import RemotingProtocol
import RemotingTransport
import StoreFormat

/// POP_MESSAGE (200050): hands messages of any of a topic's queues to a client, which has them for itself for some
/// time. Looks at the queues in a ring, claims what it finds, and answers when the tick's claims are in the journal.
/// Confined to the broker's event loop.
final class PopMessageProcessor {
    /// RocketMQ's bound on `maxMsgNums`.
    static let messagesMax: Int32 = 32
    /// Bounds of `invisibleTime`, milliseconds. RocketMQ has none.
    static let invisibleBounds: ClosedRange<Int64> = 0...Int64.claimInvisibleMax
    /// A request that was so much longer under way than it may wait is not worked on, milliseconds.
    static let lateMilliseconds: Int64 = 500
    /// A request waits so much less than it may, so that its answer is in time, milliseconds.
    static let earlyMilliseconds: Int64 = 50
    static let pollMaxMilliseconds: Int64 = 120_000

    private let environment: BrokerEnvironment
    private let storage: StoreAccess
    private let filters: FilterLink
    private let reader: MessageReader
    private let sender: RecordSender
    private let access: ReadAccess
    private let claims: GroupClaims
    private let waiters: PopWaiters
    private let retries: PopRetryTopics
    private let deadLetters: PopDeadLetters
    private let leases: QueueLeases
    /// Where in the ring of queues the next pop begins; a test may set it.
    var ring = Int32.random(in: 0..<1024)
    /// Answers of this tick, which leave when its claims are in the journal.
    private var ready: [Answer] = []
    private var ranges: [LogRange] = []
    /// Of the answer that is being written.
    private var lists = PopOffsetLists()

    private struct Answer {
        let client: ClientContext
        let address: ReturnAddress
        let records: [PopRecords]
        let parts: [PopPart]
        let popTime: Int64
        let invisibleMilliseconds: Int64
        let isOrdered: Bool
        /// Messages that remain in the queues.
        let rest: Int64
    }

    init(
        _ environment: BrokerEnvironment, _ tables: BrokerTables, _ storage: StoreAccess, _ filters: FilterLink,
        _ reader: MessageReader, _ sender: RecordSender, _ claims: GroupClaims, _ waiters: PopWaiters,
        _ retries: PopRetryTopics, _ deadLetters: PopDeadLetters, _ leases: QueueLeases
    ) {
        self.environment = environment
        self.storage = storage
        self.filters = filters
        self.reader = reader
        self.sender = sender
        self.claims = claims
        self.waiters = waiters
        self.retries = retries
        self.deadLetters = deadLetters
        self.leases = leases
        access = ReadAccess(environment: environment, tables: tables, verb: "popping")
    }

    // MARK: - Requests

    func process(_ request: borrowing Request) throws(RemotingDecodeError) {
        let header = try PopMessageRequestHeader(request.frame)
        let asker = request.asker
        let now = environment.now()
        let late = header.bornTime > 0 ? now -| header.bornTime -| max(0, header.pollTime) : 0
        guard late <= Self.lateMilliseconds else {
            return asker.answer(.pollingTimeout, remark: "the request was \(late) ms longer under way than it may wait")
        }
        guard header.maxMessageNums <= Self.messagesMax else {
            return asker.answer(
                .invalidParameter,
                remark: "the broker[\(environment.configuration.brokerIP1)] pop message's num is greater than "
                    + "\(Self.messagesMax)")
        }
        guard header.invisibleTime == -1 || Self.invisibleBounds.contains(header.invisibleTime) else {
            return asker.answer(
                .invalidParameter,
                remark: "invisibleTime \(header.invisibleTime) is not within 0 to "
                    + "\(Self.invisibleBounds.upperBound) milliseconds, or -1 for the time of the topic (apus.timeout)")
        }
        let group: SubscriptionGroupEntry
        let topic: TopicEntry
        switch access.check(group: header.consumerGroup, topic: header.topic) {
        case .granted(let knownGroup, let knownTopic): (group, topic) = (knownGroup, knownTopic)
        case .refused(let code, let remark): return asker.answer(code, remark: remark)
        }
        guard header.queueID < topic.config.readQueueNums else {
            return asker.answer(
                .invalidParameter,
                remark: "queueId[\(header.queueID)] is illegal, topic:[\(topic.name)] topicConfig.readQueueNums:"
                    + "[\(topic.config.readQueueNums)] consumer:[\(asker.client.address)]")
        }
        guard let filter = filter(header, asker) else { return }
        let wait = Self.wait(pollTime: header.pollTime, bornTime: header.bornTime, now: now)
        let deadline = environment.steady() + wait
        let consumer =
            topic.policy.hasLeases
            ? leases.popped(
                request.client, topic: topic, group: group, queueID: header.queueID, poll: header.pollTime) : nil
        let pop = PopRequest(
            by: self, client: request.client, address: request.returnAddress, topic: topic, group: group,
            header: header, deadlineSteady: deadline, filter: filter,
            claimClient: claims.store.client(request.client.name), consumer: consumer)
        run(pop, expired: wait <= 0)
    }

    /// How long a request may still wait, milliseconds: its poll time begins when the client has sent it.
    static func wait(pollTime: Int64, bornTime: Int64, now: Int64) -> Int64 {
        let underWay = bornTime > 0 ? max(0, now -| bornTime) : 0
        return max(0, min(max(pollTime, 0), pollMaxMilliseconds) -| underWay -| earlyMilliseconds)
    }

    private func filter(_ header: PopMessageRequestHeader, _ asker: Asker) -> SubscriptionFilter? {
        guard let expression = header.expression, !expression.isEmpty else { return .all }
        if environment.configuration.enablePropertyFilter != false,
            let known = filters.recentSubscription(type: header.expressionType, expression: expression)
        {
            return .compiled(known)
        }
        let type = header.expressionType.map { String(decoding: $0, as: UTF8.self) } ?? "TAG"
        if let (code, remark) = access.refusal(ofType: type) {
            asker.answer(code, remark: remark)
            return nil
        }
        let filter = filters.filter(type: type, expression: String(decoding: expression, as: UTF8.self))
        if case .compiled(let subscription) = filter {
            filters.remember(subscription, type: header.expressionType, expression: expression)
        }
        return filter
    }

    // MARK: - Looking at the queues

    /// Looks at the queues and answers, or has the request wait.
    /// - Parameter expired: it must be answered now.
    func run(_ pop: PopRequest, expired: Bool) {
        waitsNoLonger(pop)
        guard !pop.client.connection.isClosed else {
            // What it was woken for is for another one.
            waiters.stir(topic: pop.topic.name, group: pop.group.name)
            return environment.scheduleTick()
        }
        ring = (ring &+ 1) & 0x3FF
        let copies = pop.isOrdered ? [] : retries.sources(group: pop.group, topic: pop.topic)
        pop.begin(from: ring, copies: copies, expired: expired)
        goOn(pop)
    }

    private func waitsNoLonger(_ pop: PopRequest) {
        guard pop.isCounted, let consumer = pop.consumer else { return }
        pop.isCounted = false
        leases.goesOn(consumer)
    }

    /// Answers a request that waited and may not have messages any more.
    func end(_ pop: PopRequest) {
        waitsNoLonger(pop)
        if !pop.client.connection.isClosed { answerNothing(pop, .pollingTimeout) }
    }

    private func goOn(_ pop: PopRequest) {
        // Deleted or changed while it waited, or while the filter worker was asked. To look at a queue would make
        // claims and offsets of what is gone, which one made again would take for its own.
        guard !pop.isOutdated, leases.isThere(pop.consumer) else {
            giveBack(pop)
            return end(pop)
        }
        while let place = pop.placesLeft.popLast() {
            switch look(pop, place.source, place.queueID) {
            case .done: continue
            case .waits: return
            case .refused(let code, let remark):
                giveBack(pop)
                return pop.client.answer(pop.address, code, remark: remark)
            }
        }
        finish(pop)
    }

    private func look(_ pop: PopRequest, _ source: PopSource, _ queueID: Int32) -> PopStep {
        guard
            let queue = source.topic.nameBytes.withUnsafeBytes({
                storage.store.consumeQueue(topic: $0, queueID: queueID)
            }), queue.maxOffset.rawValue > 0
        else { return .done }
        let table = claims.table(group: pop.group, topic: source.topic, queue, beginsAtEnd: pop.beginsAtEnd)
        guard pop.left > 0, !table.isBeingRead else {
            pop.rest += behind(table, queue)
            return .done
        }
        // Before the lease: an acknowledgement of who has its messages wakes the next one by it.
        table.isOrdered = pop.isOrdered
        if let consumer = pop.consumer,
            !leases.take(consumer, table, queue, queues: pop.topic.config.readQueueNums, isChosen: pop.wasWoken)
        {
            return .done
        }
        var part = PopPart(source: source, table: table, queue: queue, next: table.next)
        if pop.isOrdered {
            let time = claims.time
            // More than one answer holds are no batch of one pop: a group that did not consume in order has left some.
            // They are not all handed out again at once.
            let isBatch = table.claimedCount + table.dueCount <= Int(Self.messagesMax)
            let attemptID = isBatch ? pop.attemptID : nil
            guard table.blockedUntil(attemptID: attemptID, at: time) == nil else {
                pop.rest += behind(table, queue)
                return .done
            }
            if let attempt = attemptID, table.isOpenBatch(attempt) {
                guard pop.parts.isEmpty else {
                    // One answer has one pop time: the client asks again for these.
                    pop.rest += Int64(table.claimedCount)
                    return .done
                }
                reopen(pop, &part, attempt, at: time)
                return .done
            }
        }
        if source.kind != .normal {
            guard behind(table, queue) > 0 else { return .done }
            if othersWait(pop) { part.room = max(1, pop.left / 2) }
        }
        takeDue(pop, &part)
        if pop.isOrdered, deadLetters.isTaking(from: table) {
            // What comes behind one that is given up is handed out when its dead letter is written.
            pop.left += part.due.count
            return .done
        }
        // What was deleted or has expired has made room, but what is due comes before anything new.
        if pop.isOrdered, table.dueCount > part.due.count { return take(pop, part) }
        return takeFresh(pop, part, isSecondLook: false)
    }

    /// Deleted ones make room for those that are due behind them, a bounded number in one look.
    private func dropDeleted(_ table: ClaimTable, _ queue: ConsumeQueue, limit: Int) {
        for _ in 0..<8 {
            let deleted = table.due(limit: limit).filter {
                storage.store.isDeleted(queue, at: QueueOffset($0.offset))
            }
            guard !deleted.isEmpty else { return }
            for message in deleted { table.drop(due: message.offset) }
        }
    }

    /// Messages a queue has for this group that are not handed out.
    private func behind(_ table: ClaimTable, _ queue: ConsumeQueue) -> Int64 {
        max(0, queue.maxOffset.rawValue - table.next) + Int64(table.dueCount)
    }

    /// Whether the topic itself has messages for the group: copies of others then take half of an answer at most.
    private func othersWait(_ pop: PopRequest) -> Bool {
        pop.queues.contains { queueID in
            claims.available(group: pop.group, topic: pop.topic, queueID: queueID) > 0
        }
    }

    /// The client repeats a request whose answer it did not get: it gets the same messages.
    private func reopen(_ pop: PopRequest, _ part: inout PopPart, _ attempt: [UInt8], at time: ClaimTime) {
        let popTime = max(time.wall, part.table.popTimeMin)
        pop.reopenedAt = popTime
        let messages = part.table.reopenBatch(
            at: time, popTime: popTime, invisible: pop.invisibleMilliseconds, client: pop.claimClient,
            attemptID: attempt)
        for message in messages {
            guard case .found(let record) = record(at: message.offset, part.queue) else { continue }
            part.reopened.append(
                .init(offset: message.offset, attempts: message.attempts - 1, record: record))
        }
        pop.left = 0
        pop.rest += behind(part.table, part.queue)
        part.table.isBeingRead = true
        pop.parts.append(part)
    }

    /// Messages whose claims have ended come first, at most half of what fits while there are others. One that no
    /// client can consume must not keep those.
    private func takeDue(_ pop: PopRequest, _ part: inout PopPart) {
        let table = part.table
        guard table.dueCount > 0 else { return }
        let hasFresh = table.next < part.queue.maxOffset.rawValue
        let room = min(pop.left, part.room)
        let limit = hasFresh && !pop.isOrdered ? max(1, room / 2) : room
        dropDeleted(table, part.queue, limit: limit)
        for message in table.due(limit: limit) {
            let found: LogRange
            switch record(at: message.offset, part.queue) {
            case .found(let range): found = range
            // The queue's file could not be read, which the store has logged: it stays due.
            case .unreadable: continue
            case .deleted:
                table.drop(due: message.offset)
                continue
            case .gone:
                environment.logger.warning(
                    """
                    message \(message.offset) of queue \(part.queue.queueID) of topic \(part.source.topic.name) has \
                    expired or is damaged: group \(pop.group.name) does not get it again
                    """
                )
                table.drop(due: message.offset)
                continue
            }
            let isGivenUp = deadLetters.take(
                message.offset, attempts: message.attempts, record: found, of: table, part.source.kind,
                group: pop.group, origin: pop.topic)
            guard isGivenUp == .no else { continue }
            part.due.append(.init(offset: message.offset, attempts: message.attempts, record: found))
        }
        pop.left -= part.due.count
        part.room -= part.due.count
    }

    private func record(at offset: Int64, _ queue: ConsumeQueue) -> MessageStore.OneMessage {
        storage.store.selectMessage(queue, at: QueueOffset(offset), into: &ranges)
    }

    private func takeFresh(_ pop: PopRequest, _ part: PopPart, isSecondLook: Bool) -> PopStep {
        let room = min(pop.left, part.room)
        guard room > 0 else { return take(pop, part) }
        let codes: [Int64]?
        switch pop.filter {
        case .all: codes = nil
        case .compiled(let subscription):
            filters.prepare(subscription)
            switch subscription.state {
            case .everything: codes = nil
            case .tagsCodes(let wanted): codes = wanted
            default:
                guard part.next < part.queue.maxOffset.rawValue else { return take(pop, part) }
                part.table.isBeingRead = true
                let read = PopRead(by: self, reader: reader, pop, part)
                pop.step = .waits
                pop.isReading = true
                reader.read(read, expired: false)
                pop.isReading = false
                return pop.step
            }
        }
        let result = storage.store.selectMessages(
            part.queue, from: QueueOffset(part.next), maxCount: room, tagsCodes: codes, into: &ranges)
        switch result.status {
        case .offsetTooSmall where !isSecondLook:
            claims.store.retain(part.table, from: result.minOffset.rawValue)
            var part = part
            part.next = max(part.table.next, result.minOffset.rawValue)
            return takeFresh(pop, part, isSecondLook: true)
        case .offsetOverflowBadly where !isSecondLook:
            // The queue was made anew, with another one's claims.
            part.table.reset(to: result.nextBeginOffset.rawValue)
            return takeFresh(
                pop, PopPart(source: part.source, table: part.table, queue: part.queue, next: part.table.next),
                isSecondLook: true)
        // Not read is not finished: the next pop tries again.
        case .offsetFoundNull: return take(pop, part)
        default: return take(pop, part, result, ranges)
        }
    }

    /// Takes what a read has found.
    private func take(
        _ pop: PopRequest, _ part: PopPart, _ result: GetMessageResult? = nil, _ found: [LogRange] = []
    ) -> PopStep {
        var part = part
        if let result {
            let end = result.nextBeginOffset.rawValue
            if result.status == .found {
                if part.source.kind == .normal {
                    // Records that name other offsets than the queue are none of its messages: nothing is handed out.
                    guard let fresh = offsets(in: found, from: part.next, to: end) else { return take(pop, part) }
                    part.fresh = fresh
                    part.freshRecords = found
                } else {
                    takeCopies(found, &part, to: end)
                }
                pop.left -= part.fresh.count
            }
            part.next = max(part.next, end)
        }
        let end = part.queue.maxOffset.rawValue
        pop.rest += max(0, end - part.next) + Int64(part.table.dueCount - part.due.count)
        if part.isEmpty {
            part.table.isBeingRead = false
            // Messages the filter does not want are finished.
            if part.next > part.table.next {
                // A look is bounded: what the filter wants may lie behind.
                if part.next < end { pop.hasLookedShort = true }
                claim(part, pop, popTime: max(environment.now(), part.table.popTimeMin))
            }
        } else {
            part.table.isBeingRead = true
            pop.parts.append(part)
        }
        return .done
    }

    /// Each record of a retry topic by itself. What its other owner was given back is none of this group's.
    private func takeCopies(_ found: [LogRange], _ part: inout PopPart, to end: Int64) {
        let isShared = retries.isShared(part.source)
        for range in found {
            _ = storage.store.withBytes(range) { bytes in
                var place = 0
                for _ in 0..<range.count {
                    guard case .record(let record) = CommitLogRecord.parse(.init(rebasing: bytes[place...])) else {
                        return
                    }
                    let offset = record.queueOffset.rawValue
                    let isNext = offset >= part.fresh.last.map { $0 + 1 } ?? part.next && offset < end
                    if isNext, !isShared || record.property(PropertyName.firstPopTime) != nil {
                        part.fresh.append(record.queueOffset.rawValue)
                        let start = PhysicalOffset(range.start.rawValue + Int64(place))
                        part.freshRecords.append(LogRange(start: start, length: record.totalSize, count: 1))
                    }
                    place += record.totalSize
                }
            }
        }
    }

    /// The offsets of records: without gaps if they are as many as lie between, otherwise as the records have it. Nil
    /// when those do not ascend within the range: what the disk holds is damaged.
    private func offsets(in found: [LogRange], from start: Int64, to end: Int64) -> [Int64]? {
        let count = found.reduce(0) { $0 + $1.count }
        if Int64(count) == end - start { return Array(start..<end) }
        var offsets: [Int64] = []
        offsets.reserveCapacity(count)
        var least = start
        for range in found {
            let isWhole = storage.store.withBytes(range) { bytes -> Bool in
                var place = 0
                for _ in 0..<range.count {
                    guard case .record(let record) = CommitLogRecord.parse(.init(rebasing: bytes[place...])),
                        record.queueOffset.rawValue >= least, record.queueOffset.rawValue < end
                    else { return false }
                    offsets.append(record.queueOffset.rawValue)
                    least = record.queueOffset.rawValue + 1
                    place += record.totalSize
                }
                return true
            }
            guard isWhole == true else { return nil }
        }
        return offsets
    }

    /// The filter worker has answered for one queue.
    func readFiltered(_ pop: PopRequest, _ part: PopPart, _ outcome: ReadOutcome, _ found: [LogRange]) {
        part.table.isBeingRead = false
        switch outcome {
        case .read(let result), .noMatch(let result): pop.step = take(pop, part, result, found)
        case .nothingYet: pop.step = take(pop, part)
        case .refused(let code, let remark):
            waiters.stir(topic: pop.topic.name, group: pop.group.name, queueID: part.queue.queueID)
            pop.step = .refused(code, remark)
        }
        guard !pop.isReading else { return }
        switch pop.step {
        case .refused(let code, let remark):
            giveBack(pop)
            pop.client.answer(pop.address, code, remark: remark)
        default: goOn(pop)
        }
        environment.scheduleTick()
    }

    // MARK: - Claiming and answering

    private func finish(_ pop: PopRequest) {
        guard !pop.parts.isEmpty else {
            if pop.isExpired || !waiters.wait(pop) {
                answerNothing(pop, pop.isExpired ? .pollingTimeout : .pollingFull)
            } else if let consumer = pop.consumer {
                leases.waits(consumer)
                pop.isCounted = true
            }
            if pop.hasLookedShort { lookAgain(topic: pop.topic.name, group: pop.group.name) }
            return
        }
        defer { giveBack(pop) }
        // Closed while the filter worker was asked: nothing was claimed.
        guard !pop.client.connection.isClosed else { return }
        // The topic was deleted meanwhile, and with it who has what.
        guard !pop.parts.contains(where: { $0.table.isRemoved }) else { return answerNothing(pop, .pollingTimeout) }
        let time = claims.time
        for index in pop.parts.indices { pop.parts[index].keepDue(at: time) }
        let popTime = pop.reopenedAt ?? pop.parts.reduce(environment.now()) { max($0, $1.table.popTimeMin) }
        for part in pop.parts { claim(part, pop, popTime: popTime) }
        let count = pop.messageCount
        guard count > 0 else {
            // Acknowledged meanwhile, all of them.
            return answerNothing(pop, .pollingTimeout)
        }
        var records: [PopRecords] = []
        records.reserveCapacity(count)
        for part in pop.parts { addRecords(of: part, to: &records, pop, popTime: popTime) }
        ready.append(
            Answer(
                client: pop.client, address: pop.address, records: records, parts: pop.parts, popTime: popTime,
                invisibleMilliseconds: pop.invisibleMilliseconds, isOrdered: pop.isOrdered, rest: pop.rest))
        let bytes = records.reduce(0) { $0 + $1.length }
        storage.statistics.get(messages: count)
        pop.group.count(count, bytes: bytes, of: pop.topic, in: storage.stats)
        environment.scheduleTick()
    }

    /// Has one that waits look behind the messages no filter wants, in a turn of its own.
    private func lookAgain(topic: String, group: String) {
        environment.slices.add { [waiters, environment] in
            waiters.stir(topic: topic, group: group)
            environment.scheduleTick()
            return false
        }
    }

    private func addRecords(
        of part: PopPart, to records: inout [PopRecords], _ pop: PopRequest, popTime: Int64
    ) {
        guard part.source.kind != .normal else { return part.addRecords(to: &records) }
        let messages =
            part.due.map { ($0.offset, $0.record, $0.attempts) }
            + zip(part.fresh, part.freshRecords).map { ($0, $1, 0) }
        let start = messages.map(\.0).min() ?? part.next
        for (offset, range, attempts) in messages {
            let handle = PopHandle(
                startOffset: start, popTime: popTime, invisibleTime: pop.invisibleMilliseconds, reviveQueue: 0,
                kind: part.source.kind, brokerName: environment.configuration.brokerName, queueID: part.queue.queueID,
                queueOffset: offset)
            let copy = storage.store.withBytes(range) { bytes -> [UInt8]? in
                guard case .record(let record) = CommitLogRecord.parse(bytes) else { return nil }
                return PopCopy.record(record, topic: pop.topic.nameBytes, handle: handle, attempts: attempts)
            }
            records.append((copy ?? nil).map { .copy($0) } ?? .asStored(range))
        }
    }

    /// The queues are free for other pops, and one that waits may have what is left.
    func giveBack(_ pop: PopRequest) {
        // What has come into them meanwhile has woken requests that skipped them.
        let hasMore = pop.rest > 0 || pop.parts.contains { behind($0.table, $0.queue) > 0 }
        pop.release()
        pop.reopenedAt = nil
        guard hasMore || pop.client.connection.isClosed else { return }
        waiters.stir(topic: pop.topic.name, group: pop.group.name)
        environment.scheduleTick()
    }

    private func claim(_ part: PopPart, _ pop: PopRequest, popTime: Int64) {
        let time = claims.time
        for message in part.due {
            part.table.reclaim(
                message.offset, at: time, popTime: popTime, invisible: pop.invisibleMilliseconds,
                client: pop.claimClient,
                attemptID: pop.isOrdered ? pop.attemptID : nil)
        }
        guard part.next > part.table.next || !part.fresh.isEmpty else { return }
        part.table.claim(
            part.fresh, next: part.next, at: time, popTime: popTime, invisible: pop.invisibleMilliseconds,
            client: pop.claimClient, attemptID: pop.isOrdered ? pop.attemptID : nil)
    }

    private func answerNothing(_ pop: PopRequest, _ code: ResponseCode) {
        if !pop.address.isOneway {
            lists.removeAll()
            let header = PopResponseHeader(
                popTime: environment.now(), invisibleTime: pop.invisibleMilliseconds,
                reviveQueue: Self.reviveQueue(isOrdered: pop.isOrdered), restCount: pop.rest, lists: lists)
            pop.client.connection.write {
                header.encode(
                    into: &$0, pop.address, code, remark: GetMessageStatus.noMessageInQueue.remark, bodyCount: 0)
            }
        }
        storage.statistics.missed()
    }

    private static func reviveQueue(isOrdered: Bool) -> Int64 { isOrdered ? PopHandle.orderedReviveQueue : 0 }

    /// The tick's messages are in the log.
    func storeCommitted() { deadLetters.committed() }

    /// They are not.
    func storeFailed() { deadLetters.failed() }

    /// The tick's claims are in the journal: its answers leave.
    func claimsWritten() {
        for answer in ready { send(answer) }
        ready.removeAll(keepingCapacity: true)
    }

    /// They are not: the messages stay claimed until their time is over, and no client gets them in vain.
    func claimsNotWritten(_ error: ClaimError) {
        for answer in ready {
            answer.client.answer(
                answer.address, .systemError,
                remark: "the claims of popped messages could not be written: \(error); they come again after the "
                    + "invisible time; free the disk, or look at it")
        }
        ready.removeAll(keepingCapacity: true)
    }

    /// What the answer's messages are, in `lists`.
    private func list(_ parts: [PopPart], isOrdered: Bool) {
        lists.removeAll()
        for part in parts {
            lists.begin(part.source.kind, queueID: part.queue.queueID)
            for message in part.reopened { lists.append(message.offset) }
            for message in part.due { lists.append(message.offset) }
            for offset in part.fresh { lists.append(offset) }
            lists.end(orElse: part.next)
            guard isOrdered else { continue }
            for message in part.reopened where message.attempts > 0 {
                lists.append(attempts: message.attempts, ofMessage: message.offset)
            }
            for message in part.due where message.attempts > 0 {
                lists.append(attempts: message.attempts, ofMessage: message.offset)
            }
        }
    }

    private func sendRanges(on connection: RemotingConnection) {
        guard !ranges.isEmpty else { return }
        sender.send(ranges, on: connection)
        ranges.removeAll(keepingCapacity: true)
    }

    private func send(_ answer: Answer) {
        ranges.removeAll(keepingCapacity: true)
        guard !answer.address.isOneway, !answer.client.connection.isClosed else { return takeBack(answer) }
        let total = answer.records.reduce(0) { $0 + $1.length }
        let connection = answer.client.connection
        list(answer.parts, isOrdered: answer.isOrdered)
        let header = PopResponseHeader(
            popTime: answer.popTime, invisibleTime: answer.invisibleMilliseconds,
            reviveQueue: Self.reviveQueue(isOrdered: answer.isOrdered), restCount: answer.rest, lists: lists)
        connection.write {
            header.encode(
                into: &$0, answer.address, .success, remark: GetMessageStatus.found.remark, bodyCount: total)
        }
        for records in answer.records {
            guard !connection.isClosed else { return }
            if case .asStored(let range) = records {
                ranges.append(range)
                continue
            }
            sendRanges(on: connection)
            switch records {
            case .asStored: break
            case .redelivered(let range, let attempts):
                sender.sendRedelivered(range, reconsumeTimes: attempts, on: connection)
            case .copy(let bytes): connection.write { _ = $0.writeBytes(bytes) }
            }
        }
        sendRanges(on: connection)
    }
}

extension PopMessageProcessor {
    /// No byte of the answer was written, because its connection has closed meanwhile. No client has seen the messages,
    /// and the next one gets them at once. Once a byte was written the broker cannot know what the client has read:
    /// then they stay claimed until their time is over.
    private func takeBack(_ answer: Answer) {
        let time = claims.time
        for part in answer.parts where !part.table.isRemoved {
            // A batch that was handed out again (`reopened`) has been with a client.
            let unseen = (part.due.map(\.offset) + part.fresh).filter { offset in
                // Still this delivery.
                if case .claimed(_, answer.popTime, _, _) = part.table.state(of: offset, at: time) { return true }
                return false
            }
            part.table.abandon(unseen, at: time)
        }
        environment.scheduleTick()
    }
}
