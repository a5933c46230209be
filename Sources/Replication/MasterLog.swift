import Glibc
package import LinuxSystem
import NIOCore
import RemotingTransport
import StoreFormat
import StoreReader
import WorkerProtocol

/// The commit log a master serves: files read-only, up to the broker-store's watermarks.
package final class MasterLog {
    private let directory: String
    private let disk: any Disk
    private let watermarks: SharedSegment
    private var view: CommitLogView?
    /// The file transfers were last taken from; slaves that keep up all read the same one.
    private var current: LogFile?

    package init(directory: String, disk: any Disk, watermarks: SharedSegment) {
        self.directory = directory
        self.disk = disk
        self.watermarks = watermarks
    }

    /// Changes with each start of the broker-store.
    var generation: UInt64 { watermarks.atomicLoad(slot: WatermarkSlot.generation) }

    /// Nil while the broker-store has not opened its store: nothing may be sent or judged then.
    package var state: HASession.Log? {
        guard watermarks.atomicLoad(slot: WatermarkSlot.ready) == 1 else { return nil }
        func offset(_ slot: Int) -> Int64 { Int64(bitPattern: watermarks.atomicLoad(slot: slot)) }
        let fileSize = offset(WatermarkSlot.fileSize)
        guard fileSize > 0 else { return nil }
        return HASession.Log(
            minimum: offset(WatermarkSlot.minimum), written: offset(WatermarkSlot.written), fileSize: fileSize)
    }

    /// The open file that holds `offset`; nil when it does not exist.
    func file(at offset: Int64, fileSize: Int64) -> LogFile? {
        if let current, current.start == offset - offset % fileSize { return current }
        let view = view ?? CommitLogView(directory: directory, fileSize: Int(fileSize), disk: disk)
        self.view = view
        guard let found = view.file(at: PhysicalOffset(offset)) else { return nil }
        // The view's descriptor stays open until its next call, a transfer until the slave's socket took it.
        let descriptor = fcntl(found.descriptor, F_DUPFD_CLOEXEC, 0)
        guard descriptor >= 0 else { return nil }
        // On to the next file: those that were deleted meanwhile are released, or their space would stay taken.
        view.release()
        let file = LogFile(descriptor: descriptor, start: offset - offset % fileSize)
        current = file
        return file
    }

    /// Closes what no transfer needs any more; to be called when no slave is connected.
    func release() {
        current = nil
        view?.release()
    }
}

/// One open commit log file, closed when the last transfer from it is through. Used on one event loop.
final class LogFile: @unchecked Sendable {
    /// Physical offset of its first byte.
    let start: Int64
    let handle: NIOFileHandle
    private let descriptor: Int32

    /// Takes over `descriptor`.
    init(descriptor: Int32, start: Int64) {
        self.start = start
        self.descriptor = descriptor
        handle = FileSending.handle(owning: descriptor)
    }

    deinit {
        do {
            try handle.close()
        } catch {
            assertionFailure("closing a commit log file opened for reading: \(error)")
        }
    }

    /// Reads `size` bytes at the physical offset; false when they are not all there.
    func read(at offset: Int64, size: Int, into buffer: inout ByteBuffer) -> Bool {
        let count = buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: size) { free in
            var done = 0
            while done < size {
                let result = pread(
                    descriptor, free.baseAddress.map { $0 + done }, size - done, off_t(offset - start) + off_t(done))
                if result < 0 && errno == EINTR { continue }
                guard result > 0 else { break }
                done += result
            }
            return done
        }
        return count == size
    }
}
