import Glibc
import LinuxSystem
import Logging
import MessageModel
import StoreFormat
import StoreReader

/// Finding out at the start what the log, the queues and the index hold.
extension MessageStore {
    func recover(wasClean: Bool, rocketMQKill: Bool) throws(StoreError) {
        let started = clock()
        guard let first = logFiles.first else {
            try forgetEverything()
            noteOwnStart()
            return
        }
        let points = try onDisk { () throws(SystemError) in try recoveryPoint.load() }
        var plan = try makePlan(
            wasClean: wasClean, rocketMQKill: rocketMQKill, first: first, soft: points.soft, hard: points.hard)
        plan.wasClean = wasClean
        let newest = [points.soft, points.hard].compactMap { $0 }.max { $0.sequence < $1.sequence }
        plan.isOurs = newest != nil
        plan.logIsUnverified = !wasClean && newest?.boot == bootIdentity
        try loadQueues(&plan, first: first)
        try loadIndex(&plan, wasClean: wasClean, first: first)
        try checkIndex(&plan, first: first)
        try loadEdits(&plan, first: first)

        log.beginRecovery(from: plan.dispatchFrom, filesEnd: logFiles.end)
        recoveredFrom = plan.dispatchFrom
        needsCheck = !wasClean || plan.point == nil || edits.isUnknown
        // A kill, too, can end a write at a block's end inside a record.
        let mode: DispatchMode = wasClean ? .verify : [.verify, .tornBlocks]
        var stop = dispatchWindows(upTo: logFiles.end, mode)
        while case .damaged(let damage) = stop, skipDamage(damage, plan) {
            stop = dispatchWindows(upTo: logFiles.end, mode)
        }
        let end = log.dispatched
        decideWaitingRecords()
        try adopt(end: end, stop: stop, plan: plan, wasClean: wasClean)
        // A process that finds no point does not know that this start of the machine was ours.
        if newest == nil { noteOwnStart() }
        let elapsed = clock() - started
        logger.info(
            "store recovered in \(elapsed) ms",
            metadata: [
                "clean": "\(wasClean)", "from": "\(plan.dispatchFrom)", "end": "\(end)", "first": "\(first)",
                "queues": "\(table.queues.count)",
            ])
    }

    /// For the case that this process or the machine stops before the first pass. Then queues and index count as of the
    /// newest hard point, and the log was ours.
    private func noteOwnStart() {
        do throws(SystemError) {
            try noteCheckpointUnderWay()
            try recoveryPoint.synchronize()
            try disk.synchronizeDirectory(configuration.consumeQueuePath)
            try disk.synchronizeDirectory(configuration.storePathRootDir)
        } catch {
            logger.warning(
                """
                there is no recovery point until the first pass has written one, a start until then reads more of the \
                log: \(error)
                """
            )
        }
    }

    /// Without a log, queues and index point at nothing: RocketMQ deletes them too.
    private func forgetEverything() throws(StoreError) {
        try onDisk { () throws(SystemError) in
            let folders = try queueFolders()
            if !folders.isEmpty {
                logger.warning(
                    "the commit log is empty: \(folders.count) consume queues point at nothing and are deleted")
            }
            for folder in folders {
                try queueFiles.remove(findConsumeQueue(topic: folder.topic, queueID: folder.queueID))
            }
            table.removeAll()
            if let index {
                try index.load(keepingUpTo: 0)
            }
            try recoveryPoint.remove()
            try editFile.remove()
        }
        log.begin(at: PhysicalOffset(0))
    }

    private func queueFolders() throws(SystemError) -> [ConsumeQueueFiles.QueueFolder] {
        var odd: [NameError] = []
        let folders = try queueFiles.folders { odd.append($0) }
        if let first = odd.first {
            logger.error(
                """
                \(odd.count) folders in \(configuration.consumeQueuePath) are no topic's and are left alone: \(first); \
                nothing is read from them
                """
            )
        }
        return folders
    }

    private func makePlan(
        wasClean: Bool, rocketMQKill: Bool, first: PhysicalOffset, soft: RecoveryPoint?, hard: RecoveryPoint?
    ) throws(StoreError) -> RecoveryPlan {
        func usable(_ point: RecoveryPoint?) -> RecoveryPoint? {
            guard let point, point.dispatched >= first, point.dispatched <= logFiles.end else { return nil }
            return point
        }
        let newest = [soft, hard].compactMap { $0 }.max { $0.sequence < $1.sequence }
        let covered = usable(hard)?.dispatched ?? first
        // An older release's point does not contain how far the log was synchronized.
        let flushed = newest?.flushed ?? PhysicalOffset(0)
        let synchronized = flushed > first && flushed <= logFiles.end ? flushed : covered
        let fresh = soft.flatMap { $0.boot == bootIdentity && $0.sequence > (hard?.sequence ?? 0) ? $0 : nil }
        if let fresh, fresh.trust == .synchronizationFailed, !wasClean {
            // Only what was synchronized counts, as after a power cut, and the rest of the log must be written again.
            logger.warning(
                "a synchronization failed before the last end: everything behind \(synchronized) is written again")
            flush.fail()
            gate.close(.notWritable(remark: "the commit log is being verified after a failed synchronization"))
            return RecoveryPlan(
                trusted: covered, dispatchFrom: covered, afterPowerLoss: true, point: usable(hard),
                synchronized: synchronized)
        }
        // A point of ours is older than what RocketMQ wrote.
        if rocketMQKill {
            return RecoveryPlan(
                trusted: .max, dispatchFrom: .max, afterPowerLoss: false, afterRocketMQKill: true, point: nil,
                synchronized: try fileFromCheckpoint())
        }
        if let soft = usable(fresh), soft.trust == .full {
            return RecoveryPlan(
                trusted: soft.dispatched, dispatchFrom: soft.dispatched, afterPowerLoss: false, point: soft,
                synchronized: synchronized)
        }
        if let hard = usable(hard) {
            let sameBoot = hard.boot == bootIdentity
            return RecoveryPlan(
                trusted: hard.dispatched, dispatchFrom: hard.dispatched, afterPowerLoss: !wasClean && !sameBoot,
                checkpointWasUnderWay: !wasClean && fresh?.trust == .checkpointUnderWay, point: hard,
                synchronized: synchronized)
        }
        // RocketMQ's own way.
        if wasClean {
            return RecoveryPlan(
                trusted: .max, dispatchFrom: .max, afterPowerLoss: false, point: nil, synchronized: first)
        }
        let from = try fileFromCheckpoint()
        return RecoveryPlan(trusted: from, dispatchFrom: from, afterPowerLoss: true, point: nil, synchronized: from)
    }

    /// The newest file whose first message is old enough for the checkpoint to cover it (`isMappedFileMatchedRecover`).
    private func fileFromCheckpoint() throws(StoreError) -> PhysicalOffset {
        let limit = try onDisk { () throws(SystemError) in try readCheckpoint() }?.minTimestamp ?? 0
        for (base, _) in logFiles.files.reversed() {
            let time = recordAt(base)?.storeTimestamp ?? 0
            if time > 0, time <= limit { return base }
        }
        return logStart
    }

    private func readCheckpoint() throws(SystemError) -> StoreCheckpointLayout? {
        guard try disk.information(checkpointPath) != nil else { return nil }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 24, alignment: 8)
        defer { buffer.deallocate() }
        let got = try disk.open(checkpointPath, .read).read(into: buffer, at: 0)
        return StoreCheckpointLayout(UnsafeRawBufferPointer(rebasing: buffer[0..<got]))
    }

    private func loadQueues(_ plan: inout RecoveryPlan, first: PhysicalOffset) throws(StoreError) {
        let folders = try onDisk { () throws(SystemError) in try queueFolders() }
        var queues = folders.map { findConsumeQueue(topic: $0.topic, queueID: $0.queueID) }
        let anew = try load(queues, plan)
        plan.known =
            plan.point.map { max($0.dispatched, plan.synchronized) }
            ?? (plan.trusted == .max ? queueEnd(queues) ?? PhysicalOffset(0) : plan.synchronized)
        if let point = plan.point {
            let entries = queues.reduce(Int64(0)) { $0 +| $1.maxOffset.rawValue }
            if Int64(queues.count) < point.queues || entries < point.entries || !reaches(point.dispatched, queues) {
                logger.warning("consume queues are missing: all are built anew from the commit log")
                plan.trusted = first
                plan.dispatchFrom = first
                plan.indexIsStale = true
                queues = table.queues
                _ = try load(queues, plan)
            }
        }
        if plan.trusted == .max {
            plan.dispatchFrom = max(first, queueEnd(queues) ?? first)
            plan.trusted = plan.dispatchFrom
        } else if plan.point == nil, plan.trusted > first, queueEnd(queues) == nil {
            // The checkpoint covers queues that were deleted.
            logger.warning("there are no consume queues: all are built anew from the commit log")
            plan.trusted = first
            plan.dispatchFrom = first
        }
        plan.dispatchFrom = min(plan.dispatchFrom, anew)
        try onDisk { () throws(SystemError) in
            for queue in queues where queue.firstPhysicalOffset < first {
                try queueFiles.expire(queue, before: first)
            }
        }
    }

    /// - Returns: from where on the log may have messages whose entries a queue has lost to damage. A recovery point
    ///   counts entries instead.
    private func load(_ queues: [ConsumeQueue], _ plan: RecoveryPlan) throws(StoreError) -> PhysicalOffset {
        var anew = PhysicalOffset.max
        var short = 0
        for queue in queues {
            let mayGoOn = try onDisk { () throws(SystemError) in
                try queueFiles.load(
                    queue, trusted: plan.trusted, afterPowerLoss: plan.queuesMayHaveHoles,
                    checksLast: plan.queuesMayHaveHoles || plan.afterRocketMQKill, logStart: logStart,
                    asksWhatFollows: plan.point == nil
                ) { entry, offset in
                    guard let record = recordAt(entry.physicalOffset) else { return false }
                    return record.queueOffset == offset && record.queueID == queue.queueID
                }
            }
            guard mayGoOn, plan.point == nil else { continue }
            anew = min(anew, queue.lastPhysicalOffset)
            short += 1
        }
        guard short > 0 else { return anew }
        logger.warning("\(short) queues end early, with damage behind: what they lack is entered from the log again")
        return replayStart(anew)
    }

    /// End of the newest record any queue knows.
    private func queueEnd(_ queues: [ConsumeQueue]) -> PhysicalOffset? {
        guard let newest = queues.map({ $0.lastPhysicalOffset }).max(), newest.rawValue >= 0,
            let record = recordAt(newest)
        else {
            return nil
        }
        return newest + Int64(record.size)
    }

    /// Whether the records after the newest one in a queue lead exactly to `offset`. Then the log is the one the
    /// recovery point was made for.
    private func reaches(_ offset: PhysicalOffset, _ queues: [ConsumeQueue]) -> Bool {
        guard var position = queueEnd(queues) else { return true }
        while position < offset {
            guard let record = recordAt(position) else { return false }
            position = end(of: record, at: position)
        }
        return position == offset
    }

    /// The few fields recovery looks at.
    struct RecordGlimpse {
        var size: Int
        var queueID: Int32
        var queueOffset: QueueOffset
        var storeTimestamp: Int64
        var isBlank: Bool
    }

    /// Where the log goes on after a record; after a blank one that is the next file.
    func end(of record: RecordGlimpse, at offset: PhysicalOffset) -> PhysicalOffset {
        record.isBlank ? logFiles.base(of: offset) + logFiles.fileSize : offset + record.size
    }

    /// The record that begins at an offset, if one does.
    func recordAt(_ offset: PhysicalOffset) -> RecordGlimpse? {
        // A damaged entry may name any offset.
        guard offset.rawValue >= 0, offset < logFiles.end else { return nil }
        let inFile = logFiles.base(of: offset) + logFiles.fileSize - offset
        guard inFile >= Int64(CommitLogRecord.blankSize) else { return nil }
        var needed = CommitLogRecord.blankSize
        while true {
            let glimpse: (RecordGlimpse?, Int)? = windows.withBytes(at: offset, size: needed) { bytes in
                switch CommitLogRecord.parse(bytes, maximumSize: Int(inFile)) {
                case .record(let record):
                    guard record.physicalOffset == offset else { return (nil, 0) }
                    return (
                        RecordGlimpse(
                            size: record.totalSize, queueID: record.queueID, queueOffset: record.queueOffset,
                            storeTimestamp: record.storeTimestamp, isBlank: false), 0
                    )
                case .blank(let size):
                    return (
                        RecordGlimpse(
                            size: size, queueID: 0, queueOffset: QueueOffset(0), storeTimestamp: 0, isBlank: true), 0
                    )
                case .incomplete(let needed): return (nil, needed)
                case .invalid: return (nil, 0)
                }
            }
            guard let glimpse else { return nil }
            if let found = glimpse.0 { return found }
            if glimpse.1 <= needed { return nil }
            needed = glimpse.1
        }
    }

    private func loadIndex(_ plan: inout RecoveryPlan, wasClean: Bool, first: PhysicalOffset) throws(StoreError) {
        guard let index else { return }
        try onDisk { () throws(SystemError) in
            try index.load(keepingUpTo: plan.indexIsStale ? 0 : plan.queuesMayHaveHoles ? plan.point?.indexName : nil)
            if plan.indexIsStale { return }
            guard let point = plan.point else {
                if plan.afterRocketMQKill {
                    try index.repairLast()
                    plan.dispatchFrom =
                        index.coveredOffset.rawValue < 0
                        ? first : max(first, min(plan.dispatchFrom, index.coveredOffset))
                    return
                }
                if !wasClean {
                    // RocketMQ trusts files its checkpoint covers.
                    let limit = try readCheckpoint()?.indexMsgTimestamp ?? 0
                    // What it does not cover is read and not trusted.
                    try index.salvage(notBefore: limit, below: plan.dispatchFrom) { recordAt($0)?.storeTimestamp }
                }
                if index.coveredOffset.rawValue < 0 {
                    plan.dispatchFrom = first
                } else if !wasClean {
                    plan.dispatchFrom = max(first, min(plan.dispatchFrom, index.coveredOffset))
                }
                return
            }
            if !plan.queuesMayHaveHoles, !wasClean { try index.repairLast() }
            // Nothing was indexed below the point.
            if point.indexName == 0 { return }
            guard 0...index.layout.entries ~= Int(point.indexHeader.indexCount),
                let at = index.files.firstIndex(where: { Int64($0.name) == point.indexName }),
                index.files[at].header.indexCount >= point.indexHeader.indexCount || plan.queuesMayHaveHoles
            else {
                logger.warning("index files are missing: the index is built anew from the commit log")
                try index.remove(from: 0)
                plan.dispatchFrom = first
                return
            }
            if plan.queuesMayHaveHoles {
                try index.rewindLast(to: point.indexHeader)
            }
        }
    }

    /// A header of the index that does not agree with its file would hide keys: the file and those after it are made
    /// anew.
    private func checkIndex(_ plan: inout RecoveryPlan, first: PhysicalOffset) throws(StoreError) {
        guard let index else { return }
        try onDisk { () throws(SystemError) in
            let bad = try index.firstDamagedHeader(logEnd: logFiles.end) { recordAt($0)?.storeTimestamp }
            guard let bad else { return }
            logger.error("index file \(index.files[bad].diskFile.path) is damaged: built anew from the commit log")
            try index.remove(from: bad)
            plan.dispatchFrom =
                index.coveredOffset.rawValue < 0 ? first : max(first, min(plan.dispatchFrom, index.coveredOffset))
        }
    }

    /// Makes the end found the end of log, queues and index.
    private func adopt(end: PhysicalOffset, stop: DispatchStop, plan: RecoveryPlan, wasClean: Bool) throws(StoreError) {
        guard stop != .end || end >= logFiles.end else {
            // A range that cannot be read is not the log's end: writing there would destroy what it holds.
            let path = logFiles.path(base: logFiles.base(of: end))
            throw .disk(SystemError(errno: EIO, call: "mmap", subject: path))
        }
        var isTorn = stop != .end && (stop != .damaged(.nothing) || end < plan.known)
        if isTorn {
            logger.warning("commit log ends at \(end): \(stop) follows and is cut off")
        } else if stop != .end, !wasClean, !plan.afterPowerLoss, let data = firstData(behind: end) {
            logger.warning("commit log ends at \(end): what lies at \(data) is no message and is cut off")
            isTorn = true
        }
        try onDisk { () throws(SystemError) in
            if isTorn || (!wasClean && plan.afterPowerLoss) {
                windows.reset()
                try logFiles.truncate(to: end)
            }
            try cutQueues(to: end)
            try index?.cut(to: end)
        }
        index?.apply()
        let base = logFiles.base(of: end)
        log.endRecovery(
            at: end, fileEnd: logFiles.file(base: base) == nil ? end : base + logFiles.fileSize,
            flushed: wasClean ? end : min(end, plan.synchronized))
        reservation.reset(to: end)
        flush.markUnverified(upTo: plan.logIsUnverified ? end : PhysicalOffset(0))
        if !wasClean {
            // What the process before wrote may still be on its way to the disk: the first checkpoint synchronizes
            // everything.
            queueFiles.touchEverything()
            index?.touchEverything()
        }
        verifiedFrom = end
        for queue in table.queues { queue.nextOffset = queue.maxOffset }
        if end < plan.known {
            // The points on the disk state that more of the log is durable than exists now.
            if flush.isBroken { noteFailedSynchronization() } else { noteOwnStart() }
        }
    }
}
