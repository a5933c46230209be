import Foundation
import RemotingProtocol
import TestTools
import Testing

extension PlatformTests {
    /// Consumers that pop, over kills of the broker.
    @Suite("T31 popping", .serialized)
    struct T31_Pop {
        @Test(
            "kill -9 while clients pop: none lost, none in two hands, none again after its acknowledgement",
            .timeLimit(.minutes(2)))
        func kills() async throws {
            let platform = try await Platform.start()
            let topic = "Popped"
            let producers = Oracle(broker: platform.broker, topic: topic)
            try await eventually("the first messages are stored") { producers.acknowledged.count > 50 }
            let load = PopLoad(broker: platform.broker, topic: topic, clients: 6)
            try await eventually("messages are popped and acknowledged") { load.finished.count > 100 }
            for _ in 1...4 {
                let old = try #require(platform.pid(of: "broker-store"))
                Glibc.kill(old, SIGKILL)
                _ = try await platform.newPid(of: "broker-store", after: old)
                let before = load.finished.count
                try await eventually("clients pop on", within: .seconds(10)) { load.finished.count > before + 100 }
                // Time passes under load before the next is killed.
                try await Task.sleep(for: .milliseconds(700))
            }
            await producers.stop()
            let sent = producers.acknowledged
            do {
                try await eventually("every message is acknowledged", within: .seconds(30)) {
                    load.unfinished(of: sent).isEmpty
                }
            } catch {
                await load.stop()
                Issue.record("\(error): \(load.judge(sent: sent).prefix(5))\n\(platform.log.suffix(3000))")
                return
            }
            // Time passes until whatever is claimed would come again.
            try await Task.sleep(for: PopLoad.invisible + .milliseconds(500))
            await load.stop()
            let faults = load.judge(sent: sent)
            #expect(faults.isEmpty, "\(faults.count) faults, such as \(faults.prefix(3))")
            let again = load.deliveries.filter { $0.attempt > 1 }.count
            #expect(again > 0)
            print("T31 popped: \(sent.count) sent, \(load.deliveries.count) deliveries, \(again) again, 4 kills")
            try await platform.stop()
        }
    }
}
