/// An IPv4 or IPv6 address with a port, as RocketMQ stores it in messages and message ids: 4 or 16 bytes of address,
/// then the port in 4 bytes, big-endian.
package struct HostAddress: Hashable, Sendable {
    /// The address, most significant byte first; an IPv4 address is the low 32 bits of `low`.
    package var high: UInt64
    package var low: UInt64
    package var isIPv6: Bool
    package var port: UInt16

    package init(ipv4 address: UInt32, port: UInt16) {
        self.high = 0
        self.low = UInt64(address)
        self.isIPv6 = false
        self.port = port
    }

    /// An IPv4 address mapped into IPv6 (`::ffff:a.b.c.d`) becomes plain IPv4, as Java's `InetAddress` makes it.
    package init(ipv6High high: UInt64, low: UInt64, port: UInt16) {
        let isMapped = high == 0 && low >> 32 == 0xffff
        self.high = isMapped ? 0 : high
        self.low = isMapped ? low & 0xffff_ffff : low
        self.isIPv6 = !isMapped
        self.port = port
    }

    /// Bytes of address: 4 or 16.
    package var addressCount: Int { self.isIPv6 ? 16 : 4 }
    /// Bytes of address and port: 8 or 20.
    package var count: Int { self.addressCount + 4 }

    /// Writes address and port; `target` has room for `count` bytes. Returns `count`.
    @discardableResult
    package func write(to target: UnsafeMutableRawPointer) -> Int {
        if self.isIPv6 {
            target.storeBytes(of: self.high.bigEndian, as: UInt64.self)
            target.storeBytes(of: self.low.bigEndian, toByteOffset: 8, as: UInt64.self)
            target.storeBytes(of: UInt32(self.port).bigEndian, toByteOffset: 16, as: UInt32.self)
        } else {
            target.storeBytes(of: UInt32(truncatingIfNeeded: self.low).bigEndian, as: UInt32.self)
            target.storeBytes(of: UInt32(self.port).bigEndian, toByteOffset: 4, as: UInt32.self)
        }
        return self.count
    }

    /// Reads address and port (8 or 20 bytes).
    package init?(bytes: UnsafeRawBufferPointer) {
        switch bytes.count {
        case 8:
            self.init(
                ipv4: bytes.bigEndian(UInt32.self, at: 0),
                port: UInt16(truncatingIfNeeded: bytes.bigEndian(UInt32.self, at: 4)))
        case 20:
            self.init(
                ipv6High: bytes.bigEndian(UInt64.self, at: 0), low: bytes.bigEndian(UInt64.self, at: 8),
                port: UInt16(truncatingIfNeeded: bytes.bigEndian(UInt32.self, at: 16)))
        default: return nil
        }
    }

    /// The address without the port; IPv6 in full, without `::`.
    package var hostText: String {
        if self.isIPv6 {
            return [self.high, self.low].flatMap { half in
                [48, 32, 16, 0].map { String(UInt16(truncatingIfNeeded: half >> UInt64($0)), radix: 16) }
            }.joined(separator: ":")
        }
        return [24, 16, 8, 0].map { String(UInt8(truncatingIfNeeded: self.low >> UInt64($0))) }.joined(separator: ".")
    }

    /// `10.0.0.1:10911`, `[fe80:0:…]:10911`.
    package var text: String {
        self.isIPv6 ? "[\(self.hostText)]:\(self.port)" : "\(self.hostText):\(self.port)"
    }

    /// Reads `a.b.c.d:port`.
    package init?(ipv4Text text: some StringProtocol) {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 2, let port = UInt16(parts[1]) else { return nil }
        let bytes = parts[0].split(separator: ".", omittingEmptySubsequences: false).map { UInt8($0) }
        guard bytes.count == 4 else { return nil }
        var address: UInt32 = 0
        for byte in bytes {
            guard let byte else { return nil }
            address = address << 8 | UInt32(byte)
        }
        self.init(ipv4: address, port: port)
    }
}

/// The message id a broker gives (`MessageDecoder.createMessageId`): host and physical offset in upper-case hex,
/// 32 digits for IPv4, 56 for IPv6.
package enum OffsetMessageID {
    package static func digits(_ host: HostAddress) -> Int { (host.count + 8) * 2 }

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
        offset += Self.hex(UInt64(host.port), digits: 8, to: target + offset)
        return offset + Self.hex(UInt64(bitPattern: physicalOffset), digits: 16, to: target + offset)
    }

    package static func text(host: HostAddress, physicalOffset: Int64) -> String {
        withUnsafeTemporaryAllocation(byteCount: Self.digits(host), alignment: 1) { bytes in
            if let start = bytes.baseAddress {
                Self.write(host: host, physicalOffset: physicalOffset, to: start)
            }
            return String(decoding: bytes, as: UTF8.self)
        }
    }

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
