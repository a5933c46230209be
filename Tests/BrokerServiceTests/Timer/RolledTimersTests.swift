import Foundation
import MessageModel
import MessageStore
import NIOCore
import NIOEmbedded
import RemotingProtocol
import StoreFormat
import Testing

@testable import BrokerService

/// RocketMQ 5's wheel reaches two days (`timerRollWindowSlot`). A message that waits longer is *rolled*:
/// TimerMessageStore stores it again in `rmq_sys_wheel_timer` when the window is over, with `TIMER_ROLL_TIMES`,
/// everything else as it was (`convert`, `convertMessage`); only the last copy is delivered. In the log they all lie
/// beside each other.
@Suite("timer messages RocketMQ 5 has rolled") struct RolledTimersTests {
    private static let timerTopic = "rmq_sys_wheel_timer"
    private static let topic = "F5_timer_s1szo"

    /// Adds records to the log a 5.3.3 broker has left.
    private struct Writer {
        let log: URL
        /// A timer message as 5.3.3 has stored it.
        var sample: [UInt8] = []
        var end = 0
        var timers: Int64 = 0

        init(_ folder: URL) throws {
            log = folder.appendingPathComponent("commitlog/00000000000000000000")
            let data = try Data(contentsOf: log, options: .mappedIfSafe)
            data.withUnsafeBytes { bytes in
                while case .record(let record) = CommitLogRecord.parse(UnsafeRawBufferPointer(rebasing: bytes[end...]))
                {
                    if String(decoding: record.topic, as: UTF8.self) == RolledTimersTests.timerTopic {
                        timers = record.queueOffset.rawValue + 1
                        let real = record.property("REAL_TOPIC").map { String(decoding: $0, as: UTF8.self) }
                        if sample.isEmpty, real == RolledTimersTests.topic { sample = Array(record.bytes) }
                    }
                    end += record.totalSize
                }
            }
            // What follows is found again from the log, as after `kill -9`.
            try Data().write(to: folder.appendingPathComponent("abort"))
            try? FileManager.default.removeItem(at: folder.appendingPathComponent("checkpoint"))
        }

        /// Appends the sample with other properties.
        mutating func add(_ change: (inout [(String, String)]) -> Void) throws {
            var bytes = sample
            var properties: [(String, String)] = []
            var oldCount = 0
            sample.withUnsafeBytes { raw in
                guard case .record(let record) = CommitLogRecord.parse(raw) else { return }
                oldCount = record.properties.count
                MessageProperties.forEach(in: record.properties) { name, value in
                    properties.append((String(decoding: name, as: UTF8.self), String(decoding: value, as: UTF8.self)))
                }
            }
            change(&properties)
            let text = Array(properties.map { "\($0.0)\u{1}\($0.1)\u{2}" }.joined().utf8)
            bytes.removeLast(oldCount + 2)
            bytes.append(UInt8(text.count >> 8))
            bytes.append(UInt8(text.count & 255))
            bytes.append(contentsOf: text)
            let offsets = (timers, Int64(end))
            bytes.withUnsafeMutableBytes { buffer in
                guard let base = buffer.baseAddress else { return }
                BigEndian.store(Int32(buffer.count), base, 0)
                BigEndian.store(offsets.0, base, CommitLogRecord.queueOffsetPosition)
                BigEndian.store(offsets.1, base, CommitLogRecord.physicalOffsetPosition)
            }
            let file = try FileHandle(forWritingTo: log)
            try file.seek(toOffset: UInt64(end))
            try file.write(contentsOf: bytes)
            try file.close()
            end += bytes.count
            timers += 1
        }
    }

    private struct Message {
        var id: String
        var due: Int64
        /// Copies RocketMQ has made.
        var rolls: Int
        var hasUniqueKey = true
    }

    /// The golden folder with these messages in its log, nothing of them delivered.
    private func folder(_ messages: [Message], now: Int64) throws -> URL {
        let folder = try TimerTakeoverTests.folder()
        var writer = try Writer(folder)
        for roll in 0...(messages.map(\.rolls).max() ?? 0) {
            for message in messages where message.rolls >= roll {
                try writer.add { properties in
                    func set(_ name: String, _ value: String) {
                        properties.removeAll { $0.0 == name }
                        properties.append((name, value))
                    }
                    properties.removeAll { $0.0.hasPrefix("TIMER_") }
                    set("TIMER_DELIVER_MS", String(message.due + 1000))
                    set("TIMER_OUT_MS", String(message.due))
                    set("KEYS", message.id)
                    if message.hasUniqueKey {
                        set("UNIQ_KEY", "UNIQ-" + message.id)
                    } else {
                        properties.removeAll { $0.0 == "UNIQ_KEY" }
                    }
                    guard roll > 0 else { return }
                    set("TIMER_ENQUEUE_MS", String(now - 86_400_000 * Int64(roll)))
                    set("TIMER_ROLL_TIMES", String(roll))
                    set("TIMER_DEQUEUE_MS", String(now - 1000 * Int64(roll)))
                }
            }
        }
        var note = Data(count: 4096)
        withUnsafeBytes(of: now.bigEndian) { note.replaceSubrange(0..<8, with: $0) }
        try note.write(to: folder.appendingPathComponent("config/timercheck"))
        return folder
    }

    /// What lies in the topic's queues, by key.
    private func delivered(_ broker: SimulatedBroker) async throws -> [String: Int] {
        await broker.settle()
        return try await broker.onLoop { broker in
            var counts: [String: Int] = [:]
            for queueID in 0..<Int32(8) {
                _ = Array(Self.topic.utf8).withUnsafeBytes { topic in
                    broker.store.getMessages(topic: topic, queueID: queueID, from: QueueOffset(0), maxCount: 1000) {
                        for message in Consumed.all(Array($0)) {
                            counts[message.properties["KEYS"] ?? "golden", default: 0] += 1
                        }
                    }
                }
            }
            return counts.filter { !$0.key.hasPrefix("golden") && $0.key.hasPrefix("m") }
        }
    }

    @Test("each comes once, at its real time, whether it waits in memory or in files, and not again after a kill")
    func once() async throws {
        let clock = SimulatedClock()
        let now = SimulatedClock.start
        let day: Int64 = 86_400_000
        let messages = [
            Message(id: "m-near", due: now + 20_000, rolls: 2), Message(id: "m-plain", due: now + 20_000, rolls: 0),
            Message(id: "m-hour", due: now + 7_200_000, rolls: 1), Message(id: "m-day", due: now + 3 * day, rolls: 3),
            Message(id: "m-same", due: now + 3 * day, rolls: 1),
            Message(id: "m-nameless", due: now + 3 * day + 1000, rolls: 1, hasUniqueKey: false),
        ]
        let place = try folder(messages, now: now)
        var broker = try await SimulatedBroker(TimerTakeoverTests.settings, folder: place, clock: clock)
        #expect(try await delivered(broker) == [:])
        func pass(_ milliseconds: Int64) async throws {
            var left = milliseconds
            while left > 0 {
                await broker.loop.advanceTime(by: .milliseconds(min(left, 500)))
                await broker.settle()
                left -= 500
            }
        }
        try await pass(19_500)
        #expect(try await delivered(broker) == [:])
        try await pass(1000)
        #expect(try await delivered(broker) == ["m-near": 1, "m-plain": 1])
        // As `kill -9` leaves it.
        let copy = place.deletingLastPathComponent().appendingPathComponent(place.lastPathComponent + "-killed")
        try await broker.onLoop { _ in try FileManager.default.copyItem(at: place, to: copy) }
        try await broker.end(cleanly: false)
        broker = try await SimulatedBroker(TimerTakeoverTests.settings, folder: copy, clock: clock)
        try await pass(5000)
        #expect(try await delivered(broker) == ["m-near": 1, "m-plain": 1])
        clock.jump(3 * day - 120_000)
        try await pass(33_000)
        let afterJump = try await delivered(broker)
        #expect(afterJump == ["m-near": 1, "m-plain": 1, "m-hour": 1])
        try await pass(120_000)
        #expect(try await delivered(broker).values.allSatisfy { $0 == 1 })
        #expect(Set(try await delivered(broker).keys) == Set(messages.map(\.id)))
        try await broker.end(cleanly: true)
        broker = try await SimulatedBroker(TimerTakeoverTests.settings, folder: copy, clock: clock)
        try await pass(5000)
        #expect(try await delivered(broker).count == messages.count)
        #expect(try await delivered(broker).values.allSatisfy { $0 == 1 })
        try await broker.end(cleanly: true)
        for folder in [place, copy] { try FileManager.default.removeItem(at: folder) }
    }
}
