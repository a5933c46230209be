import SettingTable

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

    /// `known` adds to the keys and values above, or replaces them. Its values are those the table of settings takes.
    package init(_ known: [String: String] = [:]) {
        values.merge(known) { $1 }
    }

    /// Whether 105 answers with the queue order set by `updateOrderConf`.
    package var orderMessageEnable: Bool { SettingType.boolean(values["orderMessageEnable"] ?? "") ?? false }

    /// Keys request 318 refuses.
    package var blackList: Set<String> {
        Self.neverChanged.union((values["configBlackList"] ?? "").split(separator: ";").map(String.init))
    }

    /// What came of request 318.
    package enum Update: Equatable, Sendable {
        /// Everything holds.
        case changed([String: String])
        /// In the black list.
        case forbidden(key: String)
        /// One of them is unknown, without effect, read at the start only, or has a value that is not usable: nothing
        /// was changed. RocketMQ answers success to all of that and does nothing.
        case refused(String)
    }

    /// All of it or nothing.
    package mutating func update(_ properties: [String: String]) -> Update {
        if let key = properties.keys.sorted().first(where: blackList.contains) { return .forbidden(key: key) }
        var changed: [String: String] = [:]
        for (key, value) in properties.sorted(by: { $0.key < $1.key }) {
            let refusal = SettingTable.refusal(
                ofChange: key, to: value, by: .nameserver, restart: "apus restart nameserver")
            if let refusal { return .refused("\(refusal); nothing was changed") }
            changed[key] = (try? SettingTable.canonical(key, value)) ?? value
        }
        values.merge(changed) { $1 }
        return .changed(changed)
    }

    /// Java-properties text, one `key=value` a line.
    package var text: String {
        values.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)\n" }.joined()
    }
}
