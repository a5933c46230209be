import Glibc
import LinuxSystem
import Logging
import StoreFormat
import StoreReader

/// When messages are refused, and how the store comes to take them again.
extension MessageStore {
    func closeGate(for error: SystemError) {
        if error.errno == ENOSPC || error.errno == EDQUOT {
            closeGate(.diskFull(remark: diskFullRemark(cause: "\(error)")))
        } else {
            closeGate(.notWritable(remark: "writing to the commit log failed: \(error); tried again every second"))
        }
    }

    func closeGate(_ refusal: AppendRefusal) {
        gate.close(refusal)
        logger.critical("the store takes no messages: \(refusal)")
    }

    func diskFullRemark(cause: String) -> String {
        var text = "the disk of \(configuration.commitLogPath) is full (\(cause)"
        do throws(SystemError) {
            let space = try disk.space(configuration.commitLogPath)
            text +=
                ", \(Int(space.usedRatio * 100)) % of \(space.total >> 20) MiB used, \(space.available >> 20) MiB free"
        } catch {
            text += ", how full is unknown: \(error)"
        }
        if let heldAt = retention.heldAt {
            let hold = retention.heldBy
            text += "; \(hold?.name ?? "messages") hold the log from \(heldAt) on"
            if let hold { text += " until \(hold.until)" }
        }
        return text
            + "); free space there, shorten fileReservedTime, or lower diskMaxUsedSpaceRatio or diskReservedBytes; "
            + "messages are taken again by themselves"
    }

    // MARK: - Reopening

    func retryWriting() {
        if gate.tailIsDirty { cleanTail() }
        if flush.isBroken { verifyUnflushed() }
        guard !gate.isOpen, !gate.tailIsDirty, !flush.isBroken else { return }
        if case .diskFull = gate.refusal, let problem = spaceProblem() {
            gate.closeAtThreshold(remark: diskFullRemark(cause: problem))
            return
        }
        // A write that failed for another reason is simply tried again: by the next tick.
        gate.open()
        logger.notice("the store takes messages again")
        prepareAhead()
    }

    /// Makes everything after the written end zero again. Until that has worked nothing may be written, or leftovers of
    /// the failed write could be taken for messages after a crash.
    func cleanTail() {
        // The kernel reports a lost page once: an error met here would be missing in a synchronization on its way.
        guard gate.tailIsDirty, !flush.isRunning, !checkpoint.isRunning else { return }
        do throws(SystemError) {
            windows.reset()
            try logFiles.truncate(to: log.written)
            reservation.cut(to: log.written)
            gate.noteCleanTail()
        } catch {
            logger.error(
                """
                the rest of a failed write could not be removed, tried again; no messages are taken until then: \
                \(error)
                """
            )
            // Messages written before may be among what was to be synchronized.
            if error.call == "fdatasync" { flushFailure(error) }
        }
    }

    // MARK: - Room on the disk

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
            if gate.isOpen {
                let remark = diskFullRemark(cause: problem)
                gate.closeAtThreshold(remark: remark)
                logger.critical("the store takes no messages: \(remark)")
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
            logger.warning(
                "how full the disk is cannot be read, log files are deleted by their age alone until it can: \(error)")
            return -1
        }
    }
}
