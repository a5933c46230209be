import Foundation
import MessageStore
import NIOCore
import NIOEmbedded
import RemotingProtocol
import StoreFormat
import TestTools
import Testing

@testable import BrokerService

/// Timer messages that are edited, rescheduled, withdrawn and recalled while they wait, in simulated time.
@Suite("timer messages that are edited") struct TimerEditTests {
    private static let topic = "Timed"

    /// A broker in a folder of its own, its clock, and what it has delivered.
    private final class World {
        let clock = SimulatedClock()
        let base: URL
        var broker: SimulatedBroker
        var client: SimulatedClient
        private var generation = 0
        /// Small files: a restart copies them. Nothing expires, however far the clock jumps.
        private let settings = [
            ("mappedFileSizeCommitLog", "1048576"), ("maxMessageSize", "4096"), ("maxHashSlotNum", "1000"),
            ("maxIndexNum", "4000"), ("mappedFileSizeConsumeQueue", "20000"), ("fileReservedTime", "1000000"),
        ]

        init() async throws {
            // In memory if that is possible: weeks of flushes pass in seconds.
            let memory = URL(fileURLWithPath: "/dev/shm")
            let parent =
                FileManager.default.isWritableFile(atPath: memory.path)
                ? memory : FileManager.default.temporaryDirectory
            base = parent.appendingPathComponent("apus-timer-edits-\(UUID().uuidString)")
            try FileManager.default.createDirectory(at: base, withIntermediateDirectories: true)
            broker = try await SimulatedBroker(settings, folder: base.appendingPathComponent("0"), clock: clock)
            client = try await broker.connect()
            _ = try await client.send(TimerEditTests.topic, body: "first", [:])
        }

        func end() async throws {
            await client.close()
            try await broker.end(cleanly: true)
            try FileManager.default.removeItem(at: base)
        }

        func restart(killed: Bool) async throws {
            generation += 1
            let next = base.appendingPathComponent(String(generation))
            await client.close()
            let folder = broker.folder
            if killed {
                try await broker.onLoop { _ in try FileManager.default.copyItem(at: folder, to: next) }
                try await broker.end(cleanly: false)
            } else {
                try await broker.end(cleanly: true)
                try FileManager.default.copyItem(at: folder, to: next)
            }
            try FileManager.default.removeItem(at: folder)
            broker = try await SimulatedBroker(settings, folder: next, clock: clock)
            client = try await broker.connect()
        }

        /// Goes on as a slave that has copied the log, in a folder of its own.
        /// - Returns: where the log ends.
        func becomeSlave() async throws -> Int64 {
            let end = try await broker.onLoop { $0.store.writtenOffset.rawValue }
            let log = broker.folder.appendingPathComponent("commitlog/00000000000000000000")
            let bytes = [UInt8](try Data(contentsOf: log).prefix(Int(end)))
            await client.close()
            try await broker.end(cleanly: true)
            broker = try await SimulatedBroker(
                settings + [("brokerRole", "SLAVE"), ("brokerId", "1")], folder: base.appendingPathComponent("slave"),
                clock: clock)
            client = try await broker.connect()
            _ = try await broker.onLoop { $0.replicate(at: 0, bytes) }
            return end
        }

        func becomeMaster() async throws {
            await client.close()
            try await broker.end(cleanly: true)
            broker = try await SimulatedBroker(settings, folder: broker.folder, clock: clock)
            client = try await broker.connect()
        }

        func pass(_ milliseconds: Int64) async throws {
            var left = milliseconds
            while left > 0 {
                await broker.loop.advanceTime(by: .milliseconds(min(left, 500)))
                await broker.settle()
                left -= 500
            }
        }

        /// Beyond half a minute the clock jumps: what became due meanwhile comes within half a minute.
        func passFar(_ milliseconds: Int64) async throws {
            if milliseconds > 60_000 { clock.jump(milliseconds - 32_000) }
            try await pass(min(milliseconds, 32_000))
        }

        func send(_ key: String, due: Int64) async throws -> String? {
            let answer = try await client.send(
                TimerEditTests.topic, body: key, ["TIMER_DELIVER_MS": String(due), "UNIQ_KEY": key])
            #expect(answer.code == 0, "\(answer.remark ?? "")")
            return answer.extFields["recallHandle"]
        }

        func edit(_ operation: String, _ key: String, due: Int64? = nil, body: String? = nil) async throws
            -> RemotingCommand
        {
            var fields = ["topic": TimerEditTests.topic, "msgId": key, "operation": operation, "by": "alice"]
            if let due { fields["deliverAt"] = String(due) }
            if body != nil { fields["hasBody"] = "true" }
            let opaque = try await client.post(.editMessage, fields, body: Array((body ?? "").utf8))
            // Looking for it takes turns of the loop that wait for each other.
            for _ in 0..<1000 {
                if let answer = try await client.takeAnswers()[opaque] { return answer }
                await broker.loop.advanceTime(by: .microseconds(100))
            }
            throw SimulatedClient.NoAnswer()
        }

        func recall(_ handle: String?) async throws -> Int32 {
            try await client.invoke(
                .recallMessage, ["topic": TimerEditTests.topic, "recallHandle": handle ?? "", "producerGroup": "P"]
            ).code
        }

        /// What has come, and when it was stored.
        func delivered() async throws -> [(body: String, at: Int64)] {
            await broker.settle()
            var all: [(String, Int64)] = []
            while true {
                let messages = try await client.pull(TimerEditTests.topic, from: Int64(all.count + 1))
                guard !messages.isEmpty else { return all }
                all += messages.map { (String(decoding: $0.body, as: UTF8.self), $0.storeTimestamp) }
            }
        }
    }

    @Test(
        "there and back: it comes once, at its first time, near and far, over restarts and kills",
        arguments: [20_000, 3_600_000, 259_200_000], ["nothing", "restart", "kill"])
    func thereAndBack(delay: Int64, between: String) async throws {
        let world = try await World()
        let due = world.clock.now + delay
        func interrupt() async throws {
            try await world.pass(1000)
            if between != "nothing" { try await world.restart(killed: between == "kill") }
        }
        for key in ["back", "edited", "gone", "plain"] { _ = try await world.send(key, due: due) }
        try await interrupt()
        for other in [due + 7_200_000, due - 5000] {
            let away = try await world.edit("reschedule", "back", due: other)
            #expect(away.code == 0, "\(away.remark ?? "")")
            #expect(away.extFields["deliverAt"] == String(other))
            #expect(try await world.edit("edit", "edited", body: "edited to \(other)").code == 0)
            try await interrupt()
            let back = try await world.edit("reschedule", "back", due: due)
            #expect(back.code == 0 && back.extFields["deliverAt"] == String(due), "\(back.remark ?? "")")
            try await interrupt()
        }
        let twice = try await world.edit("edit", "edited", body: "edited last")
        #expect(twice.extFields["deliverAt"] == String(due), "the time stays as it is: \(twice.remark ?? "")")
        #expect(try await world.edit("reschedule", "gone", due: due + 1).code == 0)
        #expect(try await world.edit("reschedule", "gone", due: due).code == 0)
        #expect(try await world.edit("cancel", "gone").code == 0)
        #expect(try await world.edit("edit", "gone", body: "x").remark?.contains("deleted, by alice") == true)
        try await interrupt()
        #expect(try await world.delivered().isEmpty)
        try await world.passFar(due - world.clock.now + 1000)
        let found = try await world.delivered()
        #expect(found.map(\.body).sorted() == ["back", "edited last", "plain"], "\(found)")
        #expect(found.allSatisfy { $0.at >= due })
        try await world.restart(killed: true)
        try await world.passFar(8_000_000)
        #expect(try await world.delivered().count == 3)
        try await world.end()
    }

    @Test("delivered and postponed to a time it was once taken from, it comes again")
    func postponed() async throws {
        let world = try await World()
        let due = world.clock.now + 3_600_000
        _ = try await world.send("m", due: due)
        #expect(try await world.edit("reschedule", "m", due: world.clock.now + 1000).code == 0)
        try await world.pass(2000)
        #expect(try await world.delivered().map(\.body) == ["m"])
        try await world.restart(killed: true)
        let postponed = try await world.edit("reschedule", "m", due: due)
        #expect(postponed.code == 0, "\(postponed.remark ?? "")")
        #expect(try await world.delivered().isEmpty)
        try await world.passFar(3_602_000)
        let stored = try await world.client.pull(Self.topic, from: 2)
        #expect(stored.map { String(decoding: $0.body, as: UTF8.self) } == ["m"])
        try await world.end()
    }

    @Test("what its producer has recalled is not edited, and what is recalled after an edit is not lost by it")
    func recalled() async throws {
        let world = try await World()
        let due = world.clock.now + 30_000
        let first = try await world.send("recalled", due: due)
        #expect(try await world.recall(first) == 0)
        let edit = try await world.edit("edit", "recalled", body: "x")
        #expect(edit.code != 0 && edit.remark?.contains("recalled") == true, "\(edit.remark ?? "")")
        // The handle names the first time; the message waits for another, and then for the first again.
        let second = try await world.send("moved", due: due)
        #expect(try await world.edit("reschedule", "moved", due: due + 5000).code == 0)
        #expect(try await world.recall(second) == 0)
        #expect(try await world.edit("reschedule", "moved", due: due).code == 0)
        try await world.pass(40_000)
        #expect(try await world.delivered().map(\.body) == ["moved"])
        try await world.end()
    }

    @Test("what its producer has recalled for a far time is not brought back by an edit", arguments: [false, true])
    func recalledFar(isRestarted: Bool) async throws {
        let world = try await World()
        let due = world.clock.now + 259_200_000
        let handle = try await world.send("recalled", due: due)
        try await world.pass(2000)
        #expect(try await world.recall(handle) == 0)
        // Its cancellation goes into a file beside it, out of memory.
        try await world.pass(2000)
        if isRestarted { try await world.restart(killed: true) }
        for answer in [
            try await world.edit("edit", "recalled", body: "x"),
            try await world.edit("reschedule", "recalled", due: due + 5000),
            try await world.edit("cancel", "recalled"),
        ] {
            #expect(answer.code != 0 && answer.remark?.contains("recalled") == true, "\(answer.remark ?? "")")
        }
        try await world.passFar(due - world.clock.now + 10_000)
        #expect(try await world.delivered().isEmpty)
        try await world.end()
    }

    /// More than a slice takes in, or nothing, lies between the last checkpoint and the cancellations.
    @Test("taken away just before a kill, and back after its time: it does not come as it was", arguments: [0, 600])
    func killedBeforeItIsTakenIn(others: Int) async throws {
        let world = try await World()
        let start = world.clock.now
        let due = start + 600_000
        for key in ["cancelled", "edited"] { _ = try await world.send(key, due: due) }
        let handle = try await world.send("recalled", due: due)
        for minute in 11...14 { _ = try await world.send("in \(minute)", due: start + Int64(minute) * 60_000) }
        // They lie in files, and a checkpoint says so.
        try await world.pass(30_000)
        for number in 0..<others { _ = try await world.send("far \(number)", due: start + 259_200_000) }
        #expect(try await world.edit("cancel", "cancelled").code == 0)
        #expect(try await world.edit("edit", "edited", body: "edited last").code == 0)
        #expect(try await world.recall(handle) == 0)
        world.clock.jump(900_000)
        try await world.restart(killed: true)
        try await world.pass(10_000)
        let found = try await world.delivered().map(\.body).sorted()
        #expect(found == ["edited last"] + (11...14).map { "in \($0)" })
        try await world.end()
    }

    @Test("a slave that becomes the master delivers what its master would have", arguments: [20_000, 3_600_000])
    func promoted(delay: Int64) async throws {
        let world = try await World()
        let due = world.clock.now + delay
        for key in ["back", "edited", "gone", "plain"] { _ = try await world.send(key, due: due) }
        for other in [due + 60_000, due] {
            #expect(try await world.edit("reschedule", "back", due: other).code == 0)
            #expect(try await world.edit("edit", "edited", body: "edited to \(other)").code == 0)
        }
        #expect(try await world.edit("cancel", "gone").code == 0)
        let bytes = try await world.becomeSlave()
        #expect(bytes > 0)
        try await world.pass(2000)
        #expect(try await world.broker.onLoop { $0.store.writtenOffset.rawValue } == bytes)
        try await world.becomeMaster()
        try await world.passFar(due - world.clock.now + 1000)
        let found = try await world.delivered().map(\.body)
        #expect(found.sorted() == ["back", "edited to \(due)", "plain"], "\(found)")
        try await world.passFar(200_000)
        #expect(try await world.delivered().count == 3)
        try await world.end()
    }

    /// Nothing is both answered as withdrawn and delivered, whatever the moment.
    @Test("cancelled at any moment around its time, it comes if and only if the cancellation was refused")
    func aroundItsTime() async throws {
        let world = try await World()
        for offset: Int64 in [-4, -1, 0, 1, 3] {
            let due = world.clock.now + 20
            // So few that no answer goes by sendfile, which these clients do not read.
            let keys = (0..<12).map { "m\(offset)-\($0)" }
            for key in keys { _ = try await world.send(key, due: due) }
            let before = try await world.delivered().count
            await world.broker.loop.advanceTime(by: .milliseconds(max(0, due + offset - world.clock.now)))
            var refused: Set<String> = []
            for key in keys where try await world.edit("cancel", key).code != 0 { refused.insert(key) }
            try await world.pass(1000)
            let came = try await world.delivered().dropFirst(before).map(\.body)
            #expect(Set(came) == refused && came.count == refused.count, "\(offset)")
        }
        try await world.end()
    }

    /// `APUS_TIMER_EDIT_SEEDS` says how many (2), `APUS_SEED` the first one.
    @Test("random sends, edits, recalls, jumps, restarts and kills: each comes once, at its last time, as edited last")
    func random() async throws {
        func number(_ name: String) -> UInt64? { ProcessInfo.processInfo.environment[name].flatMap { UInt64($0) } }
        let first = number("APUS_SEED") ?? 20_261_130
        for seed in first..<first + (number("APUS_TIMER_EDIT_SEEDS") ?? 2) {
            print("timer edits: seed \(seed) (again: APUS_SEED=\(seed) APUS_TIMER_EDIT_SEEDS=1)")
            try await random(SplitMix(state: seed), seed)
        }
    }

    private struct Known {
        var due: Int64
        var body: String
        var handle: String?
        /// Every time it has had.
        var times: [Int64]
        var isGone = false
    }

    private func random(_ generator: SplitMix, _ seed: UInt64) async throws {
        var random = generator
        func below(_ bound: Int) -> Int { Int.random(in: 0..<bound, using: &random) }
        let world = try await World()
        var known: [String: Known] = [:]
        func check(_ step: Int) async throws {
            var counts: [String: Int] = [:]
            for (body, at) in try await world.delivered() {
                let key = String(body.prefix { $0 != " " })
                counts[key, default: 0] += 1
                let message = try #require(known[key])
                let isRight = !message.isGone && body == message.body && at >= message.due
                #expect(isRight, "seed \(seed), step \(step): \(body)")
            }
            for (key, message) in known {
                let wanted = !message.isGone && message.due <= world.clock.now ? 1 : 0
                #expect(counts[key] ?? 0 == wanted, "seed \(seed), step \(step): \(key), due \(message.due)")
            }
        }
        for step in 0..<80 {
            let key = known.keys.sorted().randomElement(using: &random) ?? ""
            switch below(100) {
            case 0..<30:
                let key = "m\(step)"
                let due = world.clock.now + (Int64(1) << Int64(4 + below(26))) + Int64(below(1000))
                known[key] = Known(
                    due: due, body: key, handle: try await world.send(key, due: due), times: [due])
            case 30..<75:
                guard let message = known[key], !message.isGone, message.due > world.clock.now else { continue }
                let answer: RemotingCommand
                var next = message
                switch below(8) {
                case 0:
                    answer = try await world.edit("cancel", key)
                    next.isGone = true
                case 1..<4:
                    next.body = "\(key) \(step)"
                    answer = try await world.edit("edit", key, body: next.body)
                default:
                    let old = message.times.filter { $0 > world.clock.now }.randomElement(using: &random)
                    let new = world.clock.now + (Int64(1) << Int64(4 + below(26)))
                    next.due = below(2) == 0 ? old ?? new : new
                    next.times.append(next.due)
                    answer = try await world.edit("reschedule", key, due: next.due)
                }
                #expect(answer.code == 0, "seed \(seed), step \(step): \(answer.remark ?? "")")
                known[key] = next
            case 75..<80:
                guard let message = known[key], !message.isGone, message.times.count == 1, message.body == key,
                    message.due > world.clock.now
                else { continue }
                let fields = [
                    "topic": Self.topic, "recallHandle": message.handle ?? "", "producerGroup": "P",
                ]
                #expect(try await world.client.invoke(.recallMessage, fields).code == 0)
                known[key]?.isGone = true
            case 80..<90: try await world.pass(Int64(below(20_000)))
            case 90..<94:
                world.clock.jump(Int64(1) << Int64(below(29)))
                try await world.pass(31_000)
            default: try await world.restart(killed: below(2) == 0)
            }
            try await world.pass(500)
            try await check(step)
        }
        world.clock.jump(1 << 31)
        try await world.pass(40_000)
        try await check(80)
        try await world.end()
    }
}
