import Glibc

/// Addresses as settings name them.
package enum AddressText {
    /// Whether it is an IPv4 or IPv6 address in numbers.
    package static func isNumeric(_ text: String) -> Bool {
        var room = in6_addr()
        return isIPv4(text) || inet_pton(AF_INET6, text, &room) == 1
    }

    /// Whether it is an IPv4 address in numbers.
    package static func isIPv4(_ text: String) -> Bool {
        var room = in_addr()
        return inet_pton(AF_INET, text, &room) == 1
    }

    /// Whether it is an address, or could be the name of a host: letters, digits, `-`, `_` and dots, at most 253. An
    /// IPv6 address stands in brackets where a port follows.
    package static func isHost(_ text: String) -> Bool {
        if isNumeric(text) { return true }
        let isName = text.utf8.allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "."):
                true
            default: false
            }
        }
        // `10.0.0.300` is a mistyped address and no name.
        let isMistyped = text.allSatisfy { $0.isNumber || $0 == "." }
        return isName && !isMistyped && text.utf8.count <= 253 && text.first != "." && text.first != "-"
    }

    /// Whether it is `HOST:PORT` with a port from 1 to 65535.
    package static func isHostAndPort(_ text: String) -> Bool {
        guard let colon = text.lastIndex(of: ":"), let port = Int(text[text.index(after: colon)...]),
            (1...65535).contains(port)
        else { return false }
        let host = text[..<colon]
        if host.hasPrefix("["), host.hasSuffix("]") { return isNumeric(String(host.dropFirst().dropLast())) }
        return !host.contains(":") && isHost(String(host))
    }

    /// Whether it stands for every address of the machine.
    package static func isEverywhere(_ text: String) -> Bool { text == "0.0.0.0" || text == "::" }

    /// Whether it is reachable from this machine alone.
    package static func isLoopback(_ text: String) -> Bool {
        text.hasPrefix("127.") || text == "::1" || text.lowercased() == "localhost"
    }
}
