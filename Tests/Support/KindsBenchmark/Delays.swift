import Foundation
import ModelClients
import NIOCore
import NIOPosix
import RemotingProtocol
import RemotingTransport

/// How far from their time delayed messages are stored where consumers find them.
struct Delays {
    let options: Options

    /// The record's own time of storing, and when it must have been there.
    private struct Found {
        var lateMilliseconds: Double
    }

    private func producers(_ count: Int) async -> [ModelProducer] {
        var producers: [ModelProducer] = []
        for number in 0..<count {
            let producer = ModelProducer(
                group: "DelayProducers", clientID: "delay-\(number)",
                link: ModelLink(nameServer: options.nameServer, broker: options.broker))
            await producer.start(topics: [])
            producers.append(producer)
        }
        return producers
    }

    /// Reads a topic's queue until it holds so many; gives how late each is by the time its body says.
    private func lateness(_ topic: String, queues: Int32, count: Int, seconds: Double) async throws -> [Double] {
        let client = try await RemotingClient.connect(
            to: options.broker, group: MultiThreadedEventLoopGroup.singleton)
        var late: [Double] = []
        var offsets = [Int64](repeating: 0, count: Int(queues))
        let end = milliseconds() + seconds * 1000
        while late.count < count, milliseconds() < end {
            var isEmpty = true
            for queue in 0..<queues {
                let reply = try await client.invoke(
                    RemotingCommand(
                        .pullMessage,
                        extFields: [
                            "consumerGroup": "DelayReaders", "topic": topic, "queueId": String(queue),
                            "queueOffset": String(offsets[Int(queue)]), "maxMsgNums": "32", "sysFlag": "4",
                            "commitOffset": "0", "suspendTimeoutMillis": "0", "subscription": "*", "subVersion": "0",
                            "expressionType": "TAG",
                        ]))
                guard reply.code == 0 else { continue }
                isEmpty = false
                offsets[Int(queue)] = try reply.integer("nextBeginOffset")
                for message in try MessageExt.decodeAll(reply.body) {
                    guard let due = Double(String(decoding: message.body, as: UTF8.self)) else { continue }
                    late.append(Double(message.storeTimestamp) - due)
                }
            }
            if isEmpty { try await Task.sleep(for: .milliseconds(20)) }
        }
        client.closeNow()
        return late
    }

    private func makeTopic(_ topic: String) async throws {
        let client = try await RemotingClient.connect(
            to: options.broker, group: MultiThreadedEventLoopGroup.singleton)
        _ = try await client.invokeSuccessfully(
            RemotingCommand(
                .updateAndCreateTopic,
                extFields: [
                    "topic": topic, "defaultTopic": "TBW102", "readQueueNums": "4", "writeQueueNums": "4", "perm": "6",
                    "topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "false",
                ]))
        client.closeNow()
    }

    /// Sends `count` messages from several tasks; `make` gives the due time and the properties.
    private func send(
        _ topic: String, count: Int, tasks: Int, pause: Duration?,
        _ make: @escaping @Sendable (Int64) -> (due: Int64, properties: [String: String])
    ) async throws -> Double {
        let producers = await producers(4)
        let began = milliseconds()
        let refused = Collected()
        await withTaskGroup(of: Void.self) { group in
            for task in 0..<tasks {
                group.addTask {
                    for number in stride(from: task, to: count, by: tasks) {
                        let (due, properties) = make(ModelClock.nowMilliseconds)
                        let outcome = await producers[task % producers.count].send(
                            topic, queue: Int32(number % 4), body: Array(String(due).utf8), properties: properties)
                        if case .acknowledged = outcome {} else { refused.add(1) }
                        if let pause { try? await Task.sleep(for: pause) }
                    }
                }
            }
        }
        let took = (milliseconds() - began) / 1000
        for producer in producers { await producer.end() }
        if refused.count > 0 { fail("\(refused.count) of \(count) messages to \(topic) were not acknowledged") }
        return took
    }

    func run() async throws {
        try await makeTopic("DelayLevel")
        _ = try await send("DelayLevel", count: 2000, tasks: 4, pause: .milliseconds(10)) { now in
            (now + 1000, ["DELAY": "1"])
        }
        let level = try await lateness("DelayLevel", queues: 4, count: 2000, seconds: 10)
        check(level, 2000, "level 1")
        row("delay level 1, error of 2 000 messages", Percentiles(level).words("ms"), "<= 100 ms")

        try await makeTopic("DelayTimer")
        _ = try await send("DelayTimer", count: 2000, tasks: 4, pause: .milliseconds(10)) { now in
            (now + 1000, ["TIMER_DELAY_MS": "1000"])
        }
        let timer = try await lateness("DelayTimer", queues: 4, count: 2000, seconds: 10)
        check(timer, 2000, "timer")
        row("timer of 1 000 ms, error of 2 000 messages", Percentiles(timer).words("ms"))

        let count = 100_000
        try await makeTopic("DelayBurst")
        // All acknowledged before they are due.
        let due = ModelClock.nowMilliseconds + 40_000
        let took = try await send("DelayBurst", count: count, tasks: 256, pause: nil) { _ in
            (due, ["TIMER_DELIVER_MS": String(due)])
        }
        row("sending 100 000 timer messages", "\(text(took)) s")
        try await Task.sleep(for: .milliseconds(max(0, due - ModelClock.nowMilliseconds) + 1500))
        let burst = try await lateness("DelayBurst", queues: 4, count: count, seconds: 60)
        check(burst, count, "burst of timers")
        row("timer, 100 000 messages due in the same millisecond, error", Percentiles(burst).words("ms"), "<= 1 000 ms")

        try await makeTopic("DelayFlood")
        let flood = try await send("DelayFlood", count: count, tasks: 256, pause: nil) { now in
            (now + 5000, ["DELAY": "2"])
        }
        try await Task.sleep(for: .seconds(6))
        let level2 = try await lateness("DelayFlood", queues: 4, count: count, seconds: 60)
        check(level2, count, "flood of level 2")
        row(
            "delay level 2, 100 000 messages sent at \(Int(Double(count) / flood))/s, error",
            Percentiles(level2).words("ms"), "<= 1 000 ms")
    }

    private func check(_ late: [Double], _ count: Int, _ what: String) {
        if late.count != count { fail("\(what): \(late.count) of \(count) messages came") }
        if let first = late.min(), first < 0 { fail("\(what): a message came \(-first) ms early") }
    }
}
