package import LinuxSystem
import StoreFormat

/// What a store's folder says of who wrote it last. Only reads: also a store on a read-only mount has its marks.
package struct StoreMarks: Sendable {
    /// The file `abort`, which exists exactly while a broker is running.
    package enum Abort: Sendable {
        /// Closed in order, or never opened.
        case none
        /// Apus was writing queues.
        case apus
        /// Somebody else was, or Apus had written nothing yet.
        case other
    }

    package let abort: Abort
    /// The log's end when Apus noted it last, from its recovery point; nil: it never did.
    package let notedEnd: Int64?

    /// - Throws: a file of the store cannot be read.
    package init(_ configuration: StoreConfiguration, disk: any Disk) throws(SystemError) {
        let path = configuration.storePathRootDir + "/abort"
        if try disk.information(path) == nil {
            abort = .none
        } else {
            abort = try Self.bytes(path, 16, disk).elementsEqual(MessageStore.ownWord.utf8) ? .apus : .other
        }
        let point = configuration.consumeQueuePath + "/" + RecoveryPoint.fileName
        guard try disk.information(point) != nil else {
            notedEnd = nil
            return
        }
        let places = try Self.bytes(point, 3 * 4096, disk)
        let points = (0..<3).compactMap { place in
            places.withUnsafeBytes { bytes in
                RecoveryPoint(UnsafeRawBufferPointer(rebasing: bytes.dropFirst(place * 4096)))
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

extension MetadataFile {
    /// Whether Apus wrote the bytes the file has now. Nil: it never wrote this file.
    /// - Throws: the file cannot be read.
    package func isOurs() throws(SystemError) -> Bool? {
        guard let sums = try readSums() else { return nil }
        guard let bytes = try read(path) else { return false }
        return sums.know(bytes)
    }
}
