import Foundation
import ModelClients
import NIOCore
import NIOPosix
import RemotingProtocol
import RemotingTransport

/// What ten thousand connections and consumer groups cost the broker.
struct Memory {
    let options: Options
    static let count = 10_000

    private func settled() async throws -> ProcessFigures {
        try await Task.sleep(for: .seconds(2))
        return ProcessFigures(options.brokerPid)
    }

    private func beat(_ clients: [RemotingClient], groups: Int, seconds: inout Double) async throws -> Int {
        let began = milliseconds()
        let failed = Collected()
        await withTaskGroup(of: Void.self) { tasks in
            for task in 0..<100 {
                tasks.addTask {
                    for number in stride(from: task, to: groups, by: 100) {
                        let client = clients[number % clients.count]
                        do {
                            _ = try await client.invokeSuccessfully(
                                Members.heartbeat("client-\(number % clients.count)", "MemoryGroup\(number)"),
                                timeout: .seconds(120))
                        } catch {
                            failed.add(1)
                        }
                    }
                }
            }
        }
        seconds = (milliseconds() - began) / 1000
        return failed.count
    }

    private func each(_ before: ProcessFigures, _ after: ProcessFigures) -> String {
        "\(text(Double(after.resident - before.resident) / Double(Self.count) / 1024)) KiB"
    }

    func run() async throws {
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        limit.rlim_cur = limit.rlim_max
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        guard limit.rlim_cur >= 10_500 else { fail("ulimit -n is \(limit.rlim_cur); 10 500 are needed") }

        let empty = try await settled()
        row("broker-store, nothing connected", empty.megabytes)
        var clients: [RemotingClient] = []
        let began = milliseconds()
        for _ in 0..<Self.count {
            clients.append(
                try await RemotingClient.connect(to: options.broker, group: MultiThreadedEventLoopGroup.singleton))
        }
        let took = milliseconds() - began
        let connected = try await settled()
        row("10 000 connections that say nothing, made in \(text(took / 1000)) s", connected.megabytes)
        row("  for each connection", each(empty, connected))

        var seconds = 0.0
        var cpu = ProcessFigures(options.brokerPid).cpu
        var failed = try await beat(clients, groups: Self.count, seconds: &seconds)
        let beaten = try await settled()
        row(
            "10 000 groups, one client each, first heartbeats in \(text(seconds)) s", beaten.megabytes,
            "broker CPU \(text(beaten.cpu - cpu)) s, \(failed) failed")
        row("  for each group with its client, subscriptions and retry topic", each(connected, beaten))
        cpu = beaten.cpu
        for _ in 0..<3 { failed += try await beat(clients, groups: Self.count, seconds: &seconds) }
        let again = try await settled()
        row(
            "  after three more heartbeats of all, the last in \(text(seconds)) s", again.megabytes,
            "broker CPU \(text((again.cpu - cpu) / 3)) s a round, \(failed) failed")
        let closing = ProcessFigures(options.brokerPid).cpu
        for client in clients { client.closeNow() }
        try await Task.sleep(for: .seconds(5))
        let closed = ProcessFigures(options.brokerPid)
        row("  all connections lost", closed.megabytes, "broker CPU \(text(closed.cpu - closing)) s")
    }
}
