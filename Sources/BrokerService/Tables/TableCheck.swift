import FastJSON
import RemotingProtocol
import SettingTable

extension Broker.ConfigurationFile {
    /// Whether bytes are this table, in the shape RocketMQ and we write it: then nothing in it is silently left out when it is loaded. A file
    /// that is JSON but not the table (a flipped bit in a name, another file's content) is refused, and its backup is used.
    func accepts(_ bytes: [UInt8]) -> Bool {
        guard let json = try? JSONValue(parsing: bytes) else { return false }
        switch self {
        case .changedSettings: return ChangedSettings.accepts(json)
        case .topics:
            guard let table = json["topicConfigTable"]?.object, (try? TopicConfigSerializeWrapper(json: json)) != nil
            else {
                return false
            }
            return table.members.allSatisfy { $0.value["topicName"]?.string == $0.key }
        case .subscriptionGroups:
            guard let table = json["subscriptionGroupTable"]?.object, (try? SubscriptionGroupWrapper(json: json)) != nil
            else { return false }
            return table.members.allSatisfy { $0.value["groupName"]?.string == $0.key }
        case .consumerOffsets:
            guard let table = json["offsetTable"]?.object else { return false }
            return table.members.allSatisfy { member in
                member.key.contains("@") && Self.isOffsets(member.value, keys: 0...Int64(Int32.max))
            }
        case .delayOffsets: return json["offsetTable"].map { Self.isOffsets($0, keys: 1...Int64(Int32.max)) } ?? false
        case .autoCreatedTopics: return json.array.map { $0.allSatisfy { $0.string != nil } } ?? false
        }
    }

    /// Numbers to offsets.
    private static func isOffsets(_ json: JSONValue, keys: ClosedRange<Int64>) -> Bool {
        guard let object = json.object else { return false }
        return object.members.allSatisfy { member in
            return Int64(member.key).map { keys.contains($0) } ?? false && member.value.integer != nil
        }
    }
}
