import FastJSON
import Foundation
import RocketMQClient
import TestTools
import Testing

extension PlatformTests {
    /// HTTP of a real gateway, on a real platform.
    @Suite("T36 gateway", .serialized)
    struct T36_Gateway {
        static func path(_ topic: String, _ group: String, _ call: String) -> String {
            "/v1/topics/\(topic)/groups/\(group)/\(call)"
        }

        static func json(_ fields: [(String, JSONValue?)]) -> String { JSONValue.fields(fields).text() }

        @Test("sent by HTTP, consumed by the command line; all members of a message arrive", .timeLimit(.minutes(1)))
        func produce() async throws {
            let platform = try await Platform.start(consolePort: 0)
            let http = try HTTPClient(platform.console)
            let one = try await http.ask(
                "POST", "/v1/topics/Greetings/messages",
                #"{"body":"hello","tag":"en","keys":["k1"],"properties":{"price":"3"}}"#)
            #expect(one.status == 200, "\(one)")
            let stored = try #require(one.json["messages"]?.array?.first)
            #expect(stored["broker"] == "broker-a" && stored["status"] == "SEND_OK" && stored["queueOffset"] == 0)
            let batch = try await http.ask(
                "POST", "/v1/topics/Greetings/messages",
                #"{"messages":[{"body":"a"},{"bodyBase64":"Yg=="},{"body":"c"}]}"#)
            let offsets = batch.json["messages"]?.array?.compactMap { $0["queueOffset"]?.integer } ?? []
            let queues = Set(batch.json["messages"]?.array?.compactMap { $0["queueID"]?.integer } ?? [])
            #expect(batch.status == 200 && queues.count == 1 && offsets.count == 3, "\(batch)")
            #expect(zip(offsets, offsets.dropFirst()).allSatisfy { $1 == $0 + 1 }, "one batch in one queue")
            let consumed = try await platform.apus([
                "consume", "--topic", "Greetings", "--count", "4", "--timeout", "10",
            ])
            #expect(consumed.lines.sorted() == ["a", "b", "c", "hello"], "\(consumed)")
            let admin = try AdminClient(ClientSettings(nameServers: platform.nameServer))
            let found = try await admin.messages(in: "Greetings", key: "k1")
            #expect(found.map(\.text) == ["hello"] && found.first?.tag == "en", "\(found)")
            #expect(found.first?.properties["price"] == "3")
            await admin.close()
            // Delayed, and ordered.
            let now = Int64(Date().timeIntervalSince1970 * 1000)
            let late = try await http.ask(
                "POST", "/v1/topics/Greetings/messages", #"{"body":"late","deliverAt":\#(now + 700)}"#)
            #expect(late.status == 200, "\(late)")
            let next = try await platform.apus(["consume", "--topic", "Greetings", "--count", "1", "--timeout", "10"])
            #expect(next.lines == ["late"] && Int64(Date().timeIntervalSince1970 * 1000) >= now + 700, "\(next)")
            var ordered: Set<Int64> = []
            for _ in 0..<4 {
                let answer = try await http.ask(
                    "POST", "/v1/topics/Greetings/messages", #"{"body":"o","orderingKey":"Ann"}"#)
                ordered.insert(answer.json["messages"]?.array?.first?["queueID"]?.integer ?? -1)
            }
            #expect(ordered.count == 1, "one key, one queue: \(ordered)")
            try await platform.stop()
        }

        @Test("health, name servers, the document, the first page; status and ready line", .timeLimit(.minutes(1)))
        func pages() async throws {
            let platform = try await Platform.start(consolePort: 0)
            let http = try HTTPClient(platform.console)
            let health = try await http.ask("GET", "/health")
            #expect(health.status == 200 && health.json["nameServer"]?.string == platform.nameServer, "\(health)")
            let servers = try await http.ask("GET", "/rocketmq/nsaddr")
            #expect(servers.text == platform.nameServer)
            #expect(servers.headers["content-type"]?.hasPrefix("text/plain") == true)
            let document = try await http.ask("GET", "/openapi.json")
            #expect(document.json["openapi"] == "3.1.0")
            #expect(try await http.ask("GET", "/").text.contains("POST /v1/topics/{topic}/messages"))
            let status = try await Program.run(Binaries.apus, ["status", "--data-dir", platform.data])
            #expect(status.lines.contains { $0.hasPrefix("gateway-0") && $0.contains("ready") }, "\(status.lines)")
            #expect(status.lines.contains { $0.contains(platform.console ?? "-") }, "\(status.lines)")
            try await platform.stop()
        }

        @Test(
            "the README's commands of curl do what they say", .timeLimit(.minutes(1)),
            .enabled(if: FileManager.default.isExecutableFile(atPath: "/usr/bin/curl"), "curl is not installed"))
        func readme() async throws {
            let page = try String(contentsOfFile: Binaries.packageRoot + "/README.md", encoding: .utf8)
            let section = try #require(page.components(separatedBy: "## The same over HTTP").dropFirst().first)
            let script = try #require(section.components(separatedBy: "```").dropFirst().first)
            let platform = try await Platform.start(consolePort: 0)
            let commands = script.dropFirst("sh\n".count)
                .replacing("http://127.0.0.1:8080", with: platform.console ?? "")
            let outcome = try await Program.run("/bin/sh", ["-ec", String(commands)])
            let text = outcome.lines.joined(separator: "\n")
            #expect(outcome.status == 0, "\(outcome)")
            #expect(text.components(separatedBy: #""status":"SEND_OK""#).count == 4, "\(text)")
            #expect(text.components(separatedBy: #""status":"ok""#).count == 4, "\(text)")
            #expect(text.components(separatedBy: "event: message").count == 4, "\(text)")
            let progress = try await Program.run(
                Binaries.apus, ["admin", "consumerProgress", "-n", platform.nameServer, "-g", "billing"])
            #expect(progress.lines.last == "Diff Total: 0", "\(progress.lines)")
            try await platform.stop()
        }

        @Test("a taken port is said in one line, and the platform starts without a gateway", .timeLimit(.minutes(1)))
        func takenPort() async throws {
            let first = try await Platform.start(consolePort: 0)
            let port = try #require(first.console?.split(separator: ":").last.flatMap { Int($0) })
            let second = try await Platform.start(consolePort: port)
            #expect(second.console == nil)
            let lines = second.log.split(separator: "\n").filter { $0.contains("without its gateway") }
            #expect(lines.count == 1 && lines[0].contains("port \(port) is in use"), "\(second.log)")
            #expect(second.pid(of: "gateway") == nil && second.pid(of: "broker-store") != nil)
            let status = try await Program.run(Binaries.apus, ["status", "--data-dir", second.data])
            #expect(status.status == 0, "\(status)")
            try await second.stop()
            #expect(try await HTTPClient(first.console).ask("GET", "/health").status == 200)
            try await first.stop()
        }
    }
}
