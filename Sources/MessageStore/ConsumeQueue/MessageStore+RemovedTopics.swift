import FastJSON
import LinuxSystem
import Logging
import MessageModel
import MetadataStore
import StoreFormat

extension MessageStore {
    private var deletedFile: MetadataFile {
        MetadataFile(path: configuration.configPath + "/deletedTopics.json", disk: disk)
    }

    func loadDeleted() {
        do throws(MetadataError) {
            switch try deletedFile.load(isGood: { (try? JSONValue(parsing: $0, limits: .tables))?.object != nil }) {
            case .absent: break
            case .empty(let reason):
                logger.error(
                    """
                    \(reason): queues of deleted topics come back if queues are built anew; delete those topics again \
                    then
                    """
                )
            case .current(let bytes), .backup(let bytes, _):
                if let json = try? JSONValue(parsing: bytes, limits: .tables) { deleted = DeletedTopics(json: json) }
            }
        } catch {
            logger.error(
                "\(error); queues of deleted topics come back if queues are built anew; delete those topics again then")
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
        do throws(MetadataError) {
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
    /// Numbers of such folders lie below it.
    fileprivate static let numberLimit: Int64 = 1 << 60
}

extension MessageStore {
    /// Names of the topics that have queues, in no order.
    package var topicsWithQueues: [String] { table.topicNames.map(\.text) }

    /// Forgets the queues of a topic at once. The `writeBehind` thread then notes that for the next start and moves the
    /// topic's folder away. It does so before it makes a file for a new queue of that name. The messages stay in the
    /// log until it expires.
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
            queue.edits = nil
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
    /// - Parameter isUrgent: work is about to be submitted that makes files. Folders must be out of its way, for they
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
            // No broker has come to the others.
            let highest = numbers.filter { $0 < QueueRemovals.numberLimit }.max() ?? -1
            removals.number = max(removals.number, highest + 1)
            return left.isEmpty ? nil : FolderRemoval(moved: left, directory: queueFiles.directory, disk: disk)
        } catch {
            logger.warning("folders of removed topics stay in \(queueFiles.directory): \(error)")
            return nil
        }
    }
}
