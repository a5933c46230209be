import MessageStore
import RemotingProtocol
import RemotingTransport
import StoreFormat
import WorkerProtocol

// Pulls whose filter needs the filter worker. Its verdicts come for ranges of a queue (`FilterWindow`), and a pull
// reads on through as many as it takes to find something.
extension MessageReader {
    /// How long one pull reads on without finding anything before its client gets the offset to go on from. Others are
    /// served meanwhile; this only keeps the answer well inside every client's time-out.
    static let scanMilliseconds: Int64 = 300

    func awaitCompilation(_ request: ReadRequest, _ subscription: CompiledSubscription, _ expired: Bool) {
        if expired { return answerNothingYet(request) }
        guard request.maySuspend || (filters.isConnected && request.compilationsAwaited == 0) else {
            return refuse(request, .systemBusy, filters.absence)
        }
        if request.maySuspend { hold.hold(request) }
        guard !request.awaitsCompilation else { return }
        request.awaitsCompilation = true
        filters.whenCompiled(subscription) { [unowned self] in
            request.awaitsCompilation = false
            request.compilationsAwaited += 1
            // A held pull may have been answered at its deadline meanwhile.
            if request.maySuspend {
                guard request.isHeld else { return }
                hold.release(request)
            }
            read(request, expired: false)
            storage.scheduleTick()
        }
    }

    func readFiltered(
        _ request: ReadRequest, _ subscription: CompiledSubscription, _ program: UInt32, _ expired: Bool
    ) {
        guard
            let queue = request.topic.nameBytes.withUnsafeBytes({
                storage.store.consumeQueue(topic: $0, queueID: request.queueID)
            }), request.queueOffset >= queue.minOffset.rawValue, request.queueOffset < queue.maxOffset.rawValue
        else { return readNothing(request, expired) }
        let window = filters.window(subscription, queue, request.group)
        while request.queueOffset < queue.maxOffset.rawValue {
            guard let verdicts = window.verdicts(at: request.queueOffset) else {
                if let until = request.scanUntilMilliseconds, environment.now() >= until { break }
                switch ask(window, subscription, program, from: request.queueOffset) {
                case .decided: continue
                case .asked:
                    if request.scanUntilMilliseconds == nil {
                        request.scanUntilMilliseconds = environment.now() + Self.scanMilliseconds
                    }
                    return window.wait(.init(reader: request, expired: expired))
                case .impossible: return notFiltered(request, expired)
                case .unreadable: return readNothing(request, expired)
                }
            }
            let result = storage.store.selectMessages(
                queue, from: QueueOffset(request.queueOffset), verdicts: verdicts, maxCount: request.maxMessageNums,
                maxBytes: request.maxMessageBytes ?? Int.max, into: &ranges)
            if !request.others.isEmpty {
                let first = request.queueOffset
                skipped.note(request, to: result.nextBeginOffset.rawValue) { index, _ in
                    verdicts.wants(first + Int64(index))
                }
            }
            guard result.status == .noMatchedMessage else {
                finish(request, result, expired)
                if let next = window.next(after: result.nextBeginOffset.rawValue) {
                    _ = ask(window, subscription, program, from: next)
                }
                return
            }
            // Entries that could be read a moment ago no longer can.
            guard result.nextBeginOffset.rawValue > request.queueOffset else { return readNothing(request, expired) }
            request.queueOffset = result.nextBeginOffset.rawValue
        }
        ranges.removeAll(keepingCapacity: true)
        request.scanUntilMilliseconds = nil
        if !expired, request.maySuspend, request.queueOffset >= queue.maxOffset.rawValue {
            // All there is was looked at: the pull waits on after it instead of going back and forth.
            return hold.hold(request)
        }
        var result = look(request)
        result.messageCount = 0
        result.bytes = 0
        result.status = .noMatchedMessage
        result.nextBeginOffset = QueueOffset(request.queueOffset)
        ranges.removeAll(keepingCapacity: true)
        request.answer(.noMatch(result), [])
    }

    /// A pull whose offset has no message: the rules of a read (offset too small, at the end, …) are the store's.
    private func readNothing(_ request: ReadRequest, _ expired: Bool) {
        let result = look(request)
        ranges.removeAll(keepingCapacity: true)
        finish(request, result, expired)
    }

    private enum Asked {
        /// The verdicts are there: the tags decided.
        case decided
        /// The filter worker will answer; the window notifies what waits.
        case asked
        /// There is no filter worker.
        case impossible
        /// The queue's entries cannot be read.
        case unreadable
    }

    /// Asks the filter worker about the entries from `offset` on.
    private func ask(
        _ window: FilterWindow, _ subscription: CompiledSubscription, _ program: UInt32, from offset: Int64
    ) -> Asked {
        // One question at a time; a read that waits for this one looks again when it is answered.
        guard !window.isAsking else { return .asked }
        var entries: [UInt8] = []
        storage.store.appendEntries(
            window.queue, from: QueueOffset(offset),
            maxCount: window.begin(from: offset, atMost: subscription.batchMax),
            to: &entries)
        let count = entries.count / ConsumeQueueEntry.size
        guard count > 0 else {
            _ = window.ended(nil)
            return .unreadable
        }
        // With the answer there is no need to read them again.
        let kept = filters.entryMemory.keep(entries)
        func decided(_ verdicts: EntryVerdicts) -> EntryVerdicts {
            var verdicts = verdicts
            verdicts.entries = kept
            return verdicts
        }
        func outcome() -> Asked { window.isAsking ? .asked : window.covers(offset) ? .decided : .impossible }
        guard let prefilter = subscription.prefilter else {
            filters.match(subscription, program: program, entries: entries) { [unowned self] bitmap in
                answered(
                    window,
                    bitmap.map { decided(EntryVerdicts(start: offset, count: min(count, $0.count * 8), bitmap: $0)) })
            }
            return outcome()
        }
        var asked: [Int32] = []
        var wanted: [UInt8] = []
        entries.withUnsafeBytes { bytes in
            for index in 0..<count {
                let entry = UnsafeRawBufferPointer(
                    rebasing: bytes[index * ConsumeQueueEntry.size..<(index + 1) * ConsumeQueueEntry.size])
                guard let base = entry.baseAddress, prefilter.contains(ConsumeQueueEntry(base).tagsCode) else {
                    continue
                }
                asked.append(Int32(index))
                wanted.append(contentsOf: entry)
            }
        }
        if asked.isEmpty {
            _ = window.ended(EntryVerdicts(start: offset, count: count, bitmap: []))
            return .decided
        }
        filters.match(subscription, program: program, entries: wanted) { [unowned self] bitmap in
            answered(
                window,
                bitmap.map {
                    // What lies between the last one looked at and the next is decided, too.
                    let end = $0.count * 8 < asked.count ? Int(asked[$0.count * 8]) : count
                    return decided(EntryVerdicts(start: offset, count: end, asked: asked, bitmap: $0))
                })
        }
        return outcome()
    }

    private func answered(_ window: FilterWindow, _ verdicts: EntryVerdicts?) {
        for waiter in window.ended(verdicts) {
            waiter.reader.filterAnswered(verdicts != nil, expired: waiter.expired)
        }
        storage.scheduleTick()
    }

    /// The filter worker has ended, is late, or could not evaluate: nothing is delivered and no offset moves past what
    /// it did not see.
    func notFiltered(_ request: ReadRequest, _ expired: Bool) {
        guard !request.client.connection.isClosed else { return request.abandoned() }
        request.scanUntilMilliseconds = nil
        if expired {
            answerNothingYet(request)
        } else if request.maySuspend {
            // Runs again when the worker is back, at the next arrival, or ends at its deadline.
            hold.hold(request)
        } else {
            refuse(request, .systemBusy, filters.absence)
        }
    }
}
