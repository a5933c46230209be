import Glibc
import LinuxSystem
import Logging
import MessageModel

/// From memory to disk.
extension ClaimStore {
    /// Whether `commitTick` has something to write.
    package var hasUncommitted: Bool { rewritesAt != nil || registry.journal?.isEmpty == false }

    /// Writes what the tick has journalled with one write at the end of the file (nothing when there is nothing). It
    /// is not synchronized: that is `backgroundWork`.
    /// - Parameter now: when what was acknowledged in this tick was; nil: unknown, the time of the tick before.
    /// - Throws: `disk`: refused. Claims made in this tick must then not be answered (`abandon`); the next call writes
    ///   the same bytes again.
    package func commitTick(at now: ClaimTime? = nil) throws(ClaimError) {
        guard let files, hasUncommitted else { return }
        registry.journal?.seal(at: now?.wall)
        if rewritesAt != nil { return try rewrite(files) }
        do {
            try onDisk { () throws(SystemError) in
                if let journal = registry.journal { try files.append(journal.sealed) }
            }
        } catch {
            if registry.journal?.sealed.count ?? 0 > uncommittedMax { rewritesAt = registry.now.steady }
            throw error
        }
        registry.journal?.written()
        if files.isFull { beginNextJournal(files) }
    }

    /// The disk has refused for so long that the blocks would take too much memory. They are dropped, and a snapshot of
    /// what is in memory is tried each second. The loop waits for it, once.
    private func rewrite(_ files: JournalFiles) throws(ClaimError) {
        registry.journal?.written()
        let now = registry.now
        guard let time = rewritesAt, now.steady >= time else {
            throw .disk(SystemError(errno: EIO, call: "pwrite", subject: "\(folder): the disk has refused before"))
        }
        rewritesAt = now.steady +| 1000
        try onDisk { () throws(SystemError) in try files.rewrite(registry, at: now) }
        rewritesAt = nil
        registry.journal = ClaimJournal(for: files.currentHeader, blockTime: files.currentHeader.time)
        logger.notice("the disk takes the journal of claims again")
    }

    func beginNextJournal(_ files: JournalFiles) {
        files.rotate(at: registry.journal?.blockTime ?? 0)
        registry.journal = ClaimJournal(for: files.currentHeader, blockTime: files.currentHeader.time)
    }

    /// What is to be done on a thread that may block, about each second and in order. It synchronizes the journal. When
    /// the journals have become long, it makes a snapshot out of them, file to file. Nil when there is nothing, or
    /// while the last work runs. It refers to nothing of the store that the loop uses; what fails is logged.
    package func backgroundWork() -> (@Sendable () -> Void)? { files?.work() }

    /// Writes and synchronizes everything, then makes a snapshot: for a clean stop. Blocks. Background work must have
    /// ended; the store is not used afterwards.
    /// - Throws: `disk`: something was not written.
    package func close() throws(ClaimError) {
        try commitTick()
        guard let files, files.isBegun else { return }
        beginNextJournal(files)
        files.work()?()
    }
}
