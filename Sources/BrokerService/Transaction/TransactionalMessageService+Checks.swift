import Logging
import MessageModel
import MessageStore
import NIOCore
import RemotingProtocol
import RemotingTransport
import StoreFormat

extension TransactionalMessageService {
    func later(_ milliseconds: Int64) { arm(at: environment.now() + milliseconds) }

    func arm() {
        guard let wake = open?.nextWake else { return }
        arm(at: wake)
    }

    func arm(at milliseconds: Int64) {
        guard isRunning, task == nil || milliseconds < taskAtMilliseconds else { return }
        task?.cancel()
        taskAtMilliseconds = milliseconds
        let sleep = min(max(0, milliseconds -| environment.now()), Self.sleepMaxMilliseconds)
        let this = NIOLoopBound(self, eventLoop: environment.eventLoop)
        task = environment.eventLoop.scheduleTask(in: .milliseconds(sleep)) { this.value.check() }
    }

    func check() {
        task = nil
        taskAtMilliseconds = Int64.max
        catchUp.run(in: environment.slices) { [unowned self] in
            checkSome()
        } then: { [unowned self] in
            arm()
        }
    }

    /// One slice; `true` when more is due.
    private func checkSome() -> Bool {
        guard isRunning else { return false }
        let now = environment.now()
        let owed = owedOps
        owedOps = []
        for (halfOffset, late) in owed { storeOp(halfOffset, late: late) }
        var count = 0
        var bytes = 0
        while count < Self.checkBatch, bytes < Self.checkBytes, let due = open?.nextDue(now: now) {
            count += 1
            switch due {
            case .check(let half):
                bytes += Int(half.size)
                check(half, now)
            case .giveUp(let half):
                bytes += Int(half.size)
                giveUp(half, now)
            }
        }
        if hasAppended { storage.scheduleTick() }
        return count == Self.checkBatch || bytes >= Self.checkBytes
    }

    private func check(_ half: HalfMessage, _ now: Int64) {
        guard readOpen(half, now) else { return }
        let group = scratch.withUnsafeBytes { bytes -> String in
            guard case .record(let record) = CommitLogRecord.parse(bytes) else { return "" }
            return record.property(PropertyName.producerGroup).map { String(decoding: $0, as: UTF8.self) } ?? ""
        }
        guard tables.producers.clients(of: group)?.isEmpty == false else {
            // Asked as soon as one is there, and looked at again for its age.
            waiting[group, default: []].insert(half.queueOffset)
            open?.postpone(half.queueOffset, until: Int64.max)
            return
        }
        guard storeAgain(topic: TopicNames.half, checks: half.checks +| 1, origin: half.origin) else {
            open?.postpone(half.queueOffset, until: now + Self.retryMilliseconds)
            return
        }
        storeOp(half.queueOffset)
    }

    /// Into `scratch`. False: there is nothing left to decide about, or not now.
    private func readOpen(_ half: HalfMessage, _ now: Int64) -> Bool {
        switch lookAtRecord(at: half.physicalOffset) {
        case .found: return true
        case .unreadable:
            open?.postpone(half.queueOffset, until: now +| Self.retryMilliseconds)
            return false
        case .deleted:
            // A kill came between the withdrawal and its outcome.
            storeOp(half.queueOffset)
            return false
        case .gone: break
        }
        environment.logger.error(
            """
            the prepared message at \(half.physicalOffset) cannot be read from the log any more and had no outcome: it \
            will not be delivered
            """
        )
        storeOp(half.queueOffset)
        return false
    }

    private func giveUp(_ half: HalfMessage, _ now: Int64) {
        guard readOpen(half, now) else { return }
        _ = tables.topics.findOrCreate(
            .transactionCheckMaxTime, queueNums: Self.checkMaxTimeQueues,
            perm: Permission.read | Permission.write)
        guard
            storeAgain(
                topic: TopicNames.transactionCheckMaxTime, checks: half.checks, origin: half.origin)
        else {
            open?.postpone(half.queueOffset, until: now + Self.retryMilliseconds)
            return
        }
        environment.logger.error(
            """
            the prepared message at \(half.physicalOffset) got no outcome in \(half.checks) checks; it lies in \
            \(TopicNames.transactionCheckMaxTime) now (RESUME_CHECK_HALF_MESSAGE brings it back)
            """
        )
        justPutAside.insert(half.origin)
        storeOp(half.queueOffset)
    }

    /// Stores the message in `scratch` in a topic of the broker's own. Copies are stored also on a disk that takes no
    /// more from producers: they make room.
    /// - Parameter origin: `HalfMessage.origin`; `nil` when it is not known.
    func storeAgain(topic: String, checks: Int, origin: Int64?) -> Bool {
        scratch.withUnsafeBytes { bytes in
            guard case .record(let record) = CommitLogRecord.parse(bytes) else { return false }
            var properties = PropertyList(record.properties)
            let name = "\(PropertyName.transactionCheckTimes)"
            if checks > 0 || properties[name] != nil { properties[name] = String(checks) }
            properties[PropertyName.halfOffset] = origin.map { String($0) }
            return Array(topic.utf8).withUnsafeBytes { topic in
                properties.bytes.withUnsafeBytes { properties in
                    var draft = MessageDraft(copyOf: record, topic: topic, queueID: 0, properties: properties)
                    draft.mayUseReserve = true
                    if case .appended = storage.store.append(draft) {
                        hasAppended = true
                        return true
                    }
                    return false
                }
            }
        }
    }

    /// Whether the message in `scratch` is a prepared one. Any other, made one, would be no producer's.
    private func isParked() -> Bool {
        scratch.withUnsafeBytes { bytes in
            guard case .record(let record) = CommitLogRecord.parse(bytes) else { return false }
            return record.topic.matches(KnownTopic.transactionCheckMaxTime) || record.topic.matches(KnownTopic.half)
        }
    }

    /// RESUME_CHECK_HALF_MESSAGE (323): a message without an outcome is asked for again from the beginning.
    func resumeCheck(physicalOffset: Int64) -> Bool {
        guard isRunning, let half = readRecord(at: physicalOffset), isParked() else { return false }
        // Its producer has sent an outcome since it was parked.
        if let key = scratchNames().uniqueKey, EndedTransactions(storage).wasEndedAside(key, half) != .none {
            return false
        }
        guard storeAgain(topic: TopicNames.half, checks: 0, origin: half.isOriginKnown ? half.origin : nil) else {
            return false
        }
        storage.scheduleTick()
        return true
    }

    /// A producer has connected: what waits for its group is asked now.
    func producerJoined(_ group: String) {
        guard let offsets = waiting.removeValue(forKey: group) else { return }
        // The oldest first.
        var left = offsets.sorted()[...]
        let slice = { [unowned self] () -> Bool in
            guard isRunning else { return false }
            let now = environment.now()
            for offset in left.prefix(Self.postponeBatch) { open?.postpone(offset, until: now) }
            left = left.dropFirst(Self.postponeBatch)
            arm()
            return !left.isEmpty
        }
        if slice() { environment.slices.add(slice) }
    }

    func ask(_ half: HalfMessage) {
        guard readRecord(at: half.physicalOffset) != nil else { return }
        scratch.withUnsafeBytes { bytes in
            guard case .record(let record) = CommitLogRecord.parse(bytes), let body = CheckMessage.body(record),
                let group = record.property(PropertyName.producerGroup),
                let members = tables.producers.clients(of: String(decoding: group, as: UTF8.self)), !members.isEmpty
            else { return }
            nextProducer &+= 1
            let uniqueKey = record.property(PropertyName.uniqueKey).map { String(decoding: $0, as: UTF8.self) }
            var fields = [
                "commitLogOffset": String(half.physicalOffset), "tranStateTableOffset": String(half.queueOffset),
                "offsetMsgId": OffsetMessageID.text(
                    host: record.storeHost, physicalOffset: half.physicalOffset),
            ]
            if let uniqueKey {
                fields["msgId"] = uniqueKey
                fields["transactionId"] = uniqueKey
            }
            let member = members[nextProducer % members.count]
            member.client.connection.oneway(RemotingCommand(.checkTransactionState, extFields: fields, body: body))
        }
    }
}
