import LinuxSystem
import StoreFormat

/// What waits for its time longer than the commit log promises to keep it. It lies in files under `apus-timer/` in the
/// store's folder, one for each minute, hour or day that has messages. All calls come from one thread of their own, in
/// the order in which they were asked for. So no disk wait stops the event loop.
///
/// Nothing in here is the only copy of a message before `synchronize` and the checkpoint after it. Until then the
/// message is still taken in again from the log after a crash.
final class TimerFiles: @unchecked Sendable {
    static let folder = "apus-timer"
    static let checkpointName = "checkpoint"
    /// Written in pieces of this many bytes while a bucket is split.
    static let pieceBytes = 1 << 20
    static let openFilesMax = 64

    /// The index of one bucket and its bytes.
    struct Loaded: Sendable {
        let bucket: TimerBucket
        /// In the order of their keys.
        var entries: [TimerEntry] = []
        var cancelling: [Cancelling] = []
        var rolled: [Rolled] = []
        /// `nil` when there is nothing in the file.
        var region: MappedRegion?
        /// Bytes that are no frames.
        var damaged = 0
    }

    struct Cancelling: Sendable {
        var due: Int64
        var cancellation: TimerCancellation
    }

    /// A copy that replaces older ones.
    struct Rolled: Sendable {
        var key: TimerKey
        var copyKey: String
    }

    private struct OpenFile {
        let file: any DiskFile
        var size: Int64
        var isDirty = false
        var lastUse: UInt64
    }

    private let disk: any Disk
    let directory: String
    private var open: [TimerBucket: OpenFile] = [:]
    private var dirtyClosed: Set<TimerBucket> = []
    private var directoryIsDirty = false
    private var uses: UInt64 = 0

    init(disk: any Disk, storePath: String) {
        self.disk = disk
        directory = storePath + "/" + Self.folder
    }

    private func path(_ bucket: TimerBucket) -> String { directory + "/" + bucket.fileName }

    /// Makes the folder and lists the buckets in it.
    func scan() throws(SystemError) -> [TimerBucket] {
        try disk.createDirectory(directory)
        return try disk.list(directory).compactMap { TimerBucket(fileName: $0) }
    }

    // MARK: - Writing

    /// Appends frames to their files. After an error some of them may have been written. Asking again with the same is
    /// right: what appears twice is skipped when it is loaded.
    func append(_ pieces: [TimerBucket: [UInt8]]) throws(SystemError) {
        for (bucket, bytes) in pieces.sorted(by: { $0.key < $1.key }) { try append(bucket, bytes) }
    }

    private func append(_ bucket: TimerBucket, _ bytes: [UInt8]) throws(SystemError) {
        guard !bytes.isEmpty else { return }
        var entry = try handle(bucket)
        let offset = (entry.size + Int64(TimerFrame.alignment) - 1) & ~Int64(TimerFrame.alignment - 1)
        do throws(SystemError) {
            // Not inside a closure: a closure's typed throw would be widened.
            let result = bytes.withUnsafeBytes { raw in
                Self.outcome { () throws(SystemError) in
                    try entry.file.write(raw, at: offset)
                }
            }
            try result.get()
        } catch {
            // Whatever part got in is cut off again; if even that fails it is found out when the file is read.
            _ = Self.outcome { () throws(SystemError) in try entry.file.truncate(to: offset) }
            entry.size = offset
            open[bucket] = entry
            throw error
        }
        entry.size = offset + Int64(bytes.count)
        entry.isDirty = true
        open[bucket] = entry
    }

    private static func outcome(_ body: () throws(SystemError) -> Void) -> Result<Void, SystemError> {
        do throws(SystemError) {
            try body()
            return .success(())
        } catch {
            return .failure(error)
        }
    }

    private func handle(_ bucket: TimerBucket) throws(SystemError) -> OpenFile {
        uses += 1
        if var entry = open[bucket] {
            entry.lastUse = uses
            return entry
        }
        if open.count >= Self.openFilesMax, let oldest = open.min(by: { $0.value.lastUse < $1.value.lastUse }) {
            if oldest.value.isDirty { dirtyClosed.insert(oldest.key) }
            open[oldest.key] = nil
        }
        let isNew = try disk.information(path(bucket)) == nil
        let file = try disk.open(path(bucket), .create)
        if isNew { directoryIsDirty = true }
        return OpenFile(file: file, size: try file.size(), lastUse: uses)
    }

    /// Makes everything appended so far survive power loss.
    func synchronize() throws(SystemError) {
        for bucket in dirtyClosed {
            if open[bucket] == nil, try disk.information(path(bucket)) != nil {
                try disk.open(path(bucket), .readWrite).synchronize()
            } else if open[bucket] != nil {
                open[bucket]?.isDirty = true
            }
            dirtyClosed.remove(bucket)
        }
        for (bucket, entry) in open where entry.isDirty {
            try entry.file.synchronize()
            open[bucket]?.isDirty = false
        }
        if directoryIsDirty {
            try disk.synchronizeDirectory(directory)
            directoryIsDirty = false
        }
    }

    /// Distributes a bucket into those of the next finer level; returns them. The file goes when they are safe: after a
    /// crash in between it is split once more.
    func split(_ bucket: TimerBucket) throws(SystemError) -> [TimerBucket] {
        guard let finer = bucket.level.finer else { preconditionFailure("a minute is not split") }
        guard let region = try map(bucket) else { return [] }
        var pieces: [TimerBucket: [UInt8]] = [:]
        var children: Set<TimerBucket> = []
        var failure: SystemError?
        let damaged = TimerFrame.forEach(in: region.bytes) { view in
            guard failure == nil else { return }
            let child = TimerBucket(level: finer, of: view.key.due)
            children.insert(child)
            pieces[child, default: []].append(contentsOf: view.frame)
            if let piece = pieces[child], piece.count >= Self.pieceBytes {
                pieces[child] = nil
                if case .failure(let error) = Self.outcome({ () throws(SystemError) in try append(child, piece) }) {
                    failure = error
                }
            }
        }
        if let failure { throw failure }
        try append(pieces)
        try synchronize()
        // Bytes that are no frames stay for operators to look at.
        if damaged > 0 {
            try disk.rename(path(bucket), to: path(bucket) + ".damaged")
        }
        try remove([bucket])
        return children.sorted()
    }

    func remove(_ buckets: [TimerBucket]) throws(SystemError) {
        for bucket in buckets {
            open[bucket] = nil
            dirtyClosed.remove(bucket)
            try disk.remove(path(bucket))
        }
    }

    // MARK: - Reading

    private func map(_ bucket: TimerBucket) throws(SystemError) -> MappedRegion? {
        guard let information = try disk.information(path(bucket)), information.size > 0 else { return nil }
        let file = try disk.open(path(bucket), .read)
        return try file.map(from: 0, length: Int(try file.size()))
    }

    /// Reads a bucket's index.
    func load(_ bucket: TimerBucket) throws(SystemError) -> Loaded {
        var loaded = Loaded(bucket: bucket)
        guard let region = try map(bucket) else { return loaded }
        loaded.region = region
        loaded.damaged = TimerFrame.forEach(in: region.bytes) { view in
            let cancellation = view.cancellation
            loaded.entries.append(
                TimerEntry(
                    due: view.key.due, sequence: view.key.sequence, position: Int64(view.payloadOffset),
                    size: cancellation != nil ? 0 : Int32(truncatingIfNeeded: view.payload.count), source: 0))
            if let cancellation {
                loaded.cancelling.append(Cancelling(due: view.key.due, cancellation: cancellation))
            } else if case .record(let record) = CommitLogRecord.parse(view.payload), TimerProperties.isRolled(record) {
                loaded.rolled.append(Rolled(key: view.key, copyKey: TimerProperties.copyKey(record)))
            }
        }
        loaded.entries.sort { $0.key < $1.key }
        region.releasePages()
        return loaded
    }

    // MARK: - Whose log it is

    private var followerPath: String { directory + "/follower" }

    /// Set while the log is written by a master elsewhere, which delivers.
    func isFollower() throws(SystemError) -> Bool { try disk.information(followerPath) != nil }

    func setFollower(_ isFollower: Bool) throws(SystemError) {
        if isFollower {
            _ = try disk.open(followerPath, .create)
        } else {
            try disk.remove(followerPath)
        }
        try disk.synchronizeDirectory(directory)
    }

    /// RocketMQ 5's own note of its wheel, `config/timercheck` (`TimerCheckpoint`), big-endian.
    struct ApacheNote: Equatable, Sendable {
        /// Milliseconds: what was due up to then has been delivered. The file has the next second of the wheel to be
        /// read.
        let delivered: Int64
        /// In the timer queue: what lies before has been put into the wheel, in files of RocketMQ's own.
        let taken: Int64
    }

    /// `nil` when RocketMQ 5 has not run here, or had not read anything yet.
    func apacheNote() throws(SystemError) -> ApacheNote? {
        let path = directory.dropLast(Self.folder.count) + "config/timercheck"
        guard try disk.information(String(path)) != nil else { return nil }
        let file = try disk.open(String(path), .read)
        var bytes = [UInt8](repeating: 0, count: 32)
        let result = bytes.withUnsafeMutableBytes { buffer in
            Self.outcome { () throws(SystemError) in _ = try file.read(into: buffer, at: 0) }
        }
        try result.get()
        // Next second, end of the timer log, offset in the timer queue, the same as the master has it.
        let numbers = bytes.withUnsafeBytes { bytes in
            (0..<4).map { bytes.loadUnaligned(fromByteOffset: $0 * 8, as: Int64.self).bigEndian }
        }
        guard numbers[0] > 0 else { return nil }
        return ApacheNote(delivered: min(numbers[0] - 1, TimerFrame.dueMax), taken: max(0, min(numbers[2], numbers[3])))
    }

    // MARK: - Checkpoint

    /// From where messages are taken in again after a crash, and what was delivered for certain.
    struct Checkpoint: Equatable, Sendable {
        static let magic: UInt32 = 0x4154_4350
        static let size = 48

        var replayFrom: Int64
        var progress: TimerWheel.Progress

        var encoded: [UInt8] {
            var bytes = [UInt8](repeating: 0, count: Self.size)
            bytes.withUnsafeMutableBytes { buffer in
                guard let base = buffer.baseAddress else { return }
                BigEndian.store(Self.magic, base, 0)
                BigEndian.store(replayFrom, base, 8)
                BigEndian.store(progress.ingested, base, 16)
                BigEndian.store(progress.watermark.due, base, 24)
                BigEndian.store(progress.watermark.sequence, base, 32)
                let covered = UnsafeRawBufferPointer(start: base + 8, count: Self.size - 8)
                BigEndian.store(UInt32(bitPattern: CommitLogRecord.bodyCRC(covered)), base, 4)
            }
            return bytes
        }

        init(replayFrom: Int64, progress: TimerWheel.Progress) {
            self.replayFrom = replayFrom
            self.progress = progress
        }

        init?(_ bytes: UnsafeRawBufferPointer) {
            guard bytes.count >= Self.size, let base = bytes.baseAddress,
                BigEndian.load(base, 0, as: UInt32.self) == Self.magic
            else { return nil }
            let covered = UnsafeRawBufferPointer(start: base + 8, count: Self.size - 8)
            guard BigEndian.load(base, 4, as: UInt32.self) == UInt32(bitPattern: CommitLogRecord.bodyCRC(covered))
            else { return nil }
            replayFrom = BigEndian.load(base, 8, as: Int64.self)
            progress = TimerWheel.Progress(
                ingested: BigEndian.load(base, 16, as: Int64.self),
                watermark: TimerKey(
                    due: BigEndian.load(base, 24, as: Int64.self),
                    sequence: BigEndian.load(base, 32, as: Int64.self)))
        }
    }

    /// `nil` when there is none that can be read: then everything the log has is taken in again.
    func loadCheckpoint() throws(SystemError) -> Checkpoint? {
        let path = directory + "/" + Self.checkpointName
        guard try disk.information(path) != nil else { return nil }
        let file = try disk.open(path, .read)
        var bytes = [UInt8](repeating: 0, count: Checkpoint.size)
        let result = bytes.withUnsafeMutableBytes { buffer in
            Self.outcome { () throws(SystemError) in _ = try file.read(into: buffer, at: 0) }
        }
        try result.get()
        return bytes.withUnsafeBytes { Checkpoint($0) }
    }

    /// Everything appended before is safe when this returns, and then the checkpoint is.
    func save(_ checkpoint: Checkpoint) throws(SystemError) {
        try synchronize()
        let path = directory + "/" + Self.checkpointName
        let file = try disk.open(path + ".tmp", .replace)
        let bytes = checkpoint.encoded
        let result = bytes.withUnsafeBytes { raw in
            Self.outcome { () throws(SystemError) in try file.write(raw, at: 0) }
        }
        try result.get()
        try file.synchronize()
        try disk.rename(path + ".tmp", to: path)
        try disk.synchronizeDirectory(directory)
    }
}
