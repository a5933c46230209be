import CZlib
import FastJSON
import Glibc
import LinuxSystem
import StoreFormat

/// A message as a broker delivered it, its body decompressed.
struct ConsumedMessage: Sendable {
    let topic: String
    let brokerName: String
    let queueId: Int
    let queueOffset: Int64
    let storeTimestamp: Int64
    let bornTimestamp: Int64
    let reconsumeTimes: Int
    let properties: [String: String]
    let body: [UInt8]

    var tag: String? { properties["TAGS"] }
    var key: String? { properties["KEYS"] }
    var id: String? { properties["UNIQ_KEY"] }

    /// Bodies of one answer may inflate to so many bytes together; one of 64 MiB is the largest that is inflated.
    private static let inflatedBytesMax = 256 << 20

    /// The records of a pull response, in order.
    static func decode(_ bytes: [UInt8], brokerName: String) throws -> [ConsumedMessage] {
        try bytes.withUnsafeBytes { buffer in
            var messages: [ConsumedMessage] = []
            var position = 0
            var bodyBytes = 0
            while position < buffer.count {
                switch CommitLogRecord.parse(UnsafeRawBufferPointer(rebasing: buffer[position...])) {
                case .record(let record):
                    let message = try ConsumedMessage(record, brokerName: brokerName)
                    bodyBytes += message.body.count
                    guard bodyBytes <= Self.inflatedBytesMax else {
                        throw CommandFailure(
                            "the bodies of one answer of broker \(brokerName) inflate to more than \(Self.inflatedBytesMax >> 20) MiB"
                        )
                    }
                    messages.append(message)
                    position += record.totalSize
                case .blank, .incomplete, .invalid:
                    throw CommandFailure(
                        "broker \(brokerName) sent bytes that are no message (at \(position) of \(buffer.count))")
                }
            }
            return messages
        }
    }
}

extension ConsumedMessage {
    fileprivate init(_ record: CommitLogRecordView, brokerName: String) throws {
        topic = String(decoding: record.topic, as: UTF8.self)
        self.brokerName = brokerName
        queueId = Int(record.queueId)
        queueOffset = record.queueOffset.rawValue
        storeTimestamp = record.storeTimestamp
        bornTimestamp = record.bornTimestamp
        reconsumeTimes = Int(record.reconsumeTimes)
        var found: [String: String] = [:]
        MessageProperties.forEach(in: record.properties) { name, value in
            found[String(decoding: name, as: UTF8.self)] = String(decoding: value, as: UTF8.self)
        }
        properties = found
        if record.sysFlag & SysFlag.compressed != 0 {
            guard
                record.sysFlag & SysFlag.compressionTypeMask == 0
                    || record.sysFlag & SysFlag.compressionTypeMask == 0x300,
                let plain = inflated(record.body)
            else {
                throw CommandFailure(
                    "the body of \(brokerName)/\(record.queueId) offset \(record.queueOffset) is compressed in a way this tool cannot "
                        + "read (only zlib)")
            }
            body = plain
        } else {
            body = Array(record.body)
        }
    }
}

/// The plain bytes of a zlib stream, or nil when it is damaged.
private func inflated(_ compressed: UnsafeRawBufferPointer) -> [UInt8]? {
    var stream = z_stream()
    guard inflateInit_(&stream, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size)) == Z_OK else { return nil }
    defer { inflateEnd(&stream) }
    stream.next_in = UnsafeMutablePointer(mutating: compressed.bindMemory(to: UInt8.self).baseAddress)
    stream.avail_in = UInt32(compressed.count)
    var plain: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 64 << 10)
    while true {
        let (status, produced) = chunk.withUnsafeMutableBufferPointer { buffer in
            stream.next_out = buffer.baseAddress
            stream.avail_out = UInt32(buffer.count)
            return (inflate(&stream, Z_NO_FLUSH), buffer.count - Int(stream.avail_out))
        }
        plain += chunk[..<produced]
        if status == Z_STREAM_END { return plain }
        guard status == Z_OK, produced > 0 || stream.avail_in > 0, plain.count <= 64 << 20 else { return nil }
    }
}

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

    /// - Parameter columns: comma-separated names; the words after the last are the choices.
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
    func write(_ message: ConsumedMessage, to output: inout [UInt8]) {
        if isJSON {
            var properties = JSONObject()
            for (name, value) in message.properties.sorted(by: { $0.key < $1.key }) {
                properties.append(name, .string(value))
            }
            let json = JSONValue.fields([
                ("topic", .string(message.topic)), ("tag", message.tag.map { .string($0) }),
                ("key", message.key.map { .string($0) }), ("id", message.id.map { .string($0) }),
                ("broker", .string(message.brokerName)), ("queue", .integer(message.queueId)),
                ("offset", .integer(message.queueOffset)), ("bornTime", .integer(message.bornTimestamp)),
                ("time", .integer(message.storeTimestamp)), ("retries", .integer(message.reconsumeTimes)),
                ("properties", .object(properties)), ("body", .string(String(decoding: message.body, as: UTF8.self))),
            ])
            output += escapes ? Array(PlainText.escaped(json.text()).utf8) : json.bytes()
        } else {
            for (index, column) in columns.enumerated() {
                if index > 0 { output += separator }
                switch column {
                case .topic: output += cell(message.topic)
                case .tag: output += cell(message.tag ?? "")
                case .key: output += cell(message.key ?? "")
                case .id: output += cell(message.id ?? "")
                case .broker: output += cell(message.brokerName)
                case .queue: output += Array(String(message.queueId).utf8)
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
