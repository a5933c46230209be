import FastJSON
import LinuxSystem
import RemotingProtocol

/// The offsets of a broadcasting consumer, which no broker keeps. The file has the form of Java's `offsets.json`.
struct BroadcastOffsets: Sendable {
    private var table: [MessageQueue: Int64] = [:]
    private var isChanged = false

    init() {}

    /// - Throws: `invalidArgument` for a file that cannot be read or is not of this form. A missing file has no
    ///   offsets.
    init(file path: String) throws(RocketMQClientError) {
        do {
            guard let text = try DurableFile.read(path, bytesMax: JSONReader.Limits.foreign.bytes) else { return }
            for member in try JSONValue(parsing: text)["offsetTable"]?.object?.members ?? [] {
                guard let queue = MessageQueue(key: member.key), let offset = member.value.integer else { continue }
                table[queue] = offset
            }
        } catch {
            throw .invalidArgument("the offsets in \(path) cannot be read: \(error)")
        }
    }

    subscript(queue: MessageQueue) -> Int64? {
        get { table[queue] }
        set {
            isChanged = isChanged || table[queue] != newValue
            table[queue] = newValue
        }
    }

    var json: JSONValue {
        var offsets = JSONObject()
        for (queue, offset) in table.sorted(by: { $0.key < $1.key }) {
            offsets.append(rawKey: queue.wire.json.text(), .integer(offset))
        }
        return .fields([("offsetTable", .object(offsets))])
    }

    /// - Throws: `invalidArgument` when the file cannot be written.
    mutating func write(to path: String) throws(RocketMQClientError) {
        guard isChanged else { return }
        do {
            try DurableFile.replace(path, with: json.text())
            isChanged = false
        } catch {
            throw .invalidArgument("\(path) cannot be written: \(error)")
        }
    }
}
