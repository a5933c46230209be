package import FastJSON
import RemotingProtocol

/// Names and values by namespace (100–102, 219); what order topics and tools keep on a name server.
///
/// Kept as `{"configTable":{namespace:{key:value}}}`, the form of RocketMQ's `kvConfig.json`.
package struct KVConfigTable: Equatable, Sendable {
    /// The namespace of `updateOrderConf`: topic → `broker:queues;…`.
    package static let orderTopicConfig = "ORDER_TOPIC_CONFIG"

    /// namespace → key → value. A namespace whose keys were all deleted stays, as in RocketMQ, while there is room.
    package private(set) var table: [String: [String: String]] = [:]

    /// Bytes of namespaces, keys and values as JSON has them; each namespace counts once more for itself. The answer
    /// to each broker's registration contains a namespace: it must fit a frame.
    package private(set) var bytes = 0
    /// So many it takes. RocketMQ has no bound; here each change writes the whole table, and a start reads it.
    package static let bytesMax = 8 << 20
    /// Bytes of the namespace and the key of a request. RocketMQ has no bound.
    package static let namespaceMax = 255
    /// As above.
    package static let keyMax = 32 << 10
    /// Namespaces without entries.
    private var emptied: Set<String> = []

    package init() {}

    private static func bytes(_ namespace: String, _ key: String, _ value: String) -> Int {
        encoded(namespace) + encoded(key) + encoded(value)
    }

    /// Bytes of a text in JSON, with its quotes and a separator.
    private static func encoded(_ text: String) -> Int {
        text.utf8.reduce(3) { count, byte in
            switch byte {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"): count + 2
            case 0x00...0x1f, 0x7f: count + 6
            default: count + 1
            }
        }
    }

    /// What the file holds; what has another shape is left out and counted in `refused`.
    package init(json: JSONValue, refused: inout Int) {
        for namespace in json["configTable"]?.object?.members ?? [] {
            guard let entries = namespace.value.object else {
                refused += 1
                continue
            }
            for entry in entries.members {
                if let value = entry.value.string {
                    self.set(namespace.key, entry.key, value)
                } else {
                    refused += 1
                }
            }
        }
    }

    /// Whether bytes are such a file, whatever its entries are.
    package static func accepts(_ bytes: [UInt8]) -> Bool {
        guard let json = try? JSONValue(parsing: bytes, limits: .tables), let object = json.object else { return false }
        return object.isEmpty || json["configTable"]?.object != nil
    }

    /// The file's content, sorted.
    package var json: JSONValue {
        .fields([
            (
                "configTable",
                .fields(
                    table.sorted { $0.key < $1.key }.map { namespace, entries in
                        (namespace, .fields(entries.sorted { $0.key < $1.key }.map { ($0.key, .string($0.value)) }))
                    })
            )
        ])
    }

    /// `false`: there is no room for it, nothing was changed.
    package mutating func put(namespace: String, key: String, value: String) -> Bool {
        let former = table[namespace]?[key].map { Self.bytes(namespace, key, $0) } ?? 0
        let growth = Self.bytes(namespace, key, value) - former
        // A file of an earlier version may have more: what makes it no larger is taken.
        func isFull() -> Bool {
            let all = growth + (table[namespace] == nil ? Self.encoded(namespace) : 0)
            return all > 0 && bytes + all > Self.bytesMax
        }
        if isFull() { removeEmptied() }
        guard !isFull() else { return false }
        self.set(namespace, key, value)
        return true
    }

    private mutating func removeEmptied() {
        for namespace in emptied where table.removeValue(forKey: namespace) != nil {
            bytes -= Self.encoded(namespace)
        }
        emptied = []
    }

    private mutating func set(_ namespace: String, _ key: String, _ value: String) {
        if table[namespace] == nil { bytes += Self.encoded(namespace) }
        emptied.remove(namespace)
        if let former = table[namespace, default: [:]].updateValue(value, forKey: key) {
            bytes -= Self.bytes(namespace, key, former)
        }
        bytes += Self.bytes(namespace, key, value)
    }

    /// nil when there is no such namespace or key.
    package func value(namespace: String, key: String) -> String? {
        table[namespace]?[key]
    }

    /// Nothing happens when there is no such namespace or key.
    package mutating func delete(namespace: String, key: String) {
        guard let former = table[namespace]?.removeValue(forKey: key) else { return }
        bytes -= Self.bytes(namespace, key, former)
        if table[namespace]?.isEmpty == true { emptied.insert(namespace) }
    }

    /// nil when there is no such namespace.
    package func entries(namespace: String) -> [String: String]? {
        table[namespace]
    }
}
