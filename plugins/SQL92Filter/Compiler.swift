internal import CFilterPlugin

/// What a program is made of, before its memory is laid out.
struct ProgramPlan {
    var steps: [Step] = []
    var names: [String] = []
    var spans: [Span] = []
    var numbers: [Number] = []
    var strings: [[UInt8]] = []
    var operands: [Operand] = []
    var sets: [[[UInt8]]] = []
    var tagsCodes: [Int64]?
    var stackDepth = 1
}

/// Turns an expression into steps.
struct Compiler {
    /// Distinct properties of one expression.
    static let maximumProperties = 256

    private var plan = ProgramPlan()
    private var depth = 0

    static func compile(_ text: UnsafeRawBufferPointer) throws(SyntaxError) -> ProgramPlan {
        let expression = try Parser.parse(text)
        var compiler = Compiler()
        compiler.outermost(expression)
        guard compiler.plan.names.count <= maximumProperties else {
            throw SyntaxError(position: 0, reason: "more than \(maximumProperties) different properties")
        }
        compiler.plan.tagsCodes = tags(of: expression).map { tags in
            Set(tags.map { tag in tag.withUnsafeBufferPointer { apus_filter_tags_code($0.baseAddress, $0.count) } })
                .sorted()
        }
        return compiler.plan
    }

    // MARK: conditions

    private mutating func emit(_ step: Step, pushes: Int = 1) {
        plan.steps.append(step)
        depth += pushes
        plan.stackDepth = max(plan.stackDepth, depth)
    }

    /// Only what is true is delivered, so each side of the outermost AND can say no by itself.
    private mutating func outermost(_ expression: Expression) {
        guard case .and(let left, let right) = expression else { return condition(expression) }
        for side in [left, right] {
            if case .and = side {
                outermost(side)
            } else {
                condition(side)
            }
            // The last one of a nested AND has none, and its value is on the stack.
            guard depth > 0 else { continue }
            // Jumps lead behind an AND or OR only, never behind a predicate.
            if let last = plan.steps.indices.last, plan.steps[last].operation.isPredicate {
                plan.steps[last].isRequired = true
                depth -= 1
            } else {
                emit(Step(operation: .require), pushes: -1)
            }
        }
    }

    /// Steps that leave one truth value on the stack.
    private mutating func condition(_ expression: Expression) {
        switch expression {
        case .boolean(let value): push(Truth(value))
        case .null: push(.unknown)
        case .property(let name): emit(Step(operation: .truth, a: property(name)))
        case .string(let value): push(Truth(value.withUnsafeBufferPointer { Program.isTrue($0) }))
        case .number, .negate: push(.unknown)
        case .not(let operand):
            condition(operand)
            emit(Step(operation: .not), pushes: 0)
        case .and(let left, let right): both(left, right, .skipIfNo, .and)
        case .or(let left, let right): both(left, right, .skipIfYes, .or)
        case .compare(let comparison, let left, let right): compare(comparison, left, right)
        case .between(.property(let name), let low, let high, let not):
            if let low = Self.literal(low).flatMap({ Span(.greaterOrEqual, $0) }),
                let high = Self.literal(high).flatMap({ Span(.lessOrEqual, $0) })
            {
                var span = low.intersection(high)
                span.inverted = not
                return within(name, span)
            }
            between(.property(name), low, high, not: not)
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
            if not { emit(Step(operation: .not), pushes: 0) }
        case .in(let name, let strings, let not):
            plan.sets.append(strings)
            emit(Step(operation: .member, a: property(name), b: UInt32(plan.sets.count - 1)))
            if not { emit(Step(operation: .not), pushes: 0) }
        case .text(let test, let value, let search, let not):
            text(test, value, search, not: not)
        }
    }

    private mutating func between(_ value: Expression, _ low: Expression, _ high: Expression, not: Bool) {
        // NOT (low <= value AND value <= high) is the same three-valued answer as value < low OR value > high.
        both(.compare(.greaterOrEqual, value, low), .compare(.lessOrEqual, value, high), .skipIfNo, .and)
        if not { emit(Step(operation: .not), pushes: 0) }
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
            if not { emit(Step(operation: .not), pushes: 0) }
        case .string(let value):
            let found =
                switch test {
                case .contains: value.indices.contains { value[$0...].starts(with: search) }
                case .startsWith: value.starts(with: search)
                case .endsWith: value.reversed().starts(with: search.reversed())
                }
            push(Truth(found != not))
        case .null: push(.unknown)
        default: push(.no)  // No text at all.
        }
    }

    private mutating func compare(_ comparison: Expression.Comparison, _ left: Expression, _ right: Expression) {
        if left.isBoolean || right.isBoolean {
            condition(left)
            condition(right)
            emit(Step(operation: .same), pushes: -1)
            if comparison == .notEqual { emit(Step(operation: .not), pushes: 0) }
            return
        }
        switch (left, right) {
        case (.property(let name), _):
            if let number = Self.literal(right) {
                if let span = Span(comparison, number) { return within(name, span) }
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
                if comparison == .notEqual { emit(Step(operation: .not), pushes: 0) }
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

    // MARK: operands

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

    // MARK: tags

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
