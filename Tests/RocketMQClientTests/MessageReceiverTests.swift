import RemotingProtocol
import TestTools
import Testing

@testable import RocketMQClient

@Suite("RocketMQClient: messages received call by call")
struct MessageReceiverTests {
    private func request(_ most: Int = 1, wait: Duration = .zero) -> ReceiveRequest {
        var request = ReceiveRequest(topic: "T", group: "g")
        request.messagesMax = most
        request.wait = wait
        return request
    }

    @Test("a handle's text is read again, and other texts are not")
    func handles() throws {
        let pop = PopHandle(
            startOffset: 7, popTime: 1000, invisibleTime: 60_000, reviveQueue: 3, kind: .retryV1, brokerName: "bröker",
            queueID: 2, queueOffset: 9)
        let handle = DeliveryHandle(topic: "T", group: "g", attempt: 4, pop: pop)
        #expect(handle.text.allSatisfy { $0.isLetter || $0.isNumber || $0 == "-" || $0 == "_" })
        #expect(DeliveryHandle(handle.text, topic: "T", group: "g") == handle)
        let texts = [
            "", "!", "AAAA", handle.text + "=x", String(handle.text.dropLast(8)), String(repeating: "A", count: 2000),
        ]
        for text in texts { #expect(DeliveryHandle(text, topic: "T", group: "g") == nil, "\(text)") }
    }

    @Test("what there is comes at once, up to what was asked for; each delivery has a handle of its own")
    func receiving() async throws {
        let serving = try await ServingDouble(.init(messages: (0..<5).map { "\($0)" }))
        let receiver = try MessageReceiver(serving.settings)
        let some = try await receiver.receive(request(3, wait: .seconds(5)))
        #expect(some.map(\.message.text) == ["0", "1", "2"] && some.map(\.attempt) == [1, 1, 1])
        #expect(Set(some.map(\.handle.text)).count == 3)
        #expect(serving.seen.heartbeats == 1 && serving.seen.pops.first?["maxMsgNums"] == "3")
        #expect(try await receiver.receive(request(32)).map(\.message.text) == ["3", "4"])
        #expect(try await receiver.receive(request()).isEmpty)
        try await receiver.acknowledge(some[1].handle)
        #expect(serving.seen.acknowledged == [1])
        let renewed = try #require(try await receiver.renew(some[0].handle, for: .seconds(9)))
        #expect(renewed.text != some[0].handle.text && renewed.pop.popTime == 2000)
        await receiver.giveBack([some[2].handle])
        #expect(serving.seen.changes.map(\.time).sorted() == [0, 9000])
        #expect(serving.seen.heartbeats == 1)
        await receiver.close()
        try await serving.close()
    }

    @Test("calls that wait for the same share a request, and each gets its own message")
    func sharing() async throws {
        let serving = try await ServingDouble(.init())
        let receiver = try MessageReceiver(serving.settings)
        let waiting = request(wait: .seconds(20))
        let texts = try await withThrowingTaskGroup(of: [String].self) { tasks in
            for _ in 0..<50 { tasks.addTask { try await receiver.receive(waiting).map(\.message.text) } }
            try await eventually("they wait") { serving.seen.pops.count >= 2 }
            serving.change { $0.messages = (0..<50).map { "\($0)" } }
            return try await tasks.reduce(into: []) { $0 += $1 }
        }
        #expect(Set(texts).count == 50 && texts.count == 50)
        // One look and one request that waits, then some of up to 32 messages: far fewer than calls.
        #expect(serving.seen.pops.count < 20, "\(serving.seen.pops.count)")
        await receiver.close()
        try await serving.close()
    }

    @Test("a call that ends early leaves nothing behind: what comes for it is given back")
    func cancelling() async throws {
        let serving = try await ServingDouble(.init())
        let receiver = try MessageReceiver(serving.settings)
        let waiting = request(wait: .seconds(20))
        let task = Task { try await receiver.receive(waiting) }
        try await eventually("it waits") { serving.seen.pops.count >= 2 }
        task.cancel()
        #expect(try await task.value.isEmpty)
        serving.change { $0.messages = ["late"] }
        try await eventually("it is given back") { serving.seen.changes == [.init(offset: 0, time: 0)] }
        // Stopped ones return as well.
        let other = Task { try await receiver.receive(waiting) }
        await receiver.stop()
        #expect(try await other.value.isEmpty)
        #expect(try await receiver.receive(waiting).isEmpty)
        await receiver.close()
        try await serving.close()
    }

    @Test("a message that failed comes again by the topic's strategy, or by RocketMQ's pauses")
    func failing() async throws {
        var script = BrokerDouble.Script(messages: (0..<3).map { "\($0)" })
        script.knowsStrategies = true
        let serving = try await ServingDouble(script)
        let receiver = try MessageReceiver(serving.settings)
        let some = try await receiver.receive(request(3))
        #expect(try await receiver.fail(some[0].handle, reason: "broken"))
        #expect(try await receiver.fail(some[1].handle, retryAfter: .milliseconds(700)))
        serving.change {
            $0.knowsStrategies = false
            $0.pauseAfterFailure = nil
        }
        #expect(try await receiver.fail(some[2].handle))
        #expect(serving.seen.changes.map(\.time) == [-1, 700, -1, 10_000])
        await #expect(throws: RocketMQClientError.self) {
            try await receiver.fail(some[2].handle, retryAfter: .zero)
        }
        await receiver.close()
        try await serving.close()
    }

    @Test("what cannot be asked for is an error, and not an empty answer")
    func refusals() async throws {
        let serving = try await ServingDouble(.init())
        let receiver = try MessageReceiver(serving.settings)
        func failure(_ request: ReceiveRequest) async -> RocketMQClientError? {
            do throws(RocketMQClientError) {
                _ = try await receiver.receive(request)
                return nil
            } catch {
                return error
            }
        }
        guard case .topicNotFound? = await failure(ReceiveRequest(topic: "Other", group: "g")) else {
            return #expect(Bool(false), "an unknown topic")
        }
        serving.change { $0.refusals = [.subscriptionParseFailed] }
        #expect(await failure(request(wait: .seconds(5)))?.refusal == .subscriptionParseFailed)
        serving.change { $0.knowsPops = false }
        let old = await failure(request())
        guard case .notSupported? = old else { return #expect(Bool(false), "\(String(describing: old))") }
        for wrong in [request(0), request(33), request(wait: .seconds(61))] {
            guard case .invalidArgument? = await failure(wrong) else { return #expect(Bool(false), "\(wrong)") }
        }
        let handle = DeliveryHandle(
            topic: "T", group: "g", attempt: 1,
            pop: PopHandle(
                startOffset: 0, popTime: 0, invisibleTime: 0, reviveQueue: 0, kind: .normal, brokerName: "nowhere",
                queueID: 0, queueOffset: 0))
        await #expect(throws: RocketMQClientError.self) { try await receiver.acknowledge(handle) }
        await receiver.close()
        try await serving.close()
    }
}
