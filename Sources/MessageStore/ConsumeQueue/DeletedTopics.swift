import FastJSON
import MessageModel
import StoreFormat

/// Topics whose queues were deleted while their messages lie in the log until it expires. A start that builds queues
/// anew from the log must not bring them back. A topic made again under the name begins at 0, without the old messages.
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
