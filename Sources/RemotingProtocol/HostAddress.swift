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
