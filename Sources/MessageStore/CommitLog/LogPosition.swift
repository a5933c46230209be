import StoreFormat

/// Where the commit log stands. Between two calls of the store
///
///     flushed ≤ written ≤ end ≤ fileEnd    and    dispatched ≤ written
///
/// Only the methods below move an offset, and each asserts this order. Confined to the store's thread.
struct LogPosition {
    /// Behind the last appended byte, written or not.
    private(set) var end = PhysicalOffset(0)
    /// End of the file `end` lies in; equal to `end` when the next append needs a new file.
    private(set) var fileEnd = PhysicalOffset(0)
    /// `fileEnd` before this tick.
    private var committedFileEnd = PhysicalOffset(0)
    /// Behind the last byte the kernel has: other processes may read below. In recovery the end of the last file.
    private(set) var written = PhysicalOffset(0)
    /// Behind the last record that consume queues and index have.
    private(set) var dispatched = PhysicalOffset(0)
    /// Behind the last byte that survives a power loss.
    private(set) var flushed = PhysicalOffset(0)

    /// No log begins at or after it: adding a file's length there would overflow sooner or later.
    static let maximum = PhysicalOffset(1 << 60)

    // MARK: - Appending

    /// `bytes` more lie after the end, in the current file.
    @inline(__always)
    mutating func append(_ bytes: Int64) {
        end += bytes
        assert(end <= fileEnd, "an append does not cross the end of a file")
    }

    /// Nothing more is appended to the current file: what is left of it is the blank record's.
    @inline(__always)
    mutating func fillFile() { end = fileEnd }

    /// The next append goes to a new file of `fileSize` bytes.
    @inline(__always)
    mutating func beginFile(_ fileSize: Int64) {
        assert(end == fileEnd, "a file begins where the one before it ends")
        fileEnd += fileSize
    }

    /// All that was appended is written.
    mutating func commit() {
        written = end
        committedFileEnd = fileEnd
        assertOrder()
    }

    /// What was appended since the last commit was not written.
    mutating func rollBack() {
        end = written
        fileEnd = committedFileEnd
        assertOrder()
    }

    // MARK: - Following

    /// Queues and index have everything below `offset`.
    mutating func dispatch(to offset: PhysicalOffset) {
        assert(offset >= dispatched, "dispatch does not go back")
        dispatched = offset
        assertOrder()
    }

    /// Everything below `offset` survives a power loss.
    mutating func flush(to offset: PhysicalOffset) {
        assert(offset >= flushed, "a synchronization is not undone")
        flushed = offset
        assertOrder()
    }

    // MARK: - Beginning

    /// The log has no bytes and begins here.
    mutating func begin(at offset: PhysicalOffset) {
        self = LogPosition()
        (end, fileEnd, committedFileEnd) = (offset, offset, offset)
        (written, dispatched, flushed) = (offset, offset, offset)
    }

    /// The files end at `filesEnd`, the log somewhere before: dispatch from `start` on finds out where.
    mutating func beginRecovery(from start: PhysicalOffset, filesEnd: PhysicalOffset) {
        begin(at: filesEnd)
        (dispatched, flushed) = (start, start)
        assertOrder()
    }

    /// In recovery: records from `offset` on are dispatched once more.
    mutating func dispatchAgain(from offset: PhysicalOffset) {
        dispatched = offset
        assertOrder()
    }

    /// The log ends at `offset`.
    /// - Parameters:
    ///   - fileEnd: of the file the next append goes to; `offset` when there is none.
    ///   - flushed: the bytes below are known to be synchronized.
    mutating func endRecovery(at offset: PhysicalOffset, fileEnd: PhysicalOffset, flushed: PhysicalOffset) {
        begin(at: offset)
        (self.fileEnd, committedFileEnd) = (fileEnd, fileEnd)
        self.flushed = flushed
        assertOrder()
    }

    private func assertOrder() {
        assert(flushed <= written, "flushed \(flushed) lies behind written \(written)")
        assert(dispatched <= written, "dispatched \(dispatched) lies behind written \(written)")
        assert(
            written <= end && end <= fileEnd, "written \(written), end \(end) and fileEnd \(fileEnd) are out of order")
    }
}

extension PhysicalOffset {
    /// Behind every offset.
    static let max = PhysicalOffset(Int64.max)
    /// Before every offset.
    static let min = PhysicalOffset(Int64.min)
}
