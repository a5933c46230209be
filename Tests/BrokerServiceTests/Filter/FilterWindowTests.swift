import MessageStore
import RemotingProtocol
import StoreFormat
import Testing
import WorkerProtocol

@testable import BrokerService

private func code(_ tag: String) -> Int64 { TagsCode.of(tag) }

/// A filter worker whose program wants the messages of some tags. Touched only on the event loop and between requests.
private final class FilterDouble: @unchecked Sendable {
    var wanted: Set<Int64>
    var prefilter: [Int64]?
    /// Entries of a batch it looks at; the rest is for the next batch.
    var patience = Int.max
    var isAlive = true
    private(set) var batches: [Int] = []

    init(_ tags: [String]) { wanted = Set(tags.map { code($0) }) }

    func attach(to broker: Broker) {
        let filters = broker.filters
        filters.connect { [unowned filters, self] message in
            switch message {
            case .filterCompile(let request, _, _):
                filters.receive(.filterCompiled(request: request, result: .program(7, prefilter: prefilter)))
            case .filterBatch(let request, 7, let entries):
                guard isAlive else { return }
                filters.receive(.filterMatched(request: request, bitmap: bitmap(entries)))
            default: break
            }
        }
    }

    private func bitmap(_ entries: [UInt8]) -> [UInt8] {
        let size = ConsumeQueueEntry.size
        let count = min(entries.count / size, patience)
        batches.append(entries.count / size)
        var bitmap = [UInt8](repeating: 0, count: (count + 7) / 8)
        entries.withUnsafeBytes { bytes in
            for index in 0..<count {
                guard let base = bytes.baseAddress else { return }
                if wanted.contains(ConsumeQueueEntry(base + index * size).tagsCode) {
                    bitmap[index / 8] |= 1 << UInt8(index % 8)
                }
            }
        }
        return bitmap
    }
}

@Suite("verdicts of the filter worker, kept for the pulls that follow")
struct FilterWindowTests {
    static let messages = 3000

    /// Message n has the tag M when n is a multiple of 40, otherwise N or, for every 7th, P.
    static func tag(_ number: Int) -> String { number % 40 == 0 ? "M" : number % 7 == 0 ? "P" : "N" }

    static func fill(_ connection: RawConnection) throws {
        for number in 0..<messages {
            let answer = try connection.send(topic: "W", body: "\(number)", properties: "TAGS\u{1}\(tag(number))")
            try #require(answer.code == 0)
        }
    }

    /// Reads the queue from its beginning; the bodies, and the pulls it took.
    static func read(
        _ connection: RawConnection, _ expression: String, group: String = "G", from: Int = 0, to end: Int = messages
    ) throws -> (bodies: [String], pulls: Int) {
        var offset = from
        var bodies: [String] = []
        var pulls = 0
        while offset < end {
            let answer = try connection.invoke(
                .pullMessage,
                RawConnection.pullFields(
                    topic: "W", offset: Int64(offset), group: group, subscription: expression, type: "SQL92"))
            try #require(
                answer.responseCode == .success || answer.responseCode == .pullRetryImmediately,
                "\(answer.code) \(answer.remark ?? "")")
            bodies += Self.bodies(answer.body)
            let next = try #require(answer.extFields["nextBeginOffset"].flatMap { Int($0) })
            try #require(next > offset, "the offset does not move")
            offset = next
            pulls += 1
        }
        return (bodies, pulls)
    }

    static func names(_ condition: (Int) -> Bool) -> [String] { (0..<messages).filter(condition).map(String.init) }

    @Test("a rare match is found in few pulls and few batches; nothing is skipped, unfiltered or doubled")
    func rare() throws {
        let double = FilterDouble(["M"])
        let harness = try BrokerHarness { double.attach(to: $0) }
        defer { try? harness.end() }
        let connection = try harness.connect()
        try Self.fill(connection)
        let (bodies, pulls) = try Self.read(connection, "m")
        #expect(bodies == Self.names { $0 % 40 == 0 })
        #expect(pulls <= 8, "\(pulls) pulls for 75 messages of 3000")
        #expect(double.batches.reduce(0, +) == Self.messages, "an entry was asked about twice: \(double.batches)")
        #expect(double.batches.count <= 5, "\(double.batches)")
        // A group that goes back asks again; another group has its own window.
        #expect(try Self.read(connection, "m", from: 1000).bodies == Self.names { $0 >= 1000 && $0 % 40 == 0 })
        #expect(try Self.read(connection, "m", group: "Other").bodies == bodies)
        // Nothing at all matches: told where to go on, in the end.
        double.wanted = []
        let (none, empty) = try Self.read(connection, "nothing")
        #expect(none.isEmpty && empty == 1, "\(empty) pulls")
    }

    @Test("every match, in batches cut short by a slow program")
    func slow() throws {
        let double = FilterDouble(["M", "N", "P"])
        double.patience = 24
        let harness = try BrokerHarness { double.attach(to: $0) }
        defer { try? harness.end() }
        let connection = try harness.connect()
        try Self.fill(connection)
        #expect(try Self.read(connection, "all").bodies == Self.names { _ in true })
        double.wanted = [code("P")]
        double.patience = 8
        #expect(try Self.read(connection, "p").bodies == Self.names { Self.tag($0) == "P" })
    }

    @Test("the next pull finds its expression by its bytes, and no other that looks like it")
    func recent() {
        func bytes<R>(_ text: String, _ body: (UnsafeRawBufferPointer) -> R) -> R {
            [UInt8](text.utf8).withUnsafeBytes { body($0) }
        }
        var recent = RecentSubscriptions()
        func find(_ type: String?, _ expression: String) -> CompiledSubscription? {
            bytes(expression) { expression in
                guard let type else { return recent.find(nil, expression) }
                return bytes(type) { recent.find($0, expression) }
            }
        }
        func add(_ type: String?, _ expression: String) -> CompiledSubscription {
            let subscription = CompiledSubscription(type: type ?? "TAG", expression: expression)
            bytes(expression) { expression in
                guard let type else { return recent.add(subscription, nil, expression) }
                bytes(type) { recent.add(subscription, $0, expression) }
            }
            return subscription
        }
        #expect(find("SQL92", "a > 5 AND b = 'x'") == nil)
        let condition = add("SQL92", "a > 5 AND b = 'x'")
        #expect(find("SQL92", "a > 5 AND b = 'x'") === condition)
        // The same length, beginning and end.
        #expect(find("SQL92", "a > 5 ANX b = 'x'") == nil)
        #expect(find("RANGE", "a > 5 AND b = 'x'") == nil)
        #expect(find(nil, "a > 5 AND b = 'x'") == nil)
        let tag = add(nil, "T")
        #expect(find(nil, "T") === tag)
        #expect(find("SQL92", "T") == nil)
        #expect(find(nil, "") == nil)
        let none = add("X", "")
        #expect(find("X", "") === none)
        _ = add("X", String(repeating: "x", count: 5000))
        #expect(find("X", String(repeating: "x", count: 5000)) == nil)
    }

    @Test("a pull takes as many as it asks for, wherever it begins among the verdicts")
    func counts() throws {
        let double = FilterDouble(["M", "N", "P"])
        let harness = try BrokerHarness { double.attach(to: $0) }
        defer { try? harness.end() }
        let connection = try harness.connect()
        try Self.fill(connection)
        func pull(_ offset: Int, _ count: Int, _ expression: String) throws -> (bodies: [String], next: String?) {
            var fields = RawConnection.pullFields(
                topic: "W", offset: Int64(offset), subscription: expression, type: "SQL92")
            fields["maxMsgNums"] = "\(count)"
            let answer = try connection.invoke(.pullMessage, fields)
            return (Self.bodies(answer.body), answer.extFields["nextBeginOffset"])
        }
        for count in [1, 7, 31, 32] {
            for offset in [0, 1, 31, 33, 63, 64, 65, 127, 200] {
                let (bodies, next) = try pull(offset, count, "all")
                #expect(bodies == (offset..<offset + count).map(String.init), "\(count) from \(offset)")
                #expect(next == "\(offset + count)")
            }
        }
        double.wanted = [code("P")]
        for count in [1, 5, 32] {
            let (bodies, next) = try pull(0, count, "p")
            let wanted = Self.names { Self.tag($0) == "P" }
            #expect(bodies == Array(wanted.prefix(count)))
            #expect(next == wanted[count], "where the next one lies")
        }
    }

    @Test("entries are kept for the answer while there is room, read again without; all room comes back")
    func keptEntries() throws {
        for room in [0, 3000, 4 << 20] {
            let double = FilterDouble(["M", "P"])
            let harness = try BrokerHarness {
                $0.filters.entryMemory = EntryMemory(maximum: room)
                double.attach(to: $0)
            }
            defer { try? harness.end() }
            let connection = try harness.connect()
            try Self.fill(connection)
            var used = 0
            for group in ["A", "B", "C"] {
                let (bodies, _) = try Self.read(connection, "mp", group: group)
                #expect(bodies == Self.names { Self.tag($0) != "N" })
                used = max(used, try harness.onLoop { $0.filters.entryMemory.used })
            }
            #expect(room < 4096 ? used <= room : used > 3 * ConsumeQueueEntry.size, "\(used) of \(room)")
            try harness.onLoop { $0.filters.disconnect() }
            #expect(try harness.onLoop { $0.filters.entryMemory.used } == 0)
        }
    }

    @Test("what the prefilter excludes is never asked about")
    func prefilter() throws {
        for patience in [Int.max, 8] {
            let double = FilterDouble(["M"])
            double.prefilter = [code("M"), code("P")]
            double.patience = patience
            let harness = try BrokerHarness { double.attach(to: $0) }
            defer { try? harness.end() }
            let connection = try harness.connect()
            try Self.fill(connection)
            let some = Self.names { Self.tag($0) != "N" }.count
            #expect(try Self.read(connection, "m").bodies == Self.names { $0 % 40 == 0 })
            if patience == .max { #expect(double.batches.reduce(0, +) == some) }
            // No message at all can match: no question is asked.
            let asked = double.batches.count
            double.prefilter = [code("Q")]
            #expect(try Self.read(connection, "q").bodies.isEmpty)
            #expect(double.batches.count == asked)
        }
    }

    @Test("verdicts go with the worker that gave them")
    func replaced() throws {
        let first = FilterDouble(["M"])
        let harness = try BrokerHarness { first.attach(to: $0) }
        defer { try? harness.end() }
        let connection = try harness.connect()
        try Self.fill(connection)
        #expect(try Self.read(connection, "x", to: 2000).bodies.first == "0")
        let second = FilterDouble(["P"])
        try harness.onLoop { second.attach(to: $0) }
        let (bodies, _) = try Self.read(connection, "x")
        #expect(bodies == Self.names { Self.tag($0) == "P" })
    }

    @Test("a held pull is answered by what arrives and matches, and goes on behind what does not")
    func held() throws {
        let double = FilterDouble(["M"])
        let harness = try BrokerHarness { double.attach(to: $0) }
        defer { try? harness.end() }
        let producer = try harness.connect()
        let consumer = try harness.connect()
        _ = try producer.send(topic: "Held", body: "no", properties: "TAGS\u{1}N")
        try consumer.post(
            .pullMessage,
            RawConnection.pullFields(topic: "Held", subscription: "m", type: "SQL92", suspendMilliseconds: 15_000))
        for _ in 0..<20 { _ = try producer.send(topic: "Held", body: "no", properties: "TAGS\u{1}N") }
        #expect(throws: RawConnection.TimedOut.self) { try consumer.receive(timeoutMilliseconds: 100) }
        _ = try producer.send(topic: "Held", body: "yes", properties: "TAGS\u{1}M")
        let answer = try consumer.receive()
        #expect(answer.code == 0)
        #expect(answer.extFields["nextBeginOffset"] == "22")
        #expect(double.batches.reduce(0, +) == 22)
    }

    static func bodies(_ bytes: [UInt8]) -> [String] {
        var found: [String] = []
        bytes.withUnsafeBytes { all in
            var rest = UnsafeRawBufferPointer(rebasing: all[...])
            while case .record(let view) = CommitLogRecord.parse(rest) {
                found.append(String(decoding: view.body, as: UTF8.self))
                rest = UnsafeRawBufferPointer(rebasing: rest[view.totalSize...])
            }
        }
        return found
    }
}
