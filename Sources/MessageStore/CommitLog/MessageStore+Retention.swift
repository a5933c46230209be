import Glibc
import LinuxSystem
import Logging
import SettingTable
import StoreFormat
import StoreReader

extension MessageStore {
    /// Every `cleanResourceInterval`: the disk is looked at, expired or surplus files go, oldest first
    /// (`CleanCommitLogService`), then what pointed into them.
    func cleanIfDue(_ now: Int64) {
        expireSomeQueues()
        let isRequested = retention.isRequested
        let interval = Int64(configuration.cleanResourceInterval)
        guard retention.beginRoundIfDue(now: now, intervalMilliseconds: interval) else { return }
        let pressure = lookAtSpace()
        let expired = now - Int64(configuration.fileReservedTime) * 3_600_000
        let isTime = isDeleteHour(now)
        var removed = 0
        var isUnknown = false
        retention.beginDeleting()
        // As many at a time as RocketMQ: the others wait for the next round.
        while removed < Self.filesPerRound, logFiles.files.count > 1, let oldest = logFiles.files.first {
            // The file that is written, and a prepared one after it, stay.
            guard oldest.base + logFiles.fileSize <= log.written, oldest.base + logFiles.fileSize <= log.flushed else {
                break
            }
            let isOld = lastChange(oldest.file) < expired
            let must = pressure == .forced && configuration.cleanFileForciblyEnable
            guard must || (isOld && (isTime || isRequested || pressure != .none)) else { break }
            // Soon: the next round comes at once.
            isUnknown = !isNeedKnown
            if isUnknown { break }
            if isNeeded(oldest.base) {
                // At the next look the file may go.
                if must { for hold in retentionHolds { hold.makeRoom?(oldest.base + logFiles.fileSize) } }
                break
            }
            guard removeOldestFile(isUrgent: must) else { break }
            removed += 1
            if !isOld { retention.noteForced(oldest.base) }
            if must, lookAtSpace() != .forced { break }
        }
        retention.endRound(isComplete: removed < Self.filesPerRound && !isUnknown, comesAgain: isUnknown)
        if removed > 0 {
            logger.notice(
                "deleted \(removed) commit log files",
                metadata: [
                    "expired": "\(isTime || isRequested)", "pressure": "\(pressure)", "first": "\(minPhysicalOffset)",
                ])
            retention.expire(table.queues)
            events.minimumMoved(minPhysicalOffset)
        }
    }

    private static let filesPerRound = 10

    /// Removes commit log files older than `fileReservedTime`, at any hour (RocketMQ's `executeDeleteFilesManually`).
    /// As many as go in one round go before this returns, the others with the next calls of `runMaintenance`.
    package func deleteExpiredFiles() {
        retention.request()
        cleanIfDue(clock())
    }

    /// Removes what consume queues and index hold of messages that are no longer in the log (RocketMQ's
    /// `cleanExpiredConsumerQueue`). A bounded part goes before this returns, the rest with the next calls of
    /// `runMaintenance`.
    package func expireQueues() {
        retention.expire(table.queues)
        expireSomeQueues()
    }

    /// Deletes the oldest commit log file that is full and flushed, whatever its age; false when there is none.
    package func deleteOldestFile() -> Bool {
        guard logFiles.files.count > 1, let oldest = logFiles.files.first,
            oldest.base + logFiles.fileSize <= min(log.written, log.flushed), isNeedKnown, !isNeeded(oldest.base),
            removeOldestFile(isUrgent: true)
        else { return false }
        retention.expire(table.queues)
        events.minimumMoved(minPhysicalOffset)
        return true
    }

    /// Whether all holds know what they need.
    private var isNeedKnown: Bool { retentionHolds.allSatisfy { $0.isKnown() } }

    /// Whether a hold needs a message of the log file.
    private func isNeeded(_ base: PhysicalOffset) -> Bool {
        let needs = retentionHolds.compactMap { hold in hold.neededFrom().map { (hold: hold, from: $0) } }
        guard let oldest = needs.min(by: { $0.from < $1.from }), oldest.from < base + logFiles.fileSize else {
            return false
        }
        if retention.noteHeld(base, by: oldest.hold) {
            logger.warning(
                """
                commit log file \(logFiles.path(base: base)) would be deleted, but \(oldest.hold.name) at \
                \(oldest.from) and behind are still needed: it is kept until \(oldest.hold.until)
                """
            )
        }
        return true
    }

    /// - Parameter isUrgent: its room is needed now; the caller looks at the disk next.
    private func removeOldestFile(isUrgent: Bool) -> Bool {
        do throws(SystemError) {
            let removed = LastReference(logFiles.files.first?.file)
            try logFiles.removeFirst()
            windows.reset()
            expireRecordChecksums()
            // The kernel frees a gigabyte of pages and blocks when the last descriptor is closed: on another thread if
            // that can wait.
            if !isUrgent { background.submit(.check) { removed.release() } }
            return true
        } catch {
            logger.error("deleting the oldest commit log file failed, its space is not free: \(error)")
            return false
        }
    }

    /// Milliseconds after which a call stops shortening queues.
    private static let expiringMilliseconds: Int64 = 2

    /// Queues and index follow the log, a bounded number per call.
    private func expireSomeQueues() {
        guard retention.isExpiring, let first = logFiles.first else { return }
        do throws(SystemError) {
            let began = clock()
            var budget = 256
            while budget > 0, let queue = retention.nextQueue() {
                budget -= 1
                if budget % 8 == 0, clock() - began >= Self.expiringMilliseconds { budget = 0 }
                guard !queue.isRemoved else { continue }
                try countForced(queue)
                try queueFiles.expire(queue, before: first)
                queue.removeExpiredEdits()
                retention.noteShortened(queue)
            }
            if !retention.isExpiring {
                if let forced = retention.endShortening(table.queues) { report(forced) }
                try index?.expire(before: first)
            }
        } catch {
            logger.error("shortening consume queues to what the log holds failed, tried again: \(error)")
        }
    }

    private func countForced(_ queue: ConsumeQueue) throws(SystemError) {
        guard let forced = retention.forced, !queue.isEmpty else { return }
        let start = try queueFiles.firstEntry(queue, atOrAfter: forced.from)
        retention.beginShortening(at: start)
    }

    private func report(_ forced: ForcedDeletion) {
        guard forced.files > 0 || forced.messages > 0 else { return }
        logger.error(
            """
            deleted \(forced.messages) messages of \(forced.topics.count) topics before their time was over, with \
            \(forced.files) commit log files: the disk is nearly full, and cleanFileForciblyEnable=true lets the \
            oldest messages go then, consumed or not. Free space or lower fileReservedTime \
            (\(configuration.fileReservedTime) h); with cleanFileForciblyEnable=false new messages are refused instead
            """,
            metadata: ["topics": "\(forced.topics.sorted().prefix(20).joined(separator: " "))"])
    }

    private func lastChange(_ file: any DiskFile) -> Int64 {
        do throws(SystemError) {
            return try disk.information(file.path)?.modified ?? .max
        } catch {
            logger.warning("the age of a commit log file cannot be read, it does not count as expired: \(error)")
            return .max
        }
    }

    private func isDeleteHour(_ now: Int64) -> Bool {
        var seconds = time_t(now / 1000)
        var local = tm()
        localtime_r(&seconds, &local)
        return SettingType.hours(configuration.deleteWhen)?.contains(Int(local.tm_hour)) ?? false
    }
}

/// A file that is to be closed on another thread, which takes the last reference to it there.
private final class LastReference: @unchecked Sendable {
    private var file: (any DiskFile)?

    init(_ file: (any DiskFile)?) { self.file = file }

    func release() { file = nil }
}

/// What was deleted because the disk was full, not because it had expired.
struct ForcedDeletion {
    /// The first commit log file that had not expired.
    let from: PhysicalOffset
    var files = 0
    /// Queue entries that were deleted with their messages.
    private(set) var messages: Int64 = 0
    private(set) var topics: Set<String> = []
    private var start = QueueOffset(0)

    init(from: PhysicalOffset) {
        self.from = from
    }

    /// The queue's first entry that had not expired.
    mutating func begin(at entry: QueueOffset) { start = entry }

    /// The queue begins later now.
    mutating func shortened(to queue: ConsumeQueue) {
        let count = queue.minOffset - start
        guard count > 0 else { return }
        messages += count
        topics.insert(queue.topic)
    }
}
