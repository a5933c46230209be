import Glibc

/// The properties of a message as they lie in a record or a request: `name \u{1} value \u{2} name \u{1} value …`,
/// UTF-8, the last separator optional.
public enum MessageProperties {
    /// Between a name and its value.
    public static let nameValueSeparator: UInt8 = 1
    /// Behind a value.
    public static let propertySeparator: UInt8 = 2

    /// The value of a property, pointing into `properties`; nil when absent. When a name occurs twice the last one
    /// counts, as it does in Java's map.
    package static func value(
        of name: StaticString, in properties: UnsafeRawBufferPointer
    ) -> UnsafeRawBufferPointer? {
        let wanted = UnsafeRawBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount)
        var found: UnsafeRawBufferPointer?
        forEach(in: properties) { name, value in
            if equal(name, wanted) { found = value }
        }
        return found
    }

    /// Calls `body` for each well-formed property, in order. It skips a piece without a separator, with an empty name
    /// or an empty value, as `MessageDecoder.string2messageProperties` does.
    @inlinable @inline(__always)
    public static func forEach(
        in properties: UnsafeRawBufferPointer,
        _ body: (_ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) -> Void
    ) {
        var start = 0
        let count = properties.count
        while start < count {
            var index = start
            var separator = -1
            while index < count {
                let byte = properties[index]
                if byte == propertySeparator { break }
                if byte == nameValueSeparator && separator < 0 { separator = index }
                index += 1
            }
            if separator > start && separator < index - 1 {
                body(
                    UnsafeRawBufferPointer(rebasing: properties[start..<separator]),
                    UnsafeRawBufferPointer(rebasing: properties[(separator + 1)..<index]))
            }
            start = index + 1
        }
    }

    /// Byte for byte.
    package static func equal(_ left: UnsafeRawBufferPointer, _ right: UnsafeRawBufferPointer) -> Bool {
        guard left.count == right.count else { return false }
        guard let leftBase = left.baseAddress, let rightBase = right.baseAddress else { return true }
        return memcmp(leftBase, rightBase, left.count) == 0
    }

    // MARK: - As dictionaries

    package static func encode(_ properties: [(String, String)]) -> [UInt8] {
        var bytes: [UInt8] = []
        for (name, value) in properties {
            bytes.append(contentsOf: name.utf8)
            bytes.append(Self.nameValueSeparator)
            bytes.append(contentsOf: value.utf8)
            bytes.append(Self.propertySeparator)
        }
        return bytes
    }

    package static func encode(_ properties: [String: String]) -> [UInt8] {
        Self.encode(properties.map { ($0.key, $0.value) })
    }

    /// By name, by the rules of `forEach`; of a name that occurs twice the last value.
    package static func decode(_ bytes: UnsafeRawBufferPointer) -> [String: String] {
        var properties: [String: String] = [:]
        Self.forEach(in: bytes) { name, value in
            properties[String(decoding: name, as: UTF8.self)] = String(decoding: value, as: UTF8.self)
        }
        return properties
    }

    /// As above.
    package static func decode(_ bytes: [UInt8]) -> [String: String] {
        bytes.withUnsafeBytes { Self.decode($0) }
    }
}
