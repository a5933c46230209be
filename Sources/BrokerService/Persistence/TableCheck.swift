import FastJSON
import MessageStore
import MetadataStore
import RemotingProtocol
import SettingTable

extension ConfigurationFile {
    /// Whether bytes are this table, in the shape RocketMQ and we write it. A file that is JSON but not the table (a
    /// flipped bit in a name, another file's content) is unusable, and its backup is used. Nothing is silently left
    /// out. Entries that are none make it no more than usable: loading parks them.
    func quality(of bytes: [UInt8]) -> MetadataFile.Quality {
        guard let json = try? JSONValue(parsing: bytes, limits: .tables) else { return .unusable }
        switch self {
        case .changedSettings: return ChangedSettings.accepts(json) ? .good : .unusable
        case .topics:
            return Self.quality(json, "topicConfigTable", TopicConfigManager.entry)
        case .subscriptionGroups:
            return Self.quality(json, "subscriptionGroupTable", SubscriptionGroupManager.entry)
        case .consumerOffsets:
            guard Self.hasKeys(json, like: { $0.contains("@") }) else { return .unusable }
            var refused: [RefusedEntry] = []
            let quality = Self.quality(json, "offsetTable") { try ConsumerOffsetManager.entry($0, &refused) }
            return quality == .good && !refused.isEmpty ? .usable : quality
        case .delayOffsets:
            guard Self.hasKeys(json, like: { Int($0) != nil }) else { return .unusable }
            return Self.quality(json, "offsetTable", ScheduleMessageService.entry)
        case .timerMetrics: return json["timingCount"]?.object != nil ? .good : .unusable
        case .messageRequestModes: return json[MessageRequestModes.name]?.object != nil ? .good : .unusable
        case .autoCreatedTopics:
            return json.array.map { $0.allSatisfy { $0.string != nil } } ?? false ? .good : .unusable
        }
    }

    /// Both tables of offsets have the same name; a full one with no key of this kind is the other.
    private static func hasKeys(_ json: JSONValue, like isKey: (String) -> Bool) -> Bool {
        guard let members = json["offsetTable"]?.object?.members else { return false }
        return members.isEmpty || members.contains { isKey($0.key) }
    }

    private static func quality<Entry>(
        _ json: JSONValue, _ name: String, _ read: (JSONObject.Member) throws -> Entry
    ) -> MetadataFile.Quality {
        guard let table = try? TableEntries<Entry>(json, name, read) else { return .unusable }
        return table.refused.isEmpty && (json["dataVersion"] == nil || json.dataVersion != nil) ? .good : .usable
    }
}
