import LinuxSystem
import Logging
import MessageModel
import Synchronization

/// The files of a store's journal: the one that is written, those that are closed, and the snapshot they follow.
final class JournalFiles {
    /// Bytes of a journal from which on the next one begins, if four times the last snapshot is less.
    static let limit: Int64 = 16 << 20

    private let folder: String
    private let disk: any Disk
    private let logger: Logger
    /// How much of the journals is kept for the trail, bytes.
    private let trailBytesMax: Int64

    /// Names these files to slaves: as long as it is the same, each file only grows, and each follows the one before.
    private(set) var history = Int64.random(in: 1 ... .max)
    /// Opened with the first write.
    private var file: (any DiskFile)?
    private var header: ClaimFile.Header
    /// Where the next block goes; 0 while there is no file.
    private(set) var end: Int64
    /// Closed journals since the snapshot, and their bytes.
    private(set) var closed: [(number: UInt32, bytes: Int64)]
    /// Of the snapshot the journals follow; 0 for none.
    private(set) var snapshot: UInt32
    private var snapshotBytes: Int64
    /// Journals with blocks that may not be synchronized. Those that were read are: their process may have been killed.
    private var unsynchronized: Set<UInt32> = []
    /// Those the background work was asked to synchronize.
    private var attempted: Set<UInt32> = []
    /// Whether a file was made since the folder was synchronized.
    private var isFolderDirty = false
    /// Whether the closed journals are to become a snapshot.
    private var wantsSnapshot = false
    private let results = BackgroundResults()
    /// Since the store was opened.
    private(set) var writtenBytes: Int64 = 0

    /// Goes on after what was read; after a new snapshot if not all of that is whole.
    init(
        _ folder: String, _ disk: any Disk, _ logger: Logger, trailBytesMax: Int64, after recovery: ClaimRecovery,
        at time: Int64
    ) throws(SystemError) {
        self.folder = folder
        self.disk = disk
        self.logger = logger
        self.trailBytesMax = trailBytesMax
        if !recovery.damage.isEmpty {
            // Nothing is written after damage: it would not be read.
            let number = recovery.highest + 1
            snapshot = number
            snapshotBytes = try SnapshotFile.write(recovery.registry, number, recovery.blockTime, folder, disk)
            SnapshotFile.removeFiles(before: number, folder, disk, logger, trailBytesMax: trailBytesMax)
            header = ClaimFile.Header(kind: .journal, number: number, time: time)
            end = 0
            closed = []
            return
        }
        if let header = recovery.header, let last = recovery.journals.last {
            self.header = header
            end = last.end
        } else {
            header = ClaimFile.Header(kind: .journal, number: max(recovery.snapshot, 1), time: time)
            end = 0
        }
        closed = recovery.journals.dropLast().map { ($0.number, $0.end) }
        snapshot = recovery.snapshot
        snapshotBytes = recovery.snapshotBytes
        unsynchronized = Set(recovery.journals.map(\.number))
        isFolderDirty = !unsynchronized.isEmpty
    }

    /// Bytes that no snapshot holds yet.
    var journalBytes: Int64 { closed.reduce(end) { $0 +| $1.bytes } }
    /// Of the journal that is written next.
    var currentHeader: ClaimFile.Header { header }
    var lastSnapshotBytes: Int64 { snapshotBytes }
    /// Whether there is a file, or was.
    var isBegun: Bool { end > 0 || !closed.isEmpty }

    /// Writes blocks after the others; makes folder and file when need be.
    func append(_ blocks: EntryBytes) throws(SystemError) {
        if end == 0 { try begin(blocks) } else { try write(blocks, at: end) }
        end += Int64(blocks.count)
        writtenBytes += Int64(blocks.count)
        unsynchronized.insert(header.number)
    }

    private func begin(_ blocks: EntryBytes) throws(SystemError) {
        try disk.createDirectory(folder)
        file = try disk.open(path(header.number), .replace)
        isFolderDirty = true
        var bytes = header.encoded
        bytes.append(blocks)
        try write(bytes, at: 0)
        end = Int64(ClaimFile.Header.size)
        writtenBytes += end
    }

    private func write(_ bytes: EntryBytes, at offset: Int64) throws(SystemError) {
        let file: any DiskFile
        if let open = self.file { file = open } else { file = try disk.open(path(header.number), .readWrite) }
        self.file = file
        var failure: SystemError?
        bytes.bytes.withUnsafeBytes { buffer in
            do throws(SystemError) { try file.write(buffer, at: offset) } catch { failure = error }
        }
        if let failure { throw failure }
    }

    private func path(_ number: UInt32) -> String { "\(folder)/\(ClaimFile.name(.journal, number))" }

    // MARK: - The next journal

    /// Whether the next journal should begin. After a snapshot that failed only when this one is long, too.
    var isFull: Bool {
        // A start reads no file above `sizeMax`.
        let limit = min(max(Self.limit, 4 *| snapshotBytes), ClaimFile.sizeMax / 4)
        return !wantsSnapshot && end > limit && !results.isRunning
    }

    /// Begins the next journal, whose file comes with its first block. The closed ones become a snapshot.
    /// - Parameter time: of its first block, about; milliseconds since 1970.
    func rotate(at time: Int64) {
        guard end > 0 else { return }
        closed.append((header.number, end))
        header = ClaimFile.Header(kind: .journal, number: header.number + 1, previousEnd: end, time: time)
        file = nil
        end = 0
        wantsSnapshot = true
    }

    /// Begins after a snapshot of a live registry, instead of the journal that could not be written.
    func rewrite(_ registry: ClaimRegistry, at now: ClaimTime) throws(SystemError) {
        let number = header.number + 1
        snapshotBytes = try SnapshotFile.write(
            registry, number, now.wall, folder, disk, toWall: now.wall -| now.steady)
        SnapshotFile.removeFiles(before: number, folder, disk, logger, trailBytesMax: trailBytesMax)
        snapshot = number
        // What the journal lacks is in the snapshot alone.
        history = Int64.random(in: 1 ... .max)
        header = ClaimFile.Header(kind: .journal, number: number, time: now.wall)
        file = nil
        end = 0
        closed = []
        unsynchronized = []
        wantsSnapshot = false
    }

    // MARK: - In the background

    /// What is to be done on a thread that may block, or nil. While it runs there is no more.
    func work() -> (@Sendable () -> Void)? {
        takeResults()
        guard !unsynchronized.isEmpty || isFolderDirty || wantsSnapshot, !results.isRunning else { return nil }
        let paths = unsynchronized.sorted().map { path($0) }
        let folderIsDirty = isFolderDirty
        let wanted = wantsSnapshot ? header.number : nil
        attempted = unsynchronized
        unsynchronized = []
        isFolderDirty = false
        wantsSnapshot = false
        results.begin()
        let above = String(folder[..<(folder.lastIndex(of: "/") ?? folder.startIndex)])
        return { [folder, disk, logger, results, trailBytesMax] in
            var isSynchronized = true
            do throws(SystemError) {
                if folderIsDirty {
                    try disk.synchronizeDirectory(folder)
                    try disk.synchronizeDirectory(above)
                }
                for path in paths { try disk.open(path, .readWrite).synchronize() }
            } catch {
                isSynchronized = false
                logger.warning(
                    "the journal of claims was not synchronized; a power cut may redeliver more messages: \(error)")
            }
            var made: Int64?
            if let wanted {
                do throws(SystemError) {
                    made = try SnapshotFile.make(wanted, folder, disk, logger, trailBytesMax: trailBytesMax)
                } catch {
                    logger.warning("no snapshot of claims was made; the journals it would replace stay: \(error)")
                }
            }
            results.end(
                isSynchronized: isSynchronized, snapshot: made.flatMap { bytes in wanted.map { ($0, bytes) } })
        }
    }

    private func takeResults() {
        guard !results.isRunning else { return }
        let (isSynchronized, made) = results.take()
        if !isSynchronized {
            isFolderDirty = true
            unsynchronized.formUnion(attempted.filter { number in number == header.number && end > 0 })
            unsynchronized.formUnion(attempted.filter { number in closed.contains { $0.number == number } })
        }
        attempted = []
        guard let made else { return }
        snapshot = made.number
        snapshotBytes = made.bytes
        closed.removeAll { $0.number < made.number }
    }
}

/// What background work reports. Any thread.
private final class BackgroundResults: Sendable {
    private struct State {
        var isRunning = false
        var isSynchronized = true
        /// The number of a new snapshot, and its bytes.
        var snapshot: (number: UInt32, bytes: Int64)?
    }

    private let state = Mutex(State())

    var isRunning: Bool { state.withLock { $0.isRunning } }

    func begin() { state.withLock { $0.isRunning = true } }

    func end(isSynchronized: Bool, snapshot: (number: UInt32, bytes: Int64)?) {
        state.withLock { $0 = State(isSynchronized: isSynchronized, snapshot: snapshot) }
    }

    /// Once each.
    func take() -> (isSynchronized: Bool, snapshot: (number: UInt32, bytes: Int64)?) {
        state.withLock { state in
            guard !state.isRunning else { return (true, nil) }
            defer { state = State() }
            return (state.isSynchronized, state.snapshot)
        }
    }
}
