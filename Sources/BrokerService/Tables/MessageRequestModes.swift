import FastJSON
import MessageModel
import RemotingProtocol

/// Which groups pop which topics (SET_MESSAGE_REQUEST_MODE): topic → group → mode. Persisted in
/// `config/messageRequestMode.json` in RocketMQ 5's format. Confined to the broker's event loop.
final class MessageRequestModes: PersistentTable {
    /// Pairs of topic and group, at most: each is one request of an operator.
    static let countMax = 100_000
    static let name = "messageRequestModeMap"

    private var byTopic: [String: [String: SetMessageRequestModeBody]] = [:]
    private(set) var entryCount = 0
    private(set) var isDirty = false

    /// nil: the broker's default.
    func mode(topic: String, group: String) -> SetMessageRequestModeBody? { byTopic[topic]?[group] }

    /// False when there are too many already.
    func set(_ mode: SetMessageRequestModeBody) -> Bool {
        let isNew = byTopic[mode.topic]?[mode.consumerGroup] == nil
        guard !isNew || entryCount < Self.countMax else { return false }
        byTopic[mode.topic, default: [:]][mode.consumerGroup] = mode
        if isNew { entryCount += 1 }
        isDirty = true
        return true
    }

    /// The topic was deleted.
    func forget(topic: String) {
        guard let groups = byTopic.removeValue(forKey: topic) else { return }
        entryCount -= groups.count
        isDirty = true
    }

    // MARK: - The file

    /// What a table's JSON holds, read on any thread.
    struct Entries: Sendable {
        fileprivate var byTopic: [String: [String: SetMessageRequestModeBody]] = [:]
        fileprivate var count = 0
        fileprivate(set) var refused: [RefusedEntry] = []
    }

    static func read(_ json: JSONValue) throws -> Entries {
        guard let topics = json[name]?.object else { throw TableError("it has no \(name)") }
        var entries = Entries()
        for topic in topics.members {
            for group in topic.value.object?.members ?? [] {
                do {
                    let mode = try SetMessageRequestModeBody(json: group.value)
                    guard mode.topic == topic.key, mode.consumerGroup == group.key else {
                        throw TableError("it calls itself \(mode.topic) of \(mode.consumerGroup)")
                    }
                    guard entries.count < countMax else { throw TableError("there are more than \(countMax)") }
                    if entries.byTopic[mode.topic, default: [:]].updateValue(mode, forKey: mode.consumerGroup) == nil {
                        entries.count += 1
                    }
                } catch {
                    entries.refused.append(
                        RefusedEntry(key: "\(topic.key) \(group.key)", value: group.value, reason: "\(error)"))
                }
            }
        }
        return entries
    }

    func load(file json: JSONValue) throws -> [RefusedEntry] {
        let entries = try Self.read(json)
        replace(by: entries)
        isDirty = false
        return entries.refused
    }

    /// A slave takes over its master's.
    func replace(by entries: Entries) {
        byTopic = entries.byTopic
        entryCount = entries.count
        isDirty = true
    }

    var fileJSON: JSONValue {
        var topics = JSONObject()
        for (topic, groups) in byTopic.sorted(by: { $0.key < $1.key }) {
            var modes = JSONObject()
            for (group, mode) in groups.sorted(by: { $0.key < $1.key }) { modes.append(group, mode.json) }
            topics.append(topic, .object(modes))
        }
        return .fields([(Self.name, .object(topics))])
    }

    func markWritten() { isDirty = false }
}
