/// A born or store host as a record holds it: 4 or 16 address bytes and a 4-byte port.
package struct HostAddress: Hashable, Sendable {
    /// The address in network order, left-aligned: an IPv4 address fills the upper 4 bytes of `high`.
    package var high: UInt64
    /// The lower 8 bytes of an IPv6 address; 0 for IPv4.
    package var low: UInt64
    /// As stored: 4 bytes, of which a port needs 2.
    package var port: Int32
    package var isIPv6: Bool

    package init(ipv4: UInt32, port: Int32) {
        self.high = UInt64(ipv4) << 32
        self.low = 0
        self.port = port
        self.isIPv6 = false
    }

    package init(ipv6High: UInt64, low: UInt64, port: Int32) {
        self.high = ipv6High
        self.low = low
        self.port = port
        self.isIPv6 = true
    }

    /// From 4 or 16 address bytes in network order; nil for any other count.
    package init?(bytes: UnsafeRawBufferPointer, port: Int32) {
        guard let base = bytes.baseAddress else { return nil }
        switch bytes.count {
        case 4: self.init(ipv4: BigEndian.load(base, 0, as: UInt32.self), port: port)
        case 16:
            self.init(
                ipv6High: BigEndian.load(base, 0, as: UInt64.self), low: BigEndian.load(base, 8, as: UInt64.self),
                port: port)
        default: return nil
        }
    }

    /// Bytes in a record: 8 or 20.
    @inlinable
    package var encodedSize: Int { isIPv6 ? 20 : 8 }

    /// Writes address and port; returns the bytes written.
    @inlinable @inline(__always)
    package func encode(_ pointer: UnsafeMutableRawPointer, _ offset: Int) -> Int {
        if isIPv6 {
            BigEndian.store(high, pointer, offset)
            BigEndian.store(low, pointer, offset + 8)
            BigEndian.store(port, pointer, offset + 16)
            return 20
        }
        BigEndian.store(UInt32(truncatingIfNeeded: high >> 32), pointer, offset)
        BigEndian.store(port, pointer, offset + 4)
        return 8
    }
}
