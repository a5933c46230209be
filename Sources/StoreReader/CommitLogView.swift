package import LinuxSystem
package import StoreFormat

/// Read-only windows over a commit log that another process writes. Confined to one thread. The caller bounds what it
/// reads by the published `writtenOffset` watermark: below it every byte is final.
package final class CommitLogView {
    /// Of the log files.
    package let directory: String
    /// Bytes of a log file (`mappedFileSizeCommitLog`).
    package let fileSize: Int
    private let files: OpenLogFiles
    private let windows: LogWindows

    /// - Parameter maximumWindows: mapped at a time, 4 MiB each.
    package init(directory: String, fileSize: Int, disk: any Disk, maximumWindows: Int = 8) {
        precondition(fileSize > 0, "a log file has bytes")
        self.directory = directory
        self.fileSize = fileSize
        let files = OpenLogFiles(directory: directory, disk: disk)
        self.files = files
        windows = LogWindows(fileSize: Int64(fileSize), maximumWindows: maximumWindows) { files.file(base: $0) }
    }

    /// Called when a read failed for another reason than an absent file.
    package var readFailed: ((SystemError) -> Void)? {
        get { windows.readFailed }
        set {
            windows.readFailed = newValue
            files.openFailed = newValue
        }
    }

    /// The bytes `offset ..< offset + size`; nil when a file they lie in does not exist (deleted, or not yet written).
    /// The range may cross file ends. The pointer is valid during the call.
    package func withBytes<R>(
        at offset: PhysicalOffset, size: Int, _ body: (UnsafeRawBufferPointer) throws -> R
    ) rethrows -> R? {
        guard let bytes = windows.bytes(at: offset, size: size) else { return nil }
        return try body(bytes)
    }

    /// For `sendfile`: the open file that holds `offset`, the offset inside it, and the bytes from there to the file's
    /// end. The descriptor belongs to the view and is valid until the next call.
    package func file(at offset: PhysicalOffset) -> (descriptor: Int32, fileOffset: Int64, available: Int)? {
        let base = PhysicalOffset(offset.rawValue / Int64(fileSize) * Int64(fileSize))
        guard let file = files.file(base: base) else { return nil }
        let inside = offset - base
        return (file.descriptor, inside, fileSize - Int(inside))
    }

    /// Unmaps windows not used since the previous call, closes files that were deleted. Call it every second or so.
    package func release() {
        windows.release()
        if files.closeRemoved() { windows.reset() }
    }
}

/// Log files opened on demand and kept.
final class OpenLogFiles {
    let directory: String
    let disk: any Disk
    var openFailed: ((SystemError) -> Void)?
    private var files: [PhysicalOffset: any DiskFile] = [:]

    init(directory: String, disk: any Disk) {
        self.directory = directory
        self.disk = disk
    }

    func file(base: PhysicalOffset) -> (any DiskFile)? {
        if let file = files[base] { return file }
        let path = directory + "/" + StoreFileName.of(offset: base.rawValue)
        do throws(SystemError) {
            guard try disk.information(path) != nil else { return nil }
            let file = try disk.open(path, .read)
            files[base] = file
            return file
        } catch {
            openFailed?(error)
            return nil
        }
    }

    /// Closes what was deleted; true when there was something.
    func closeRemoved() -> Bool {
        let gone = files.filter { entry in
            do throws(SystemError) {
                return try disk.information(entry.value.path) == nil
            } catch {
                openFailed?(error)
                return false
            }
        }
        for base in gone.keys { files[base] = nil }
        return !gone.isEmpty
    }
}
