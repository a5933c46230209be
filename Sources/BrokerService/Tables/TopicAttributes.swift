import SettingTable

/// Attributes of topics, which RocketMQ 5's tools change with `+key=value,-key` (AttributeParser, AttributeUtil,
/// TopicAttributes): RocketMQ's, and those of `TopicPolicy`.
enum TopicAttributes {
    struct Refusal: Error, CustomStringConvertible {
        /// RocketMQ's text first, then cause and remedy.
        let description: String
    }

    /// The values each attribute may have, and those that have an effect here.
    private struct Rule {
        /// nil: any number from -1 on.
        var values: Set<String>?
        var usable: Set<String>
        /// Whether it may change when the topic exists.
        var isChangeable: Bool
    }

    private static let rules: [String: Rule] = {
        let types: Set<String> = ["UNSPECIFIED", "NORMAL", "FIFO", "DELAY", "TRANSACTION", "MIXED"]
        return [
            "queue.type": Rule(values: ["BatchCQ", "SimpleCQ"], usable: ["SimpleCQ"], isChangeable: false),
            "cleanup.policy": Rule(values: ["DELETE", "COMPACTION"], usable: ["DELETE"], isChangeable: false),
            // enableMixedMessageType is off in RocketMQ unless it is set.
            "message.type": Rule(values: types, usable: types.subtracting(["MIXED"]), isChangeable: true),
            "reserve.time": Rule(values: nil, usable: [], isChangeable: true),
        ]
    }()

    /// Parses the field `attributes` of UPDATE_AND_CREATE_TOPIC; keys keep their sign.
    static func parse(_ text: String) throws(Refusal) -> [String: String] {
        var changes: [String: String] = [:]
        for part in text.split(separator: ",") {
            let key: String
            var value = ""
            if let sign = part.firstIndex(of: "=") {
                key = String(part[..<sign])
                value = String(part[part.index(after: sign)...])
                guard key.hasPrefix("+") else {
                    throw Refusal(description: "add/alter attribute format is wrong: \(SettingRefusal.shown(key))")
                }
            } else {
                key = String(part)
                guard key.hasPrefix("-") else {
                    throw Refusal(description: "delete attribute format is wrong: \(SettingRefusal.shown(key))")
                }
            }
            guard changes.updateValue(value, forKey: key) == nil else {
                throw Refusal(description: "key duplication: \(SettingRefusal.shown(key))")
            }
        }
        return changes
    }

    /// The attributes a topic has after a change.
    /// - Parameters:
    ///   - current: nil when the topic is new.
    ///   - changes: keys begin with `+` or `-`.
    static func altered(_ current: [String: String]?, by changes: [String: String]) throws(Refusal) -> [String: String]
    {
        var result = current ?? [:]
        var seen: Set<String> = []
        for (signed, value) in changes.sorted(by: { $0.key < $1.key }) {
            let key = String(signed.dropFirst())
            guard !key.isEmpty, !key.contains("+"), !key.contains("-") else {
                throw Refusal(description: "kv string format wrong.")
            }
            guard seen.insert(key).inserted else {
                throw Refusal(description: "alter duplication key. key: \(SettingRefusal.shown(key))")
            }
            let rule = rules[key]
            guard rule != nil || TopicPolicy.attributeNames.contains(key) else {
                let names = (rules.keys + TopicPolicy.attributeNames).sorted().joined(separator: ", ")
                throw Refusal(
                    description: "unsupported key: \(SettingRefusal.shown(key))\nThe attributes are \(names).")
            }
            switch signed.first {
            case "+":
                if let rule {
                    guard current == nil || rule.isChangeable else { throw unchangeable(key) }
                    try check(key, value, rule)
                } else if let problem = TopicPolicy.problem(key, value) {
                    throw Refusal(description: "value is not in set: \(problem)")
                }
                result[key] = value
            case "-":
                guard current != nil else {
                    throw Refusal(
                        description:
                            "only add attribute is supported while creating topic. key: \(SettingRefusal.shown(key))")
                }
                guard result[key] != nil else {
                    throw Refusal(description: "attempt to delete a nonexistent key: \(SettingRefusal.shown(key))")
                }
                guard rule?.isChangeable ?? true else { throw unchangeable(key) }
                result[key] = nil
            default: throw Refusal(description: "wrong format key: \(SettingRefusal.shown(key))")
            }
        }
        return result
    }

    private static func unchangeable(_ key: String) -> Refusal {
        Refusal(description: "attempt to update an unchangeable attribute. key: \(key)")
    }

    private static func check(_ key: String, _ value: String, _ rule: Rule) throws(Refusal) {
        if let values = rule.values {
            guard values.contains(value) else {
                throw Refusal(
                    description:
                        "value is not in set: \(key)=\(SettingRefusal.shown(value))\n"
                        + "It may be \(values.sorted().joined(separator: ", "))."
                )
            }
        } else {
            guard let number = Int64(value), number >= -1 else {
                throw Refusal(description: "value is not in range: \(key)=\(SettingRefusal.shown(value))")
            }
        }
        guard rule.usable.contains(value) else {
            throw Refusal(description: "\(key)=\(value) is not supported by this broker; leave the attribute out.")
        }
    }
}
