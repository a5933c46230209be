import WorkerProtocol

/// Compiled expressions, each compiled once however many consumers subscribe with it.
///
/// Programs are counted: one per `compile` that answered `.program`, one less per `release`. A program without users
/// stays for the next consumer until more than `idleMaximum` are idle.
package final class FilterPrograms {
    /// The answer to a broker-store, as `WorkerProtocol` spells it.
    package enum Answer: Equatable {
        case everything
        case tagsCodes([Int64])
        case program(UInt32, prefilter: [Int64]? = nil)
        case refused(position: Int32, reason: String)
        case unavailable(reason: String)
        /// It calls plugins of these types, which are not here.
        case elsewhere(types: [String], reason: String)
    }

    private struct Key: Hashable {
        let type: String
        let expression: String
    }

    private enum Entry {
        /// Needs no program in this process: everything, codes, or a refusal.
        case settled(Answer)
        case program(id: UInt32)
    }

    private struct Live {
        let program: FilterProgram
        let key: Key
        var uses: Int
    }

    /// Longest expression taken, in bytes of UTF-8.
    package static let maximumExpression = WorkerMessage.filterExpressionMax

    private let catalogue: FilterCatalogue
    private let idleMaximum: Int
    private var entries: [Key: Entry] = [:]
    /// Keys without a program in use, oldest first.
    private var idle: [Key] = []
    private var live: [UInt32: Live] = [:]
    private var nextID: UInt32

    /// `firstID`: program numbers start at random, so that a number of a worker that died means nothing to the next
    /// one.
    package init(catalogue: FilterCatalogue, idleMaximum: Int = 1024, firstID: UInt32 = .random(in: 1...UInt32.max)) {
        precondition(idleMaximum > 0, "the compile cache needs space for at least one expression")
        self.catalogue = catalogue
        self.idleMaximum = idleMaximum
        nextID = firstID
    }

    /// Programs in the cache, used or idle.
    package var count: Int { live.count }

    /// Programs with users, in the order they were compiled.
    package var inUse: [(type: String, expression: String, plugins: [String], uses: Int)] {
        live.filter { $0.value.uses > 0 }.sorted { $0.key < $1.key }.map { _, entry in
            (
                entry.key.type, entry.key.expression,
                ([entry.program] + entry.program.answering).map(\.plugin.name), entry.uses
            )
        }
    }

    /// Each `.program` is one use, which one `release` ends. A refusal is remembered. What is unavailable or elsewhere
    /// is tried again.
    package func compile(type: String, expression: String) -> Answer {
        guard expression.utf8.count <= Self.maximumExpression else {
            return .refused(
                position: Int32(Self.maximumExpression),
                reason: "the expression is longer than \(Self.maximumExpression) bytes")
        }
        let key = Key(type: type, expression: expression)
        switch entries[key] {
        case .settled(let answer):
            return answer
        case .program(let id):
            return .program(id, prefilter: use(id).prefilter)
        case nil:
            return compileNew(key)
        }
    }

    private func compileNew(_ key: Key) -> Answer {
        guard let plugin = catalogue.plugin(forType: key.type) else {
            return .unavailable(reason: "no filter plugin serves expressions of the type \(key.type)")
        }
        if let reason = plugin.unavailability { return .unavailable(reason: reason) }
        switch plugin.compile(key.expression) {
        case .failed(let reason):
            return .unavailable(reason: reason)
        case .refused(let position, let reason):
            return settle(key, .refused(position: position, reason: reason))
        case .program(let program):
            if let refusal = answer(program) {
                if case .refused = refusal { return settle(key, refusal) }
                return refusal
            }
            switch program.tagsCodes {
            case .everything: return settle(key, .everything)
            case .exact(let codes): return settle(key, .tagsCodes(codes))
            case .prefilter, .unused:
                let id = newID()
                live[id] = Live(program: program, key: key, uses: 1)
                entries[key] = .program(id: id)
                return .program(id, prefilter: program.prefilter)
            }
        }
    }

    /// Compiles what a program asks of other plugins. nil: all of them answer.
    private func answer(_ program: FilterProgram) -> Answer? {
        guard !program.asks.isEmpty else { return nil }
        let own = program.plugin.type
        for call in program.asks where call.type == own {
            return .refused(
                position: Int32(clamping: call.typePosition), reason: "\(own) inside \(own): write the condition itself"
            )
        }
        let missing = Set(program.asks.map(\.type)).filter { catalogue.plugin(forType: $0) == nil }.sorted()
        if !missing.isEmpty {
            // One worker must have all of them; those that come with Apus every worker has.
            let needed = Set(program.asks.map(\.type)).subtracting(Self.everywhere).sorted()
            let types = missing.joined(separator: ", ")
            return .elsewhere(
                types: needed, reason: "no filter plugin serves expressions of the type \(types), which this one calls")
        }
        var programs: [FilterProgram] = []
        for call in program.asks {
            guard let plugin = catalogue.plugin(forType: call.type) else { preconditionFailure("it was there") }
            if let reason = plugin.unavailability { return .unavailable(reason: reason) }
            switch plugin.compile(call.expression) {
            case .failed(let reason): return .unavailable(reason: reason)
            case .refused(let position, let reason):
                return .refused(
                    position: Self.position(position, of: call, in: program.expression),
                    reason: "\(call.type): \(reason)")
            case .program(let answering):
                guard answering.asks.isEmpty else {
                    return .refused(
                        position: Int32(clamping: call.expressionPosition),
                        reason: "\(call.type) calls a plugin itself: only one may")
                }
                programs.append(answering)
            }
        }
        program.answer(by: programs)
        return nil
    }

    private static let everywhere: Set<String> = ["TAG", "SQL92"]

    /// A position in a call's expression as one of the whole expression, where each quote in it is written twice.
    private static func position(_ position: Int32, of call: FilterProgram.Call, in expression: String) -> Int32 {
        let whole = Array(expression.utf8)
        var at = call.expressionPosition
        for byte in call.expression.utf8.prefix(Int(max(0, position))) where at < whole.count {
            at += byte == UInt8(ascii: "'") ? 2 : 1
        }
        return Int32(clamping: min(at, whole.count))
    }

    /// nil: released, or of another process.
    package func program(_ id: UInt32) -> FilterProgram? { live[id]?.program }

    /// One use less. An unknown number is no error: the broker-store may mean a worker that has ended.
    package func release(_ id: UInt32) {
        guard var entry = live[id], entry.uses > 0 else { return }
        entry.uses -= 1
        live[id] = entry
        if entry.uses == 0 { rest(entry.key) }
    }

    private func use(_ id: UInt32) -> FilterProgram {
        guard var entry = live[id] else { preconditionFailure("the cache names a program that is not there") }
        if entry.uses == 0 { idle.removeAll { $0 == entry.key } }
        entry.uses += 1
        live[id] = entry
        return entry.program
    }

    private func settle(_ key: Key, _ answer: Answer) -> Answer {
        entries[key] = .settled(answer)
        rest(key)
        return answer
    }

    private func rest(_ key: Key) {
        idle.append(key)
        guard idle.count > idleMaximum else { return }
        if case .program(let id) = entries.removeValue(forKey: idle.removeFirst()) { live[id] = nil }
    }

    private func newID() -> UInt32 {
        var id = nextID
        while id == 0 || live[id] != nil { id &+= 1 }
        nextID = id &+ 1
        return id
    }
}
