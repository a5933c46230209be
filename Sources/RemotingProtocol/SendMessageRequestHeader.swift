/// The header of a send (10, 310, 320): views into the frame, valid as long as it is.
///
/// 10 spells its fields out, 310 and 320 abbreviate them to one letter (`SendMessageRequestHeaderV2`).
package struct SendMessageRequestHeader {
    /// Name in UTF-8, not checked yet.
    package internal(set) var producerGroup = UnsafeRawBufferPointer(start: nil, count: 0)
    /// Name in UTF-8, not checked yet.
    package internal(set) var topic = UnsafeRawBufferPointer(start: nil, count: 0)
    /// The template a missing topic is created from, usually `TBW102`.
    package internal(set) var defaultTopic = UnsafeRawBufferPointer(start: nil, count: 0)
    /// Queues the producer wants for a topic this message creates.
    package internal(set) var defaultTopicQueueNums: Int32 = 0
    /// Negative: the broker picks a queue.
    package internal(set) var queueID: Int32 = 0
    /// `MessageSysFlag`: compression and transaction state.
    package internal(set) var sysFlag: Int32 = 0
    /// Milliseconds since 1970, by the producer's clock.
    package internal(set) var bornTimestamp: Int64 = 0
    /// The producer's own; brokers only keep it.
    package internal(set) var flag: Int32 = 0
    /// `name U+0001 value U+0002 …`; empty when the request has none.
    package internal(set) var properties = UnsafeRawBufferPointer(start: nil, count: 0)
    /// How often the message was sent back; 0 when the field is missing.
    package internal(set) var reconsumeTimes: Int32 = 0
    /// The producer works in a unit; decides the `topicSysFlag` of a topic this message creates.
    package internal(set) var unitMode = false
    /// The body holds several messages (`MessageBatch`).
    package internal(set) var batch = false
    /// How often a message may be sent back before it is a dead letter; nil: the group's settings decide.
    package internal(set) var maxReconsumeTimes: Int32?

    /// One bit for each field that must be there: a, b, c, d, e, f, g, h.
    private static let required: UInt16 = 0xff

    /// - Throws: `missingField` or `badField`, with the name of the field.
    package init(_ frame: RemotingFrame) throws(RemotingDecodeError) {
        var seen: UInt16 = 0
        if frame.code == RequestCode.sendMessage.rawValue || frame.code == RequestCode.sendReplyMessage.rawValue {
            for field in frame.extFields.fields {
                guard let letter = Self.letter(field) else { continue }
                try self.set(letter, field, &seen)
            }
        } else {
            for field in frame.extFields.fields where field.nameCount == 1 {
                try self.set(field.name.load(as: UInt8.self), field, &seen)
            }
        }
        guard seen & Self.required == Self.required else {
            throw .missingField(Self.names[(~seen & Self.required).trailingZeroBitCount].text)
        }
    }

    private static let names: [StaticString] = [
        "producerGroup", "topic", "defaultTopic", "defaultTopicQueueNums", "queueId", "sysFlag", "bornTimestamp",
        "flag", "properties", "reconsumeTimes", "unitMode", "maxReconsumeTimes", "batch",
    ]

    /// The letter by which 310 calls a field of 10.
    private static func letter(_ field: ExtField) -> UInt8? {
        switch field.nameCount {
        case 4: field.isNamed("flag") ? UInt8(ascii: "h") : nil
        case 5: field.isNamed("topic") ? UInt8(ascii: "b") : field.isNamed("batch") ? UInt8(ascii: "m") : nil
        case 7: field.isNamed("queueId") ? UInt8(ascii: "e") : field.isNamed("sysFlag") ? UInt8(ascii: "f") : nil
        case 8: field.isNamed("unitMode") ? UInt8(ascii: "k") : nil
        case 10: field.isNamed("properties") ? UInt8(ascii: "i") : nil
        case 12: field.isNamed("defaultTopic") ? UInt8(ascii: "c") : nil
        case 13:
            field.isNamed("producerGroup")
                ? UInt8(ascii: "a") : field.isNamed("bornTimestamp") ? UInt8(ascii: "g") : nil
        case 14: field.isNamed("reconsumeTimes") ? UInt8(ascii: "j") : nil
        case 17: field.isNamed("maxReconsumeTimes") ? UInt8(ascii: "l") : nil
        case 21: field.isNamed("defaultTopicQueueNums") ? UInt8(ascii: "d") : nil
        default: nil
        }
    }

    @inline(__always)
    private mutating func set(_ letter: UInt8, _ field: ExtField, _ seen: inout UInt16) throws(RemotingDecodeError) {
        let value = field.valueBytes
        switch letter {
        case UInt8(ascii: "a"): producerGroup = value
        case UInt8(ascii: "b"): topic = value
        case UInt8(ascii: "c"): defaultTopic = value
        case UInt8(ascii: "d"): defaultTopicQueueNums = try value.int32("defaultTopicQueueNums")
        case UInt8(ascii: "e"): queueID = try value.int32("queueId")
        case UInt8(ascii: "f"): sysFlag = try value.int32("sysFlag")
        case UInt8(ascii: "g"): bornTimestamp = try value.integer("bornTimestamp")
        case UInt8(ascii: "h"): flag = try value.int32("flag")
        case UInt8(ascii: "i"): properties = value
        case UInt8(ascii: "j"): reconsumeTimes = try value.int32("reconsumeTimes")
        case UInt8(ascii: "k"): unitMode = value.isTrue
        case UInt8(ascii: "l"): maxReconsumeTimes = try value.int32("maxReconsumeTimes")
        // The official C++ client sends 1. (Apache reads that as false and stores the encoded batch as one message.)
        case UInt8(ascii: "m"): batch = value.isTrue || (value.count == 1 && value[0] == UInt8(ascii: "1"))
        default: return
        }
        seen |= 1 << UInt16(letter &- UInt8(ascii: "a"))
    }
}

extension UnsafeRawBufferPointer {
    @inline(__always)
    func int32(_ name: StaticString) throws(RemotingDecodeError) -> Int32 {
        guard let value = decimal, let narrow = Int32(exactly: value) else { throw .badField(name.text) }
        return narrow
    }
}
