import LinuxSystem
import MessageModel

/// Moves folders of topics away, and deletes what was moved. A move costs the same however many queues a topic has.
/// Used by one thread after the other.
final class FolderRemoval: @unchecked Sendable {
    let topics: [TopicName]
    private let directory: String
    private let firstNumber: Int64
    private let disk: any Disk
    private var moved: [String]

    init(topics: [TopicName] = [], moved: [String] = [], directory: String, firstNumber: Int64 = 0, disk: any Disk) {
        self.topics = topics
        self.moved = moved
        self.directory = directory
        self.firstNumber = firstNumber
        self.disk = disk
    }

    /// - Returns: messages about what could not be moved.
    func move() -> [String] {
        var failures: [String] = []
        for (index, topic) in topics.enumerated() {
            let name = "\(QueueRemovals.prefix)\(firstNumber + Int64(index))"
            do throws(SystemError) {
                // A topic whose queues never got a file has no folder.
                guard try disk.information("\(directory)/\(topic.text)") != nil else { continue }
                try disk.rename("\(directory)/\(topic.text)", to: "\(directory)/\(name)")
                moved.append(name)
            } catch {
                failures.append("the queues of the deleted topic \(topic) keep their files: \(error)")
            }
        }
        return failures
    }

    /// What cannot be deleted is tried again by the next start.
    func deleteMoved() {
        for name in moved { try? delete("\(directory)/\(name)") }
        moved = []
    }

    private func delete(_ path: String) throws(SystemError) {
        if try disk.information(path)?.isDirectory == true {
            for name in try disk.list(path) { try delete("\(path)/\(name)") }
        }
        try disk.remove(path)
    }
}
