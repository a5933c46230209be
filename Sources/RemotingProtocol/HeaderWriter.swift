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
        self.limit = memory.count
        self.serialization = serialization
        self.opaque = opaque
        self.flag = flag
        self.language = language
        self.version = version
        self.remark = remark
        switch serialization {
        case .json:
            self.ascii("{\"code\":")
            self.decimal(Int64(code))
        case .rocketMQ:
            self.integer(Int16(truncatingIfNeeded: code))
            self.integer(language.rawValue)
            self.integer(Int16(truncatingIfNeeded: version))
            self.integer(opaque)
            self.integer(flag)
            self.integer(Int32(truncatingIfNeeded: remark?.count ?? 0))
            if let remark {
                self.bytes(remark)
            }
            self.fieldsStart = self.count
            self.integer(Int32(0))
        }
    }

    /// Ends the header and fills in the frame's length words for a body of `bodyCount` bytes behind it.
    mutating func end(bodyCount: Int) {
        switch self.serialization {
        case .json:
            if self.fieldCount > 0 {
                self.ascii("}")
            }
            self.ascii(",\"flag\":")
            self.decimal(Int64(self.flag))
            self.ascii(",\"language\":\"")
            self.ascii(self.language.name)
            self.ascii("\",\"opaque\":")
            self.decimal(Int64(self.opaque))
            if let remark {
                self.ascii(",\"remark\":\"")
                self.escaped(remark)
                self.ascii("\"")
            }
            self.ascii(",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":")
            self.decimal(Int64(self.version))
            self.ascii("}")
        case .rocketMQ:
            self.store(Int32(truncatingIfNeeded: self.count - self.fieldsStart - 4), at: self.fieldsStart)
        }
        self.store(Int32(truncatingIfNeeded: self.count - 4 + bodyCount), at: 0)
        self.store(UInt32(truncatingIfNeeded: self.count - 8) | UInt32(self.serialization.rawValue) << 24, at: 4)
    }

    // MARK: fields

    @inline(__always)
    private mutating func beginField(_ name: StaticString) {
        switch self.serialization {
        case .json:
            self.beginJSONField()
            self.ascii(name)
            self.ascii("\":\"")
        case .rocketMQ:
            self.integer(Int16(truncatingIfNeeded: name.utf8CodeUnitCount))
            self.ascii(name)
        }
    }

    @inline(__always)
    private mutating func beginJSONField() {
        if self.fieldCount == 0 {
            self.ascii(",\"extFields\":{\"")
        } else {
            self.ascii(",\"")
        }
        self.fieldCount += 1
    }

    @inline(__always)
    mutating func field(_ name: StaticString, _ value: Int64) {
        self.beginField(name)
        switch self.serialization {
        case .json:
            self.decimal(value)
            self.ascii("\"")
        case .rocketMQ:
            let place = self.count
            self.integer(Int32(0))
            self.decimal(value)
            self.store(Int32(truncatingIfNeeded: self.count - place - 4), at: place)
        }
    }

    /// A value of plain ASCII without quotes, backslashes and control characters.
    @inline(__always)
    mutating func field(_ name: StaticString, plain value: StaticString) {
        self.beginField(name)
        if self.serialization == .rocketMQ {
            self.integer(Int32(truncatingIfNeeded: value.utf8CodeUnitCount))
        }
        self.ascii(value)
        if self.serialization == .json {
            self.ascii("\"")
        }
    }

    mutating func field(_ name: StaticString, _ value: UnsafeRawBufferPointer) {
        self.beginField(name)
        self.fieldValue(value)
    }

    mutating func field(name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) {
        switch self.serialization {
        case .json:
            self.beginJSONField()
            self.escaped(name)
            self.ascii("\":\"")
        case .rocketMQ:
            self.integer(Int16(truncatingIfNeeded: name.count))
            self.bytes(name)
        }
        self.fieldValue(value)
    }

    private mutating func fieldValue(_ value: UnsafeRawBufferPointer) {
        switch self.serialization {
        case .json:
            self.escaped(value)
            self.ascii("\"")
        case .rocketMQ:
            self.integer(Int32(truncatingIfNeeded: value.count))
            self.bytes(value)
        }
    }

    /// `msgId`: one id, or the ids of a batch joined by commas.
    mutating func messageIDs(host: HostAddress, physicalOffsets: UnsafeBufferPointer<Int64>) {
        let digits = OffsetMessageID.digits(host)
        self.beginField("msgId")
        if self.serialization == .rocketMQ {
            self.integer(Int32(truncatingIfNeeded: physicalOffsets.count * (digits + 1) - 1))
        }
        for (index, physicalOffset) in physicalOffsets.enumerated() {
            if index > 0 {
                self.ascii(",")
            }
            assert(self.count + digits <= self.limit, "HeaderWriter.capacity was too small")
            self.count += OffsetMessageID.write(
                host: host, physicalOffset: physicalOffset, to: self.start + self.count)
        }
        if self.serialization == .json {
            self.ascii("\"")
        }
    }

    // MARK: bytes

    @inline(__always)
    private mutating func integer<T: FixedWidthInteger>(_ value: T) {
        self.store(value, at: self.count)
        self.count += MemoryLayout<T>.size
    }

    @inline(__always)
    private func store<T: FixedWidthInteger>(_ value: T, at offset: Int) {
        assert(offset + MemoryLayout<T>.size <= self.limit, "HeaderWriter.capacity was too small")
        self.start.storeBytes(of: value.bigEndian, toByteOffset: offset, as: T.self)
    }

    @inline(__always)
    private mutating func ascii(_ text: StaticString) {
        assert(self.count + text.utf8CodeUnitCount <= self.limit, "HeaderWriter.capacity was too small")
        memcpy(self.start + self.count, text.utf8Start, text.utf8CodeUnitCount)
        self.count += text.utf8CodeUnitCount
    }

    @inline(__always)
    private mutating func bytes(_ bytes: UnsafeRawBufferPointer) {
        guard let source = bytes.baseAddress else { return }
        assert(self.count + bytes.count <= self.limit, "HeaderWriter.capacity was too small")
        memcpy(self.start + self.count, source, bytes.count)
        self.count += bytes.count
    }

    private mutating func escaped(_ bytes: UnsafeRawBufferPointer) {
        for byte in bytes {
            switch byte {
            case UInt8(ascii: "\""): self.ascii("\\\"")
            case UInt8(ascii: "\\"): self.ascii("\\\\")
            case 0x08: self.ascii("\\b")
            case 0x09: self.ascii("\\t")
            case 0x0a: self.ascii("\\n")
            case 0x0c: self.ascii("\\f")
            case 0x0d: self.ascii("\\r")
            case 0..<0x20, 0x7f:
                self.ascii("\\u00")
                self.integer(Self.hexDigit(byte >> 4))
                self.integer(Self.hexDigit(byte & 0xf))
            default: self.integer(byte)
            }
        }
    }

    private static func hexDigit(_ value: UInt8) -> UInt8 { value < 10 ? 0x30 + value : 0x37 + value }

    @inline(__always)
    private mutating func decimal(_ value: Int64) {
        var magnitude = value.magnitude
        if value < 0 {
            self.integer(UInt8(ascii: "-"))
        }
        if magnitude < 10 {
            self.integer(UInt8(truncatingIfNeeded: magnitude) + 0x30)
            return
        }
        var digits = 1
        var rest = magnitude
        while rest >= 10 {
            digits += 1
            rest /= 10
        }
        assert(self.count + digits <= self.limit, "HeaderWriter.capacity was too small")
        var place = self.count + digits
        self.count = place
        repeat {
            let (quotient, digit) = magnitude.quotientAndRemainder(dividingBy: 10)
            place -= 1
            self.start.storeBytes(
                of: UInt8(truncatingIfNeeded: digit) + 0x30, toByteOffset: place, as: UInt8.self)
            magnitude = quotient
        } while magnitude > 0
    }
}
