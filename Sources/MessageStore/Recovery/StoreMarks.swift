package import LinuxSystem
import StoreFormat

/// What a store's folder shows of the broker that wrote it last. Only reads: a store on a read-only mount has its
/// marks, too.
package struct StoreMarks: Sendable {
    /// The file `abort`, which exists exactly while a broker is running.
    package enum Abort: Sendable {
        /// Closed in order, or never opened.
        case none
        /// Apus was writing queues.
        case apus
        /// Another broker was, or Apus had written nothing yet.
        case other
    }

    /// What the file `abort` shows.
    package let abort: Abort
    /// The log's end when Apus noted it last, from its recovery point; nil: it never did.
    package let notedEnd: Int64?

    /// - Throws: a file of the store cannot be read.
    package init(_ configuration: StoreConfiguration, disk: any Disk) throws(SystemError) {
        let path = configuration.storePathRootDir + "/abort"
        if try disk.information(path) == nil {
            abort = .none
        } else {
            abort = try Self.bytes(path, 16, disk).elementsEqual(MessageStore.ownMark.utf8) ? .apus : .other
        }
        let point = configuration.consumeQueuePath + "/" + RecoveryPoint.fileName
        guard try disk.information(point) != nil else {
            notedEnd = nil
            return
        }
        let slots = try Self.bytes(point, 3 * 4096, disk)
        let points = (0..<3).compactMap { slot in
            slots.withUnsafeBytes { bytes in
                RecoveryPoint(UnsafeRawBufferPointer(rebasing: bytes.dropFirst(slot * 4096)))
            }
        }
        notedEnd = points.max { $0.sequence < $1.sequence }?.dispatched.rawValue
    }

    private static func bytes(_ path: String, _ most: Int, _ disk: any Disk) throws(SystemError) -> [UInt8] {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: most, alignment: 16)
        defer { buffer.deallocate() }
        let count = try disk.open(path, .read).read(into: buffer, at: 0)
        return Array(buffer[0..<count])
    }
}
