import MessageModel
import RemotingProtocol

/// Whose connections share a bound: one IPv4 address, or one /64 network of IPv6, which is what a single site is given.
struct RemoteNetwork: Hashable {
    private let high: UInt64
    private let low: UInt64

    init(_ address: HostAddress) {
        let isNetwork = address.isIPv6 && !Self.isLoopback(address)
        self.init(high: address.high, low: isNetwork ? .max : address.low)
    }

    /// As above; each connection from the machine it came to counts as a network of its own. The programs of one
    /// machine, or those that reach it through a proxy there, have nothing in common but the address.
    init(remote: HostAddress, local: HostAddress) {
        guard (remote.high, remote.low, remote.isIPv6) == (local.high, local.low, local.isIPv6) else {
            self.init(remote)
            return
        }
        // No address has these bits: networks end with all ones, IPv4 addresses begin with zeros.
        self.init(high: remote.high, low: 0xffff_ffff << 32 | UInt64(UInt32(bitPattern: remote.port)))
    }

    private init(high: UInt64, low: UInt64) {
        (self.high, self.low) = (high, low)
    }

    /// 127.0.0.0/8 and ::1; also an address that is not known.
    static func isLoopback(_ address: HostAddress) -> Bool {
        if address.isIPv6 { return address.high == 0 && address.low <= 1 }
        return address.low == 0 || address.low >> 24 == 127
    }
}
