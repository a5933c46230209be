import Glibc

/// One header field: pointers to its name and value, escapes already resolved.
package struct ExtField {
    var name: UnsafeRawPointer
    var nameCount: Int32
    var valueCount: Int32
    var value: UnsafeRawPointer

    package var nameBytes: UnsafeRawBufferPointer { .init(start: self.name, count: Int(self.nameCount)) }
    package var valueBytes: UnsafeRawBufferPointer { .init(start: self.value, count: Int(self.valueCount)) }

    @inline(__always)
    func isNamed(_ text: StaticString) -> Bool {
        Int(self.nameCount) == text.utf8CodeUnitCount && memcmp(self.name, text.utf8Start, text.utf8CodeUnitCount) == 0
    }
}

/// Memory that header parsing reuses from frame to frame, so that no frame allocates: the table of header fields and
/// the text of strings that carried escapes. One per event loop; what it holds is valid until the next frame is
/// parsed with it.
package final class HeaderScratch {
    private(set) var fields: UnsafeMutablePointer<ExtField>
    /// A power of two that reaches `RemotingLimits.headerFields` exactly.
    private(set) var fieldCapacity: Int
    private(set) var text: UnsafeMutablePointer<UInt8>
    private var textCapacity: Int

    package init() {
        self.fieldCapacity = 64
        self.fields = .allocate(capacity: self.fieldCapacity)
        self.textCapacity = 4096
        self.text = .allocate(capacity: self.textCapacity)
    }

    deinit {
        self.fields.deallocate()
        self.text.deallocate()
    }

    /// Room for the resolved text of a whole header: an escape is never shorter than what it stands for.
    func prepare(headerCount: Int) {
        if self.textCapacity < headerCount {
            self.text.deallocate()
            self.textCapacity = headerCount * 2
            self.text = .allocate(capacity: self.textCapacity)
        }
    }

    /// Doubles the room for fields, of which `count` are used.
    func growFields(count: Int) {
        let larger = UnsafeMutablePointer<ExtField>.allocate(capacity: self.fieldCapacity * 2)
        larger.moveInitialize(from: self.fields, count: count)
        self.fields.deallocate()
        self.fields = larger
        self.fieldCapacity *= 2
    }
}

/// The fields of the frame being parsed, collected in a scratch's table; its pointers are kept here, where the
/// optimizer sees that nobody else changes them.
struct FieldCollector {
    private let scratch: HeaderScratch
    private var fields: UnsafeMutablePointer<ExtField>
    private var capacity: Int
    private var count = 0

    init(_ scratch: HeaderScratch) {
        self.scratch = scratch
        self.fields = scratch.fields
        self.capacity = scratch.fieldCapacity
    }

    @inline(__always)
    mutating func append(
        _ name: UnsafeRawPointer, _ nameCount: Int, _ value: UnsafeRawPointer, _ valueCount: Int
    ) throws(RemotingDecodeError) {
        if self.count == self.capacity {
            try self.grow()
        }
        (self.fields + self.count).initialize(
            to: ExtField(
                name: name, nameCount: Int32(truncatingIfNeeded: nameCount),
                valueCount: Int32(truncatingIfNeeded: valueCount), value: value))
        self.count += 1
    }

    @inline(never)
    private mutating func grow() throws(RemotingDecodeError) {
        guard self.count < RemotingLimits.headerFields else { throw .tooManyFields }
        self.scratch.growFields(count: self.count)
        self.fields = self.scratch.fields
        self.capacity = self.scratch.fieldCapacity
    }

    mutating func removeAll() {
        self.count = 0
    }

    var result: ExtFields { ExtFields(fields: UnsafeBufferPointer(start: self.fields, count: self.count)) }
}

/// The header fields (`extFields`) of one frame: a view valid only as long as the frame is.
package struct ExtFields {
    package let fields: UnsafeBufferPointer<ExtField>

    package static var empty: ExtFields { ExtFields(fields: UnsafeBufferPointer(start: nil, count: 0)) }

    package var isEmpty: Bool { self.fields.isEmpty }

    /// The value's bytes. Like Java's map, the last of several equal names counts.
    package func bytes(_ name: StaticString) -> UnsafeRawBufferPointer? {
        var index = self.fields.count
        while index > 0 {
            index -= 1
            if self.fields[index].isNamed(name) {
                return self.fields[index].valueBytes
            }
        }
        return nil
    }

    package func string(_ name: StaticString) -> String? {
        self.bytes(name).map { String(decoding: $0, as: UTF8.self) }
    }

    /// nil when the field is not there; throws when it is no number in the range of its type.
    package func int32(_ name: StaticString) throws(RemotingDecodeError) -> Int32? {
        guard let bytes = self.bytes(name) else { return nil }
        guard let value = Int32(exactly: try bytes.integer(name)) else { throw .badField(name.text) }
        return value
    }

    package func int64(_ name: StaticString) throws(RemotingDecodeError) -> Int64? {
        guard let bytes = self.bytes(name) else { return nil }
        return try bytes.integer(name)
    }

    /// `Boolean.parseBoolean`: everything but "true" is false.
    package func bool(_ name: StaticString) -> Bool? {
        self.bytes(name).map { $0.isTrue }
    }

    package func required(_ name: StaticString) throws(RemotingDecodeError) -> String {
        guard let text = self.string(name) else { throw .missingField(name.text) }
        return text
    }

    package func requiredInt32(_ name: StaticString) throws(RemotingDecodeError) -> Int32 {
        guard let value = try self.int32(name) else { throw .missingField(name.text) }
        return value
    }

    package func requiredInt64(_ name: StaticString) throws(RemotingDecodeError) -> Int64 {
        guard let value = try self.int64(name) else { throw .missingField(name.text) }
        return value
    }

    /// All fields as an owned dictionary.
    package func dictionary() -> [String: String] {
        var result: [String: String] = [:]
        result.reserveCapacity(self.fields.count)
        for field in self.fields {
            result[String(decoding: field.nameBytes, as: UTF8.self)] = String(
                decoding: field.valueBytes, as: UTF8.self)
        }
        return result
    }
}

extension StaticString {
    var text: String {
        self.withUTF8Buffer { String(decoding: $0, as: UTF8.self) }
    }
}

extension UnsafeRawBufferPointer {
    @inline(__always)
    func equals(_ text: StaticString) -> Bool {
        guard self.count == text.utf8CodeUnitCount, let start = self.baseAddress else { return false }
        return memcmp(start, text.utf8Start, self.count) == 0
    }

    var isTrue: Bool {
        self.count == 4
            && self[0] | 0x20 == UInt8(ascii: "t") && self[1] | 0x20 == UInt8(ascii: "r")
            && self[2] | 0x20 == UInt8(ascii: "u") && self[3] | 0x20 == UInt8(ascii: "e")
    }

    /// A whole decimal number (`Long.parseLong`).
    @inline(__always)
    func integer(_ name: StaticString) throws(RemotingDecodeError) -> Int64 {
        guard let value = self.decimal else { throw .badField(name.text) }
        return value
    }

    var decimal: Int64? {
        var index = 0
        var isNegative = false
        if self.count > 1, self[0] == UInt8(ascii: "-") || self[0] == UInt8(ascii: "+") {
            isNegative = self[0] == UInt8(ascii: "-")
            index = 1
        }
        guard index < self.count else { return nil }
        // Up to 18 digits cannot overflow.
        if self.count - index <= 18 {
            var magnitude: Int64 = 0
            while index < self.count {
                let digit = self[index] &- UInt8(ascii: "0")
                guard digit < 10 else { return nil }
                magnitude = magnitude &* 10 &+ Int64(digit)
                index += 1
            }
            return isNegative ? 0 &- magnitude : magnitude
        }
        // Collected as a negative number, which has the larger range.
        var value: Int64 = 0
        while index < self.count {
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
