import FastJSON
import Foundation
import TestTools
import Testing

extension PlatformTests {
    /// What strangers, foreign pages and mistaken clients send to a gateway.
    @Suite("T38 refusals over HTTP", .serialized)
    struct T38_GatewayAccess {
        @Test(
            "mistakes are answered with status, code, cause and remedy, and the connection goes on",
            .timeLimit(.minutes(1)))
        func mistakes() async throws {
            let platform = try await Platform.start(consolePort: 0)
            let http = try HTTPClient(platform.console)
            let messages = "/v1/topics/T/messages"
            for (method, target, body, headers, status, code) in [
                ("GET", "/nothing", nil, [:], 404, "unknown-route"),
                ("GET", "/v1/topics/../../etc/passwd", nil, [:], 404, "unknown-route"),
                ("GET", messages, nil, [:], 405, "method-not-allowed"),
                ("POST", "/v1/topics/%2e%2e/messages", #"{"body":"a"}"#, [:], 400, "invalid-request"),
                ("POST", messages, #"{"body":"#, [:], 400, "invalid-request"),
                ("POST", messages, String(repeating: "[", count: 50_000), [:], 400, "invalid-request"),
                ("POST", messages, #"{"body":"a","nonsense":1}"#, [:], 400, "invalid-request"),
                (
                    "POST", "/v1/topics/\(String(repeating: "x", count: 200))/messages", #"{"body":"a"}"#, [:], 400,
                    "invalid-request"
                ),
                ("POST", "/v1/topics/Absent/groups/g/receive", nil, [:], 404, "topic-not-found"),
                ("GET", "/health", nil, ["Host": "evil.example"], 403, "foreign-host"),
            ] as [(String, String, String?, [String: String], Int, String)] {
                let answer = try await http.ask(method, target, body, headers: headers)
                #expect(
                    answer.status == status && answer.json["code"]?.string == code, "\(method) \(target): \(answer)")
                #expect(
                    answer.json["cause"]?.string?.isEmpty == false && answer.json["remedy"]?.string?.isEmpty == false)
                #expect(answer.headers["content-type"] == "application/problem+json")
            }
            for (headers, status) in [
                (["Content-Type": "text/plain"], 415), (["Origin": "http://evil.example"], 403),
                (["Sec-Fetch-Site": "cross-site"], 403),
            ] {
                let answer = try await http.ask("POST", messages, #"{"body":"a"}"#, headers: headers)
                #expect(answer.status == status, "\(headers): \(answer)")
            }
            // Its body is not read: the connection ends.
            let large = try HTTPClient(platform.console)
            let answer = try await large.ask("POST", messages, "{", headers: ["Content-Length": "99999999"])
            #expect(answer.status == 413, "\(answer)")
            try await eventually("the connection ends") { large.isClosed }
            let headers = try HTTPClient(platform.console)
            let refused = try? await headers.ask(
                "GET", "/health", headers: ["X": String(repeating: "y", count: 100_000)])
            #expect(refused == nil || refused?.status == 400)
            let garbage = try HTTPClient(platform.console)
            garbage.write((0..<4096).map { _ in UInt8.random(in: 0...255) })
            #expect(try await http.ask("POST", messages, #"{"body":"still"}"#).status == 200)
            try await platform.stop()
        }

        @Test("a name server that is away: 503, with the time to try again", .timeLimit(.minutes(1)))
        func away() async throws {
            let platform = try await Platform.start(consolePort: 0, ["--set", "gateway.namesrvAddr=127.0.0.1:1"])
            let http = try HTTPClient(platform.console)
            for (method, target, body) in [
                ("GET", "/health", nil), ("POST", "/v1/topics/T/messages", #"{"body":"a"}"#),
                ("POST", "/v1/topics/T/groups/g/receive", nil),
            ] as [(String, String, String?)] {
                let answer = try await http.ask(method, target, body)
                #expect(answer.status == 503 && answer.headers["retry-after"] == "1", "\(answer)")
                #expect(answer.json["code"] == "no-name-server")
            }
            #expect(try await http.ask("GET", "/rocketmq/nsaddr").text == "127.0.0.1:1")
            try await platform.stop()
        }

        @Test(
            "tokens: each request needs one; without one the gateway opens to no other machine",
            .timeLimit(.minutes(1)))
        func tokens() async throws {
            let folder = try TemporaryFolder()
            let refused = try await Program.run(
                Binaries.apus,
                [
                    "up", "--data-dir", folder.file("data"), "--nameserver-port", "0", "--broker-port", "0",
                    "--console-port", "0", "--set", "gateway.bindAddress=0.0.0.0",
                ], within: .seconds(15))
            #expect(refused.status == 78 && refused.errorText.contains("accessTokens"), "\(refused)")

            let short = try await Program.run(
                Binaries.apus,
                [
                    "up", "--check", "--data-dir", folder.file("data"), "--nameserver-port", "0", "--broker-port", "0",
                    "--console-port", "0", "--set", "gateway.accessTokens=short",
                ], within: .seconds(15))
            let words = short.errorText
            #expect(short.status == 78 && words.contains("accessTokens: token 1 is not 16 to 256"), "\(words)")
            #expect(!words.contains("Problem("))

            let token = "0123456789abcdef"
            let platform = try await Platform.start(
                consolePort: 0,
                [
                    "--set", "gateway.bindAddress=0.0.0.0", "--set",
                    "gateway.accessTokens=\(token);another-one-of-32-characters-xx",
                ])
            let port = try #require(platform.console?.split(separator: ":").last)
            let http = try HTTPClient("http://127.0.0.1:\(port)")
            for wrong in [[:], ["Authorization": "Bearer 0123456789abcdeX"], ["Authorization": "Basic \(token)"]] {
                let answer = try await http.ask("GET", "/health", headers: wrong)
                #expect(answer.status == 401 && answer.headers["www-authenticate"] == "Bearer", "\(answer)")
            }
            // By its name in the network, too.
            for headers in [
                ["Authorization": "Bearer \(token)"], ["Authorization": "Bearer \(token)", "Host": "mq.example"],
            ] {
                #expect(try await http.ask("GET", "/health", headers: headers).status == 200)
            }
            let foreign = try await http.ask(
                "POST", "/v1/topics/T/groups/g/receive",
                headers: ["Authorization": "Bearer \(token)", "Origin": "http://evil.example"])
            #expect(foreign.status == 403, "\(foreign)")
            try await platform.stop()
        }

        @Test("a drain answers what waits, and ends cleanly; a restart keeps the port", .timeLimit(.minutes(1)))
        func drain() async throws {
            let platform = try await Platform.start(consolePort: 0)
            let http = try HTTPClient(platform.console)
            #expect(try await http.ask("POST", "/v1/topics/T/messages", #"{"body":"a"}"#).status == 200)
            #expect(try await http.ask("POST", "/v1/topics/T/groups/g/receive").messages.count == 1)
            let waiting = try HTTPClient(platform.console)
            waiting.send("POST", "/v1/topics/T/groups/g/receive", #"{"waitMilliseconds":60000}"#)
            let stream = try HTTPClient(platform.console)
            stream.send("GET", "/v1/topics/T/groups/g/events")
            try await eventually("both wait") {
                try await platform.status().workers.contains { $0.status.contains("2 requests waiting") }
            }
            let restart = try await Program.run(Binaries.apus, ["restart", "gateway@0", "--data-dir", platform.data])
            #expect(restart.status == 0, "\(restart)")
            #expect(try await waiting.answer().messages.isEmpty)
            try await eventually("the stream ends") { stream.isClosed }
            try await eventually("it serves again") {
                (try? await HTTPClient(platform.console).ask("GET", "/health").status) == 200
            }
            try await platform.stop()
        }
    }
}
