import FastJSON
package import LinuxSystem
import Logging
import StoreFormat

/// A log without messages beside queues, index, checkpoint or offsets that know some. Causes are a disk that is not
/// mounted, a wrong `storePathCommitLog`, a log moved away. RocketMQ deletes queues and index then and begins at 0;
/// here nothing is deleted, and the store does not open.
extension MessageStore {
    /// An operator makes this file in the store's folder to confirm: begin anew, without what was there.
    package static let beginAnewName = "begin-anew"
    private var beginAnewPath: String { configuration.storePathRootDir + "/" + Self.beginAnewName }

    private var evidence: EmptyLogEvidence { EmptyLogEvidence(configuration: configuration, disk: disk) }

    /// To be called with the lock held, before anything is written.
    /// - Throws: `StoreError.emptyLog` with what still knows of messages.
    func refuseEmptyLog() throws(StoreError) {
        let found: String? = try onDisk { () throws(SystemError) in try evidence.find() }
        if let found {
            throw .emptyLog(log: configuration.commitLogPath, evidence: found, permit: beginAnewPath)
        }
    }

    /// The operator's permit counts once. Files that know of the former messages are removed: consumers would else skip
    /// as many of the new ones.
    func takeBeginAnew() throws(SystemError) {
        guard try disk.information(beginAnewPath) != nil else { return }
        if try evidence.logIsEmpty() {
            logger.warning(
                """
                \(beginAnewPath) is there: the store begins anew, queues, index and consumers' offsets of before are \
                removed
                """
            )
            let tables = ["consumerOffset.json", "delayOffset.json"].flatMap { [$0, $0 + ".bak"] }
            for path in [checkpointPath] + tables.map({ configuration.configPath + "/" + $0 })
            where try disk.information(path) != nil { try disk.remove(path) }
        } else {
            logger.notice("\(beginAnewPath) is there, and so are messages: nothing is removed but that file")
        }
        try disk.remove(beginAnewPath)
        try disk.synchronizeDirectory(configuration.storePathRootDir)
    }
}

/// What beside a log without messages still knows of some. Only reads.
package struct EmptyLogEvidence {
    private let configuration: StoreConfiguration
    private let disk: any Disk

    /// Of the store with these settings; reads nothing yet.
    package init(configuration: StoreConfiguration, disk: any Disk) {
        self.configuration = configuration
        self.disk = disk
    }

    /// As text; nil when the log has messages, when nothing knows of any, or when an operator has permitted to begin
    /// anew.
    /// - Throws: the store's folder cannot be read.
    package func find() throws(SystemError) -> String? {
        guard try logIsEmpty() else { return nil }
        if try disk.information("\(configuration.storePathRootDir)/\(MessageStore.beginAnewName)") != nil { return nil }
        return try evidenceOfMessages()
    }

    /// No file; or, after an orderly end, one file that no record was ever written to. RocketMQ makes its first file
    /// early.
    func logIsEmpty() throws(SystemError) -> Bool {
        let folder = configuration.commitLogPath
        guard try disk.information(folder) != nil else { return true }
        let bases = try disk.list(folder).compactMap { StoreFileName.offset(of: $0) }.sorted()
        guard let first = bases.first else { return true }
        guard bases.count == 1, first == 0, try disk.information(configuration.storePathRootDir + "/abort") == nil
        else { return false }
        return try isZero("\(folder)/\(StoreFileName.of(offset: 0))", bytes: 8)
    }

    private func evidenceOfMessages() throws(SystemError) -> String? {
        if let queue = try queueWithEntries() { return "the queue \(queue) has entries" }
        let indexes = configuration.indexPath
        if try disk.information(indexes) != nil {
            for name in try disk.list(indexes).sorted() {
                // Bytes 24 to 31 of an index file: the end of the newest message in it.
                if try !isZero("\(indexes)/\(name)", bytes: 8, at: 24) { return "the index file \(name) has entries" }
            }
        }
        let checkpointPath = configuration.storePathRootDir + "/checkpoint"
        if try disk.information(checkpointPath) != nil, try !isZero(checkpointPath, bytes: 8) {
            return "the file checkpoint knows of messages"
        }
        // A slave has its master's offsets before it has its master's messages.
        return configuration.isSlave ? nil : try offsetsAboveZero()
    }

    private func queueWithEntries() throws(SystemError) -> String? {
        let root = configuration.consumeQueuePath
        guard try disk.information(root) != nil else { return nil }
        for topic in try disk.list(root).sorted() {
            guard try disk.information("\(root)/\(topic)")?.isDirectory == true else { continue }
            for queue in try disk.list("\(root)/\(topic)").sorted() where Int32(queue) != nil {
                let folder = "\(root)/\(topic)/\(queue)"
                for file in try disk.list(folder).sorted() where StoreFileName.offset(of: file) != nil {
                    // The size of the first entry's message.
                    if try !isZero("\(folder)/\(file)", bytes: 4, at: 8) { return "\(topic)/\(queue)" }
                }
            }
        }
        return nil
    }

    private func offsetsAboveZero() throws(SystemError) -> String? {
        let path = configuration.configPath + "/consumerOffset.json"
        guard let information = try disk.information(path), information.size <= JSONReader.Limits.tables.bytes else {
            return nil
        }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Int(information.size), alignment: 8)
        defer { buffer.deallocate() }
        let count = try disk.open(path, .read).read(into: buffer, at: 0)
        // One that cannot be read is reported by its reader.
        guard let json = try? JSONValue(parsing: UnsafeRawBufferPointer(rebasing: buffer[0..<count]), limits: .tables)
        else { return nil }
        for topic in json["offsetTable"]?.object?.members ?? [] {
            for queue in topic.value.object?.members ?? [] where (queue.value.integer ?? 0) > 0 {
                return "consumers have read messages (\(topic.key) in consumerOffset.json)"
            }
        }
        return nil
    }

    /// Also of a file that ends earlier.
    private func isZero(_ path: String, bytes: Int, at offset: Int64 = 0) throws(SystemError) -> Bool {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes, alignment: 8)
        defer { buffer.deallocate() }
        let count = try disk.open(path, .read).read(into: buffer, at: offset)
        return buffer[0..<count].allSatisfy { $0 == 0 }
    }
}
