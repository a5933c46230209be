/// A message's properties as text: `name U+0001 value U+0002 …` (`MessageDecoder.messageProperties2String`).
package enum MessageProperties {
    package static let nameValueSeparator: UInt8 = 1
    package static let propertySeparator: UInt8 = 2

    package static let keys = "KEYS"
    package static let tags = "TAGS"
    package static let uniqueKey = "UNIQ_KEY"

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

    /// Pieces without a name separator are passed over.
    package static func decode(_ bytes: UnsafeRawBufferPointer) -> [String: String] {
        var properties: [String: String] = [:]
        for piece in bytes.split(separator: Self.propertySeparator) {
            guard let separator = piece.firstIndex(of: Self.nameValueSeparator) else { continue }
            properties[String(decoding: piece[..<separator], as: UTF8.self)] = String(
                decoding: piece[(separator + 1)...], as: UTF8.self)
        }
        return properties
    }

    package static func decode(_ bytes: [UInt8]) -> [String: String] {
        bytes.withUnsafeBytes { Self.decode($0) }
    }

    /// The value of one property, a view into `bytes`.
    package static func value(of name: StaticString, in bytes: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? {
        var start = 0
        while start < bytes.count {
            let piece = UnsafeRawBufferPointer(rebasing: bytes[start...])
            let end = piece.firstIndex(of: Self.propertySeparator) ?? piece.count
            let count = name.utf8CodeUnitCount
            if end > count, piece[count] == Self.nameValueSeparator,
                UnsafeRawBufferPointer(rebasing: piece[..<count]).equals(name)
            {
                return UnsafeRawBufferPointer(rebasing: piece[(count + 1)..<end])
            }
            start += end + 1
        }
        return nil
    }
}
