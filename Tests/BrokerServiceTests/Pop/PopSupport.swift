import FastJSON
import Foundation
import RemotingProtocol
import StoreFormat
import Testing

/// A message as a popping client has it.
struct PoppedMessage {
    var queueID: Int32
    var offset: Int64
    var body: String
    var reconsumeTimes: Int32
    /// As the record has it.
    var topic = ""
    /// What the client makes of the answer's three strings, as RocketMQ's Java client does.
    var handle: String
}

/// An answer to POP_MESSAGE, read as RocketMQ's Java client reads it.
struct PopReply {
    var code: Int32
    var fields: [String: String]
    var messages: [PoppedMessage] = []

    var rest: Int { Int(fields["restNum"] ?? "") ?? -1 }
    var bodies: [String] { messages.map(\.body) }

    init(_ answer: RemotingCommand) throws {
        code = answer.code
        fields = answer.extFields
        guard code == 0 else { return }
        let starts = try Self.table(fields["startOffsetInfo"]) { Int64($0) }
        let offsets = try Self.table(fields["msgOffsetInfo"]) { $0.split(separator: ",").map { Int64($0) ?? -1 } }
        var seen: [String: Int] = [:]
        let (popTime, invisible) = (fields["popTime"] ?? "", fields["invisibleTime"] ?? "")
        let reviveQueue = fields["reviveQid"] ?? ""
        try answer.body.withUnsafeBytes { bytes in
            var place = 0
            while place < bytes.count {
                let rest = UnsafeRawBufferPointer(rebasing: bytes[place...])
                guard case .record(let record) = CommitLogRecord.parse(rest) else { throw Broken.record }
                let queueID = record.queueID
                // A record of a retry topic has its handle, and the topic that was asked for.
                let given = record.property("POP_CK").map { String(decoding: $0, as: UTF8.self) }
                let kind = given.map { $0.split(separator: " ")[4] } ?? "0"
                let key = "\(kind) \(queueID)"
                let index = seen[key, default: 0]
                seen[key] = index + 1
                guard let start = starts[key] ?? nil, let list = offsets[key], index < list.count,
                    list[index] == record.queueOffset.rawValue
                else { throw Broken.strings(fields) }
                let made =
                    "\(start) \(popTime) \(invisible) \(reviveQueue) \(kind) broker-a \(queueID) \(list[index])"
                if let given, given != made { throw Broken.strings(["POP_CK": given, "made": made]) }
                messages.append(
                    PoppedMessage(
                        queueID: queueID, offset: list[index], body: String(decoding: record.body, as: UTF8.self),
                        reconsumeTimes: record.reconsumeTimes, topic: String(decoding: record.topic, as: UTF8.self),
                        handle: made))
                place += record.totalSize
            }
        }
        guard seen.mapValues({ $0 }) == offsets.mapValues({ $0.count }) else { throw Broken.strings(fields) }
    }

    enum Broken: Error {
        case record
        case strings([String: String])
    }

    private static func table<Value>(
        _ text: String?, _ value: (Substring) -> Value
    ) throws -> [String: Value] {
        var table: [String: Value] = [:]
        for entry in (text ?? "").split(separator: ";") {
            let parts = entry.split(separator: " ")
            let key = parts.prefix(2).joined(separator: " ")
            guard parts.count == 3, ["0", "1", "2"].contains(parts[0]), Int32(parts[1]) != nil, table[key] == nil
            else { throw Broken.strings(["": text ?? ""]) }
            table[key] = value(parts[2])
        }
        return table
    }
}

extension RawConnection {
    static func popFields(
        topic: String, queueID: Int32 = -1, group: String = "G", count: Int = 32, invisible: Int64 = 60_000,
        poll: Int64 = 0, born: Int64 = 0, expression: String = "*", type: String = "TAG", initMode: Int = 0,
        isOrdered: Bool = false, attempt: String? = nil
    ) -> [String: String] {
        var fields = [
            "consumerGroup": group, "topic": topic, "queueId": String(queueID), "maxMsgNums": String(count),
            "invisibleTime": String(invisible), "pollTime": String(poll), "bornTime": String(born),
            "initMode": String(initMode), "expType": type, "exp": expression, "order": String(isOrdered),
        ]
        fields["attemptId"] = attempt
        return fields
    }

    func pop(_ fields: [String: String]) throws -> PopReply { try PopReply(invoke(.popMessage, fields)) }

    private static func named(_ message: PoppedMessage, _ topic: String, _ group: String) -> [String: String] {
        [
            "consumerGroup": group, "topic": topic, "queueId": String(message.queueID),
            "offset": String(message.offset), "extraInfo": message.handle,
        ]
    }

    @discardableResult
    func acknowledge(_ message: PoppedMessage, topic: String, group: String = "G") throws -> Int32 {
        try invoke(.ackMessage, Self.named(message, topic, group)).code
    }

    /// The message under its new handle.
    func change(
        _ message: PoppedMessage, topic: String, group: String = "G", invisible: Int64
    ) throws -> (code: Int32, message: PoppedMessage) {
        var fields = Self.named(message, topic, group)
        fields["invisibleTime"] = String(invisible)
        let answer = try invoke(.changeMessageInvisibleTime, fields)
        var changed = message
        if let popTime = answer.extFields["popTime"], let time = answer.extFields["invisibleTime"] {
            var parts = message.handle.split(separator: " ").map(String.init)
            (parts[1], parts[2]) = (popTime, time)
            changed.handle = parts.joined(separator: " ")
        }
        return (answer.code, changed)
    }

    /// What a group's tools are told: -1 when it has no offset.
    func committed(topic: String, queueID: Int32 = 0, group: String = "G") throws -> Int64 {
        let answer = try invoke(
            .queryConsumerOffset, ["consumerGroup": group, "topic": topic, "queueId": String(queueID)])
        return Int64(answer.extFields["offset"] ?? "") ?? -1
    }
}
