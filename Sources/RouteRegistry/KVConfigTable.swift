package import FastJSON
import RemotingProtocol

/// Names and values by namespace (100–102, 219); what order topics and tools keep on a name server.
///
/// Kept as `{"configTable":{namespace:{key:value}}}`, the form of RocketMQ's `kvConfig.json`.
package struct KVConfigTable: Equatable, Sendable {
    /// The namespace of `updateOrderConf`: topic → `broker:queues;…`.
    package static let orderTopicConfig = "ORDER_TOPIC_CONFIG"

    /// namespace → key → value.
    package private(set) var table: [String: [String: String]] = [:]

    package init() {}

    /// What the file holds; what has another shape is left out and counted in `refused`.
    package init(json: JSONValue, refused: inout Int) {
        for namespace in json["configTable"]?.object?.members ?? [] {
            guard let entries = namespace.value.object else {
                refused += 1
                continue
            }
            for entry in entries.members {
                if let value = entry.value.string {
                    self.table[namespace.key, default: [:]][entry.key] = value
                } else {
                    refused += 1
                }
            }
        }
    }

    /// Whether bytes are such a file, whatever its entries are.
    package static func accepts(_ bytes: [UInt8]) -> Bool {
        guard let json = try? JSONValue(parsing: bytes), let object = json.object else { return false }
        return object.isEmpty || json["configTable"]?.object != nil
    }

    /// The file's content, sorted.
    package var json: JSONValue {
        .fields([
            (
                "configTable",
                .fields(
                    self.table.sorted { $0.key < $1.key }.map { namespace, entries in
                        (namespace, .fields(entries.sorted { $0.key < $1.key }.map { ($0.key, .string($0.value)) }))
                    })
            )
        ])
    }

    package mutating func put(namespace: String, key: String, value: String) {
        self.table[namespace, default: [:]][key] = value
    }

    package func value(namespace: String, key: String) -> String? {
        self.table[namespace]?[key]
    }

    package mutating func delete(namespace: String, key: String) {
        self.table[namespace]?[key] = nil
    }

    /// nil when there is no such namespace.
    package func entries(namespace: String) -> [String: String]? {
        self.table[namespace]
    }
}
