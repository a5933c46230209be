import RocketMQClient
import Synchronization
import TestTools
import Testing

extension PlatformTests {
    /// RocketMQClient, the public library, as a Swift program uses it: against a real platform, by its public API only.
    @Suite("T28 the Swift client", .serialized)
    struct T28_SwiftClient {
        /// What a handler got, in order.
        private final class Received: Sendable {
            private let messages = Mutex<[ReceivedMessage]>([])

            func add(_ new: [ReceivedMessage]) { messages.withLock { $0 += new } }

            var all: [ReceivedMessage] { messages.withLock { $0 } }
            var texts: [String] { all.map(\.text) }

            /// Waits until so many have come.
            func wait(for count: Int, within: Duration = .seconds(30)) async throws {
                do {
                    try await eventually(within: within) { all.count >= count }
                } catch {
                    throw ScenarioFailure("\(all.count) of \(count) messages came: \(texts)")
                }
            }
        }

        private func consumer(
            _ platform: Platform, group: String, _ subscriptions: [Subscription],
            _ options: PushConsumer.Options = PushConsumer.Options(), handler: @escaping PushConsumer.Handler
        ) async throws -> PushConsumer {
            let consumer = try PushConsumer(
                ClientSettings(nameServers: platform.nameServer), group: group, subscriptions: subscriptions,
                options: options, handler: handler)
            try await consumer.start()
            return consumer
        }

        private func createTopic(_ platform: Platform, _ topic: String, queues: Int = 4) async throws {
            let admin = try AdminClient(ClientSettings(nameServers: platform.nameServer))
            var masters: [String] = []
            try await eventually("the broker is registered") {
                masters = try await admin.masters(.all)
                return !masters.isEmpty
            }
            for master in masters {
                try await admin.create(
                    TopicSettings(topic: topic, readQueues: queues, writeQueues: queues), at: master)
            }
            try await eventually("the topic has its queues") {
                guard let route = try? await admin.route(of: topic) else { return false }
                return route.readableQueues.count == queues * masters.count
            }
            await admin.close()
        }

        @Test("one message, a batch, one without an answer, by tag and by SQL92, delayed", .timeLimit(.minutes(2)))
        func kinds() async throws {
            let platform = try await Platform.start()
            try await createTopic(platform, "Kinds")
            let settings = ClientSettings(nameServers: platform.nameServer)
            let producer = try Producer(settings, group: "kinds-producer")
            let (all, red, cheap) = (Received(), Received(), Received())
            func collect(_ received: Received) -> PushConsumer.Handler {
                { messages in
                    received.add(messages)
                    return .success
                }
            }
            let consumers = [
                try await consumer(platform, group: "all", [Subscription(topic: "Kinds")], handler: collect(all)),
                try await consumer(
                    platform, group: "red", [Subscription(topic: "Kinds", tags: "red || crimson")],
                    handler: collect(red)),
                try await consumer(
                    platform, group: "cheap", [Subscription(topic: "Kinds", sql92: "price < 10")],
                    handler: collect(cheap)),
            ]

            let result = try await producer.send(
                Message(
                    topic: "Kinds", body: Array("one".utf8), tag: "red", keys: ["k1"], properties: ["price": "5"]))
            #expect(result.status == .ok && result.queue.topic == "Kinds" && result.queueOffset == 0)
            let batch = try await producer.send(
                (1...3).map { Message(topic: "Kinds", text: "batch \($0)", tag: "blue") })
            #expect(Set(batch.map(\.messageID)).count == 3 && Set(batch.map(\.queue)).count == 1)
            #expect(batch.map(\.queueOffset) == (0..<3).map { batch[0].queueOffset + $0 })
            try await producer.sendOneway(Message(topic: "Kinds", text: "oneway", tag: "crimson"))
            let began = ContinuousClock.now
            try await producer.send(
                Message(topic: "Kinds", body: Array("late".utf8), delivery: .after(.milliseconds(1500))))
            try await producer.send(Message(topic: "Kinds", body: Array("level".utf8), delivery: .delayLevel(1)))
            try await all.wait(for: 7)
            #expect(began.duration(to: .now) >= .milliseconds(1500))
            #expect(
                Set(all.texts) == ["one", "batch 1", "batch 2", "batch 3", "oneway", "late", "level"])
            try await red.wait(for: 2)
            try await cheap.wait(for: 1)
            #expect(Set(red.texts) == ["one", "oneway"] && cheap.texts == ["one"])
            let one = try #require(all.all.first { $0.text == "one" })
            #expect(one.messageID == result.messageID && one.offsetMessageID == result.offsetMessageID)
            #expect(one.keys == "k1" && one.tag == "red" && one.properties["price"] == "5")

            // A queue that cannot be written is waited for as long as the caller wants.
            var impatient = Producer.Options()
            impatient.sendTimeout = .milliseconds(100)
            let other = try Producer(settings, group: "kinds-producer", options: impatient)
            let elsewhere = MessageQueue(topic: "Kinds", brokerName: "elsewhere", queueID: 0)
            let error = await #expect(throws: RocketMQClientError.self) {
                try await other.send(Message(topic: "Kinds", text: "x"), selector: .queue(elsewhere))
            }
            if case .sendAbandoned(let failure) = error {
                #expect("\(failure.last)" == "topic 'Kinds' has no writable queue elsewhere/0")
                #expect(!failure.allUnavailable && failure.attempts >= 1)
            } else {
                Issue.record("not abandoned: \(String(describing: error))")
            }
            await other.close()
            for consumer in consumers { await consumer.close() }
            await producer.close()
            await #expect(throws: RocketMQClientError.self) {
                try await producer.send(Message(topic: "Kinds", text: "x"))
            }
            try await platform.stop()
        }

        @Test("what fails comes again, then lies in the dead letter queue; nothing is lost", .timeLimit(.minutes(2)))
        func retries() async throws {
            let platform = try await Platform.start(["--set", "messageDelayLevel=1s 1s 1s 1s 1s 1s"])
            try await createTopic(platform, "Orders")
            let settings = ClientSettings(nameServers: platform.nameServer)
            let received = Received()
            var options = PushConsumer.Options()
            options.reconsumeTimesMax = 2
            let consumer = try await consumer(platform, group: "g", [Subscription(topic: "Orders")], options) {
                messages in
                received.add(messages)
                return messages.contains { $0.text == "bad" } ? .retry() : .success
            }
            let producer = try Producer(settings, group: "p")
            try await producer.send(Message(topic: "Orders", text: "bad"))
            try await producer.send(Message(topic: "Orders", text: "good"))
            // The first time, and two more.
            try await received.wait(for: 4)
            let bad = received.all.filter { $0.text == "bad" }
            #expect(bad.map(\.reconsumeTimes) == [0, 1, 2] && bad.allSatisfy { $0.topic == "Orders" })
            let admin = try AdminClient(settings)
            let dead = "%DLQ%g"
            try await eventually("the message lies in the dead letter queue") {
                guard let route = try? await admin.route(of: dead), let queue = route.readableQueues.first else {
                    return false
                }
                return try await admin.message(at: 0, of: queue)?.text == "bad"
            }
            await consumer.close()
            // Everything was committed: the next member of the group begins behind it.
            let progress = try await admin.progress(of: "g", topic: "Orders")
            #expect(progress.difference == 0)
            await producer.close()
            await admin.close()
            try await platform.stop()
        }

        @Test("messages of a key come in order to ordered consumers, also while members join", .timeLimit(.minutes(2)))
        func ordered() async throws {
            let platform = try await Platform.start()
            try await createTopic(platform, "Steps", queues: 4)
            let producer = try Producer(ClientSettings(nameServers: platform.nameServer), group: "p")
            let received = Received()
            let failedOnce = Mutex(false)
            var options = PushConsumer.Options()
            options.order = .ordered
            options.orderedRetryPause = .milliseconds(50)
            options.rebalanceInterval = .seconds(1)
            let handler: PushConsumer.Handler = { messages in
                // A failure holds the queue back; what lies behind it does not overtake.
                let isFirstTime = failedOnce.withLock { known in
                    defer { known = known || messages.contains { $0.text == "a 3" } }
                    return !known
                }
                if isFirstTime, messages.contains(where: { $0.text == "a 3" }) { return .retry() }
                received.add(messages)
                return .success
            }
            let first = try await consumer(
                platform, group: "steps", [Subscription(topic: "Steps")], options, handler: handler)
            for step in 1...20 {
                for key in ["a", "b", "c"] {
                    try await producer.send(
                        Message(topic: "Steps", text: "\(key) \(step)"), selector: .orderingKey(key))
                }
            }
            try await received.wait(for: 60)
            let second = try await consumer(
                platform, group: "steps", [Subscription(topic: "Steps")], options, handler: handler)
            for step in 21...40 {
                for key in ["a", "b", "c"] {
                    try await producer.send(
                        Message(topic: "Steps", text: "\(key) \(step)"), selector: .orderingKey(key))
                }
            }
            try await received.wait(for: 120)
            for key in ["a", "b", "c"] {
                let steps = received.texts.filter { $0.hasPrefix(key) }
                #expect(steps == (1...40).map { "\(key) \($0)" }, "\(steps)")
            }
            #expect(failedOnce.withLock { $0 })
            await first.close()
            await second.close()
            await producer.close()
            try await platform.stop()
        }

        @Test("transactions: committed, rolled back, and unknown until the broker asks", .timeLimit(.minutes(2)))
        func transactions() async throws {
            let platform = try await Platform.start([
                "--set", "transactionCheckInterval=500", "--set", "transactionTimeOut=500",
            ])
            try await createTopic(platform, "Payments")
            let asked = Received()
            let producer = try Producer(ClientSettings(nameServers: platform.nameServer), group: "payments") {
                message in
                asked.add([message])
                return .commit
            }
            let received = Received()
            let consumer = try await consumer(platform, group: "g", [Subscription(topic: "Payments")]) { messages in
                received.add(messages)
                return .success
            }
            func send(_ text: String, _ state: TransactionState) async throws {
                let sent = try await producer.sendInTransaction(Message(topic: "Payments", text: text)) { _ in state }
                #expect(sent.state == state && sent.result.status == .ok)
            }
            try await send("committed", .commit)
            try await send("rolled back", .rollback)
            try await send("asked for", .unknown)
            try await received.wait(for: 2)
            #expect(Set(received.texts) == ["committed", "asked for"])
            #expect(Set(asked.texts) == ["asked for"])
            let admin = try AdminClient(ClientSettings(nameServers: platform.nameServer))
            #expect(try await admin.producers(of: "payments", topic: "Payments").map(\.clientID) == [producer.clientID])
            await admin.close()
            await consumer.close()
            await producer.close()
            try await platform.stop()
        }

        @Test("members of a group share the queues; every broadcasting member gets all", .timeLimit(.minutes(2)))
        func models() async throws {
            let platform = try await Platform.start()
            try await createTopic(platform, "News", queues: 4)
            let producer = try Producer(ClientSettings(nameServers: platform.nameServer), group: "p")
            let shares = Mutex<[Int: [MessageQueue]]>([:])
            let received = Received()
            var members: [PushConsumer] = []
            for number in 0..<2 {
                let member = try PushConsumer(
                    ClientSettings(nameServers: platform.nameServer), group: "share",
                    subscriptions: [Subscription(topic: "News")],
                    onEvent: { event in
                        guard case .assigned(let queues) = event else { return }
                        shares.withLock { $0[number] = queues.filter { $0.topic == "News" } }
                    },
                    handler: { messages in
                        received.add(messages)
                        return .success
                    })
                try await member.start()
                members.append(member)
            }
            try await eventually("two queues each") { shares.withLock { $0[0]?.count == 2 && $0[1]?.count == 2 } }
            #expect(shares.withLock { Set($0[0] ?? []).isDisjoint(with: $0[1] ?? []) })

            let each = [Received(), Received()]
            var options = PushConsumer.Options()
            options.model = .broadcasting
            options.broadcastOffsetsFile = platform.folder.file("offsets.json")
            var broadcast: [PushConsumer] = []
            for (number, one) in each.enumerated() {
                var options = options
                if number == 1 { options.broadcastOffsetsFile = nil }
                broadcast.append(
                    try await consumer(platform, group: "all", [Subscription(topic: "News")], options) { messages in
                        one.add(messages)
                        return .success
                    })
            }
            for number in 1...8 { try await producer.send(Message(topic: "News", text: "\(number)")) }
            for one in each + [received] { try await one.wait(for: 8) }
            let wanted = Set((1...8).map { "\($0)" })
            #expect(each.allSatisfy { Set($0.texts) == wanted } && Set(received.texts) == wanted)
            #expect(received.all.count == 8, "one member of the group got each message")
            for consumer in members + broadcast { await consumer.close() }

            // The one with a file goes on where it stopped.
            let again = Received()
            let next = try await consumer(platform, group: "all", [Subscription(topic: "News")], options) { messages in
                again.add(messages)
                return .success
            }
            try await producer.send(Message(topic: "News", text: "9"))
            try await again.wait(for: 1)
            #expect(again.texts == ["9"])
            await next.close()
            await producer.close()
            try await platform.stop()
        }

        @Test("a simple consumer reads, seeks and commits; an operator asks and sets back", .timeLimit(.minutes(2)))
        func simpleAndAdmin() async throws {
            let platform = try await Platform.start()
            let settings = ClientSettings(nameServers: platform.nameServer)
            try await createTopic(platform, "Pages", queues: 2)
            let producer = try Producer(settings, group: "p")
            var sent: [SendResult] = []
            for number in 1...6 {
                sent.append(
                    try await producer.send(
                        Message(
                            topic: "Pages", text: "\(number)", tag: number % 2 == 0 ? "even" : "odd",
                            keys: ["k\(number)"]),
                        selector: .queueID(0)))
            }
            let reader = try SimpleConsumer(settings, group: "reader")
            let queues = try await reader.queues(of: "Pages")
            #expect(queues.count == 2)
            try await reader.assign(queues)
            var texts: [String] = []
            while texts.count < 6 { texts += try await reader.receive(messagesMax: 4).map(\.text) }
            #expect(texts == (1...6).map(String.init))
            #expect(try await reader.receive(wait: .milliseconds(50)).isEmpty)
            try await reader.commit()
            #expect(try await reader.committedOffset(of: queues[0]) == 6)
            try await reader.seek(queues[0], to: 4)
            #expect(try await reader.receive().map(\.text) == ["5", "6"])
            try await reader.seek(queues[0], to: .last)
            #expect(await reader.position(of: queues[0]) == 6)
            let even = try await reader.pull(queues[0], offset: 0, filter: Subscription(topic: "Pages", tags: "even"))
            #expect(even.messages.map(\.text) == ["2", "4", "6"])
            #expect(try await reader.pull(queues[0], offset: 6).status == .noNewMessage)

            let admin = try AdminClient(settings)
            #expect(try await admin.topics().contains("Pages"))
            #expect(try await admin.clusters().clusters["DefaultCluster"]?.first?.master == platform.broker)
            let status = try await admin.queueStatus(of: "Pages")
            #expect(status.map(\.maxOffset) == [6, 0] && status[0].queue == queues[0])
            #expect(try await admin.progress(of: "reader", topic: "Pages").difference == 0)
            let reset = try await admin.resetOffsets(of: "reader", topic: "Pages", to: 0)
            #expect(!reset.isOnline && reset.rows.contains { $0.queue == queues[0] && $0.rollbackOffset == 0 })
            #expect(try await admin.progress(of: "reader", topic: "Pages").difference == 6)
            #expect(try await admin.messages(in: "Pages", key: "k3").map(\.text) == ["3"])
            #expect(try await admin.message(id: sent[1].offsetMessageID).text == "2")
            #expect(try await admin.messages(in: "Pages", uniqueID: sent[2].messageID).map(\.text) == ["3"])
            #expect(try await admin.message(at: 5, of: queues[0])?.text == "6")

            // A consumer that is online goes on at once where an operator sets it.
            let received = Received()
            let consumer = try await consumer(platform, group: "online", [Subscription(topic: "Pages")]) { messages in
                received.add(messages)
                return .success
            }
            try await received.wait(for: 6)
            try await eventually("the offsets are committed") {
                try await admin.progress(of: "online", topic: "Pages").difference == 0
            }
            let online = try await admin.resetOffsets(of: "online", topic: "Pages", to: 0)
            #expect(online.isOnline && online.notified.contains { $0.queue == queues[0] && $0.offset == 0 })
            try await received.wait(for: 12)
            let report = try await admin.report(of: consumer.clientID, group: "online")
            #expect(report.subscriptions.map(\.topic).contains("Pages") && report.queues.contains(queues[0]))
            await consumer.close()

            // Refusals are values with RocketMQ's codes.
            await #expect(throws: RocketMQClientError.self) { try await admin.route(of: "NoSuchTopic") }
            do {
                _ = try await admin.route(of: "NoSuchTopic")
            } catch {
                #expect(error.responseCode == 17)
            }
            try await admin.deleteTopic("Pages", fromCluster: "DefaultCluster")
            try await admin.unregisterTopic("Pages", ofCluster: "DefaultCluster")
            #expect(try await !admin.topics().contains("Pages"))
            await admin.close()
            await reader.close()
            await producer.close()
            try await platform.stop()
        }

        @Test("the example on the library's page sends and consumes", .timeLimit(.minutes(1)))
        func example() async throws {
            let platform = try await Platform.start()
            let outcome = try await Program.run(
                Binaries.ofTests + "/SwiftClientExample", [platform.nameServer], within: .seconds(30))
            #expect(outcome.status == 0 && outcome.lines == ["hello"], "\(outcome)")
            try await platform.stop()
        }

        @Test("a broker that is restarted costs neither messages nor the client", .timeLimit(.minutes(2)))
        func restart() async throws {
            let platform = try await Platform.start()
            try await createTopic(platform, "Long")
            let settings = ClientSettings(nameServers: platform.nameServer)
            let producer = try Producer(settings, group: "p")
            let received = Received()
            let consumer = try await consumer(platform, group: "g", [Subscription(topic: "Long")]) { messages in
                received.add(messages)
                return .success
            }
            for number in 1...20 { try await producer.send(Message(topic: "Long", text: "\(number)")) }
            let restarted = try await Program.run(
                Binaries.apus, ["restart", "broker-store", "--data-dir", platform.data], within: .seconds(30))
            #expect(restarted.status == 0, "\(restarted)")
            for number in 21...40 { try await producer.send(Message(topic: "Long", text: "\(number)")) }
            let wanted = Set((1...40).map { "\($0)" })
            try await eventually("all messages came") { wanted.isSubset(of: received.texts) }
            await consumer.close()
            await producer.close()
            try await platform.stop()
        }
    }
}
