import Testing

@testable import Gateway

@Suite struct AccessTests {
    private func refusal(
        _ headers: [(name: String, value: String)], tokens: String = "", to target: String = "/v1/topics/T/messages"
    ) throws -> Int? {
        let rules = try AccessRules(tokens: tokens)
        let method = target.hasSuffix("messages") ? "POST" : "GET"
        let route = try RouteTable.find(method, target).route
        do throws(Problem) {
            try rules.check(RequestHead(method: method, target: target, headers: headers), route)
            return nil
        } catch {
            return error.status
        }
    }

    @Test(arguments: ["127.0.0.1:8080", "127.8.9.1", "localhost", "LocalHost:1", "[::1]:8080", "[::1]"])
    func loopbackNamesAreServed(host: String) throws {
        #expect(try refusal([("host", host)]) == nil)
    }

    @Test(arguments: [
        "evil.example", "127.evil.example", "127.0.0.1.evil.example:8080", "10.0.0.1", "", "[::1", "[fe80::1]",
        "localhost.evil.example", "127.0.0.1@evil.example",
    ])
    func otherNamesAreNot(host: String) throws {
        #expect(try refusal([("host", host)]) == 403)
        #expect(try refusal([]) == 403)
    }

    @Test func pagesOfOtherSitesChangeNothing() throws {
        let host = (name: "host", value: "127.0.0.1:8080")
        #expect(try refusal([host, ("origin", "http://127.0.0.1:8080")]) == nil)
        #expect(try refusal([host, ("origin", "http://evil.example")]) == 403)
        #expect(try refusal([host, ("origin", "null")]) == 403)
        #expect(try refusal([host, ("sec-fetch-site", "cross-site")]) == 403)
        #expect(try refusal([host, ("sec-fetch-site", "same-site")]) == 403)
        #expect(try refusal([host, ("sec-fetch-site", "same-origin")]) == nil)
        // A stream takes messages from the group, though its method is GET.
        let stream = "/v1/topics/T/groups/g/events"
        #expect(try refusal([host, ("sec-fetch-site", "cross-site")], to: stream) == 403)
        #expect(try refusal([host, ("sec-fetch-site", "cross-site")], to: "/health") == nil)
    }

    @Test func withTokensOneIsNeeded() throws {
        let tokens = "0123456789abcdef ; fedcba9876543210"
        func refusal(_ value: String?) throws -> Int? {
            try self.refusal(value.map { [("authorization", $0)] } ?? [], tokens: tokens)
        }
        #expect(try refusal("Bearer 0123456789abcdef") == nil)
        #expect(try refusal("bearer fedcba9876543210") == nil)
        for wrong in [
            nil, "", "Bearer", "Bearer ", "Bearer 0123456789abcde", "Bearer 0123456789abcdef0",
            "Basic 0123456789abcdef", "0123456789abcdef", "Bearer  0123456789abcdef",
            "Bearer 0123456789abcdef;fedcba9876543210",
        ] {
            #expect(try refusal(wrong) == 401, "\(wrong ?? "none")")
        }
        // A foreign page that had one would still be a foreign page.
        #expect(
            try self.refusal(
                [("authorization", "Bearer 0123456789abcdef"), ("origin", "http://evil.example")], tokens: tokens)
                == 403)
    }

    @Test(arguments: ["short", "0123456789abcde\u{7}f", String(repeating: "x", count: 257), "0123456789 abcdef"])
    func badTokensAreRefusedWithoutTheirText(token: String) throws {
        do {
            _ = try AccessRules(tokens: "0123456789abcdef;" + token)
            Issue.record("taken")
        } catch {
            #expect(error.cause.contains("token 2") && !error.cause.contains(token))
        }
    }

    @Test func comparisonsAreOfTheWholeTexts() {
        #expect(AccessRules.isSame([1, 2, 3], [1, 2, 3]))
        #expect(!AccessRules.isSame([1, 2], [1, 2, 3]) && !AccessRules.isSame([1, 2, 3, 0], [1, 2, 3]))
        #expect(!AccessRules.isSame([], [0]) && !AccessRules.isSame([9, 2, 3], [1, 2, 3]))
    }
}
