import Foundation
import ModelClients
import NIOCore
import NIOPosix
import RemotingProtocol
import RemotingTransport
import Synchronization

/// How fast the members of a group learn of a change (40), and how fast all queues are owned again.
struct Members {
    let options: Options

    static func heartbeat(_ clientID: String, _ group: String, topic: String = "MemberTopic") -> RemotingCommand {
        var data = ConsumerData(groupName: group)
        data.subscriptionDataSet = [
            SubscriptionData(topic: topic, subVersion: 1), SubscriptionData(topic: "%RETRY%" + group, subVersion: 1),
        ]
        return RemotingCommand(
            .heartBeat, body: HeartbeatData(clientID: clientID, consumerDataSet: [data]).encoded())
    }

    /// A connection that notes when it is told of a change.
    private func member(_ told: Collected) async throws -> RemotingClient {
        try await RemotingClient.connect(to: options.broker, group: MultiThreadedEventLoopGroup.singleton) { request in
            if request.requestCode == .notifyConsumerIDsChanged { told.add(milliseconds()) }
            return nil
        }
    }

    func pushes() async throws {
        for count in [1, 100, 1000] {
            let told = Collected()
            let group = "Pushes\(count)"
            var members: [RemotingClient] = []
            let before = ProcessFigures(options.brokerPid)
            let began = milliseconds()
            for number in 0..<count {
                let client = try await member(told)
                _ = try await client.invokeSuccessfully(Self.heartbeat("m\(number)", group))
                members.append(client)
            }
            let took = milliseconds() - began
            try await Task.sleep(for: .milliseconds(1500))
            let cpu = ProcessFigures(options.brokerPid).cpu - before.cpu
            if count > 1 {
                row(
                    "\(count) members join one after the other in \(text(took)) ms",
                    "\(told.count) pushes, broker CPU \(text(cpu * 1000)) ms")
            }
            var joins: [Double] = []
            var leaves: [Double] = []
            var crashes: [Double] = []
            for round in 0..<15 {
                told.clear()
                let newcomer = try await member(Collected())
                try await Task.sleep(for: .milliseconds(5))
                joins += try await measure(told, count) {
                    try await newcomer.oneway(Self.heartbeat("new\(round)", group))
                }
                told.clear()
                if round % 2 == 0 {
                    leaves += try await measure(told, count) {
                        try await newcomer.oneway(
                            RemotingCommand(
                                .unregisterClient, extFields: ["clientID": "new\(round)", "consumerGroup": group]))
                    }
                    newcomer.closeNow()
                } else {
                    crashes += try await measure(told, count) { newcomer.closeNow() }
                }
            }
            row("40 pushes to \(count) members after a join", Percentiles(joins).words("ms"), "<= 100 ms")
            row("40 pushes to \(count) members after a leave", Percentiles(leaves).words("ms"), "<= 100 ms")
            row("40 pushes to \(count) members after a lost connection", Percentiles(crashes).words("ms"), "<= 100 ms")
            for client in members { client.closeNow() }
            try await Task.sleep(for: .milliseconds(1500))
        }
    }

    private func measure(_ told: Collected, _ count: Int, _ change: () async throws -> Void) async throws -> [Double] {
        let began = milliseconds()
        try await change()
        guard try await wait(seconds: 5, until: { told.count >= count }) else {
            fail("only \(told.count) of \(count) members were told")
        }
        let times = told.all.map { $0 - began }
        // Longer than notices are gathered for.
        try await Task.sleep(for: .milliseconds(150))
        if told.count > count { fail("\(told.count) pushes to \(count) members for one change") }
        return times
    }

    /// Many members come and go at once.
    func storm(_ count: Int) async throws {
        let told = Collected()
        let before = ProcessFigures(options.brokerPid)
        var members: [RemotingClient] = []
        for _ in 0..<count { members.append(try await member(told)) }
        let joined = milliseconds()
        let clients = members
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            for task in 0..<50 {
                tasks.addTask {
                    for number in stride(from: task, to: count, by: 50) {
                        _ = try await clients[number].invoke(
                            Self.heartbeat("s\(number)", "Storm"), timeout: .seconds(60))
                    }
                }
            }
            try await tasks.waitForAll()
        }
        let beaten = milliseconds()
        var last = -1
        _ = try await wait(seconds: 60) {
            let count = told.count
            defer { last = count }
            try await Task.sleep(for: .milliseconds(1000))
            return count == last
        }
        let pushes = told.count
        let after = ProcessFigures(options.brokerPid)
        row(
            "\(count) members join one group at once", "\(text(beaten - joined)) ms until all are members",
            "\(pushes) pushes, broker CPU \(text((after.cpu - before.cpu) * 1000)) ms")
        told.clear()
        let leaving = milliseconds()
        for client in members.dropFirst() { client.closeNow() }
        let asker = members[0]
        _ = try await wait(seconds: 120) {
            let reply = try await asker.invoke(
                RemotingCommand(.getConsumerListByGroup, extFields: ["consumerGroup": "Storm"]), timeout: .seconds(60))
            return try GetConsumerListByGroupResponseBody(body: reply.body).consumerIDList.count == 1
        }
        row(
            "\(count - 1) of them lose their connections at once",
            "\(text(milliseconds() - leaving)) ms until one is left",
            "broker CPU \(text((ProcessFigures(options.brokerPid).cpu - after.cpu) * 1000)) ms")
        asker.closeNow()
    }

    // MARK: - Rebalancing

    private final class Owners: ModelConsumerObserver {
        private let table = Mutex<[String: Set<MessageQueue>]>([:])

        func owns(member: String, group: String, queues: Set<MessageQueue>) {
            let real = queues.filter { !$0.topic.hasPrefix("%") }
            table.withLock { $0[member] = real.isEmpty ? nil : real }
        }

        /// All queues are owned once, and by as many members as can have one.
        func isBalanced(queues: Int, members: Int) -> Bool {
            table.withLock { table in
                let sizes = table.values.map(\.count)
                let all = table.values.reduce(into: Set<MessageQueue>()) { $0.formUnion($1) }
                return all.count == queues && sizes.reduce(0, +) == queues && sizes.count == min(members, queues)
                    && (sizes.max() ?? 0) - (sizes.min() ?? 0) <= 1
            }
        }

        func consume(_ delivery: ModelDelivery) async -> Bool { true }
        func sendingBack(_ delivery: ModelDelivery) {}
        func committing(group: String, queue: MessageQueue, offset: Int64) {}
        func wrong(_ words: String) { fail(words) }
    }

    func rebalances() async throws {
        let queues = 64
        let client = try await RemotingClient.connect(to: options.broker, group: MultiThreadedEventLoopGroup.singleton)
        _ = try await client.invokeSuccessfully(
            RemotingCommand(
                .updateAndCreateTopic,
                extFields: [
                    "topic": "RebalanceTopic", "defaultTopic": "TBW102", "readQueueNums": String(queues),
                    "writeQueueNums": String(queues), "perm": "6", "topicFilterType": "SINGLE_TAG",
                    "topicSysFlag": "0", "order": "false",
                ]))
        client.closeNow()
        for mode in [ModelConsumer.Mode.concurrent, .orderly] {
            for count in [2, 10, 50] { try await rebalance(mode, count, queues) }
        }
    }

    private func rebalance(_ mode: ModelConsumer.Mode, _ count: Int, _ queues: Int) async throws {
        let owners = Owners()
        let group = "Rebalance-\(mode.rawValue)-\(count)"
        func join(_ name: String) async -> ModelConsumer {
            var settings = ModelConsumer.Settings(
                group: group, clientID: name, topics: ["RebalanceTopic"], mode: mode)
            // As real clients have it: what is measured must come from the push.
            settings.rebalance = .seconds(20)
            settings.heartbeat = .seconds(30)
            settings.relock = .seconds(20)
            settings.lockValidity = .seconds(30)
            let consumer = ModelConsumer(
                settings, link: ModelLink(nameServer: options.nameServer), observer: owners)
            await consumer.start()
            return consumer
        }
        func balanced(_ members: Int, since began: Double, _ what: String) async throws -> Double {
            guard try await wait(seconds: 60, until: { owners.isBalanced(queues: queues, members: members) }) else {
                fail("\(what): the queues of \(group) are not owned by \(members) members")
            }
            return milliseconds() - began
        }
        var members: [ModelConsumer] = []
        for number in 0..<count { members.append(await join("member-\(number)")) }
        _ = try await balanced(count, since: milliseconds(), "start")
        var joins: [Double] = []
        var leaves: [Double] = []
        var crashes: [Double] = []
        for round in 0..<10 {
            try await Task.sleep(for: .milliseconds(200))
            var began = milliseconds()
            let newcomer = await join("newcomer-\(round)")
            joins.append(try await balanced(count + 1, since: began, "join"))
            try await Task.sleep(for: .milliseconds(200))
            began = milliseconds()
            if round % 2 == 0 || mode == .orderly {
                await newcomer.leave()
                leaves.append(try await balanced(count, since: began, "leave"))
            } else {
                await newcomer.crash()
                crashes.append(try await balanced(count, since: began, "crash"))
            }
        }
        let what = "rebalance of \(queues) queues, \(mode.rawValue), \(count) members"
        row("\(what), one joins", Percentiles(joins).words("ms"))
        row("\(what), one leaves", Percentiles(leaves).words("ms"))
        if !crashes.isEmpty { row("\(what), one dies", Percentiles(crashes).words("ms")) }
        for member in members { await member.crash() }
        try await Task.sleep(for: .milliseconds(300))
    }
}
