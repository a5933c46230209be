import FastJSON
import NIOCore
import NIOPosix
import RemotingProtocol
import RemotingTransport
import Synchronization

/// Asks the name server for a topic's route again and again, as clients do that come just now, and counts the answers.
/// A connection that ends is made anew: whether one does is not its subject, nor how long an answer takes.
final class RouteWatch: Sendable {
    struct Seen {
        var answers = 0
        /// Answers that did not name all brokers expected, in words.
        var wrong: [String] = []
        /// Times its connection ended.
        var reconnects = 0
        var longest = Duration.zero
        var mustStop = false
    }

    private final class Shared: Sendable {
        let value = Mutex(Seen())
    }

    private let shared = Shared()
    private let task: Task<Void, Never>

    /// - Parameter brokers: must be in every answer.
    init(_ nameServer: String, topic: String, brokers: [String]) {
        let seen = shared
        task = Task.detached {
            var client: RemotingClient?
            while !seen.value.withLock({ $0.mustStop }) {
                let began = ContinuousClock.now
                do {
                    if client?.isActive != true {
                        client = try await RemotingClient.connect(
                            to: nameServer, group: MultiThreadedEventLoopGroup.singleton, timeout: .seconds(5))
                    }
                    guard let connection = client else { continue }
                    let reply = try await connection.invoke(
                        RemotingCommand(.getRouteInfoByTopic, extFields: ["topic": topic]), timeout: .seconds(5))
                    let found =
                        reply.code == 0
                        ? try reply.json()["brokerDatas"]?.array?.compactMap { $0["brokerName"]?.string } ?? [] : []
                    seen.value.withLock { seen in
                        seen.answers += 1
                        seen.longest = max(seen.longest, began.duration(to: .now))
                        if !Set(brokers).isSubset(of: found) {
                            seen.wrong.append("code \(reply.code) \(reply.remark ?? ""), brokers \(found)")
                        }
                    }
                } catch {
                    seen.value.withLock { $0.reconnects += 1 }
                    client?.closeNow()
                    client = nil
                }
                try? await Task.sleep(for: .milliseconds(1))
            }
            await client?.close()
        }
    }

    /// Ends it and tells what it saw.
    func stop() async -> Seen {
        shared.value.withLock { $0.mustStop = true }
        await task.value
        return shared.value.withLock { $0 }
    }
}
