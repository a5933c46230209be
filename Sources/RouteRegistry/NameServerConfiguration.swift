/// The settings of a name server under RocketMQ's names (`NamesrvConfig`), shown by 319 and changed by 318.
package struct NameServerConfiguration: Equatable, Sendable {
    /// Never changed over the wire: each names a file or this list itself, and so a way to write anywhere on the
    /// machine (CVE-2023-37582).
    package static let neverChanged: Set<String> = [
        "configBlackList", "configStorePath", "kvConfigPath", "rocketmqHome",
    ]

    /// RocketMQ's keys and defaults.
    package private(set) var values: [String: String] = [
        "orderMessageEnable": "false",
        "clusterTest": "false",
        "productEnvName": "center",
        "configBlackList": "configBlackList;configStorePath;kvConfigPath",
        "serverChannelMaxIdleTimeSeconds": "120",
    ]

    /// `known` adds to the keys and values above, or replaces them.
    package init(_ known: [String: String] = [:]) {
        self.values.merge(known) { $1 }
    }

    /// Whether 105 answers with the queue order set by `updateOrderConf`.
    package var orderMessageEnable: Bool { self.values["orderMessageEnable"] == "true" }

    /// Keys request 318 refuses.
    package var blackList: Set<String> {
        Self.neverChanged.union((self.values["configBlackList"] ?? "").split(separator: ";").map(String.init))
    }

    /// What came of request 318.
    package enum Update: Equatable, Sendable {
        /// The keys that were changed; others are unknown here and passed over, as in RocketMQ.
        case changed([String])
        case refused(key: String)
    }

    /// All of it or, with one refused key, nothing.
    package mutating func update(_ properties: [String: String]) -> Update {
        if let key = properties.keys.sorted().first(where: self.blackList.contains) {
            return .refused(key: key)
        }
        var changed: [String] = []
        for (key, value) in properties where self.values[key] != nil && self.values[key] != value {
            self.values[key] = value
            changed.append(key)
        }
        return .changed(changed.sorted())
    }

    /// Java-properties text, one `key=value` a line.
    package var text: String {
        self.values.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)\n" }.joined()
    }
}
