import SettingTable

/// Who may send requests: with tokens those that have one, without tokens programs of this machine. A page of another
/// site must not act through a browser of this machine either way.
struct AccessRules: Sendable {
    /// Characters of a token.
    static let tokenLength = 16...256

    private let tokens: [[UInt8]]

    /// - Throws: which token is none, without its text.
    init(tokens text: String) throws(Problem) {
        let tokens = text.split(separator: ";").map { SettingText.trimmed($0) }
        for (number, token) in tokens.enumerated() {
            guard Self.tokenLength.contains(token.utf8.count), token.utf8.allSatisfy({ 0x21...0x7E ~= $0 }) else {
                throw Problem(
                    500, "bad-token",
                    "accessTokens: token \(number + 1) is not \(Self.tokenLength.lowerBound) to "
                        + "\(Self.tokenLength.upperBound) visible ASCII characters",
                    remedy: "openssl rand -hex 16 makes one")
            }
        }
        self.tokens = tokens.map { Array($0.utf8) }
    }

    var hasTokens: Bool { !tokens.isEmpty }

    /// - Throws: 401 without one of the tokens, 403 for names and origins that are none of ours.
    func check(_ head: RequestHead, _ route: Route) throws(Problem) {
        if hasTokens {
            try checkToken(head)
        } else {
            try checkHost(head)
        }
        if route.changesState { try checkOrigin(head) }
    }

    // MARK: - Tokens

    private func checkToken(_ head: RequestHead) throws(Problem) {
        let given = head["authorization"].map { Array($0.utf8) } ?? []
        let scheme = Array("bearer ".utf8)
        let isBearer = given.count > scheme.count && zip(given, scheme).allSatisfy { $0 | 0x20 == $1 | 0x20 }
        let token = isBearer ? Array(given[scheme.count...]) : []
        // All are compared, and each in full: time says nothing of them.
        var isGood = false
        for known in tokens where Self.isSame(token, known) { isGood = true }
        guard isGood else {
            var problem = Problem(
                401, "no-access",
                given.isEmpty ? "the request has no access token" : "the access token is none of ours",
                remedy: "send Authorization: Bearer TOKEN with one of accessTokens in [gateway]")
            problem.headers = [("www-authenticate", "Bearer")]
            throw problem
        }
    }

    /// Takes as long for any `given` of one length.
    static func isSame(_ given: [UInt8], _ known: [UInt8]) -> Bool {
        var difference = UInt(bitPattern: given.count ^ known.count)
        for index in known.indices { difference |= UInt(known[index] ^ (index < given.count ? given[index] : 0)) }
        return difference == 0
    }

    // MARK: - Sites

    /// A page may have given its own name an address of this machine (DNS rebinding): its requests bear that name.
    private func checkHost(_ head: RequestHead) throws(Problem) {
        guard let host = head["host"], AddressText.isLoopback(Self.name(ofHost: host)) else {
            throw Problem(
                403, "foreign-host", "Host: \(Shape.shown(head["host"] ?? "")) is no loopback name",
                remedy: "use 127.0.0.1, [::1] or localhost; for other names set accessTokens in [gateway]")
        }
    }

    private func checkOrigin(_ head: RequestHead) throws(Problem) {
        let site = head["sec-fetch-site"].map { ["same-origin", "none"].contains($0) } ?? true
        let origin = head["origin"].map { origin in
            origin == "http://\(head["host"] ?? "")" || origin == "https://\(head["host"] ?? "")"
        }
        guard site, origin ?? true else {
            throw Problem(
                403, "foreign-origin", "a page of another site has sent the request (Origin, Sec-Fetch-Site)",
                remedy: "send it from a program, or from a page of this gateway")
        }
    }

    /// `localhost:8080` is localhost, `[::1]:8080` is ::1.
    static func name(ofHost host: String) -> String {
        if host.hasPrefix("["), let end = host.firstIndex(of: "]") {
            return String(host[host.index(after: host.startIndex)..<end])
        }
        let name = host.prefix { $0 != ":" }
        // `127.evil.example` is a name.
        return name.hasPrefix("127.") && !AddressText.isIPv4(String(name)) ? "" : String(name)
    }
}
