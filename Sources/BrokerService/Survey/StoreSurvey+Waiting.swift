import FastJSON
import LinuxSystem
import MessageModel
import MessageStore
import StoreFormat

/// What waits for its time or its outcome: delay levels, timer messages, transactions.
extension StoreSurvey {
    // MARK: - Delay levels

    mutating func readDelays() throws(SystemError) {
        var table: [Int: Int64] = [:]
        if let json = try self.table(.delayOffsets) {
            for (level, offset) in entries(json, "offsetTable", .delayOffsets, ScheduleMessageService.entry) {
                table[level] = offset
            }
        }
        let exact = try deliveryProgress()?.levels ?? []
        let standard = DelayLevels.standard.delays
        for queue in report.queues(of: TopicNames.schedule) {
            let index = Int(queue.queueID)
            let counted = queue.lag(at: table[index + 1] ?? 0)
            let pending = min(counted, queue.lag(at: index < exact.count ? exact[index] : 0))
            // Down to what RocketMQ goes by.
            delayed[queue.queueID] = table[index + 1] ?? 0
            guard counted > 0 else { continue }
            report.delays.append(
                StoreReport.Delay(
                    level: index + 1, delayMilliseconds: index < standard.count ? standard[index] : nil,
                    pending: pending,
                    uncounted: counted - pending))
        }
    }

    /// Apus's own note, when it is about this log.
    private func deliveryProgress() throws(SystemError) -> DeliveryProgress? {
        let path = "\(configuration.storePathRootDir)/\(TimerFiles.folder)/\(DeliveryProgress.fileName)"
        guard try disk.information(path) != nil else { return nil }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: DeliveryProgress.size, alignment: 8)
        defer { buffer.deallocate() }
        let count = try disk.open(path, .read).read(into: buffer, at: 0)
        let progress = DeliveryProgress(UnsafeRawBufferPointer(rebasing: buffer[0..<count]))
        return progress.flatMap { $0.logEnd <= report.log.end ? $0 : nil }
    }

    // MARK: - Timers

    private struct Waiting {
        let key: TimerKey
        /// Hashes of what a cancellation names and of what copies have in common.
        let name: Int
        let copy: Int
        /// An edit has stored it.
        let isEdited: Bool
    }

    /// What cancellations stop, by a hash of what they name and their time.
    private struct Cancellations {
        private var found: [Int: TimerCancellation] = [:]

        private static func place(_ name: Int, _ due: Int64) -> Int {
            var hasher = Hasher()
            hasher.combine(name)
            hasher.combine(due)
            return hasher.finalize()
        }

        mutating func add(_ cancellation: TimerCancellation, due: Int64) {
            let place = Self.place(cancellation.key.hashValue, due)
            // The key is in the place.
            let short = TimerCancellation(key: "", before: cancellation.before, isRecall: cancellation.isRecall)
            if found[place]?.merge(short) == nil { found[place] = short }
        }

        /// Nil: nothing stops the message.
        func stop(_ waiting: Waiting) -> TimerCancellation? {
            func stops(_ due: Int64) -> TimerCancellation? {
                found[Self.place(waiting.name, due)].flatMap {
                    $0.stops(waiting.key.sequence, isEdited: waiting.isEdited) ? $0 : nil
                }
            }
            // A handle made by Apache names the millisecond after the due time.
            return stops(waiting.key.due) ?? stops(waiting.key.due +| 1).flatMap { $0.isRecall ? $0 : nil }
        }
    }

    mutating func readTimers() throws(SystemError) {
        let files = TimerFiles(disk: disk, storePath: configuration.storePathRootDir)
        let queue = report.queues(of: TopicNames.timer).first { $0.queueID == 0 }
        let first = queue?.first ?? 0
        let isSlaves = try files.isFollower()
        let newest = report.log.newestMilliseconds
        let standing = try TimerStanding(
            files, progress: try deliveryProgress()?.timer, first: first, end: queue?.end ?? 0,
            follower: isSlaves ? .wasOne : .never, lastStored: { newest },
            now: Clock.nowMilliseconds())
        let apache = try files.apacheNote()
        let known = standing.progress
        var waiting: [Waiting] = []
        var cancellations = Cancellations()
        var again: Int64 = 0
        func take(_ record: CommitLogRecordView, _ key: TimerKey) {
            let isDelivered = key <= known.watermark && key.sequence < known.ingested
            if record.property(PropertyName.timerDeleteUniqueKey) != nil {
                guard !isDelivered, let cancellation = TimerCancellation(record, sequence: key.sequence) else { return }
                cancellations.add(cancellation, due: key.due)
            } else if !isDelivered {
                waiting.append(
                    Waiting(
                        key: key, name: Self.name(record), copy: TimerProperties.copyKey(record).hashValue,
                        isEdited: record.editNote != nil))
            } else if key.sequence >= (apache?.taken ?? 0) || key.due > (apache?.delivered ?? 0) {
                again += 1
            }
        }
        try records(of: queue, from: first) { record, offset in
            take(record, TimerKey(due: Self.due(record), sequence: offset))
        }
        var own: Set<Int64> = []
        try framesOutOfTheLog(files, before: first) { record, key in
            guard key > known.watermark, own.insert(key.sequence).inserted else { return }
            take(record, key)
        } cancellation: {
            cancellations.add($0, due: $1)
        }
        var restored: Int64 = 0
        waiting.removeAll { message in
            guard let cancellation = cancellations.stop(message) else { return false }
            // RocketMQ obeys recalls, and reads the log only.
            if !cancellation.isRecall, !own.contains(message.key.sequence) { restored += 1 }
            return true
        }
        // Of copies RocketMQ 5 has rolled, the youngest is delivered.
        let youngest = Dictionary(waiting.map { ($0.copy, $0.key.sequence) }, uniquingKeysWith: max)
        waiting.removeAll { youngest[$0.copy] != $0.key.sequence }
        report.timers = StoreReport.Timers(
            pending: Int64(waiting.count), firstDueMilliseconds: waiting.map(\.key.due).min() ?? 0,
            lastDueMilliseconds: waiting.map(\.key.due).max() ?? 0,
            onlyInApus: Int64(waiting.count { own.contains($0.key.sequence) }),
            deliveredAgain: report.writer == .apus ? again : 0, restored: restored)
    }

    private static func due(_ record: CommitLogRecordView) -> Int64 {
        let due = record.property(PropertyName.timerOutMilliseconds).flatMap(TimerProperties.integer) ?? 0
        return min(max(0, due), TimerFrame.dueMax)
    }

    private static func name(_ record: CommitLogRecordView) -> Int {
        guard let key = record.property(PropertyName.uniqueKey) else { return Int.random(in: .min ... .max) }
        return TimerProperties.deleteKey(topic: record.property(PropertyName.realTopic) ?? record.topic, uniqueKey: key)
            .hashValue
    }

    /// Messages in Apus's own files the timer queue has no more.
    private func framesOutOfTheLog(
        _ files: TimerFiles, before first: Int64, _ body: (CommitLogRecordView, TimerKey) -> Void,
        cancellation: (TimerCancellation, Int64) -> Void
    ) throws(SystemError) {
        for bucket in try disk.list(files.directory).compactMap({ TimerBucket(fileName: $0) }).sorted() {
            let loaded = try files.load(bucket)
            for found in loaded.cancelling { cancellation(found.cancellation, found.due) }
            guard let bytes = loaded.region?.bytes else { continue }
            for entry in loaded.entries where !entry.isCancellation && entry.sequence < first {
                let frame = UnsafeRawBufferPointer(
                    rebasing: bytes[Int(entry.position)..<Int(entry.position) + Int(entry.size)])
                if case .record(let record) = CommitLogRecord.parse(frame) { body(record, entry.key) }
            }
        }
    }

    // MARK: - Transactions

    mutating func readTransactions() throws(SystemError) {
        let half = report.queues(of: TopicNames.half).first { $0.queueID == 0 }
        guard let half, half.end > half.first else { return }
        let op = report.queues(of: TopicNames.opHalf).first { $0.queueID == 0 }
        let group = TransactionalMessageService.group.text
        func begin(_ queue: StoreReport.Queue?, _ topic: String) -> Int64 {
            guard let queue else { return 0 }
            return min(max(offsets(of: group, in: topic)[0] ?? queue.first, queue.first), queue.end)
        }
        let from = (half: begin(half, TopicNames.half), op: begin(op, TopicNames.opHalf))
        var open = OpenTransactions(settings: .init(), halfOffset: from.half, opOffset: from.op)
        var ended: Set<Int64> = []
        try records(of: op, from: from.op) { record, _ in
            let named = OpMessage.halfOffsets(record.body)
            open.opArrived(naming: named)
            ended.formUnion(named)
        }
        try records(of: half, from: from.half) { record, offset in
            let half = HalfMessage(record, at: offset)
            open.arrived(
                half,
                isEnded: ended.contains(half.queueOffset)
                    || half.preparedQueueOffset.map { ended.contains($0) } == true)
        }
        report.openTransactions = Int64(open.count)
    }

    // MARK: - Records by queue

    /// Each record a queue points at; one that is not in the log (any more) is left out.
    private func records(
        of queue: StoreReport.Queue?, from start: Int64, _ body: (CommitLogRecordView, Int64) -> Void
    ) throws(SystemError) {
        guard let queue, start < queue.end,
            var folder = try QueueFolder("\(configuration.consumeQueuePath)/\(queue.topic)/\(queue.queueID)", disk)
        else { return }
        for offset in max(start, queue.first)..<queue.end {
            guard let entry = try folder.entry(offset), entry != .preBlank else { continue }
            _ = try log.record(at: entry.physicalOffset.rawValue) { body($0, offset) }
        }
    }
}
