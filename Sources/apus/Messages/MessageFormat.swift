import FastJSON
import Glibc
import LinuxSystem
import RocketMQClient

/// How messages are written out.
struct MessageFormat: Sendable {
    enum Column: String, CaseIterable {
        case topic
        case tag
        case key
        case id
        case broker
        case queue
        case offset
        case time
        case retries
        case body
    }

    private let columns: [Column]
    private let separator: [UInt8]
    private let isJSON: Bool
    /// Control characters are escaped: what senders wrote must not steer a terminal. Elsewhere every byte counts.
    private let escapes: Bool

    /// - Parameter columns: comma-separated names; see `Column`.
    init(columns: String, separator: String, json: Bool, escapes: Bool = isatty(STDOUT_FILENO) == 1) throws {
        self.columns = try columns.split(separator: ",").map { name in
            guard let column = Column(rawValue: String(name)) else {
                throw CommandFailure(
                    "--columns knows \(Column.allCases.map(\.rawValue).joined(separator: ", ")), not '\(name)'")
            }
            return column
        }
        self.separator = Array(separator.utf8)
        isJSON = json
        self.escapes = escapes
    }

    /// Appends one line.
    func write(_ message: ReceivedMessage, to output: inout [UInt8]) {
        if isJSON {
            var properties = JSONObject()
            for (name, value) in message.properties.sorted(by: { $0.key < $1.key }) {
                properties.append(name, .string(value))
            }
            let json = JSONValue.fields([
                ("topic", .string(message.queue.topic)), ("tag", message.tag.map { .string($0) }),
                ("key", message.keys.map { .string($0) }), ("id", message.uniqueID.map { .string($0) }),
                ("broker", .string(message.queue.brokerName)), ("queue", .integer(message.queue.queueID)),
                ("offset", .integer(message.queueOffset)), ("bornTime", .integer(message.bornTimestamp)),
                ("time", .integer(message.storeTimestamp)), ("retries", .integer(message.reconsumeTimes)),
                ("properties", .object(properties)), ("body", .string(String(decoding: message.body, as: UTF8.self))),
            ])
            output += escapes ? Array(PlainText.escaped(json.text()).utf8) : json.bytes()
        } else {
            for (index, column) in columns.enumerated() {
                if index > 0 { output += separator }
                switch column {
                case .topic: output += cell(message.queue.topic)
                case .tag: output += cell(message.tag ?? "")
                case .key: output += cell(message.keys ?? "")
                case .id: output += cell(message.uniqueID ?? "")
                case .broker: output += cell(message.queue.brokerName)
                case .queue: output += Array(String(message.queue.queueID).utf8)
                case .offset: output += Array(String(message.queueOffset).utf8)
                case .time: output += Array(String(message.storeTimestamp).utf8)
                case .retries: output += Array(String(message.reconsumeTimes).utf8)
                case .body: output += escapes ? cell(String(decoding: message.body, as: UTF8.self)) : message.body
                }
            }
        }
        output.append(0x0A)
    }

    private func cell(_ text: String) -> [UInt8] { Array((escapes ? PlainText.escaped(text) : text).utf8) }
}
