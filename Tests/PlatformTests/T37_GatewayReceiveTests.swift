import FastJSON
import Foundation
import RocketMQClient
import TestTools
import Testing

extension PlatformTests {
    /// Messages received by HTTP: handles, their ends, streams, clients that leave.
    @Suite("T37 receiving by HTTP", .serialized)
    struct T37_GatewayReceive {
        private func path(_ topic: String, _ group: String, _ call: String) -> String {
            "/v1/topics/\(topic)/groups/\(group)/\(call)"
        }

        private func handles(_ handles: [String], _ more: String = "") -> String {
            #"{"handles":\#(JSONValue.strings(handles).text())\#(more)}"#
        }

        private func send(_ http: HTTPClient, _ topic: String, _ bodies: [String]) async throws {
            let messages = bodies.map { #"{"body":"\#($0)"}"# }.joined(separator: ",")
            let answer = try await http.ask("POST", "/v1/topics/\(topic)/messages", #"{"messages":[\#(messages)]}"#)
            guard answer.status == 200 else { throw ScenarioFailure("not sent: \(answer)") }
        }

        @Test(
            "receive, ack, nack, extend; what is not settled comes again, what is settled does not",
            .timeLimit(.minutes(1)))
        func settling() async throws {
            let platform = try await Platform.start(consolePort: 0)
            let http = try HTTPClient(platform.console)
            try await send(http, "Jobs", ["a", "b", "c", "d"])
            let receive = path("Jobs", "workers", "receive")
            let first = try await http.ask(
                "POST", receive, #"{"max":32,"waitMilliseconds":5000,"invisibleMilliseconds":1500}"#)
            #expect(
                first.bodies == ["a", "b", "c", "d"] && first.messages.allSatisfy { $0["attempt"] == 1 }, "\(first)")
            #expect(try await http.ask("POST", receive).messages.isEmpty, "they are another's")
            let ids = first.handles
            let ack = try await http.ask("POST", path("Jobs", "workers", "ack"), handles([ids[0]]))
            #expect(ack.status == 200 && ack.json["handles"]?.array?.first?["status"] == "ok", "\(ack)")
            let failed = try await http.ask(
                "POST", path("Jobs", "workers", "nack"), handles([ids[1]], #","delayMilliseconds":100,"reason":"no""#))
            #expect(failed.status == 200, "\(failed)")
            let extended = try await http.ask(
                "POST", path("Jobs", "workers", "extend"), handles([ids[2]], #","invisibleMilliseconds":60000"#))
            let longer = try #require(extended.json["handles"]?.array?.first?["newHandle"]?.string)
            // b comes again after its pause, d after its time; c stays where it is, a is done.
            var again: [String: Int64] = [:]
            try await eventually("b and d come again", within: .seconds(10)) {
                for message in try await http.ask("POST", receive, #"{"max":32,"waitMilliseconds":500}"#).messages {
                    again[message["body"]?.string ?? ""] = message["attempt"]?.integer
                }
                return again.count >= 2
            }
            #expect(again == ["b": 2, "d": 2], "\(again)")
            let late = try await http.ask(
                "POST", path("Jobs", "workers", "extend"), handles([ids[3]], #","invisibleMilliseconds":1000"#))
            #expect(late.json["handles"]?.array?.first?["status"] == "over", "\(late)")
            #expect(try await http.ask("POST", path("Jobs", "workers", "ack"), handles([longer])).status == 200)
            let forged = try await http.ask("POST", path("Jobs", "workers", "ack"), handles(["AAAA"]))
            #expect(forged.status == 400 && forged.json["cause"]?.string?.contains("handles[0]") == true, "\(forged)")
            try await platform.stop()
        }

        @Test(
            "a call that waits gets the message at once; by tag and by SQL92; an expression that is none is refused",
            .timeLimit(.minutes(1)))
        func waiting() async throws {
            let platform = try await Platform.start(consolePort: 0)
            let http = try HTTPClient(platform.console)
            try await send(http, "Late", ["first"])
            let other = try HTTPClient(platform.console)
            for (filter, message) in [
                (#""filter":"x || y""#, #"{"body":"tag","tag":"y"}"#),
                (#""filter":"price > 10","filterType":"SQL92""#, #"{"body":"sql","properties":{"price":"11"}}"#),
            ] {
                other.send("POST", path("Late", "g", "receive"), #"{"waitMilliseconds":20000,\#(filter)}"#)
                try await eventually("it waits") {
                    try await platform.status().workers.contains { $0.status.contains("1 request waiting") }
                }
                let began = ContinuousClock.now
                _ = try await http.ask("POST", "/v1/topics/Late/messages", #"{"body":"no","tag":"z"}"#)
                _ = try await http.ask("POST", "/v1/topics/Late/messages", message)
                let answer = try await other.answer()
                #expect(answer.messages.count == 1 && answer.bodies != ["no"], "\(answer)")
                #expect(began.duration(to: .now) < .seconds(15), "it did not wait for its time")
                _ = try await http.ask("POST", path("Late", "g", "ack"), handles(answer.handles))
            }
            // Looked at when there are messages to select from.
            let wrong = try await http.ask(
                "POST", path("Late", "other", "receive"),
                #"{"filter":"price >","filterType":"SQL92","waitMilliseconds":5000}"#)
            #expect(wrong.status == 400 && wrong.json["rocketmq"]?["code"] != nil, "\(wrong)")
            try await platform.stop()
        }

        @Test("two brokers: both are asked in turn, and whichever has a message wakes a call", .timeLimit(.minutes(1)))
        func severalBrokers() async throws {
            let folder = try TemporaryFolder()
            let tables = ["a", "b"].map {
                "[[broker]]\nbrokerName = \"broker-\($0)\"\nstorePathRootDir = \"store-\($0)\"\n"
            }
            try tables.joined().write(toFile: folder.file("apus.toml"), atomically: false, encoding: .utf8)
            let platform = try await Platform.start(
                in: folder, consolePort: 0, ["--config", folder.file("apus.toml")])
            let http = try HTTPClient(platform.console)
            // Where topics may be made by their first message.
            try await eventually("both brokers are registered") { try await platform.route(of: "TBW102").count == 2 }
            _ = try await http.ask("POST", "/v1/topics/Both/messages", #"{"body":"first"}"#)
            try await eventually("both brokers have the topic") {
                try await platform.route(of: "Both") == ["broker-a", "broker-b"]
            }
            var sent: Set<String> = ["first"]
            var stored: Set<String> = []
            try await eventually("messages lie on both", within: .seconds(40)) {
                let body = "\(sent.count)"
                let answer = try await http.ask("POST", "/v1/topics/Both/messages", #"{"body":"\#(body)"}"#)
                sent.insert(body)
                stored.insert(answer.json["messages"]?.array?.first?["broker"]?.string ?? "")
                return stored.count == 2 && sent.count >= 40
            }
            var got: [JSONValue] = []
            var brokers: [Set<String>] = []
            while got.count < sent.count {
                let answer = try await http.ask(
                    "POST", path("Both", "g", "receive"), #"{"max":4,"waitMilliseconds":5000}"#)
                guard !answer.messages.isEmpty else { break }
                got += answer.messages
                brokers.append(Set(answer.messages.compactMap { $0["broker"]?.string }))
                _ = try await http.ask("POST", path("Both", "g", "ack"), handles(answer.handles))
            }
            #expect(Set(got.compactMap { $0["body"]?.string }) == sent && got.count == sent.count)
            #expect(got.allSatisfy { $0["attempt"] == 1 }, "none was popped in vain")
            #expect(brokers.prefix(4).reduce(Set<String>()) { $0.union($1) }.count == 2, "\(brokers)")
            let waiting = try HTTPClient(platform.console)
            var wokenBy: Set<String> = []
            for round in 0..<12 where wokenBy.count < 2 {
                waiting.send("POST", path("Both", "g", "receive"), #"{"waitMilliseconds":20000}"#)
                try await eventually("it waits") {
                    try await platform.status().workers.contains { $0.status.contains("1 request waiting") }
                }
                _ = try await http.ask("POST", "/v1/topics/Both/messages", #"{"body":"late \#(round)"}"#)
                let answer = try await waiting.answer(within: .seconds(10))
                #expect(answer.bodies == ["late \(round)"], "\(answer)")
                wokenBy.formUnion(answer.messages.compactMap { $0["broker"]?.string })
                _ = try await http.ask("POST", path("Both", "g", "ack"), handles(answer.handles))
            }
            #expect(wokenBy.count == 2)
            try await platform.stop()
        }

        @Test("a client that leaves while it waits keeps no message; another gets it at once", .timeLimit(.minutes(1)))
        func leaving() async throws {
            let platform = try await Platform.start(consolePort: 0)
            let http = try HTTPClient(platform.console)
            try await send(http, "Left", ["a"])
            let taken = try await http.ask("POST", path("Left", "g", "receive"))
            _ = try await http.ask("POST", path("Left", "g", "ack"), handles(taken.handles))
            for round in 0..<5 {
                var leaving: HTTPClient? = try HTTPClient(platform.console)
                leaving?.send("POST", path("Left", "g", "receive"), #"{"waitMilliseconds":30000}"#)
                try await eventually("it waits") {
                    try await platform.status().workers.contains { $0.status.contains("1 request waiting") }
                }
                leaving = nil
                try await send(http, "Left", ["round \(round)"])
                let answer = try await http.ask(
                    "POST", path("Left", "g", "receive"), #"{"max":32,"waitMilliseconds":20000}"#)
                #expect(answer.bodies == ["round \(round)"], "\(answer)")
                _ = try await http.ask("POST", path("Left", "g", "ack"), handles(answer.handles))
            }
            try await platform.stop()
        }

        @Test(
            "events: each message is one, with its handle; a stream's end gives back what it had not sent",
            .timeLimit(.minutes(1)))
        func events() async throws {
            let platform = try await Platform.start(consolePort: 0)
            let http = try HTTPClient(platform.console)
            try await send(http, "Stream", ["one", "line\\nend"])
            let stream = try HTTPClient(platform.console)
            stream.send("GET", path("Stream", "g", "events?invisibleMilliseconds=60000"))
            #expect(try await stream.answer().headers["content-type"] == "text/event-stream")
            var seen: [String] = []
            for _ in 0..<2 {
                let event = try await stream.event()
                #expect(event.name == "message")
                seen.append(event.data["body"]?.string ?? "")
                let handle = try #require(event.data["handle"]?.string)
                #expect(try await http.ask("POST", path("Stream", "g", "ack"), handles([handle])).status == 200)
            }
            #expect(seen == ["one", "line\nend"])
            try await send(http, "Stream", ["later"])
            #expect(try await stream.event().data["body"] == "later")
            let absent = try await http.ask("GET", path("Absent", "g", "events"))
            #expect(absent.status == 404 && absent.json["code"] == "topic-not-found", "\(absent)")
            try await platform.stop()
        }

        @Test(
            "a reader of events that takes nothing is given up, and its messages go to others", .timeLimit(.minutes(2)))
        func slowReader() async throws {
            let platform = try await Platform.start(consolePort: 0)
            let http = try HTTPClient(platform.console)
            let slow = try HTTPClient(platform.console)
            let large = String(repeating: "x", count: 1 << 20)
            for _ in 0..<24 { try await send(http, "Slow", [large]) }
            slow.send("GET", path("Slow", "g", "events?invisibleMilliseconds=600000"))
            // What fits the kernel's buffers is the reader's until its time is over; the rest is not held.
            var got = 0
            try await eventually("others get the rest", within: .seconds(60)) {
                let answer = try await http.ask(
                    "POST", path("Slow", "g", "receive"),
                    #"{"max":4,"waitMilliseconds":1000,"invisibleMilliseconds":600000}"#)
                got += answer.messages.count
                return got >= 12
            }
            let gateway = try #require(platform.pid(of: "gateway"))
            print("T37 gateway with a slow reader: \(Platform.residentBytes(of: gateway) >> 20) MB")
            try await platform.stop()
        }

        @Test(
            "kill -9 of the gateway under load: back on its port, nothing acknowledged comes again, nothing is lost",
            .timeLimit(.minutes(2)))
        func kills() async throws {
            let platform = try await Platform.start(consolePort: 0)
            let (console, topic, group) = (platform.console, "Killed", "g")
            _ = try await HTTPClient(console).ask("POST", "/v1/topics/\(topic)/messages", #"{"body":"0"}"#)
            let receive = path(topic, group, "receive")
            let ack = path(topic, group, "ack")
            let producer = Task { () -> Set<String> in
                var stored: Set<String> = []
                var number = 0
                var http = try? HTTPClient(console)
                while !Task.isCancelled {
                    number += 1
                    let answer = try? await http?.ask("POST", "/v1/topics/\(topic)/messages", #"{"body":"\#(number)"}"#)
                    if answer?.status == 200 { stored.insert("\(number)") } else { http = try? HTTPClient(console) }
                }
                return stored
            }
            let consumer = Task { () -> (acknowledged: [String], unsure: [String]) in
                var (acknowledged, unsure): ([String], [String]) = ([], [])
                var http = try? HTTPClient(console)
                while !Task.isCancelled {
                    let answer = try? await http?.ask(
                        "POST", receive, #"{"max":8,"waitMilliseconds":500,"invisibleMilliseconds":6000}"#)
                    guard let answer, answer.status == 200 else {
                        http = try? HTTPClient(console)
                        continue
                    }
                    if answer.messages.isEmpty { continue }
                    let settled = try? await http?.ask("POST", ack, self.handles(answer.handles))
                    // Without an answer the broker may have it, or not.
                    if settled?.status == 200 { acknowledged += answer.bodies } else { unsure += answer.bodies }
                }
                return (acknowledged, unsure)
            }
            var old = try #require(platform.pid(of: "gateway"))
            for _ in 0..<3 {
                // Load before each kill.
                try await Task.sleep(for: .milliseconds(500))
                let began = ContinuousClock.now
                kill(old, SIGKILL)
                old = try await platform.newPid(of: "gateway", after: old)
                try await eventually("it serves again") {
                    (try? await HTTPClient(console).ask("GET", "/rocketmq/nsaddr").status) == 200
                }
                print("T37 gateway back after \(began.duration(to: .now))")
            }
            try await Task.sleep(for: .milliseconds(500))
            producer.cancel()
            let stored = await producer.value
            consumer.cancel()
            let (acknowledged, unsure) = await consumer.value
            // The rest, whose time is over soon.
            var left: Set<String> = []
            let http = try HTTPClient(console)
            try await eventually("all that was stored is there", within: .seconds(30)) {
                let answer = try await http.ask(
                    "POST", receive, #"{"max":32,"waitMilliseconds":300,"invisibleMilliseconds":60000}"#)
                left.formUnion(answer.bodies)
                return stored.isSubset(of: left.union(acknowledged).union(unsure))
            }
            #expect(Set(acknowledged).count == acknowledged.count, "acknowledged and delivered again")
            #expect(left.isDisjoint(with: acknowledged))
            #expect(stored.count > 100 && acknowledged.count > 20, "\(stored.count), \(acknowledged.count)")
            try await platform.stop()
        }
    }
}
