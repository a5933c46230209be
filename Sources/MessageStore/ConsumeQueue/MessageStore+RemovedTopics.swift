import FastJSON
import LinuxSystem
import Logging
import MessageModel
import StoreFormat

/// Topics whose queues were deleted while their messages lie in the log until it expires. A start that builds queues
/// anew from the log must not bring them back: a topic made again under the name begins at 0, without the old messages.
struct DeletedTopics: Equatable {
    /// Messages of the topic before this offset belong to no queue.
    private(set) var ends: [TopicName: PhysicalOffset] = [:]

    /// Whether a message was deleted with its topic.
    func hides(_ topic: UnsafeRawBufferPointer, at physical: PhysicalOffset) -> Bool {
        guard !ends.isEmpty, let name = try? TopicName(existing: topic), let end = ends[name] else { return false }
        return physical < end
    }

    mutating func note(_ topic: TopicName, before end: PhysicalOffset) { ends[topic] = end }

    /// The log begins at `first` and ends at `end`: what names other offsets is of no use, or of another log.
    mutating func fit(first: PhysicalOffset, end: PhysicalOffset) {
        ends = ends.compactMapValues { $0 > first ? min($0, end) : nil }
    }

    // MARK: - The file, `{"TOPIC":PLACE}`

    var json: JSONValue {
        var object = JSONObject()
        for (topic, end) in ends.sorted(by: { $0.key.text < $1.key.text }) {
            object.append(topic.text, .integer(end.rawValue))
        }
        return .object(object)
    }

    init() {}

    /// Entries that are none are left out: at worst their queues come back.
    init(json: JSONValue) {
        for member in json.object?.members ?? [] {
            guard let name = try? TopicName(existing: member.key), let end = member.value.integer, end > 0 else {
                continue
            }
            ends[name] = PhysicalOffset(end)
        }
    }
}

extension MessageStore {
    private var deletedFile: MetadataFile {
        MetadataFile(path: configuration.configPath + "/deletedTopics.json", disk: disk)
    }

    func loadDeleted() {
        do throws(StoreError) {
            switch try deletedFile.load(isGood: { (try? JSONValue(parsing: $0))?.object != nil }) {
            case .absent: break
            case .empty(let reason): logger.error("\(reason): queues of deleted topics may come back")
            case .current(let bytes), .backup(let bytes, _):
                if let json = try? JSONValue(parsing: bytes) { deleted = DeletedTopics(json: json) }
            }
        } catch {
            logger.error("\(error); queues of deleted topics come back if queues are built anew")
        }
    }

    /// The log has been recovered: `first` is where it begins.
    func fitDeleted(first: PhysicalOffset) {
        let before = deleted
        deleted.fit(first: first, end: log.end)
        if deleted != before { saveDeleted() }
    }

    private func saveDeleted() {
        if let failure = Self.save(deleted, deletedFile) { logger.error("\(failure)") }
    }

    /// - Returns: what is wrong when it could not be kept.
    private static func save(_ deleted: DeletedTopics, _ file: MetadataFile) -> String? {
        do throws(StoreError) {
            try file.save(deleted.json.bytes(.pretty))
            return nil
        } catch {
            return "which topics were deleted was not kept: their queues come back if queues are built anew: \(error)"
        }
    }
}

/// Folders of removed queues on their way out.
struct QueueRemovals {
    /// Topics whose folders are still to be moved.
    fileprivate var topics: [TopicName] = []
    /// Jobs that move folders, submitted and not taken over.
    fileprivate var running = 0
    /// Removals asked for; how many of them are done.
    fileprivate var asked: Int64 = 0
    fileprivate var done: Int64 = 0
    fileprivate var waiters: [(upTo: Int64, completion: () -> Void)] = []
    /// The next folder's number.
    fileprivate var number: Int64 = 0

    /// Begins the name of a folder whose topic was removed. Starts read no folder whose name begins with a dot.
    static let prefix = ".removed-"
}

extension MessageStore {
    /// Names of the topics that have queues, in no order.
    package var topicsWithQueues: [String] { table.topicNames.map(\.text) }

    /// Forgets the queues of a topic at once. The `writeBehind` thread then notes that for the next start, and moves
    /// the topic's folder away, before it makes a file for a new queue of that name. The messages stay in the log until
    /// it expires.
    /// - Returns: the queues the topic had.
    @discardableResult
    package func removeTopic(_ name: String) -> [ConsumeQueue] {
        guard let topic = try? TopicName(existing: name) else { return [] }
        let removed = table.remove(topic)
        guard !removed.isEmpty else { return [] }
        deleted.note(topic, before: log.end)
        for queue in removed {
            if queue.openFile != nil { queueFiles.close(queue) }
            queue.isRemoved = true
        }
        // A recovery that replayed from before this moment would bring the queues back.
        checkpoint.request()
        removals.asked += 1
        removals.topics.append(topic)
        moveRemovedFolders()
        return removed
    }

    /// Calls back when a kill cannot bring back any queue that has been removed so far, nor its files.
    package func whenRemoved(_ completion: @escaping () -> Void) {
        guard removals.done < removals.asked else { return completion() }
        removals.waiters.append((removals.asked, completion))
    }

    /// Topics removed while a job runs go together with the next one.
    /// - Parameter isUrgent: work is about to be submitted that makes files: folders must be out of its way, for they
    ///   may be those of new queues of the same names.
    func moveRemovedFolders(isUrgent: Bool = false) {
        guard !removals.topics.isEmpty, isUrgent || removals.running == 0 else { return }
        removals.running += 1
        let job = takeRemoved()
        let (upTo, deleted, file) = (removals.asked, deleted, deletedFile)
        let (executor, liveness) = (executor, liveness)
        background.submit(.writeBehind) {
            // The note comes first: without it a start could build the queues anew from the log.
            let failures = [Self.save(deleted, file)].compactMap { $0 } + job.move()
            executor { liveness.store?.movedFolders(job, upTo, failures) }
        }
    }

    private func takeRemoved() -> FolderRemoval {
        deleted.fit(first: logStart, end: log.end)
        let job = FolderRemoval(
            topics: removals.topics, directory: queueFiles.directory, firstNumber: removals.number, disk: disk)
        removals.number += Int64(job.topics.count)
        removals.topics = []
        return job
    }

    private func movedFolders(_ job: FolderRemoval, _ upTo: Int64, _ failures: [String]) {
        guard isOpen else { return }
        for failure in failures { logger.error("\(failure)") }
        background.submit(.check) { job.deleteMoved() }
        removals.running -= 1
        // The thread works in order.
        removals.done = upTo
        let ready = removals.waiters.filter { $0.upTo <= upTo }
        removals.waiters.removeAll { $0.upTo <= upTo }
        for waiter in ready { waiter.completion() }
        moveRemovedFolders()
    }

    /// What a kill has left of removed topics.
    func removeLeftFolders() {
        guard let left = leftFolders() else { return }
        background.submit(.check) { left.deleteMoved() }
    }

    /// For the end, when the threads have ended: nothing is left in the folder that RocketMQ would take for a topic.
    func finishRemovals() {
        if !removals.topics.isEmpty {
            let job = takeRemoved()
            saveDeleted()
            for failure in job.move() { logger.error("\(failure)") }
        }
        leftFolders()?.deleteMoved()
    }

    private func leftFolders() -> FolderRemoval? {
        do throws(SystemError) {
            let left = try disk.list(queueFiles.directory).filter { $0.hasPrefix(QueueRemovals.prefix) }
            let numbers = left.compactMap { Int64($0.dropFirst(QueueRemovals.prefix.count)) }
            removals.number = max(removals.number, (numbers.max() ?? -1) +| 1)
            return left.isEmpty ? nil : FolderRemoval(moved: left, directory: queueFiles.directory, disk: disk)
        } catch {
            logger.warning("folders of removed topics stay in \(queueFiles.directory): \(error)")
            return nil
        }
    }
}

/// Moves folders of topics away, and deletes what was moved. A move costs the same however many queues a topic has.
/// Used by one thread after the other.
private final class FolderRemoval: @unchecked Sendable {
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
