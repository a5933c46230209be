package import MessageModel

/// The message id a broker gives (`MessageDecoder.createMessageId`): host and physical offset in upper-case hex,
/// 32 digits for IPv4, 56 for IPv6.
package enum OffsetMessageID {
    /// Length of the id in characters: 32 or 56.
    package static func digits(_ host: HostAddress) -> Int { (host.encodedSize + 8) * 2 }

    /// Writes `digits(host)` characters; returns their count.
    @discardableResult
    package static func write(
        host: HostAddress, physicalOffset: Int64, to target: UnsafeMutableRawPointer
    ) -> Int {
        var offset = 0
        if host.isIPv6 {
            offset += Self.hex(host.high, digits: 16, to: target)
            offset += Self.hex(host.low, digits: 16, to: target + offset)
        } else {
            offset += Self.hex(host.low, digits: 8, to: target)
        }
        offset += Self.hex(UInt64(UInt32(bitPattern: host.port)), digits: 8, to: target + offset)
        return offset + Self.hex(UInt64(bitPattern: physicalOffset), digits: 16, to: target + offset)
    }

    /// The id of the record that begins at this offset of the host's commit log.
    package static func text(host: HostAddress, physicalOffset: Int64) -> String {
        withUnsafeTemporaryAllocation(byteCount: Self.digits(host), alignment: 1) { bytes in
            if let start = bytes.baseAddress {
                Self.write(host: host, physicalOffset: physicalOffset, to: start)
            }
            return String(decoding: bytes, as: UTF8.self)
        }
    }

    /// Digits may be upper or lower case. nil when the text has another length or another character.
    package static func parse(_ text: String) -> (host: HostAddress, physicalOffset: Int64)? {
        let digits = Array(text.utf8)
        guard digits.count == 32 || digits.count == 56 else { return nil }
        var bytes: [UInt8] = []
        var index = 0
        while index < digits.count {
            guard let high = Self.value(digits[index]), let low = Self.value(digits[index + 1]) else { return nil }
            bytes.append(high << 4 | low)
            index += 2
        }
        return bytes.withUnsafeBytes { raw in
            guard let host = HostAddress(bytes: UnsafeRawBufferPointer(rebasing: raw[..<(raw.count - 8)])) else {
                return nil
            }
            return (host, raw.bigEndian(Int64.self, at: raw.count - 8))
        }
    }

    @inline(__always)
    private static func hex(_ value: UInt64, digits: Int, to target: UnsafeMutableRawPointer) -> Int {
        var shift = UInt64(digits * 4)
        for index in 0..<digits {
            shift -= 4
            let digit = UInt8(truncatingIfNeeded: value >> shift & 0xf)
            target.storeBytes(of: digit < 10 ? 0x30 + digit : 0x37 + digit, toByteOffset: index, as: UInt8.self)
        }
        return digits
    }

    private static func value(_ digit: UInt8) -> UInt8? {
        switch digit {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): digit - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): digit - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): digit - UInt8(ascii: "A") + 10
        default: nil
        }
    }
}
