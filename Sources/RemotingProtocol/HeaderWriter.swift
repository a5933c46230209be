import Glibc
import MessageModel

/// Writes a frame's length word and header into memory that is known to be large enough (`capacity`). The order of
/// calls is the order of the bytes: begin, fields, end.
struct HeaderWriter {
    private let start: UnsafeMutableRawPointer
    private let limit: Int
    private(set) var count = 8
    private let serialization: HeaderSerialization
    private var fieldsStart = 0
    private var fieldCount = 0
    private let opaque: Int32
    private let flag: Int32
    private let language: LanguageCode
    private let version: Int32
    private let remark: UnsafeRawBufferPointer?

    /// Upper bound for the bytes of a header around its fields: 8 words of frame, all fixed members, the remark.
    static func capacity(remarkCount: Int) -> Int { 224 + remarkCount * 6 }
    /// Upper bound for the bytes of one field.
    static func capacity(nameCount: Int, valueCount: Int) -> Int { 8 + (nameCount + valueCount) * 6 }

    init(
        into memory: UnsafeMutableRawBufferPointer, serialization: HeaderSerialization, code: Int32, flag: Int32,
        opaque: Int32, language: LanguageCode = .java, version: Int32 = RemotingVersion.current,
        remark: UnsafeRawBufferPointer?
    ) {
        guard let start = memory.baseAddress else { preconditionFailure("a header needs memory") }
        self.start = start
        limit = memory.count
        self.serialization = serialization
        self.opaque = opaque
        self.flag = flag
        self.language = language
        self.version = version
        self.remark = remark
        switch serialization {
        case .json:
            ascii("{\"code\":")
            decimal(Int64(code))
        case .rocketMQ:
            integer(Int16(truncatingIfNeeded: code))
            integer(language.rawValue)
            integer(Int16(truncatingIfNeeded: version))
            integer(opaque)
            integer(flag)
            integer(Int32(truncatingIfNeeded: remark?.count ?? 0))
            if let remark {
                bytes(remark)
            }
            fieldsStart = count
            integer(Int32(0))
        }
    }

    /// Ends the header and fills in the frame's length words for a body of `bodyCount` bytes after it.
    mutating func end(bodyCount: Int) {
        switch serialization {
        case .json:
            if fieldCount > 0 {
                ascii("}")
            }
            ascii(",\"flag\":")
            decimal(Int64(flag))
            ascii(",\"language\":\"")
            ascii(language.name)
            ascii("\",\"opaque\":")
            decimal(Int64(opaque))
            if let remark {
                ascii(",\"remark\":\"")
                escaped(remark)
                ascii("\"")
            }
            ascii(",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":")
            decimal(Int64(version))
            ascii("}")
        case .rocketMQ:
            store(Int32(truncatingIfNeeded: count - fieldsStart - 4), at: fieldsStart)
        }
        store(Int32(truncatingIfNeeded: count - 4 + bodyCount), at: 0)
        store(UInt32(truncatingIfNeeded: count - 8) | UInt32(serialization.rawValue) << 24, at: 4)
    }

    // MARK: - Fields

    @inline(__always)
    private mutating func beginField(_ name: StaticString) {
        switch serialization {
        case .json:
            beginJSONField()
            ascii(name)
            ascii("\":\"")
        case .rocketMQ:
            integer(Int16(truncatingIfNeeded: name.utf8CodeUnitCount))
            ascii(name)
        }
    }

    @inline(__always)
    private mutating func beginJSONField() {
        if fieldCount == 0 {
            ascii(",\"extFields\":{\"")
        } else {
            ascii(",\"")
        }
        fieldCount += 1
    }

    @inline(__always)
    mutating func field(_ name: StaticString, _ value: Int64) {
        beginField(name)
        switch serialization {
        case .json:
            decimal(value)
            ascii("\"")
        case .rocketMQ:
            let place = count
            integer(Int32(0))
            decimal(value)
            store(Int32(truncatingIfNeeded: count - place - 4), at: place)
        }
    }

    /// A value of plain ASCII without quotes, backslashes and control characters.
    @inline(__always)
    mutating func field(_ name: StaticString, plain value: StaticString) {
        beginField(name)
        if serialization == .rocketMQ {
            integer(Int32(truncatingIfNeeded: value.utf8CodeUnitCount))
        }
        ascii(value)
        if serialization == .json {
            ascii("\"")
        }
    }

    /// A value of such bytes.
    mutating func field(_ name: StaticString, plain value: [UInt8]) {
        beginField(name)
        if serialization == .rocketMQ {
            integer(Int32(truncatingIfNeeded: value.count))
        }
        value.withUnsafeBytes { bytes($0) }
        if serialization == .json {
            ascii("\"")
        }
    }

    mutating func field(_ name: StaticString, _ value: UnsafeRawBufferPointer) {
        beginField(name)
        fieldValue(value)
    }

    mutating func field(name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) {
        switch serialization {
        case .json:
            beginJSONField()
            escaped(name)
            ascii("\":\"")
        case .rocketMQ:
            integer(Int16(truncatingIfNeeded: name.count))
            bytes(name)
        }
        fieldValue(value)
    }

    private mutating func fieldValue(_ value: UnsafeRawBufferPointer) {
        switch serialization {
        case .json:
            escaped(value)
            ascii("\"")
        case .rocketMQ:
            integer(Int32(truncatingIfNeeded: value.count))
            bytes(value)
        }
    }

    /// `msgId`: one id, or the ids of a batch joined by commas.
    mutating func messageIDs(host: HostAddress, physicalOffsets: UnsafeBufferPointer<Int64>) {
        let digits = OffsetMessageID.digits(host)
        beginField("msgId")
        if serialization == .rocketMQ {
            integer(Int32(truncatingIfNeeded: physicalOffsets.count * (digits + 1) - 1))
        }
        for (index, physicalOffset) in physicalOffsets.enumerated() {
            if index > 0 {
                ascii(",")
            }
            assert(count + digits <= limit, "HeaderWriter.capacity was too small")
            count += OffsetMessageID.write(
                host: host, physicalOffset: physicalOffset, to: start + count)
        }
        if serialization == .json {
            ascii("\"")
        }
    }

    // MARK: - Bytes

    @inline(__always)
    private mutating func integer<T: FixedWidthInteger>(_ value: T) {
        store(value, at: count)
        count += MemoryLayout<T>.size
    }

    @inline(__always)
    private func store<T: FixedWidthInteger>(_ value: T, at offset: Int) {
        assert(offset + MemoryLayout<T>.size <= limit, "HeaderWriter.capacity was too small")
        start.storeBytes(of: value.bigEndian, toByteOffset: offset, as: T.self)
    }

    @inline(__always)
    private mutating func ascii(_ text: StaticString) {
        assert(count + text.utf8CodeUnitCount <= limit, "HeaderWriter.capacity was too small")
        memcpy(start + count, text.utf8Start, text.utf8CodeUnitCount)
        count += text.utf8CodeUnitCount
    }

    @inline(__always)
    private mutating func bytes(_ bytes: UnsafeRawBufferPointer) {
        guard let source = bytes.baseAddress else { return }
        assert(count + bytes.count <= limit, "HeaderWriter.capacity was too small")
        memcpy(start + count, source, bytes.count)
        count += bytes.count
    }

    private mutating func escaped(_ bytes: UnsafeRawBufferPointer) {
        for byte in bytes {
            switch byte {
            case UInt8(ascii: "\""): ascii("\\\"")
            case UInt8(ascii: "\\"): ascii("\\\\")
            case 0x08: ascii("\\b")
            case 0x09: ascii("\\t")
            case 0x0a: ascii("\\n")
            case 0x0c: ascii("\\f")
            case 0x0d: ascii("\\r")
            case 0..<0x20, 0x7f:
                ascii("\\u00")
                integer(Self.hexDigit(byte >> 4))
                integer(Self.hexDigit(byte & 0xf))
            default: integer(byte)
            }
        }
    }

    private static func hexDigit(_ value: UInt8) -> UInt8 { value < 10 ? 0x30 + value : 0x37 + value }

    @inline(__always)
    private mutating func decimal(_ value: Int64) {
        var magnitude = value.magnitude
        if value < 0 {
            integer(UInt8(ascii: "-"))
        }
        if magnitude < 10 {
            integer(UInt8(truncatingIfNeeded: magnitude) + 0x30)
            return
        }
        var digits = 1
        var rest = magnitude
        while rest >= 10 {
            digits += 1
            rest /= 10
        }
        assert(count + digits <= limit, "HeaderWriter.capacity was too small")
        var place = count + digits
        count = place
        repeat {
            let (quotient, digit) = magnitude.quotientAndRemainder(dividingBy: 10)
            place -= 1
            start.storeBytes(
                of: UInt8(truncatingIfNeeded: digit) + 0x30, toByteOffset: place, as: UInt8.self)
            magnitude = quotient
        } while magnitude > 0
    }
}
