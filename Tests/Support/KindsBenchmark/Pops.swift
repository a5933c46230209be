import FastJSON
import Foundation
import NIOCore
import NIOPosix
import RemotingProtocol
import RemotingTransport

/// What popping costs the broker beside pulling the same messages, how exact redelivery is, and what waiting pops cost.
struct Pops {
    let options: Options
    /// What is pulled and popped.
    private struct Load {
        let topic: String
        /// Messages.
        let count: Int
        /// Bytes of each.
        let bodyBytes: Int
    }

    private static let loads = [
        Load(topic: "PopBench", count: 320_000, bodyBytes: 128),
        Load(topic: "PopBench1K", count: 160_000, bodyBytes: 1024),
    ]
    /// As a RocketMQ client has it: one connection to a broker, over which all its queues are read at the same time.
    static let queues = 8
    static let connections = 2
    static let batch = 32

    private func connect() async throws -> RemotingClient {
        try await RemotingClient.connect(to: options.broker, group: MultiThreadedEventLoopGroup.singleton)
    }

    private func fill(_ topic: String, _ count: Int, bodyBytes: Int = 128) async throws {
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            for queue in 0..<Self.queues {
                tasks.addTask {
                    let client = try await connect()
                    let body = [UInt8](repeating: 0x78, count: bodyBytes)
                    for _ in 0..<count / Self.queues {
                        _ = try await client.invokeSuccessfully(
                            RemotingCommand(
                                .sendMessageV2,
                                extFields: [
                                    "a": "P", "b": topic, "c": "TBW102", "d": String(Self.queues), "e": String(queue),
                                    "f": "0", "g": "1", "h": "0", "i": "", "j": "0", "k": "false", "m": "false",
                                ], body: body), timeout: .seconds(10))
                    }
                    client.closeNow()
                }
            }
            try await tasks.waitForAll()
        }
    }

    private static func pull(_ topic: String, _ queue: Int, _ offset: Int64, _ group: String) -> RemotingCommand {
        RemotingCommand(
            .pullMessage,
            extFields: [
                "consumerGroup": group, "topic": topic, "queueId": String(queue), "queueOffset": String(offset),
                "maxMsgNums": String(batch), "sysFlag": "4", "commitOffset": "0", "suspendTimeoutMillis": "0",
                "subscription": "*", "subVersion": "0", "expressionType": "TAG",
            ])
    }

    private static func pop(
        _ topic: String, _ queue: Int, _ group: String, invisible: Int = 600_000, poll: Int = 0
    ) -> RemotingCommand {
        RemotingCommand(
            .popMessage,
            extFields: [
                "consumerGroup": group, "topic": topic, "queueId": String(queue), "maxMsgNums": String(batch),
                "invisibleTime": String(invisible), "pollTime": String(poll), "bornTime": "0", "initMode": "0",
                "expType": "TAG", "exp": "*", "order": "false",
            ])
    }

    /// The offsets of an answer that is of one queue: its first, and all.
    private static func offsets(_ answer: RemotingCommand) -> (start: String, all: [Int64]) {
        let start = (answer.extFields["startOffsetInfo"] ?? "").split(separator: " ").last.map(String.init) ?? ""
        let all = (answer.extFields["msgOffsetInfo"] ?? "").split(separator: " ").last?.split(separator: ",") ?? []
        return (start, all.compactMap { Int64($0) })
    }

    private enum Acknowledging {
        case single, batches
    }

    private func acknowledge(
        _ client: RemotingClient, _ answer: RemotingCommand, _ topic: String, _ queue: Int, _ group: String,
        _ how: Acknowledging
    ) async throws {
        let (start, all) = Self.offsets(answer)
        let popTime = answer.extFields["popTime"] ?? ""
        switch how {
        case .single:
            try await withThrowingTaskGroup(of: Void.self) { tasks in
                for offset in all {
                    tasks.addTask {
                        _ = try await client.invokeSuccessfully(
                            RemotingCommand(
                                .ackMessage,
                                extFields: [
                                    "consumerGroup": group, "topic": topic, "queueId": String(queue),
                                    "offset": String(offset),
                                    "extraInfo": "\(start) \(popTime) 600000 0 0 broker-a \(queue) \(offset)",
                                ]), timeout: .seconds(10))
                    }
                }
                try await tasks.waitForAll()
            }
        case .batches:
            var bits = [UInt8](repeating: 0, count: Self.batch / 8)
            for offset in all {
                let index = Int(offset - (Int64(start) ?? 0))
                if index / 8 < bits.count { bits[index / 8] |= 1 << UInt8(index % 8) }
            }
            let entry = JSONValue.fields([
                ("b", .string(Data(bits).base64EncodedString())), ("c", .string(group)), ("it", .integer(600_000)),
                ("pt", .integer(Int64(popTime) ?? 0)), ("q", .integer(Int64(queue))), ("r", .string("0")),
                ("rq", .integer(0)), ("so", .integer(Int64(start) ?? 0)), ("t", .string(topic)),
            ])
            let body = JSONValue.fields([("acks", .array([entry])), ("brokerName", .string("broker-a"))])
            _ = try await client.invokeSuccessfully(
                RemotingCommand(.batchAckMessage, body: body.bytes()), timeout: .seconds(10))
        }
    }

    /// Microseconds of broker CPU a message.
    private func measured(
        _ load: Load, _ work: @escaping @Sendable (RemotingClient, Int) async throws -> Int
    ) async throws -> Double {
        let before = ProcessFigures(options.brokerPid).cpu
        let total = try await withThrowingTaskGroup(of: Int.self) { tasks in
            for connection in 0..<Self.connections {
                tasks.addTask {
                    let client = try await connect()
                    defer { client.closeNow() }
                    return try await withThrowingTaskGroup(of: Int.self) { queues in
                        for queue in stride(from: connection, to: Self.queues, by: Self.connections) {
                            queues.addTask { try await work(client, queue) }
                        }
                        return try await queues.reduce(0, +)
                    }
                }
            }
            return try await tasks.reduce(0, +)
        }
        guard total == load.count else { fail("\(total) of \(load.count) messages were read") }
        return (ProcessFigures(options.brokerPid).cpu - before) / Double(total) * 1_000_000
    }

    private func pulls(_ load: Load, _ group: String) async throws -> Double {
        try await measured(load) { client, queue in
            var (offset, count): (Int64, Int) = (0, 0)
            while true {
                let reply = try await client.invoke(
                    Self.pull(load.topic, queue, offset, group), timeout: .seconds(10))
                guard reply.code == 0 else { return count }
                let next = try reply.integer("nextBeginOffset")
                count += Int(next - offset)
                offset = next
            }
        }
    }

    /// As RocketMQ's clients have it: acknowledgements are not waited for before the next pop.
    private func pops(_ load: Load, _ group: String, _ how: Acknowledging) async throws -> Double {
        try await measured(load) { client, queue in
            var count = 0
            var acknowledging: Task<Void, any Error>?
            while true {
                let reply = try await client.invoke(Self.pop(load.topic, queue, group), timeout: .seconds(10))
                try await acknowledging?.value
                guard reply.code == 0 else { return count }
                count += Self.offsets(reply).all.count
                acknowledging = Task { try await acknowledge(client, reply, load.topic, queue, group, how) }
            }
        }
    }

    private var journalBytes: Int64 {
        let folder = options.data + "/store/popState"
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        return names.reduce(0) { sum, name in
            let attributes = try? FileManager.default.attributesOfItem(atPath: folder + "/" + name)
            return sum + ((attributes?[.size] as? NSNumber)?.int64Value ?? 0)
        }
    }

    func run() async throws {
        for load in Self.loads {
            try await fill(load.topic, load.count, bodyBytes: load.bodyBytes)
            for round in 1...3 { try await compare(load, round) }
        }
        try await redelivery()
        try await waiting()
    }

    private func compare(_ load: Load, _ round: Int) async throws {
        let pulled = try await pulls(load, "pull-\(round)")
        let before = journalBytes
        let popped = try await pops(load, "pop-\(round)", .batches)
        let bytes = Double(journalBytes - before) / Double(load.count)
        let single = try await pops(load, "single-\(round)", .single)
        let singleBytes = Double(journalBytes - before) / Double(load.count) - bytes
        row("pull of 32, \(load.bodyBytes) B, broker CPU a message, round \(round)", "\(text(pulled)) µs")
        row(
            "  pop of 32 and one acknowledgement for all", "\(text(popped)) µs, \(text(bytes)) B of journal",
            "\(text(popped / pulled)) times a pull; aim 1.5")
        row(
            "  pop of 32 and an acknowledgement for each", "\(text(single)) µs, \(text(singleBytes)) B of journal",
            "Apache: 947 B; aim 47")
    }

    /// How long after its deadline a message is there again.
    private func redelivery() async throws {
        let topic = "PopAgain"
        try await fill(topic, 4_000)
        let client = try await connect()
        var deadlines: [String: Double] = [:]
        for queue in 0..<Self.queues {
            while true {
                let reply = try await client.invoke(
                    Self.pop(topic, queue, "again", invisible: 3000), timeout: .seconds(5))
                guard reply.code == 0 else { break }
                let popTime = Double(reply.extFields["popTime"] ?? "") ?? .nan
                for offset in Self.offsets(reply).all { deadlines["\(queue):\(offset)"] = popTime + 3000 }
            }
        }
        var late: [Double] = []
        while late.count < deadlines.count {
            let reply = try await client.invoke(
                Self.pop(topic, -1, "again", invisible: 600_000, poll: 5_000), timeout: .seconds(10))
            guard reply.code == 0 else { break }
            let now = Date().timeIntervalSince1970 * 1000
            for message in try MessageExt.decodeAll(reply.body) {
                late.append(now - (deadlines["\(message.queueID):\(message.queueOffset)"] ?? .nan))
            }
        }
        client.closeNow()
        row(
            "4 000 messages come again after their deadline", Percentiles(late).words("ms"),
            "\(late.count) of \(deadlines.count); Apache: 1 to 5 s; aim p99 50")
    }

    /// Ten thousand pops wait for one queue; each message wakes one.
    private func waiting() async throws {
        let topic = "PopWait"
        try await fill(topic, Self.queues)
        let client = try await connect()
        while try await client.invoke(Self.pop(topic, 0, "wait"), timeout: .seconds(5)).code == 0 {}
        let count = 10_000
        let woken = Collected()
        for _ in 0..<count {
            Task {
                let reply = try await client.invoke(
                    Self.pop(topic, 0, "wait", poll: 60_000), timeout: .seconds(90))
                if reply.code == 0 { woken.add(milliseconds()) }
            }
        }
        _ = try await wait(seconds: 20) {
            let info = try await client.invoke(
                RemotingCommand(
                    .pollingInfo, extFields: ["consumerGroup": "wait", "topic": topic, "queueId": "0"]),
                timeout: .seconds(5))
            return info.extFields["pollingNum"] == String(count)
        }
        let before = ProcessFigures(options.brokerPid).cpu
        let sender = try await connect()
        var late: [Double] = []
        for number in 1...200 {
            let sent = milliseconds()
            _ = try await sender.invokeSuccessfully(
                RemotingCommand(
                    .sendMessageV2,
                    extFields: [
                        "a": "P", "b": topic, "c": "TBW102", "d": "4", "e": "0", "f": "0", "g": "1", "h": "0", "i": "",
                        "j": "0", "k": "false", "m": "false",
                    ], body: [0x78]), timeout: .seconds(10))
            _ = try await wait(seconds: 2) { woken.count >= number }
            late.append((woken.all.last ?? .nan) - sent)
        }
        let cpu = (ProcessFigures(options.brokerPid).cpu - before) / 200 * 1_000_000
        row(
            "10 000 pops wait for one queue: a message wakes one", Percentiles(late).words("ms"),
            "\(woken.count) woken by 200 messages, broker CPU \(text(cpu)) µs a message")
        sender.closeNow()
        client.closeNow()
    }
}
