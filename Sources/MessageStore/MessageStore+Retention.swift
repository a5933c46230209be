import Glibc
import LinuxSystem
import Logging
import SettingTable
import StoreFormat
import StoreReader

extension MessageStore {
    /// Every `cleanResourceInterval`: the disk is looked at, expired or surplus files go, oldest first (`CleanCommitLogService`), then what
    /// pointed into them.
    func cleanIfDue(_ now: Int64) {
        expireSomeQueues()
        guard now - maintenance.lastCleaning >= Int64(configuration.cleanResourceInterval) else { return }
        maintenance.lastCleaning = now
        let pressure = lookAtSpace()
        let expired = now - Int64(configuration.fileReservedTime) * 3_600_000
        let isTime = isDeleteHour(now)
        var removed = 0
        maintenance.heldAt = -1
        // As many at a time as RocketMQ: the others wait for the next round.
        while removed < 10, logFiles.files.count > 1, let oldest = logFiles.files.first {
            // The file that is written, and a prepared one behind it, stay.
            guard oldest.base + logFiles.fileSize <= writtenEnd, oldest.base + logFiles.fileSize <= flushedEnd else {
                break
            }
            let isOld = lastChange(oldest.file) < expired
            let must = pressure == .forced && configuration.cleanFileForciblyEnable
            guard must || (isOld && (isTime || pressure != .none)) else { break }
            if isNeeded(oldest.base) {
                // At the next look the file may go.
                if must { makeRoom?(PhysicalOffset(oldest.base + logFiles.fileSize)) }
                break
            }
            guard removeOldestFile() else { break }
            removed += 1
            if must, lookAtSpace() != .forced { break }
        }
        if removed > 0 {
            logger.notice(
                "deleted \(removed) commit log files",
                metadata: ["expired": "\(isTime)", "pressure": "\(pressure)", "first": "\(logFiles.first ?? -1)"])
            maintenance.expiring = table.queues
            minimumMoved?(minPhysicalOffset)
        }
    }

    /// Deletes the oldest commit log file that is full and flushed, whatever its age; false when there is none.
    package func deleteOldestFile() -> Bool {
        guard logFiles.files.count > 1, let oldest = logFiles.files.first,
            oldest.base + logFiles.fileSize <= min(writtenEnd, flushedEnd), !isNeeded(oldest.base), removeOldestFile()
        else { return false }
        maintenance.expiring = table.queues
        minimumMoved?(minPhysicalOffset)
        return true
    }

    /// Whether the log file holds a message that still waits for its time or its outcome.
    private func isNeeded(_ base: Int64) -> Bool {
        guard let needed = neededFrom?(), needed.rawValue < base + logFiles.fileSize else { return false }
        if maintenance.lastHeld != base {
            maintenance.lastHeld = base
            logger.warning(
                "commit log file \(logFiles.path(base: base)) would be deleted, but messages at \(needed) and behind wait for their time or their outcome: it is kept until they have been delivered or put aside"
            )
        }
        maintenance.heldAt = base
        return true
    }

    private func removeOldestFile() -> Bool {
        do throws(SystemError) {
            try logFiles.removeFirst()
            windows.reset()
            expireSums()
            return true
        } catch {
            logger.error("deleting the oldest commit log file failed: \(error)")
            return false
        }
    }

    /// Queues and index follow the log, a bounded number per call.
    private func expireSomeQueues() {
        guard !maintenance.expiring.isEmpty, let first = logFiles.first else { return }
        do throws(SystemError) {
            var budget = 256
            while budget > 0, let queue = maintenance.expiring.popLast() {
                budget -= 1
                if !queue.isRemoved { try queueFiles.expire(queue, before: first) }
            }
            if maintenance.expiring.isEmpty { try index?.expire(before: first) }
        } catch {
            logger.error("shortening consume queues failed: \(error)")
        }
    }

    private func lastChange(_ file: any DiskFile) -> Int64 {
        do throws(SystemError) {
            return try disk.information(file.path)?.modified ?? .max
        } catch {
            logger.warning("\(error)")
            return .max
        }
    }

    private func isDeleteHour(_ now: Int64) -> Bool {
        var seconds = time_t(now / 1000)
        var local = tm()
        localtime_r(&seconds, &local)
        return SettingType.hours(configuration.deleteWhen)?.contains(Int(local.tm_hour)) ?? false
    }

    // MARK: Space

    enum SpacePressure {
        case none
        /// Above `diskMaxUsedSpaceRatio`: expired files go at any hour.
        case high
        /// Above `diskSpaceCleanForciblyRatio`, or the absolute reserve is touched: the oldest go, expired or not.
        case forced
    }

    /// Looks at the disks and opens or closes the gate.
    @discardableResult
    func lookAtSpace() -> SpacePressure {
        let problem = spaceProblem()
        if let problem {
            if gate == nil {
                gate = .diskFull(remark: diskFullRemark(cause: problem))
                gateIsThreshold = true
                logger.critical("the store takes no messages: \(gate.map { "\($0)" } ?? "")")
            }
            return .forced
        }
        let ratio = max(usedRatio(configuration.commitLogPath), usedRatio(configuration.consumeQueuePath))
        if ratio > configuration.diskSpaceCleanForciblyRatio { return .forced }
        return ratio > Double(configuration.diskMaxUsedSpaceRatio) / 100 ? .high : .none
    }

    /// Why there is no room for messages, or nil.
    func spaceProblem() -> String? {
        for path in [configuration.commitLogPath, configuration.consumeQueuePath] {
            do throws(SystemError) {
                let space = try disk.space(path)
                if space.usedRatio > configuration.diskSpaceWarningLevelRatio {
                    return "above diskSpaceWarningLevelRatio, \(Int(configuration.diskSpaceWarningLevelRatio * 100)) %"
                }
                if space.available < configuration.diskReservedBytes {
                    return "less than diskReservedBytes, \(configuration.diskReservedBytes >> 20) MiB, are free"
                }
            } catch {
                return "\(error)"
            }
        }
        return nil
    }

    func usedRatio(_ path: String) -> Double {
        do throws(SystemError) {
            return try disk.space(path).usedRatio
        } catch {
            logger.warning("\(error)")
            return -1
        }
    }
}
