import Foundation
import RocketMQClient
import Synchronization
import TestTools
import Testing

extension PlatformTests {
    /// One line to publish, one to subscribe: against a real platform, by the public library and the command line.
    @Suite("T35 publish and subscribe", .serialized)
    struct T35_Subscribe {
        private struct Failed: Error {}

        /// What subscribers got, in order, and how many handlers ran at once.
        private final class Ledger: Sendable {
            struct Entry: Sendable {
                let consumer: Int
                let text: String
                let attempt: Int
            }

            private struct State {
                var entries: [Entry] = []
                var running = 0
                var mostRunning = 0
            }

            private let state = Mutex(State())

            func begin(_ consumer: Int, _ message: DeliveredMessage) {
                state.withLock { state in
                    state.entries.append(
                        Entry(consumer: consumer, text: message.text, attempt: message.attempt))
                    state.running += 1
                    state.mostRunning = max(state.mostRunning, state.running)
                }
            }

            func end() { state.withLock { $0.running -= 1 } }

            var entries: [Entry] { state.withLock { $0.entries } }
            var texts: [String] { entries.map(\.text) }
            var mostRunning: Int { state.withLock { $0.mostRunning } }

            func texts(of consumer: Int) -> [String] { entries.filter { $0.consumer == consumer }.map(\.text) }
        }

        /// A topic without a mode, as brokers of RocketMQ have them.
        private func createTopic(_ platform: Platform, _ topic: String, queues: Int) async throws {
            let admin = try AdminClient(ClientSettings(nameServers: platform.nameServer))
            try await eventually("the broker is registered") { try await !admin.masters(.all).isEmpty }
            try await admin.createTopic(topic, queues: queues)
            try await eventually("the topic has its queues") {
                try await admin.route(of: topic).readableQueues.count == queues
            }
            await admin.close()
        }

        private func difference(_ platform: Platform, _ group: String, _ topic: String) async throws -> Int64 {
            let admin = try AdminClient(ClientSettings(nameServers: platform.nameServer))
            let difference = try await admin.progress(of: group, topic: topic).difference
            await admin.close()
            return difference
        }

        private func publish(_ platform: Platform, _ topic: String, _ numbers: ClosedRange<Int>) async throws {
            let publisher = try Publisher(at: platform.nameServer)
            for number in numbers { try await publisher.publish(topic, "\(number)") }
            await publisher.close()
        }

        /// A task that hands messages to the ledger, and each failing text once to the void.
        private func work(
            _ platform: Platform, _ topic: String, _ mode: DeliveryMode?, _ consumer: Int, _ ledger: Ledger,
            failing: Set<String> = [], for time: Duration = .milliseconds(2),
            options: Subscriber.Options = Subscriber.Options()
        ) -> Task<Void, any Error> {
            let servers = platform.nameServer
            return Task {
                try await RocketMQ.subscribe(topic, mode: mode, group: "workers", options: options, at: servers) {
                    message in
                    ledger.begin(consumer, message)
                    defer { ledger.end() }
                    // Time passes while the message is worked on.
                    try await Task.sleep(for: time)
                    guard failing.contains(message.text), message.attempt == 1 else { return }
                    try await message.fail(retryAfter: .milliseconds(200))
                    throw Failed()
                }
            }
        }

        @Test("queue: two consumers share messages, each once; what fails comes again", .timeLimit(.minutes(1)))
        func queue() async throws {
            let platform = try await Platform.start()
            try await createTopic(platform, "Jobs", queues: 4)
            try await publish(platform, "Jobs", 1...100)
            let ledger = Ledger()
            let workers = (1...2).map { work(platform, "Jobs", .queue, $0, ledger, failing: ["7", "70"]) }
            try await publish(platform, "Jobs", 101...200)
            try await eventually("all came") { Set(ledger.texts).count == 200 && ledger.texts.count == 202 }
            try await eventually("all are acknowledged") { try await difference(platform, "workers", "Jobs") == 0 }
            for worker in workers { worker.cancel() }
            for worker in workers { try await worker.value }
            let again = ledger.entries.filter { $0.attempt > 1 }
            #expect(Set(again.map(\.text)) == ["7", "70"] && again.map(\.attempt) == [2, 2])
            #expect(ledger.texts.count == 202)
            #expect(!ledger.texts(of: 1).isEmpty && !ledger.texts(of: 2).isEmpty)
            #expect(ledger.mostRunning > 1)
            try await platform.stop()
        }

        @Test("serial: in order, one at a time, whichever consumer comes, goes or fails", .timeLimit(.minutes(1)))
        func serial() async throws {
            let platform = try await Platform.start()
            try await createTopic(platform, "Steps", queues: 1)
            let ledger = Ledger()
            let first = work(platform, "Steps", .serial, 1, ledger, failing: ["5"])
            let second = work(platform, "Steps", .serial, 2, ledger)
            try await publish(platform, "Steps", 1...40)
            try await eventually("some came") { ledger.texts.count > 20 }
            first.cancel()
            try await first.value
            let left = ledger.texts(of: 1).count
            try await eventually("all came") { Set(ledger.texts).count == 40 }
            second.cancel()
            try await second.value
            #expect(ledger.mostRunning == 1)
            #expect(ledger.texts(of: 1).count == left && ledger.texts(of: 2).last == "40")
            // One that came twice came again before the next.
            var texts = ledger.texts
            for index in texts.indices.dropFirst().reversed() where texts[index] == texts[index - 1] {
                texts.remove(at: index)
            }
            #expect(texts == (1...40).map(String.init), "\(texts)")
            // In order needs one queue.
            try await createTopic(platform, "Wide", queues: 2)
            let wide = RocketMQ.subscribe("Wide", mode: .serial, at: platform.nameServer)
            let error = await #expect(throws: RocketMQClientError.self) { try await wide.start() }
            #expect(error?.description.contains("has 2 queues") == true, "\(String(describing: error))")
            try await platform.stop()
        }

        @Test("topic: each consumer that is online gets each message", .timeLimit(.minutes(1)))
        func topic() async throws {
            let platform = try await Platform.start()
            try await createTopic(platform, "News", queues: 2)
            try await publish(platform, "News", 1...3)
            let subscribers = (1...2).map { _ in RocketMQ.subscribe("News", mode: .topic, at: platform.nameServer) }
            for subscriber in subscribers { #expect(try await subscriber.start() == .topic) }
            try await publish(platform, "News", 4...20)
            for subscriber in subscribers {
                var texts: Set<String> = []
                for try await message in subscriber {
                    #expect(try await message.acknowledge() && message.attempt == 1)
                    texts.insert(message.text)
                    if texts.count == 17 { break }
                }
                #expect(texts == Set((4...20).map(String.init)))
                await subscriber.close()
            }
            try await platform.stop()
        }

        @Test(
            "what is in hand: renewed while it waits, given back by close, lost by its time",
            .timeLimit(.minutes(1)))
        func hands() async throws {
            let platform = try await Platform.start()
            try await createTopic(platform, "Held", queues: 1)
            try await publish(platform, "Held", 1...4)
            var options = Subscriber.Options()
            options.timeout = .seconds(2)
            options.heldMax = 4
            let subscriber = RocketMQ.subscribe("Held", group: "hands", options: options, at: platform.nameServer)
            var count = 0
            for try await message in subscriber {
                // What waits here meanwhile is renewed.
                try await Task.sleep(for: .milliseconds(800))
                #expect(message.attempt == 1)
                #expect(try await message.acknowledge())
                #expect(try await !message.acknowledge())
                count += 1
                if count == 4 { break }
            }
            try await eventually("all are acknowledged") { try await difference(platform, "hands", "Held") == 0 }

            try await publish(platform, "Held", 5...7)
            var late: DeliveredMessage?
            for try await message in subscriber {
                late = message
                break
            }
            let one = try #require(late)
            #expect(try await one.renew(for: .seconds(20)))
            await subscriber.close()
            // The first had nearly 20 s left, the others their 2 s.
            let others = RocketMQ.subscribe("Held", group: "hands", options: options, at: platform.nameServer)
            let began = ContinuousClock.now
            var texts: Set<String> = []
            for try await message in others {
                texts.insert(message.text)
                try await message.acknowledge()
                if texts.count == 3 { break }
            }
            #expect(texts == ["5", "6", "7"] && began.duration(to: .now) < .seconds(10))
            #expect(try await !one.acknowledge())

            try await publish(platform, "Held", 8...8)
            var attempts: [Int] = []
            for try await message in others {
                attempts.append(message.attempt)
                if attempts.count == 2 {
                    #expect(try await message.acknowledge())
                    break
                }
                // Its time passes.
                try await Task.sleep(for: .milliseconds(2300))
                #expect(try await !message.acknowledge())
            }
            #expect(attempts == [1, 2])
            await others.close()
            try await platform.stop()
        }

        @Test("a broker that is killed costs no message, and no subscriber", .timeLimit(.minutes(1)))
        func kill() async throws {
            let platform = try await Platform.start()
            try await createTopic(platform, "Kept", queues: 4)
            let ledger = Ledger()
            var options = Subscriber.Options()
            options.timeout = .seconds(3)
            let workers = (1...2).map { work(platform, "Kept", .queue, $0, ledger, options: options) }
            try await publish(platform, "Kept", 1...50)
            let old = try #require(platform.pid(of: "broker-store"))
            Glibc.kill(old, SIGKILL)
            _ = try await platform.newPid(of: "broker-store", after: old)
            try await publish(platform, "Kept", 51...100)
            try await eventually("all came", within: .seconds(30)) { Set(ledger.texts).count == 100 }
            try await eventually("all are acknowledged", within: .seconds(30)) {
                try await difference(platform, "workers", "Kept") == 0
            }
            for worker in workers { worker.cancel() }
            for worker in workers { try await worker.value }
            try await platform.stop()
        }

        @Test("shards keep to a queue; a delayed message comes when it is due", .timeLimit(.minutes(1)))
        func shards() async throws {
            let platform = try await Platform.start()
            try await createTopic(platform, "Carts", queues: 4)
            let publisher = try Publisher(at: platform.nameServer)
            var queues: [String: Set<MessageQueue>] = [:]
            for number in 1...20 {
                for shard in ["ann", "bob", "cid"] {
                    let sent = try await publisher.publish("Carts", "\(number)", key: "k\(number)", shard: shard)
                    queues[shard, default: []].insert(sent.queue)
                }
            }
            #expect(queues.values.allSatisfy { $0.count == 1 } && queues.count == 3)
            let began = ContinuousClock.now
            try await publisher.publish("Carts", "late", delay: .milliseconds(700))
            let subscriber = RocketMQ.subscribe("Carts", at: platform.nameServer)
            var count = 0
            for try await message in subscriber {
                count += 1
                if message.text == "late" {
                    #expect(began.duration(to: .now) >= .milliseconds(700))
                    #expect(message.properties["__SHARDINGKEY"] == nil)
                } else {
                    #expect(queues[message.properties["__SHARDINGKEY"] ?? ""]?.contains(message.queue) == true)
                }
                try await message.acknowledge()
                if count == 61 { break }
            }
            await subscriber.close()
            await publisher.close()
            try await platform.stop()
        }

        @Test("apus consume --mode: acknowledged when written, given back by Ctrl-C", .timeLimit(.minutes(1)))
        func commandLine() async throws {
            let platform = try await Platform.start()
            try await createTopic(platform, "Lines", queues: 1)
            func send(_ lines: ClosedRange<Int>, _ more: [String] = []) async throws {
                let file = platform.folder.file("lines")
                try lines.map { "\($0)\n" }.joined().write(toFile: file, atomically: true, encoding: .utf8)
                // Lines of a shard keep their order by themselves.
                let options = more.isEmpty ? ["--in-flight", "1"] : more
                let sent = try await platform.apus(["send", "--topic", "Lines"] + options + [file])
                #expect(sent.status == 0, "\(sent)")
            }
            try await send(1...30, ["--shard", "s"])
            let some = try await platform.apus([
                "consume", "--topic", "Lines", "--mode", "queue", "--group", "cli", "--count", "10", "--hold", "1h",
            ])
            #expect(some.status == 0 && some.lines == (1...10).map(String.init), "\(some)")
            // What the first held is free, though its time is an hour.
            let rest = try await platform.apus([
                "consume", "--topic", "Lines", "--mode", "queue", "--group", "cli", "--timeout", "2",
            ])
            #expect(rest.lines.count == 20 && Set(rest.lines) == Set((11...30).map(String.init)), "\(rest)")
            try await eventually("all are acknowledged") { try await difference(platform, "cli", "Lines") == 0 }

            // Serial consumers, of which one is killed: the other goes on in order when its message's time is over.
            let words = [
                "consume", "--topic", "Lines", "--mode", "serial", "--group", "steps", "--hold", "1s", "-n",
                platform.nameServer,
            ]
            let first = try Program(Binaries.apus, words)
            try await eventually("the first consumes") { first.lines.count == 30 }
            first.send(signal: SIGKILL)
            try await send(31...60)
            let second = try Program(Binaries.apus, words)
            try await eventually("the second goes on") { second.lines.last == "60" }
            #expect(first.lines == (1...30).map(String.init))
            let begins = Int(second.lines.first ?? "") ?? 0
            // The last one may have been written and not acknowledged.
            #expect(30...31 ~= begins && second.lines == (begins...60).map(String.init), "\(second.lines)")
            second.send(signal: SIGINT)
            #expect(try await second.finish() == 130)

            // A broker that is deaf holds up no end.
            let last = try Program(
                Binaries.apus,
                [
                    "consume", "--topic", "Lines", "--mode", "queue", "--group", "ends", "--hold", "1h", "-n",
                    platform.nameServer,
                ])
            try await eventually("it consumes") { last.lines.count == 60 }
            let broker = try #require(platform.pid(of: "broker-store"))
            Glibc.kill(broker, SIGSTOP)
            last.send(signal: SIGINT)
            #expect(try await last.finish() == 130)
            Glibc.kill(broker, SIGCONT)

            let wrong = try await platform.apus([
                "consume", "--topic", "Lines", "--mode", "topic", "--broadcast",
            ])
            #expect(wrong.status == 64 && wrong.errorText.contains("--mode topic is a broadcast"), "\(wrong)")
            let held = try await platform.apus(["consume", "--topic", "Lines", "--hold", "5s"])
            #expect(
                held.status == 1 && held.errorText.contains("has no mode, and its consumers hold no message back"),
                "\(held)")
            let unread = try await platform.apus([
                "consume", "--topic", "Lines", "--mode", "queue", "--expression", "SQL92", "a >",
            ])
            #expect(unread.status == 1 && unread.errorText.contains("of topic 'Lines' does not take part"), "\(unread)")
            let absent = try await platform.apus(["consume", "--topic", "NoLines", "--mode", "queue"])
            #expect(absent.status == 1 && absent.errorText.contains("does not exist"), "\(absent)")
            try await platform.stop()
        }

        @Test("a topic has a mode: made so, consumed so, and nothing else", .timeLimit(.minutes(1)))
        func modes() async throws {
            let platform = try await Platform.start()
            let settings = ClientSettings(nameServers: platform.nameServer)
            let admin = try AdminClient(settings)
            try await eventually("the broker is registered") { try await !admin.masters(.all).isEmpty }
            var policy = DeliveryPolicy()
            policy.timeout = .seconds(7)
            policy.owner = "Ann"
            try await admin.createTopic("Own", mode: .serial, policy: policy)
            policy.mode = .serial
            #expect(try await admin.policy(of: "Own") == policy)
            #expect(try await admin.route(of: "Own").readableQueues.count == 1)
            #expect(try await admin.policy(of: "Nowhere") == nil)
            await #expect(throws: RocketMQClientError.self) {
                try await admin.createTopic("Own", mode: .serial, queues: 2)
            }
            let wrong = RocketMQ.subscribe("Own", mode: .topic, at: platform.nameServer)
            let error = await #expect(throws: RocketMQClientError.self) { try await wrong.start() }
            #expect(error?.description.contains("has the mode SERIAL_QUEUE, not TOPIC") == true)

            // One of two is active, and the other when that has gone.
            let ledger = Ledger()
            let first = work(platform, "Own", nil, 1, ledger)
            try await publish(platform, "Own", 1...1)
            try await eventually("the first is active") { ledger.texts == ["1"] }
            let second = work(platform, "Own", nil, 2, ledger)
            try await publish(platform, "Own", 2...50)
            try await eventually("all came") { ledger.texts.count == 50 }
            #expect(ledger.texts(of: 2).isEmpty && ledger.mostRunning == 1)
            // A handler that still runs would give its message back.
            try await eventually("all are acknowledged") { try await difference(platform, "workers", "Own") == 0 }
            first.cancel()
            try await first.value
            try await publish(platform, "Own", 51...60)
            try await eventually("the other has taken over") { ledger.texts.count == 60 }
            #expect(
                ledger.texts == (1...60).map(String.init) && ledger.texts(of: 2).count == 10,
                "\(ledger.entries.suffix(15))")
            second.cancel()
            try await second.value

            // What fails comes again by the topic's strategy, and is a dead letter then, with its reason.
            var retries = DeliveryPolicy(mode: .queue)
            retries.retryCount = 1
            retries.retryInterval = .seconds(1)
            try await admin.createTopic("Retried", policy: retries, queues: 1)
            try await publish(platform, "Retried", 1...1)
            let failing = RocketMQ.subscribe("Retried", group: "g", at: platform.nameServer)
            var times: [ContinuousClock.Instant] = []
            for try await message in failing {
                times.append(.now)
                #expect(message.attempt == times.count)
                #expect(try await message.fail(reason: "no stock"))
                if times.count == 2 { break }
            }
            #expect(times[0].duration(to: times[1]) >= .milliseconds(990))
            let dead = MessageQueue(topic: "%DLQ%g", brokerName: "broker-a", queueID: 0)
            try await eventually("there is a dead letter") {
                guard let letter = try? await admin.message(at: 0, of: dead) else { return false }
                return letter.text == "1" && letter.properties.values.contains { $0.contains("no stock") }
            }
            await failing.close()

            // The broker chooses the queue of a shard, whatever the client has named, and the result says which.
            var sharded = DeliveryPolicy(mode: .queue)
            sharded.isSharded = true
            try await admin.createTopic("Sharded", policy: sharded, queues: 4)
            let producer = try Producer(settings, group: "p")
            var places: Set<Int> = []
            for queue in 0..<4 {
                var message = Message(topic: "Sharded", text: "to \(queue)")
                message.shardKey = "ann"
                let sent = try await producer.send(message, selector: .queueID(queue))
                places.insert(sent.queue.queueID)
                #expect(try await admin.message(at: sent.queueOffset, of: sent.queue)?.text == "to \(queue)")
            }
            #expect(places.count == 1)
            await producer.close()

            // In a sharded topic the messages of one shard are handled one after the other, by several handlers.
            try await admin.createTopic("Shards", policy: sharded, queues: 4)
            let publisher = try Publisher(at: platform.nameServer)
            for number in 1...10 {
                for shard in ["ann", "bob"] {
                    try await publisher.publish("Shards", "\(shard)\(number)", shard: shard)
                }
            }
            await publisher.close()
            let shards = Ledger()
            let worker = work(platform, "Shards", nil, 1, shards, for: .milliseconds(20))
            try await eventually("all shards came") { shards.texts.count == 20 }
            worker.cancel()
            try await worker.value
            for shard in ["ann", "bob"] {
                #expect(shards.texts.filter { $0.hasPrefix(shard) } == (1...10).map { "\(shard)\($0)" })
            }

            // The command line makes topics with modes, takes the topic's, and refuses others.
            let file = platform.folder.file("line")
            try "hello\n".write(toFile: file, atomically: true, encoding: .utf8)
            for _ in 1...2 {
                let sent = try await platform.apus(["send", "--topic", "Made", "--mode", "queue", file])
                #expect(sent.status == 0, "\(sent)")
            }
            #expect(try await admin.policy(of: "Made")?.mode == .queue)
            let other = try await platform.apus(["send", "--topic", "Made", "--mode", "serial", file])
            #expect(other.status == 1 && other.errorText.contains("has the mode queue"), "\(other)")
            let taken = try await platform.apus(["consume", "--topic", "Made", "--group", "cli", "--count", "2"])
            #expect(taken.status == 0 && taken.lines == ["hello", "hello"], "\(taken)")
            await admin.close()
            try await platform.stop()
        }
    }
}
