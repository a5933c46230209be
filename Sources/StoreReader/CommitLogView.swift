package import LinuxSystem
package import StoreFormat

/// Read-only windows over a commit log that another process writes. Confined to one thread. The caller bounds what it reads by the
/// published `writtenOffset` watermark: below it every byte is final.
package final class CommitLogView {
    package let directory: String
    /// Bytes of a log file (`mappedFileSizeCommitLog`).
    package let fileSize: Int
    private let disk: any Disk

    package init(directory: String, fileSize: Int, disk: any Disk) {
        self.directory = directory
        self.fileSize = fileSize
        self.disk = disk
    }

    /// The bytes `offset ..< offset + size`; nil when a file they lie in does not exist (deleted, or not yet written). The range may cross
    /// file ends. The pointer is valid during the call.
    package func withBytes<R>(
        at offset: PhysicalOffset, size: Int, _ body: (UnsafeRawBufferPointer) throws -> R
    ) rethrows -> R? { fatalError("unfinished") }

    /// For `sendfile`: the open file that holds `offset`, the offset inside it, and the bytes from there to the file's end. The descriptor
    /// belongs to the view and is valid until the next call.
    package func file(at offset: PhysicalOffset) -> (descriptor: Int32, fileOffset: Int64, available: Int)? {
        fatalError("unfinished")
    }

    /// Unmaps windows not used since the previous call, closes files that are gone. Call it every second or so.
    package func release() { fatalError("unfinished") }
}
