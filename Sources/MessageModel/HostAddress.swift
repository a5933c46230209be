/// An IPv4 or IPv6 address with a port, as RocketMQ stores it in records, message identifiers and requests. Its form is
/// 4 or 16 bytes of address, then the port in 4 bytes, big-endian.
package struct HostAddress: Hashable, Sendable {
    /// The upper half of an IPv6 address, most significant byte first; 0 for IPv4.
    package let high: UInt64
    /// The lower half of an IPv6 address; an IPv4 address is its low 32 bits.
    package let low: UInt64
    /// Whether it takes 16 bytes; an IPv4 address mapped into IPv6 does not.
    package let isIPv6: Bool
    /// As stored: 4 bytes, of which a port needs 2. Records of other writers may have any.
    package let port: Int32

    /// - Parameter address: most significant byte first: 127.0.0.1 is `0x7f00_0001`.
    @inlinable
    package init(ipv4 address: UInt32, port: Int32) {
        high = 0
        low = UInt64(address)
        isIPv6 = false
        self.port = port
    }

    /// An IPv4 address mapped into IPv6 (`::ffff:a.b.c.d`) becomes plain IPv4, as Java's `InetAddress` makes it.
    @inlinable
    package init(ipv6High high: UInt64, low: UInt64, port: Int32) {
        let isMapped = high == 0 && low >> 32 == 0xffff
        self.high = isMapped ? 0 : high
        self.low = isMapped ? low & 0xffff_ffff : low
        isIPv6 = !isMapped
        self.port = port
    }

    /// Bytes of address and port: 8 or 20.
    @inlinable
    package var encodedSize: Int { isIPv6 ? 20 : 8 }

    /// Writes address and port at `offset`, which has room for `encodedSize` bytes; returns the bytes written.
    @inlinable @inline(__always)
    package func encode(_ pointer: UnsafeMutableRawPointer, _ offset: Int) -> Int {
        if isIPv6 {
            pointer.storeBytes(of: high.bigEndian, toByteOffset: offset, as: UInt64.self)
            pointer.storeBytes(of: low.bigEndian, toByteOffset: offset + 8, as: UInt64.self)
            pointer.storeBytes(of: port.bigEndian, toByteOffset: offset + 16, as: Int32.self)
            return 20
        }
        pointer.storeBytes(
            of: UInt32(truncatingIfNeeded: low).bigEndian, toByteOffset: offset, as: UInt32.self)
        pointer.storeBytes(of: port.bigEndian, toByteOffset: offset + 4, as: Int32.self)
        return 8
    }

    /// Reads address and port (8 or 20 bytes); `nil` for any other count.
    package init?(bytes: UnsafeRawBufferPointer) {
        func integer<T: FixedWidthInteger>(_: T.Type, _ offset: Int) -> T {
            T(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: T.self))
        }
        switch bytes.count {
        case 8: self.init(ipv4: integer(UInt32.self, 0), port: integer(Int32.self, 4))
        case 20:
            self.init(ipv6High: integer(UInt64.self, 0), low: integer(UInt64.self, 8), port: integer(Int32.self, 16))
        default: return nil
        }
    }

    // MARK: - Text

    /// The address without the port; IPv6 in full, without `::`.
    package var hostText: String {
        if isIPv6 {
            return [high, low].flatMap { half in
                [48, 32, 16, 0].map { String(UInt16(truncatingIfNeeded: half >> UInt64($0)), radix: 16) }
            }.joined(separator: ":")
        }
        return [24, 16, 8, 0].map { String(UInt8(truncatingIfNeeded: low >> UInt64($0))) }.joined(separator: ".")
    }

    /// `10.0.0.1:10911`, `[fe80:0:…]:10911`.
    package var text: String {
        isIPv6 ? "[\(hostText)]:\(port)" : "\(hostText):\(port)"
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
        self.init(ipv4: address, port: Int32(port))
    }
}
