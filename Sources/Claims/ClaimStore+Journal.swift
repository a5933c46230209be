import LinuxSystem

/// From memory to disk.
extension ClaimStore {
    /// Whether `commitTick` has something to write.
    package var hasUncommitted: Bool { registry.journal?.isEmpty == false }

    /// Writes what the tick has journalled with one write at the end of the file (nothing when there is nothing). It
    /// is not synchronized: that is `backgroundWork`.
    /// - Throws: `disk`: refused. Claims made in this tick must then not be answered (`abandon`); the next call writes
    ///   the same bytes again.
    package func commitTick() throws(ClaimError) {
        guard let files, hasUncommitted else { return }
        registry.journal?.seal()
        guard let blocks = registry.journal?.sealed else { return }
        try onDisk { () throws(SystemError) in try files.append(blocks) }
        registry.journal?.written()
        if files.isFull { beginNextJournal(files) }
    }

    func beginNextJournal(_ files: JournalFiles) {
        files.rotate(at: registry.journal?.blockTime ?? 0)
        registry.journal = ClaimJournal(for: files.currentHeader, blockTime: files.currentHeader.time)
    }

    /// What is to be done on a thread that may block, about each second and in order: synchronizes the journal, and
    /// when the journals have become long makes a snapshot out of them, file to file. Nil when there is nothing, or
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
