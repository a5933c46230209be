import FastJSON
import Foundation
import NIOCore
import NIOEmbedded
import RemotingProtocol
import Testing
import WorkerProtocol

@testable import BrokerService

/// Which filter worker is asked about what.
@Suite("expressions go to the worker that serves what they need")
struct FilterRoutingTests {
    /// The expressions each worker was asked to compile.
    final class Workers {
        let loop = EmbeddedEventLoop()
        let link: FilterLink
        var asked: [Int: [String]] = [:]
        /// What the workers for built-in plugins answer to expressions that call plugins.
        var calls: [String: [String]] = [:]

        init() {
            let clock = clock
            link = FilterLink(eventLoop: loop, observer: nil) { clock.now }
        }

        private let clock = Clock()
        private final class Clock { var now: Int64 = 0 }

        func pass(milliseconds: Int64) {
            clock.now += milliseconds
            loop.advanceTime(by: .milliseconds(milliseconds))
        }

        func connect(_ index: Int, rank: UInt8, _ types: [String]) {
            link.connect(index) { [unowned self] message in
                guard case .filterCompile(let request, _, let expression) = message else { return }
                asked[index, default: []].append(expression)
                if rank == 0, let calls = calls[expression] {
                    link.receive(
                        .filterCompiled(request: request, result: .elsewhere(types: calls, reason: "none")), from: index
                    )
                } else {
                    link.receive(.filterCompiled(request: request, result: .program(UInt32(index) + 1)), from: index)
                }
            }
            link.receive(.filterServes(rank: rank, types: types), from: index)
        }

        func program(_ type: String, _ expression: String) -> UInt32? {
            if case .program(let program) = link.subscription(type: type, expression: expression).state {
                program
            } else {
                nil
            }
        }
    }

    @Test(
        "the report of those who depend on plugins has its bound, whatever clients call themselves, and the whole count"
    )
    func report() throws {
        let few = ["b", "a"].map {
            PluginSubscription(group: $0, topic: "T", type: "SQL92", expression: "PLUGIN('A', 'x')", calls: ["A"])
        }
        #expect(
            PluginSubscriptionReport.json([few[1]], bytesMax: 12_288)
                == #"{"subscriptions":[{"group":"a","topic":"T","type":"SQL92","expression":"PLUGIN('A', 'x')","calls":["A"]}],"#
                + #""subscriptionCount":1}"#)
        let many = (0..<1000).map { number in
            PluginSubscription(
                group: "\(number)" + String(repeating: "\u{1}", count: 200), topic: "T", type: "A",
                expression: String(repeating: "\"é\u{7}", count: 1000), calls: [])
        }
        let json = PluginSubscriptionReport.json(many, bytesMax: 12_288)
        #expect(json.utf8.count <= 12_288)
        let value = try JSONValue(parsing: json)
        let shown = value["subscriptions"]?.array?.count ?? 0
        #expect(shown > 3 && shown < 1000 && value["subscriptionCount"]?.integer == 1000)
    }

    @Test("an expression of 64 KiB is compiled; of a longer one, or one of a long type, nothing is kept")
    func longExpressions() {
        let workers = Workers()
        workers.connect(0, rank: 0, ["TAG", "SQL92"])
        #expect(workers.program("SQL92", String(repeating: "x", count: 64 << 10)) == 1)
        let (kept, asked) = (workers.link.bytes, workers.asked[0]?.count)
        for (type, expression) in [
            ("SQL92", String(repeating: "x", count: 64 << 10 | 1)), (String(repeating: "T", count: 65), "a"),
        ] {
            let subscription = workers.link.subscription(type: type, expression: expression)
            guard case .refused(_, let reason) = subscription.state else {
                Issue.record("\(subscription.state)")
                return
            }
            #expect(reason.contains("at most"))
            #expect(subscription.textBytes < 64 && reason.utf8.count < 200)
        }
        #expect(workers.link.bytes == kept && workers.asked[0]?.count == asked)
    }

    @Test("expressions nobody holds take 32 MiB; held ones 256 MiB, then no other is taken until some are let go")
    func expressionBytes() {
        let workers = Workers()
        func expression(_ number: Int) -> String { String(repeating: "\(number % 10)", count: 65_000) + "\(number)" }
        for number in 0..<1000 { _ = workers.link.subscription(type: "A", expression: expression(number)) }
        #expect(workers.link.bytes <= FilterLink.bytesMax && workers.link.bytes > FilterLink.bytesMax / 2)
        var held: [CompiledSubscription] = []
        for number in 0..<4500 { held.append(workers.link.subscription(type: "A", expression: expression(number))) }
        #expect(workers.link.bytes <= FilterLink.heldBytesMax && workers.link.bytes > FilterLink.heldBytesMax / 2)
        guard case .unavailable(let reason, _)? = held.last?.state else {
            Issue.record("taken, whatever it costs")
            return
        }
        #expect(reason.contains("256 MiB") && held.last?.textBytes ?? .max < 64)
        // It is not what the next read finds, and the next heartbeat replaces it.
        let unlucky = expression(4499)
        #expect(held.last?.hasNoRoom == true)
        func subscription() -> Subscription {
            Subscription(
                SubscriptionData(topic: "T", subString: unlucky, expressionType: "A"),
                filter: workers.link.filter(type: "A", expression: unlucky))
        }
        let kept = subscription()
        held = []
        workers.pass(milliseconds: 60_000)
        kept.renew(by: subscription())
        guard case .compiled(let compiled) = kept.filter, !compiled.hasNoRoom else {
            Issue.record("\(kept.filter)")
            return
        }
        _ = workers.link.subscription(type: "A", expression: "a")
        #expect(workers.link.bytes <= FilterLink.bytesMax)
    }

    @Test("a worker's answer of more than 4096 tags codes or types is not kept")
    func longAnswers() {
        let workers = Workers()
        var answer = FilterCompilation.everything
        var released: [UInt32] = []
        workers.link.connect(0) { [unowned workers] message in
            if case .filterRelease(let program) = message { released.append(program) }
            guard case .filterCompile(let request, _, _) = message else { return }
            workers.link.receive(.filterCompiled(request: request, result: answer), from: 0)
        }
        let many = [Int64](0...4096)
        for (number, result) in [
            FilterCompilation.tagsCodes(many), .program(7, prefilter: many),
            .elsewhere(types: many.map { "\($0)" }, reason: ""),
        ].enumerated() {
            answer = result
            let subscription = workers.link.subscription(type: "A", expression: "\(number)")
            guard case .unavailable = subscription.state else {
                Issue.record("\(subscription.state)")
                return
            }
            #expect(subscription.answerBytes < 1024)
        }
        #expect(released == [7])
        answer = .tagsCodes([Int64](0..<4096))
        guard case .tagsCodes = workers.link.subscription(type: "A", expression: "fits").state else {
            Issue.record("4096 codes are few enough")
            return
        }
        // Types no expression can have are not remembered, and no more than there can be.
        workers.link.receive(.filterServes(rank: 0, types: ["A", String(repeating: "T", count: 65)]), from: 0)
        #expect(workers.link.typesServed(by: 0) == ["A"])
        workers.link.receive(.filterServes(rank: 0, types: many.map { "\($0)" }), from: 0)
        #expect(workers.link.typesServed(by: 0).count == 4096)
    }

    /// A pull that does not wait for messages, and a client that checks its expression, have nothing else that would
    /// answer them.
    @Test("who waits for an expression is called back, wherever it goes meanwhile and whichever worker is away")
    func waiters() {
        let workers = Workers()
        workers.connect(0, rank: 0, ["TAG", "SQL92"])
        workers.connect(1, rank: 2, ["A"])
        workers.connect(2, rank: 1, ["A"])
        let subscription = workers.link.subscription(type: "A", expression: "a")
        // Its worker died of the plugin, and a client asks meanwhile.
        workers.link.disconnect(2)
        var calls = 0
        workers.link.whenCompiled(subscription) { calls += 1 }
        #expect(calls == 0)
        // It is back, is asked, and serves nothing any more before it answers: the other one is asked at once.
        workers.link.connect(2) { _ in }
        workers.link.receive(.filterServes(rank: 1, types: []), from: 2)
        #expect(calls == 1)
        guard case .program(2) = subscription.state else {
            Issue.record("not compiled by the worker for plugins with a record: \(subscription.state)")
            return
        }
        // No worker comes back: the wait ends all the same, also of who comes later.
        workers.link.disconnect(1)
        for round in 2...3 {
            workers.link.prepare(subscription)
            workers.link.whenCompiled(subscription) { calls += 1 }
            workers.pass(milliseconds: 2_999)
            #expect(calls == round - 1)
            workers.pass(milliseconds: 1)
            #expect(calls == round)
        }
    }

    @Test("who waits while an expression moves to a worker that is away is called back after a while")
    func movedToNobody() {
        let workers = Workers()
        workers.connect(0, rank: 0, ["TAG", "SQL92"])
        workers.connect(1, rank: 2, ["A"])
        workers.connect(2, rank: 1, ["A"])
        let subscription = workers.link.subscription(type: "A", expression: "a")
        workers.link.disconnect(1)
        workers.link.disconnect(2)
        workers.link.connect(2) { _ in }
        var calls = 0
        // Asked, and before there is an answer the worker has the type no more.
        workers.link.whenCompiled(subscription) { calls += 1 }
        workers.link.receive(.filterServes(rank: 1, types: []), from: 2)
        workers.pass(milliseconds: 2_999)
        #expect(calls == 0)
        workers.pass(milliseconds: 1)
        #expect(calls == 1)
    }

    @Test("by type, by what is called, by rank; what has moved is compiled anew, what is away is waited for")
    func routes() {
        let workers = Workers()
        workers.calls = ["PLUGIN A": ["A"], "PLUGIN A B": ["A", "B"], "PLUGIN X": ["X"]]
        workers.connect(0, rank: 0, ["TAG", "SQL92"])
        workers.connect(1, rank: 2, ["A", "B"])
        workers.connect(2, rank: 1, ["A"])
        workers.connect(3, rank: 1, ["B"])
        #expect(workers.program("SQL92", "a = 1") == 1)
        #expect(workers.program("A", "a") == 3)
        #expect(workers.program("B", "b") == 4)
        #expect(workers.program("SQL92", "PLUGIN A") == 3)
        #expect(workers.program("SQL92", "PLUGIN A B") == 2, "the only one that has both")
        #expect(workers.program("SQL92", "PLUGIN X") == nil)
        guard case .unavailable(let reason, _) = workers.link.subscription(type: "SQL92", expression: "PLUGIN X").state
        else {
            Issue.record("served by no worker, and not said")
            return
        }
        #expect(reason == "none")
        // The plugin got a record: its worker is back without it, and it goes on in the other one.
        workers.link.disconnect(2)
        #expect(
            workers.program("A", "a") == nil, "an expression that kills its worker does not go on to the next by itself"
        )
        workers.connect(2, rank: 1, [])
        #expect(workers.program("A", "a") == 2)
        #expect(workers.program("SQL92", "PLUGIN A") == 2)
        #expect(workers.program("B", "b") == 4)
        // Pardoned: back again.
        workers.link.receive(.filterServes(rank: 1, types: ["A"]), from: 2)
        #expect(workers.program("A", "a") == 3)
        #expect(workers.asked[3] == ["b"], "who served on was not asked again: \(workers.asked)")
    }

    /// A plugin's code runs in its worker, and can write to the broker: it must not answer for SQL92.
    @Test("a worker with foreign code gets no built-in type, and answers only what it was asked")
    func foreign() {
        let workers = Workers()
        workers.link.builtInWorkers = 1
        workers.connect(0, rank: 0, ["TAG", "SQL92"])
        workers.connect(1, rank: 0, ["TAG", "SQL92", "A"])
        for number in 0..<16 { #expect(workers.program("SQL92", "a = \(number)") == 1) }
        #expect(workers.program("A", "a") == 2)
        // Worker 0 is asked and has not answered yet; the numbers of requests can be guessed.
        var asked: UInt64?
        workers.link.connect(0) { message in
            if case .filterCompile(let request, _, "b = 1") = message { asked = request }
            if case .filterBatch(let request, _, _) = message { asked = request }
        }
        let subscription = workers.link.subscription(type: "SQL92", expression: "b = 1")
        guard let request = asked else {
            Issue.record("worker 0 was not asked")
            return
        }
        workers.link.receive(.filterCompiled(request: request, result: .tagsCodes([])), from: 1)
        #expect(subscription.mayMatch(tagsCode: 1), "an answer of another worker's was taken")
        workers.link.receive(.filterCompiled(request: request, result: .program(9)), from: 0)
        guard case .program(9) = subscription.state else {
            Issue.record("\(subscription.state)")
            return
        }
        var verdicts: [[UInt8]?] = []
        workers.link.match(subscription, program: 9, entries: [UInt8](repeating: 0, count: 20)) { verdicts.append($0) }
        workers.link.receive(.filterMatched(request: asked ?? 0, bitmap: [0]), from: 1)
        workers.link.receive(.filterFailed(request: asked ?? 0, unknownProgram: true, reason: ""), from: 1)
        #expect(verdicts.isEmpty, "a verdict of another worker's was taken")
        workers.link.receive(.filterMatched(request: asked ?? 0, bitmap: [1]), from: 0)
        #expect(verdicts == [[1]])
    }
}
