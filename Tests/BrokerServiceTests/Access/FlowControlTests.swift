import BrokerService
import FastJSON
import Foundation
import RemotingProtocol
import TestTools
import Testing

/// Producers faster than the disk: their connections are held back first, and what must be refused is refused in words.
@Suite("flow control") struct FlowControlTests {
    private static let fields = [
        "a": "P", "b": "Flood", "c": "TBW102", "d": "4", "e": "0", "f": "0", "g": "0", "h": "0", "m": "false",
    ]

    /// Posts without reading answers, on a thread of its own: it will be held back.
    private func flood(_ connection: RawConnection, _ count: Int) -> Thread {
        // Handed over to the thread; the test reads from it only.
        nonisolated(unsafe) let connection = connection
        let thread = Thread {
            do {
                for _ in 0..<count {
                    try connection.post(.sendMessageV2, Self.fields, body: [UInt8](repeating: 1, count: 1000))
                }
            } catch {
                Issue.record(error)
            }
        }
        thread.start()
        return thread
    }

    private func waiting(_ connection: RawConnection) throws -> Int {
        let runtime = try connection.invoke(.getBrokerRuntimeInfo).json()["table"]
        return runtime?["sendThreadPoolQueueSize"]?.string.flatMap { Int($0) } ?? -1
    }

    @Test(
        "a stuck disk holds its producer back, not the others, and takes up no more memory; then all are acknowledged")
    func heldBack() throws {
        let disk = FailingDisk()
        let harness = try BrokerHarness(
            [("flushDiskType", "SYNC_FLUSH"), ("syncFlushTimeout", "60000")], disk: disk)
        defer { try? harness.end() }
        let (producer, other) = (try harness.connect(), try harness.connect())
        #expect(try other.send(topic: "Flood").code == 0)
        disk.isStuck = true
        defer { disk.isStuck = false }
        let count = 20_000
        let thread = flood(producer, count)
        // 20 MB are on their way, of which the broker takes what 1024 messages and one round of reads bring.
        try eventually { try waiting(other) >= 1024 }
        // Time passes, in which it could take more.
        usleep(300_000)
        let held = try waiting(other)
        #expect(held < 4096, "\(held) messages wait")
        #expect(!thread.isFinished, "the producer can go on writing")
        // Others are served meanwhile, also with messages that need no disk.
        let began = Date()
        for _ in 0..<20 { #expect(try other.send(topic: "Other", properties: "WAIT\u{1}false").code == 0) }
        #expect(Date().timeIntervalSince(began) < 1)
        disk.isStuck = false
        for number in 1...count {
            let answer = try producer.receive(timeoutMilliseconds: 20_000)
            guard answer.code == 0, answer.opaque == Int32(number), answer.extFields["queueOffset"] == String(number)
            else {
                Issue.record("answer \(number) is \(answer.opaque) with code \(answer.code) \(answer.extFields)")
                return
            }
        }
        #expect(try waiting(other) == 0)
    }

    @Test("more waiting than may: code 2, which resource, what to do; afterwards it goes on")
    func refused() throws {
        let disk = FailingDisk()
        let harness = try BrokerHarness(
            [
                ("flushDiskType", "SYNC_FLUSH"), ("syncFlushTimeout", "60000"), ("sendThreadPoolQueueCapacity", "300"),
            ], disk: disk)
        defer { try? harness.end() }
        let (producer, other) = (try harness.connect(), try harness.connect())
        #expect(try other.send(topic: "Flood").code == 0)
        disk.isStuck = true
        defer { disk.isStuck = false }
        _ = flood(producer, 500)
        try eventually { try waiting(other) >= 300 }
        let refused = try other.send(topic: "Flood")
        #expect(refused.code == ResponseCode.systemBusy.rawValue)
        for part in [
            "[OVERLOAD]system busy, start flow control for a while", "messages wait to be acknowledged",
            "sendThreadPoolQueueCapacity=300", "flushDiskType=SYNC_FLUSH", "send more slowly",
        ] {
            #expect(refused.remark?.contains(part) == true, "\(refused.remark ?? "")")
        }
        disk.isStuck = false
        var accepted = 0
        for _ in 0..<500 where try producer.receive(timeoutMilliseconds: 20_000).code == 0 { accepted += 1 }
        #expect(accepted >= 300)
        #expect(try other.send(topic: "Flood").code == 0)
        #expect(
            try other.invoke(.getMaxOffset, ["topic": "Flood", "queueId": "0"]).extFields["offset"] == "\(accepted + 2)"
        )
    }
}
