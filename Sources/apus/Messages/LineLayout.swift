import ArgumentParser
import RocketMQClient

/// Which columns of a line are what.
struct LineLayout: Sendable {
    private enum Column: String {
        case topic
        case tag
        case key
        case shard
        case body
        case skipped = "_"
    }

    private let columns: [Column]
    private let separator: [UInt8]

    var hasTopic: Bool { columns.contains(.topic) }
    var hasShard: Bool { columns.contains(.shard) }

    init(columns: String?, separator: String) throws {
        self.separator = Array(separator.utf8)
        self.columns = try (columns ?? "body").split(separator: ",").map { name in
            guard let column = Column(rawValue: String(name)) else {
                throw ValidationError("--columns knows topic, tag, key, shard, body and _, not '\(name)'")
            }
            return column
        }
        guard self.columns.count(where: { $0 == .body }) == 1 else {
            throw ValidationError("--columns must name body once")
        }
        for column in [Column.topic, .tag, .key, .shard] where self.columns.count(where: { $0 == column }) > 1 {
            throw ValidationError("--columns names \(column.rawValue) twice")
        }
    }

    /// The message in a line, or nil when columns are missing. An empty tag, key or shard column is none.
    func message(_ line: [UInt8], topic: String?, tag: String?, key: String?) -> Message? {
        if columns.count == 1, let topic {
            return Message(topic: topic, body: line, tag: tag, keys: key.map { [$0] } ?? [])
        }
        var parts: [ArraySlice<UInt8>] = []
        var rest = line[...]
        for _ in 1..<max(1, columns.count) {
            guard let at = position(of: separator, in: rest) else { return nil }
            parts.append(rest[..<at])
            rest = rest[(at + separator.count)...]
        }
        parts.append(rest)
        func text(_ column: Column) -> String? {
            columns.firstIndex(of: column).map { String(decoding: parts[$0], as: UTF8.self) }
                .flatMap { $0.isEmpty ? nil : $0 }
        }
        guard let topic = text(.topic) ?? topic, let body = columns.firstIndex(of: .body) else { return nil }
        var message = Message(
            topic: topic, body: Array(parts[body]), tag: text(.tag) ?? tag,
            keys: (text(.key) ?? key).map { [$0] } ?? [])
        message.shardKey = text(.shard)
        return message
    }

    private func position(of needle: [UInt8], in bytes: ArraySlice<UInt8>) -> Int? {
        guard needle.count > 1 else { return bytes.firstIndex(of: needle[0]) }
        var index = bytes.startIndex
        while index + needle.count <= bytes.endIndex {
            if bytes[index..<(index + needle.count)].elementsEqual(needle) { return index }
            index += 1
        }
        return nil
    }
}
