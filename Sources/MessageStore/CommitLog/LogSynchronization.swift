import LinuxSystem
import StoreFormat

/// Makes the log durable, on the flush thread.
struct LogSynchronization: Sendable {
    /// The files with anything in them that is not durable.
    let files: [(base: PhysicalOffset, file: any DiskFile)]
    let fileSize: Int64
    /// Written again first: the kernel may call pages there clean that never reached the disk.
    let unverified: Range<PhysicalOffset>
    /// What is written below is durable afterwards.
    let target: PhysicalOffset

    func run() throws(SystemError) {
        for (base, file) in files {
            let from = max(unverified.lowerBound - base, 0)
            let to = min(unverified.upperBound - base, fileSize)
            if from < to { try rewrite(file, from: from, to: to) }
            try file.synchronize()
        }
    }
}

/// How a job of the `flush` thread ended. Set there before the owner is notified; read by the owner when it is notified
/// or when the thread has ended.
final class FlushOutcome<Failure>: @unchecked Sendable {
    var failure: Failure?
}
