import Glibc
import MessageStore
import NIOCore
import RemotingTransport
import StoreFormat

/// The commit log files as `sendfile` wants them: open as long as a connection still sends from one, whatever retention
/// does meanwhile. A file that was deleted is released at once, so that its room comes back when the last transfer is
/// through. On the broker's loop.
final class LogFileTransfer {
    /// An own descriptor of a log file, closed when the last transfer releases it.
    final class File {
        let handle: NIOFileHandle

        /// Takes over `descriptor`.
        init(descriptor: Int32) {
            handle = FileSending.handle(owning: descriptor)
        }

        deinit {
            do {
                try handle.close()
            } catch {
                assertionFailure("closing a commit log file opened for sending: \(error)")
            }
        }
    }

    private let store: MessageStore
    /// By the physical offset of the file's first byte.
    private var files: [Int64: File] = [:]

    init(_ store: MessageStore) { self.store = store }

    /// The file a run lies in and the run's position in it; nil when it was deleted, or cannot be opened once more.
    func find(_ range: LogRange) -> (file: File, region: FileRegion)? {
        guard let (descriptor, place) = store.logFile(at: range.start), descriptor >= 0 else { return nil }
        let base = range.start.rawValue - place
        let file: File
        if let known = files[base] {
            file = known
        } else {
            let copy = fcntl(descriptor, F_DUPFD_CLOEXEC, 0)
            guard copy >= 0 else { return nil }
            file = File(descriptor: copy)
            files[base] = file
        }
        return (
            file, FileRegion(fileHandle: file.handle, readerIndex: Int(place), endIndex: Int(place) + range.length)
        )
    }

    /// The log begins here now.
    func release(below offset: PhysicalOffset) {
        files = files.filter { $0.key >= offset.rawValue }
    }
}
