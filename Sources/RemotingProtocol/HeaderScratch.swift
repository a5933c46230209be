import Glibc

/// One header field: pointers to its name and value, escapes already resolved.
package struct ExtField {
    var name: UnsafeRawPointer
    var nameCount: Int32
    var valueCount: Int32
    var value: UnsafeRawPointer

    /// UTF-8, valid as long as the frame and its scratch.
    package var nameBytes: UnsafeRawBufferPointer { .init(start: name, count: Int(nameCount)) }
    /// UTF-8, valid as long as the frame and its scratch. Numbers are decimal text.
    package var valueBytes: UnsafeRawBufferPointer { .init(start: value, count: Int(valueCount)) }

    @inline(__always)
    func isNamed(_ text: StaticString) -> Bool {
        Int(nameCount) == text.utf8CodeUnitCount && memcmp(name, text.utf8Start, text.utf8CodeUnitCount) == 0
    }
}

/// Memory that header parsing reuses from frame to frame, so that no frame allocates. It has the table of header fields
/// and the text of strings that carried escapes. One per event loop; what it holds is valid until the next frame is
/// parsed with it.
package final class HeaderScratch {
    private(set) var fields: UnsafeMutablePointer<ExtField>
    /// A power of two that reaches `RemotingLimits.headerFields` exactly.
    private(set) var fieldCapacity: Int
    private(set) var text: UnsafeMutablePointer<UInt8>
    private var textCapacity: Int

    /// Room for 64 fields and 4 KiB of text; both grow with the headers.
    package init() {
        fieldCapacity = 64
        fields = .allocate(capacity: fieldCapacity)
        textCapacity = 4096
        text = .allocate(capacity: textCapacity)
    }

    deinit {
        fields.deallocate()
        text.deallocate()
    }

    /// Room for the resolved text of a whole header: an escape is never shorter than what it stands for.
    func prepare(headerCount: Int) {
        if textCapacity < headerCount {
            text.deallocate()
            textCapacity = headerCount * 2
            text = .allocate(capacity: textCapacity)
        }
    }

    /// Doubles the room for fields, of which `count` are used.
    func growFields(count: Int) {
        let larger = UnsafeMutablePointer<ExtField>.allocate(capacity: fieldCapacity * 2)
        larger.moveInitialize(from: fields, count: count)
        fields.deallocate()
        fields = larger
        fieldCapacity *= 2
    }
}

/// The fields of the frame being parsed, collected in a scratch's table. The table's pointers are kept here, where the
/// optimizer sees that no other code changes them.
struct FieldCollector {
    private let scratch: HeaderScratch
    private var fields: UnsafeMutablePointer<ExtField>
    private var capacity: Int
    private var count = 0

    init(_ scratch: HeaderScratch) {
        self.scratch = scratch
        fields = scratch.fields
        capacity = scratch.fieldCapacity
    }

    @inline(__always)
    mutating func append(
        _ name: UnsafeRawPointer, _ nameCount: Int, _ value: UnsafeRawPointer, _ valueCount: Int
    ) throws(RemotingDecodeError) {
        if count == capacity {
            try grow()
        }
        (fields + count).initialize(
            to: ExtField(
                name: name, nameCount: Int32(truncatingIfNeeded: nameCount),
                valueCount: Int32(truncatingIfNeeded: valueCount), value: value))
        count += 1
    }

    @inline(never)
    private mutating func grow() throws(RemotingDecodeError) {
        guard count < RemotingLimits.headerFields else { throw .tooManyFields }
        scratch.growFields(count: count)
        fields = scratch.fields
        capacity = scratch.fieldCapacity
    }

    mutating func removeAll() {
        count = 0
    }

    var result: ExtFields { ExtFields(fields: UnsafeBufferPointer(start: fields, count: count)) }
}

/// The header fields (`extFields`) of one frame: a view valid only as long as the frame is.
package struct ExtFields {
    /// In the order of the frame; names may repeat.
    package let fields: UnsafeBufferPointer<ExtField>

    /// What a frame without `extFields` has.
    package static var empty: ExtFields { ExtFields(fields: UnsafeBufferPointer(start: nil, count: 0)) }

    /// Whether the frame has no header field.
    package var isEmpty: Bool { fields.isEmpty }

    /// The value's bytes. Like Java's map, the last of several equal names counts.
    package func bytes(_ name: StaticString) -> UnsafeRawBufferPointer? {
        var index = fields.count
        while index > 0 {
            index -= 1
            if fields[index].isNamed(name) {
                return fields[index].valueBytes
            }
        }
        return nil
    }

    /// The value as a copy; bytes that are no UTF-8 are replaced. nil when the field is not there.
    package func string(_ name: StaticString) -> String? {
        bytes(name).map { String(decoding: $0, as: UTF8.self) }
    }

    /// nil when the field is not there.
    /// - Throws: `badField`: the field is there and no number in the range of its type.
    package func int32(_ name: StaticString) throws(RemotingDecodeError) -> Int32? {
        guard let bytes = self.bytes(name) else { return nil }
        guard let value = Int32(exactly: try bytes.integer(name)) else { throw .badField(name.text) }
        return value
    }

    /// - Throws: `badField`: the field is there and no number.
    package func int64(_ name: StaticString) throws(RemotingDecodeError) -> Int64? {
        guard let bytes = self.bytes(name) else { return nil }
        return try bytes.integer(name)
    }

    /// `Boolean.parseBoolean`: everything but "true" is false.
    package func bool(_ name: StaticString) -> Bool? {
        bytes(name).map { $0.isTrue }
    }

    /// - Throws: `missingField`.
    package func required(_ name: StaticString) throws(RemotingDecodeError) -> String {
        guard let text = string(name) else { throw .missingField(name.text) }
        return text
    }

    /// - Throws: `missingField`; `badField` when it is no number in the range of its type.
    package func requiredInt32(_ name: StaticString) throws(RemotingDecodeError) -> Int32 {
        guard let value = try int32(name) else { throw .missingField(name.text) }
        return value
    }

    /// - Throws: `missingField`; `badField` when it is no number.
    package func requiredInt64(_ name: StaticString) throws(RemotingDecodeError) -> Int64 {
        guard let value = try int64(name) else { throw .missingField(name.text) }
        return value
    }

    /// All fields as an owned dictionary.
    package func dictionary() -> [String: String] {
        var result: [String: String] = [:]
        result.reserveCapacity(fields.count)
        for field in fields {
            result[String(decoding: field.nameBytes, as: UTF8.self)] = String(
                decoding: field.valueBytes, as: UTF8.self)
        }
        return result
    }
}

extension StaticString {
    var text: String {
        withUTF8Buffer { String(decoding: $0, as: UTF8.self) }
    }
}

extension UnsafeRawBufferPointer {
    @inline(__always)
    func equals(_ text: StaticString) -> Bool {
        guard count == text.utf8CodeUnitCount, let start = baseAddress else { return false }
        return memcmp(start, text.utf8Start, count) == 0
    }

    var isTrue: Bool {
        count == 4
            && self[0] | 0x20 == UInt8(ascii: "t") && self[1] | 0x20 == UInt8(ascii: "r")
            && self[2] | 0x20 == UInt8(ascii: "u") && self[3] | 0x20 == UInt8(ascii: "e")
    }

    /// A whole decimal number (`Long.parseLong`).
    @inline(__always)
    func integer(_ name: StaticString) throws(RemotingDecodeError) -> Int64 {
        guard let value = decimal else { throw .badField(name.text) }
        return value
    }

    var decimal: Int64? {
        var index = 0
        var isNegative = false
        if count > 1, self[0] == UInt8(ascii: "-") || self[0] == UInt8(ascii: "+") {
            isNegative = self[0] == UInt8(ascii: "-")
            index = 1
        }
        guard index < count else { return nil }
        // Up to 18 digits cannot overflow.
        if count - index <= 18 {
            var magnitude: Int64 = 0
            while index < count {
                let digit = self[index] &- UInt8(ascii: "0")
                guard digit < 10 else { return nil }
                magnitude = magnitude &* 10 &+ Int64(digit)
                index += 1
            }
            return isNegative ? 0 &- magnitude : magnitude
        }
        // Collected as a negative number, which has the larger range.
        var value: Int64 = 0
        while index < count {
            let digit = self[index] &- UInt8(ascii: "0")
            guard digit < 10 else { return nil }
            let (product, overflow) = value.multipliedReportingOverflow(by: 10)
            let (sum, underflow) = product.subtractingReportingOverflow(Int64(digit))
            guard !overflow, !underflow else { return nil }
            value = sum
            index += 1
        }
        if isNegative { return value }
        return value == .min ? nil : -value
    }
}
