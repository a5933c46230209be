import MessageModel

/// Reads the text of a `BatchAckBody` in the one form that RocketMQ's and Apus' clients write: no white space, keys and
/// strings in double quotes without escapes, whole numbers. Acknowledgements are as many as pops, and a tree of JSON
/// would be most of what one costs. Any other text is left to the JSON reader.
struct BatchAckScanner {
    private typealias Bytes = UnsafeRawBufferPointer

    private let bytes: UnsafeRawBufferPointer
    private var place = 0

    private init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    /// The entries of a whole body; nil for a text of another form.
    static func entries(_ body: UnsafeRawBufferPointer) -> [BatchAckBody.Entry]? {
        var scanner = BatchAckScanner(body)
        var entries: [BatchAckBody.Entry] = []
        guard scanner.skip("{") else { return nil }
        repeat {
            guard let key = scanner.text(), scanner.skip(":") else { return nil }
            if key.elementsEqual("brokerName".utf8) {
                guard scanner.text() != nil else { return nil }
            } else if key.elementsEqual("acks".utf8), entries.isEmpty, scanner.skip("[") {
                repeat {
                    guard let entry = scanner.entry() else { return nil }
                    entries.append(entry)
                } while scanner.skip(",")
                guard scanner.skip("]") else { return nil }
            } else {
                return nil
            }
        } while scanner.skip(",")
        return scanner.skip("}") && scanner.place == body.count ? entries : nil
    }

    private mutating func entry() -> BatchAckBody.Entry? {
        var (bits, group, topic): (Bytes?, Bytes?, Bytes?)
        var kind = PopTopicKind.normal
        var (start, pop, revive, invisible): (Int64, Int64, Int64, Int64) = (0, 0, 0, 0)
        var queueID: Int32 = -1
        guard skip("{") else { return nil }
        repeat {
            guard let key = text(), skip(":"), let first = key.first else { return nil }
            let isText: Bool
            switch (key.count, first) {
            case (1, UInt8(ascii: "b")), (1, UInt8(ascii: "c")), (1, UInt8(ascii: "t")), (1, UInt8(ascii: "r")):
                isText = true
            default: isText = false
            }
            if isText {
                guard let value = text() else { return nil }
                switch first {
                case UInt8(ascii: "b"): bits = value
                case UInt8(ascii: "c"): group = value
                case UInt8(ascii: "t"): topic = value
                default:
                    guard let known = PopTopicKind(value) else { return nil }
                    kind = known
                }
                continue
            }
            guard let value = number() else { return nil }
            switch (key.count, first, key.last) {
            case (1, UInt8(ascii: "q"), _):
                guard let number = Int32(exactly: value) else { return nil }
                queueID = number
            case (2, UInt8(ascii: "s"), UInt8(ascii: "o")): start = value
            case (2, UInt8(ascii: "p"), UInt8(ascii: "t")): pop = value
            case (2, UInt8(ascii: "r"), UInt8(ascii: "q")): revive = value
            case (2, UInt8(ascii: "i"), UInt8(ascii: "t")): invisible = value
            default: return nil
            }
        } while skip(",")
        guard skip("}"), let group, let topic, let bits, let decoded = Base64.standard.decode(bits),
            decoded.count <= BatchAckBody.bitBytesMax
        else { return nil }
        return BatchAckBody.Entry(
            group: String(decoding: group, as: UTF8.self), topic: String(decoding: topic, as: UTF8.self), kind: kind,
            startOffset: start, queueID: queueID, popTime: pop, reviveQueue: revive, invisibleTime: invisible,
            bits: decoded)
    }

    private mutating func skip(_ character: Unicode.Scalar) -> Bool {
        guard place < bytes.count, bytes[place] == UInt8(ascii: character) else { return false }
        place += 1
        return true
    }

    /// Between double quotes, without escapes.
    private mutating func text() -> UnsafeRawBufferPointer? {
        guard skip("\"") else { return nil }
        let start = place
        while place < bytes.count {
            switch bytes[place] {
            case UInt8(ascii: "\""):
                place += 1
                return UnsafeRawBufferPointer(rebasing: bytes[start..<place - 1])
            case UInt8(ascii: "\\"): return nil
            default: place += 1
            }
        }
        return nil
    }

    /// Up to 18 digits, which fit.
    private mutating func number() -> Int64? {
        let isNegative = skip("-")
        let start = place
        var value: Int64 = 0
        while place < bytes.count, case let digit = bytes[place] &- UInt8(ascii: "0"), digit < 10 {
            guard place - start < 18 else { return nil }
            value = value * 10 + Int64(digit)
            place += 1
        }
        guard place > start else { return nil }
        return isNegative ? -value : value
    }
}
