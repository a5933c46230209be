internal import CFilterPlugin

/// What a program is made of, before its memory is laid out.
struct ProgramPlan {
    var steps: [Step] = []
    /// The steps of each alternative: a condition by itself.
    var alternatives: [Range<Int>] = []
    /// The alternatives of each side of the outermost AND, one of which must be true.
    var sides: [Range<Int>] = []
    var names: [String] = []
    var spans: [Span] = []
    var numbers: [Number] = []
    var strings: [[UInt8]] = []
    var operands: [Operand] = []
    var sets: [[[UInt8]]] = []
    var calls: [PluginCall] = []
    var tagsCodes: [Int64]?
    var stackDepth = 1
}

/// Turns an expression into steps.
struct Compiler {
    /// Distinct properties of one expression.
    static let maximumProperties = 256

    /// Distinct calls of plugins in one expression.
    static let maximumCalls = Int(APUS_FILTER_CALLS_MAX)

    private var plan = ProgramPlan()
    private var depth = 0

    static func compile(_ text: UnsafeRawBufferPointer) throws(SyntaxError) -> ProgramPlan {
        let expression = try Parser.parse(text)
        var compiler = Compiler()
        compiler.outermost(expression)
        guard compiler.plan.names.count <= maximumProperties else {
            throw SyntaxError(position: 0, reason: "more than \(maximumProperties) different properties")
        }
        if compiler.plan.calls.count > maximumCalls {
            throw SyntaxError(
                position: compiler.plan.calls[maximumCalls].typePosition,
                reason: "more than \(maximumCalls) different calls of plugins")
        }
        compiler.plan.tagsCodes = tags(of: expression).map { tags in
            Set(tags.map { tag in tag.withUnsafeBufferPointer { apus_filter_tags_code($0.baseAddress, $0.count) } })
                .sorted()
        }
        return compiler.plan
    }

    // MARK: - Conditions

    private mutating func emit(_ step: Step, pushes: Int = 1) {
        plan.steps.append(step)
        depth += pushes
        plan.stackDepth = max(plan.stackDepth, depth)
    }

    /// Only what is true is delivered, so each side of the outermost AND can reject by itself, in any order: cheap ones
    /// first. Conditions of several sides on one number are one step.
    private mutating func outermost(_ expression: Expression) {
        var ranges: [(name: String, span: Span)] = []
        var others: [Expression] = []
        for side in Self.sides(of: expression) {
            if let range = Self.range(side), !range.span.inverted {
                if let known = ranges.firstIndex(where: { $0.name == range.name }) {
                    ranges[known].span = ranges[known].span.intersection(range.span)
                } else {
                    ranges.append(range)
                }
            } else {
                others.append(side)
            }
        }
        for side in others where Self.isCheap(side) { require(side) }
        for range in ranges {
            require { $0.within(range.name, range.span) }
            plan.sides.append(plan.alternatives.count - 1..<plan.alternatives.count)
        }
        for side in others where !Self.isCheap(side) { require(side) }
    }

    /// One of the alternatives of a side must be true; unknown ones are as good as false ones.
    private mutating func require(_ side: Expression) {
        let first = plan.alternatives.count
        for alternative in Self.alternatives(of: side) { require { $0.condition(alternative) } }
        plan.sides.append(first..<plan.alternatives.count)
    }

    private static func alternatives(of expression: Expression) -> [Expression] {
        guard case .or(let left, let right) = expression else { return [expression] }
        return alternatives(of: left) + alternatives(of: right)
    }

    private static func sides(of expression: Expression) -> [Expression] {
        guard case .and(let left, let right) = expression else { return [expression] }
        return sides(of: left) + sides(of: right)
    }

    /// Takes a few comparisons of bytes at most.
    private static func isCheap(_ side: Expression) -> Bool {
        switch side {
        case .isNull(.property, not: _), .compare(.equal, .property, .string), .compare(.equal, .string, .property),
            .call,
            .not(.call):
            true
        default: false
        }
    }

    /// A comparison of one property with numbers; nil: something else, or it takes more than a span.
    private static func range(_ expression: Expression) -> (name: String, span: Span)? {
        switch expression {
        case .compare(let comparison, .property(let name), let right):
            return literal(right).flatMap { Span(comparison, $0) }.map { (name, $0) }
        case .compare(let comparison, let left, .property(let name)):
            return literal(left).flatMap { Span(comparison.mirrored, $0) }.map { (name, $0) }
        case .between(.property(let name), let low, let high, let not):
            guard let low = literal(low).flatMap({ Span(.greaterOrEqual, $0) }),
                let high = literal(high).flatMap({ Span(.lessOrEqual, $0) })
            else { return nil }
            var span = low.intersection(high)
            span.inverted = not
            return (name, span)
        default: return nil
        }
    }

    /// A condition that yields by itself whether it is true.
    private mutating func require(_ condition: (inout Compiler) -> Void) {
        let first = plan.steps.count
        condition(&self)
        // Jumps lead to the step after an AND or OR only, never to that after a predicate.
        if let last = plan.steps.indices.last, plan.steps[last].operation.isPredicate {
            plan.steps[last].isRequired = true
            depth -= 1
        } else {
            emit(Step(operation: .require), pushes: -1)
        }
        plan.alternatives.append(first..<plan.steps.count)
    }

    /// The opposite of what the last condition left.
    private mutating func negate() {
        if let last = plan.steps.last, last.operation == .within {
            plan.spans[Int(last.b)].inverted.toggle()
        } else if let last = plan.steps.indices.last, plan.steps[last].operation.isPredicate {
            plan.steps[last].isNegated.toggle()
        } else {
            emit(Step(operation: .not), pushes: 0)
        }
    }

    /// Steps that leave one truth value on the stack.
    private mutating func condition(_ expression: Expression) {
        if let (name, span) = Self.range(expression) { return within(name, span) }
        switch expression {
        case .boolean(let value): push(Truth(value))
        case .null: push(.unknown)
        case .property(let name): emit(Step(operation: .truth, a: property(name)))
        case .string(let value): push(Truth(value.withUnsafeBufferPointer { Program.isTrue($0) }))
        case .number, .negate: push(.unknown)
        case .not(let operand):
            condition(operand)
            negate()
        case .and(let left, let right): both(left, right, .skipIfNo, .and)
        case .or(let left, let right): both(left, right, .skipIfYes, .or)
        case .compare(let comparison, let left, let right): compare(comparison, left, right)
        case .between(let value, let low, let high, let not): between(value, low, high, not: not)
        case .isNull(let operand, let not):
            if operand.isBoolean {
                condition(operand)
                emit(Step(operation: .isUnknown), pushes: 0)
            } else if case .property(let name) = operand {
                emit(Step(operation: .isMissing, a: property(name)))
            } else {
                emit(Step(operation: .isNull, a: self.operand(operand)))
            }
            if not { negate() }
        case .in(let name, let strings, let not):
            plan.sets.append(strings)
            emit(Step(operation: .member, a: property(name), b: UInt32(plan.sets.count - 1)))
            if not { negate() }
        case .text(let test, let value, let search, let not):
            text(test, value, search, not: not)
        case .call(let call): emit(Step(operation: .input, a: input(call)))
        }
    }

    private mutating func input(_ call: PluginCall) -> UInt32 {
        if let known = plan.calls.firstIndex(where: { $0.isSame(as: call) }) { return UInt32(known) }
        plan.calls.append(call)
        return UInt32(plan.calls.count - 1)
    }

    private mutating func between(_ value: Expression, _ low: Expression, _ high: Expression, not: Bool) {
        // NOT (low <= value AND value <= high) is the same three-valued answer as value < low OR value > high.
        both(.compare(.greaterOrEqual, value, low), .compare(.lessOrEqual, value, high), .skipIfNo, .and)
        if not { negate() }
    }

    private mutating func within(_ name: String, _ span: Span) {
        plan.spans.append(span)
        emit(Step(operation: .within, a: property(name), b: UInt32(plan.spans.count - 1)))
    }

    private mutating func push(_ truth: Truth) {
        emit(Step(operation: .push, truth: truth))
    }

    private mutating func both(
        _ left: Expression, _ right: Expression, _ skip: Step.Operation, _ join: Step.Operation
    ) {
        condition(left)
        let place = plan.steps.count
        emit(Step(operation: skip), pushes: 0)
        condition(right)
        emit(Step(operation: join), pushes: -1)
        plan.steps[place].b = UInt32(plan.steps.count)
    }

    private mutating func text(_ test: Expression.TextTest, _ value: Expression, _ search: [UInt8], not: Bool) {
        // RocketMQ: nothing contains the empty string, and nothing "not contains" it.
        guard !search.isEmpty else { return push(.no) }
        switch value {
        case .property(let name):
            let operation: Step.Operation =
                switch test {
                case .contains: .contains
                case .startsWith: .startsWith
                case .endsWith: .endsWith
                }
            plan.strings.append(search)
            emit(Step(operation: operation, a: property(name), b: UInt32(plan.strings.count - 1)))
            if not { negate() }
        case .string(let value):
            let found =
                switch test {
                case .contains: Self.contains(value, search)
                case .startsWith: value.starts(with: search)
                case .endsWith: value.reversed().starts(with: search.reversed())
                }
            push(Truth(found != not))
        case .null: push(.unknown)
        default: push(.no)  // No text at all.
        }
    }

    private static func contains(_ value: [UInt8], _ search: [UInt8]) -> Bool {
        value.withUnsafeBufferPointer { value in
            search.withUnsafeBufferPointer { wanted in
                TextSearch.borders(of: search).withUnsafeBufferPointer { TextSearch.contains(value, wanted, $0) }
            }
        }
    }

    private mutating func compare(_ comparison: Expression.Comparison, _ left: Expression, _ right: Expression) {
        if left.isBoolean || right.isBoolean {
            condition(left)
            condition(right)
            emit(Step(operation: .same), pushes: -1)
            if comparison == .notEqual { negate() }
            return
        }
        switch (left, right) {
        case (.property(let name), _):
            if let number = Self.literal(right) {
                // Too large for a span.
                plan.numbers.append(number)
                emit(
                    Step(
                        operation: .compareNumber, comparison: comparison, a: property(name),
                        b: UInt32(plan.numbers.count - 1)))
                return
            }
            if case .string(let string) = right, comparison == .equal || comparison == .notEqual {
                plan.strings.append(string)
                emit(Step(operation: .equalString, a: property(name), b: UInt32(plan.strings.count - 1)))
                if comparison == .notEqual { negate() }
                return
            }
        case (_, .property):
            if left.isLiteral || Self.literal(left) != nil { return compare(comparison.mirrored, right, left) }
        default: break
        }
        let a = operand(left)
        let b = operand(right)
        emit(Step(operation: .compareOperands, comparison: comparison, a: a, b: b))
    }

    // MARK: - Operands

    private mutating func property(_ name: String) -> UInt32 {
        if let known = plan.names.firstIndex(of: name) { return UInt32(known) }
        plan.names.append(name)
        return UInt32(plan.names.count - 1)
    }

    private mutating func operand(_ expression: Expression) -> UInt32 {
        plan.operands.append(value(expression, negative: nil))
        return UInt32(plan.operands.count - 1)
    }

    /// `negative`: the sign in front; nil: none, so a text stays a text.
    private mutating func value(_ expression: Expression, negative: Bool?) -> Operand {
        switch expression {
        case .negate(let inner): return value(inner, negative: !(negative ?? false))
        case .property(let name):
            let index = Int(property(name))
            return negative.map { .number(property: index, negative: $0) } ?? .property(index)
        case .number(let number): return .literal(negative == true ? number.negated : number)
        case .string(let string):
            guard let negative else {
                plan.strings.append(string)
                return .string(plan.strings.count - 1)
            }
            guard let number = string.withUnsafeBytes({ Number($0) }) else { return .null }
            return .literal(negative ? number.negated : number)
        default: return .null  // A sign in front of a condition.
        }
    }

    private static func literal(_ expression: Expression) -> Number? {
        switch expression {
        case .number(let number): number
        case .negate(let inner): literal(inner)?.negated
        default: nil
        }
    }

    // MARK: - Tags

    /// The tags a matching message must have one of; nil when any tag, or none, may match.
    private static func tags(of expression: Expression) -> [[UInt8]]? {
        switch expression {
        case .compare(.equal, .property("TAGS"), .string(let tag)),
            .compare(.equal, .string(let tag), .property("TAGS")):
            return [tag]
        case .in("TAGS", let tags, not: false): return tags
        case .and(let left, let right):
            guard let first = tags(of: left) else { return tags(of: right) }
            guard let second = tags(of: right) else { return first }
            return first.count <= second.count ? first : second
        case .or(let left, let right):
            guard let first = tags(of: left), let second = tags(of: right) else { return nil }
            return first + second
        default: return nil
        }
    }
}

extension Expression.Comparison {
    /// The same comparison with its sides exchanged.
    var mirrored: Expression.Comparison {
        switch self {
        case .equal, .notEqual: self
        case .less: .greater
        case .lessOrEqual: .greaterOrEqual
        case .greater: .less
        case .greaterOrEqual: .lessOrEqual
        }
    }
}
