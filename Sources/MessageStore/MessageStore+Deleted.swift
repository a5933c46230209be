import FastJSON
import LinuxSystem
import Logging
import MessageModel
import StoreFormat

/// Topics whose queues were deleted while their messages lie in the log until it expires. A start that builds queues anew
/// from the log must not bring them back: a topic made again under the name begins at 0, without the old messages.
struct DeletedTopics: Equatable {
    /// Messages of the topic before this place of the log belong to no queue.
    private(set) var ends: [TopicName: Int64] = [:]

    /// Whether a message was deleted with its topic.
    func hides(_ topic: UnsafeRawBufferPointer, at physical: Int64) -> Bool {
        guard !ends.isEmpty, let name = try? TopicName(existing: topic), let end = ends[name] else { return false }
        return physical < end
    }

    mutating func note(_ topic: TopicName, before end: Int64) { ends[topic] = end }

    /// The log begins at `first` and ends at `end`: what tells of other places is of no use, or of another log.
    mutating func fit(first: Int64, end: Int64) {
        ends = ends.compactMapValues { $0 > first ? min($0, end) : nil }
    }

    // MARK: The file, `{"TOPIC":PLACE}`

    var json: JSONValue {
        var object = JSONObject()
        for (topic, end) in ends.sorted(by: { $0.key.text < $1.key.text }) { object.append(topic.text, .integer(end)) }
        return .object(object)
    }

    init() {}

    /// Entries that are none are left out: at worst their queues come back.
    init(json: JSONValue) {
        for member in json.object?.members ?? [] {
            guard let name = try? TopicName(existing: member.key), let end = member.value.integer, end > 0 else {
                continue
            }
            ends[name] = end
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
    func fitDeleted(first: Int64) {
        let before = deleted
        deleted.fit(first: first, end: logEnd)
        if deleted != before { saveDeleted() }
    }

    /// To be called before the queues' files go.
    func noteDeleted(_ queues: [ConsumeQueue]) {
        deleted.fit(first: logFiles.first ?? 0, end: logEnd)
        for queue in queues { deleted.note(queue.storedTopic.topic, before: logEnd) }
        saveDeleted()
    }

    private func saveDeleted() {
        do throws(StoreError) {
            try deletedFile.save(deleted.json.bytes(.pretty))
        } catch {
            logger.error(
                "which topics were deleted was not kept: their queues come back if queues are built anew: \(error)")
        }
    }
}
