import Glibc

/// How other machines reach this one.
package enum MachineAddress {
    /// The first IPv4 address of an interface that is up and not the loopback. RocketMQ announces it when nothing else
    /// is configured. It is nil when there is none.
    package static func firstIPv4() -> String? {
        var list: UnsafeMutablePointer<ifaddrs>?
        guard getifaddrs(&list) == 0 else { return nil }
        defer { freeifaddrs(list) }
        var next = list
        while let entry = next {
            defer { next = entry.pointee.ifa_next }
            let flags = entry.pointee.ifa_flags
            guard flags & UInt32(IFF_UP) != 0, flags & UInt32(IFF_LOOPBACK) == 0,
                let address = entry.pointee.ifa_addr, address.pointee.sa_family == sa_family_t(AF_INET)
            else { continue }
            // sockaddr_in: family and port (2 bytes each), then the address.
            return UnsafeRawBufferPointer(start: address, count: 8)[4..<8].map(String.init).joined(separator: ".")
        }
        return nil
    }
}
