import LinuxSystem
import StoreFormat

/// Files for queues that have none for their next entry: folder, file, length, and what stands for entries before the
/// first.
final class QueueFilesWork: JoinableWork, @unchecked Sendable {
    struct Item {
        let queue: ConsumeQueue
        let number: Int64
        let generation: Int
        let folder: String
        let path: String
        /// Places before the queue's first entry, in its first file.
        let blanks: Int64
    }

    let items: [Item]
    private let disk: any Disk
    private let fileBytes: Int64
    /// One per item as far as it went, read after `join`.
    private(set) var files: [any DiskFile] = []
    private(set) var failure: SystemError?

    init(items: [Item], disk: any Disk, fileBytes: Int64) {
        self.items = items
        self.disk = disk
        self.fileBytes = fileBytes
    }

    override func work() {
        do throws(SystemError) {
            for item in items {
                files.append(
                    try ConsumeQueueFiles.make(
                        item.path, folder: item.folder, bytes: fileBytes, blanks: item.blanks, disk: disk))
            }
        } catch {
            failure = error
        }
    }
}

extension ConsumeQueueFiles {
    /// Whether the next entry to be written has no file yet.
    func needsFile(_ queue: ConsumeQueue) -> Bool {
        guard queue.writtenOffset < queue.maxOffset else { return false }
        return queue.lastFile < queue.firstFile || queue.fileNumber(of: queue.writtenOffset) > queue.lastFile
    }

    func makeFiles(for queues: [ConsumeQueue]) -> QueueFilesWork {
        let items = queues.map { queue in
            let number = queue.fileNumber(of: queue.writtenOffset)
            return QueueFilesWork.Item(
                queue: queue, number: number, generation: queue.generation, folder: queuePath(queue),
                path: path(queue, number),
                blanks: queue.lastFile < queue.firstFile ? queue.writtenOffset - queue.firstOffset(ofFile: number) : 0)
        }
        return QueueFilesWork(items: items, disk: disk, fileBytes: fileBytes)
    }

    /// Takes over what was made. A queue that began again meanwhile has no use for its file. That of a removed one goes
    /// with the topic's folder, which the same thread moves away afterwards.
    func adopt(_ work: QueueFilesWork) throws(SystemError) {
        for (item, file) in zip(work.items, work.files) {
            let queue = item.queue
            if queue.isRemoved { continue }
            if queue.generation != item.generation {
                if queue.lastFile < queue.firstFile || item.number > queue.lastFile || item.number < queue.firstFile {
                    try disk.remove(item.path)
                }
            } else {
                if queue.lastFile < queue.firstFile { queue.firstFile = item.number }
                queue.lastFile = item.number
                keepOpen(queue, OpenFile(number: item.number, file: file))
                touch(file)
            }
        }
        if let failure = work.failure { throw failure }
    }

    /// Makes a file of full length. A queue that does not begin at 0 has its first file filled with entries that point
    /// at nothing, as `ConsumeQueue.fillPreBlank` does.
    static func make(
        _ path: String, folder: String, bytes: Int64, blanks: Int64, disk: any Disk
    ) throws(SystemError) -> any DiskFile {
        try disk.createDirectory(folder)
        let file = try disk.open(path, .replace)
        try file.truncate(to: bytes)
        guard blanks > 0 else { return file }
        let size = ConsumeQueueEntry.size
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Int(blanks) * size, alignment: 8)
        defer { buffer.deallocate() }
        guard let base = buffer.baseAddress else { return file }
        for index in 0..<Int(blanks) { ConsumeQueueEntry.preBlank.encode(base + index * size) }
        try file.write(UnsafeRawBufferPointer(buffer), at: 0)
        return file
    }
}
