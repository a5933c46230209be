import BrokerService
import Foundation
import RemotingProtocol
import StoreFormat
import TestTools
import Testing
import WorkerProtocol

@Suite struct PullTests {
    @discardableResult
    private func pull(_ connection: RawConnection, _ fields: [String: String]) throws -> Int32 {
        try connection.post(.pullMessage, fields)
    }

    @Test("a held pull is woken by a message in its queue, at once")
    func wake() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let producer = try harness.connect()
        let consumer = try harness.connect()
        _ = try producer.send(topic: "Wake", queueID: 1, body: "first")
        let opaque = try pull(
            consumer, RawConnection.pullFields(topic: "Wake", queueID: 1, offset: 1, suspendMilliseconds: 15_000))
        #expect(throws: RawConnection.TimedOut.self) { try consumer.receive(timeoutMilliseconds: 100) }
        _ = try producer.send(topic: "Wake", queueID: 0, body: "of another queue")
        #expect(throws: RawConnection.TimedOut.self) { try consumer.receive(timeoutMilliseconds: 100) }
        let began = Date()
        _ = try producer.send(topic: "Wake", queueID: 1, body: "second")
        let answer = try consumer.receive()
        #expect(Date().timeIntervalSince(began) < 0.5)
        #expect(answer.opaque == opaque)
        #expect(answer.code == 0)
        #expect(answer.extFields["nextBeginOffset"] == "2")
        #expect(String(decoding: answer.body, as: UTF8.self).contains("second"))
        #expect(try harness.onLoop { $0.heldPulls } == 0)
    }

    @Test("a pull of a queue where nothing was ever stored waits too")
    func wakeEmptyQueue() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let producer = try harness.connect()
        let consumer = try harness.connect()
        _ = try producer.send(topic: "Empty", queueID: 0)
        try pull(consumer, RawConnection.pullFields(topic: "Empty", queueID: 3, suspendMilliseconds: 15_000))
        #expect(throws: RawConnection.TimedOut.self) { try consumer.receive(timeoutMilliseconds: 50) }
        _ = try producer.send(topic: "Empty", queueID: 3)
        #expect(try consumer.receive().code == 0)
    }

    @Test("only a message with a wanted tag wakes a pull")
    func wakeByTag() throws {
        let harness = try BrokerHarness { TagFilterDouble.attach(to: $0) }
        defer { try? harness.end() }
        let producer = try harness.connect()
        let consumer = try harness.connect()
        _ = try producer.send(topic: "Tags", properties: "TAGS\u{1}A")
        try pull(
            consumer,
            RawConnection.pullFields(topic: "Tags", offset: 1, subscription: "A || C", suspendMilliseconds: 15_000))
        _ = try producer.send(topic: "Tags", properties: "TAGS\u{1}B")
        #expect(throws: RawConnection.TimedOut.self) { try consumer.receive(timeoutMilliseconds: 100) }
        _ = try producer.send(topic: "Tags", body: "wanted", properties: "TAGS\u{1}C")
        let answer = try consumer.receive()
        #expect(answer.code == 0)
        #expect(answer.extFields["nextBeginOffset"] == "3")
        #expect(NormalizedAnswer(answer, to: RemotingCommand(.pullMessage)).body.count == 1)
    }

    @Test("a pull that is not woken is answered at its deadline")
    func deadline() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let consumer = try harness.connect()
        _ = try consumer.send(topic: "Late")
        let began = Date()
        try pull(consumer, RawConnection.pullFields(topic: "Late", offset: 1, suspendMilliseconds: 400))
        let answer = try consumer.receive()
        #expect(answer.code == ResponseCode.pullNotFound.rawValue)
        #expect(answer.remark == "OFFSET_OVERFLOW_ONE")
        #expect((0.25...2).contains(Date().timeIntervalSince(began)))
    }

    @Test("a connection that ends takes its held pulls with it")
    func connectionEnds() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let producer = try harness.connect()
        _ = try producer.send(topic: "Gone")
        let consumer = try harness.connect()
        try pull(consumer, RawConnection.pullFields(topic: "Gone", offset: 1, suspendMilliseconds: 15_000))
        try pull(consumer, RawConnection.pullFields(topic: "Gone", queueID: 1, suspendMilliseconds: 15_000))
        try eventually { try harness.onLoop { $0.heldPulls } == 2 }
        consumer.close()
        try eventually { try harness.onLoop { $0.heldPulls } == 0 }
        #expect(try producer.send(topic: "Gone").code == 0)
    }

    @Test("while the filter worker is gone a filtered pull waits, and goes on with the next worker")
    func filterGone() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        _ = try connection.send(topic: "Filtered", body: "match", properties: "TAGS\u{1}A")
        try pull(
            connection, RawConnection.pullFields(topic: "Filtered", subscription: "A", suspendMilliseconds: 15_000))
        #expect(throws: RawConnection.TimedOut.self) { try connection.receive(timeoutMilliseconds: 150) }
        try harness.onLoop { TagFilterDouble.attach(to: $0) }
        let answer = try connection.receive()
        #expect(answer.code == 0)
        #expect(answer.extFields["nextBeginOffset"] == "1")

        // A pull that may not wait learns that it can be repeated.
        try harness.onLoop { $0.filters.disconnect() }
        let busy = try connection.invoke(
            .pullMessage, RawConnection.pullFields(topic: "Filtered", subscription: "B"))
        #expect(busy.code == ResponseCode.systemBusy.rawValue)
        // Tags codes once compiled need no worker.
        let known = try connection.invoke(
            .pullMessage, RawConnection.pullFields(topic: "Filtered", subscription: "A"))
        #expect(known.code == 0)
    }

    @Test("an expression the plugin refuses is answered with its place and the reason")
    func refusedExpression() throws {
        let harness = try BrokerHarness { TagFilterDouble.attach(to: $0) }
        defer { try? harness.end() }
        let connection = try harness.connect()
        _ = try connection.send(topic: "Refused")
        let answer = try connection.invoke(
            .pullMessage, RawConnection.pullFields(topic: "Refused", subscription: "a >", type: "SQL92"))
        #expect(answer.code == ResponseCode.subscriptionParseFailed.rawValue)
        #expect(answer.remark?.contains("position 3: no plugin for SQL92") == true)
    }

    @Test("a program's bitmap decides, message by message, and an unanswered batch changes nothing")
    func program() throws {
        let answers = Answers()
        let harness = try BrokerHarness { broker in
            broker.filters.connect { [unowned filters = broker.filters] message in
                switch message {
                case .filterCompile(let request, _, _):
                    filters.receive(.filterCompiled(request: request, result: .program(7)))
                case .filterBatch(let request, _, let entries):
                    guard answers.isAlive else { return }
                    // Every second entry matches, by its place in the queue.
                    let count = entries.count / WorkerMessage.filterEntryBytes
                    var bitmap = [UInt8](repeating: 0, count: (count + 7) / 8)
                    for index in stride(from: 0, to: count, by: 2) {
                        bitmap[index / 8] |= 1 << UInt8(index % 8)
                    }
                    filters.receive(.filterMatched(request: request, bitmap: bitmap))
                default: break
                }
            }
        }
        defer { try? harness.end() }
        let connection = try harness.connect()
        for number in 0..<10 { _ = try connection.send(topic: "Sql", body: "m\(number)") }
        let fields = RawConnection.pullFields(topic: "Sql", subscription: "x > 1", type: "SQL92", count: 3)
        let answer = try connection.invoke(.pullMessage, fields)
        #expect(answer.code == 0)
        #expect(answer.extFields["nextBeginOffset"] == "6")
        #expect(NormalizedAnswer(answer, to: RemotingCommand(.pullMessage)).body.count == 3)

        // What was decided once needs no worker, nor does a stretch in which tags decide; the rest does.
        answers.isAlive = false
        let next = RawConnection.pullFields(topic: "Sql", offset: 6, subscription: "x > 1", type: "SQL92", count: 3)
        #expect(try connection.invoke(.pullMessage, next).extFields["nextBeginOffset"] == "10")
        let other = RawConnection.pullFields(topic: "Sql", offset: 3, subscription: "x > 2", type: "SQL92", count: 3)
        try connection.post(.pullMessage, other)
        let late = try connection.receive(timeoutMilliseconds: 6000)
        #expect(late.code == ResponseCode.systemBusy.rawValue)
    }

    /// Touched only on the event loop and between requests.
    private final class Answers: @unchecked Sendable { var isAlive = true }
}
