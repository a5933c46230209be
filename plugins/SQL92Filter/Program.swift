internal import CFilterPlugin
internal import Glibc

/// A flat program: arrays of steps and constants, and scratch memory made once. Evaluating allocates nothing and counts
/// no references.
final class Program {
    /// Codes of the only tags a matching message can have; nil: any.
    let tagsCodes: UnsafeMutableBufferPointer<Int64>?
    let needsProperties: Bool
    /// The calls of other plugins, whose answers come with each message.
    let calls: UnsafeMutableBufferPointer<apus_filter_call>
    private let texts: [Bytes]
    private let machine: Machine

    init(_ plan: ProgramPlan) {
        tagsCodes = plan.tagsCodes.map { .copy($0) }
        needsProperties = !plan.names.isEmpty
        let texts = plan.calls.map { (type: Bytes.copyBytes($0.type), expression: Bytes.copyBytes($0.expression)) }
        self.texts = texts.flatMap { [$0.type, $0.expression] }
        calls = .copy(
            zip(plan.calls, texts).map { call, texts in
                apus_filter_call(
                    type: Self.characters(texts.type), expression: Self.characters(texts.expression),
                    type_size: UInt32(texts.type.count), expression_size: UInt32(texts.expression.count),
                    type_position: UInt32(call.typePosition), expression_position: UInt32(call.expressionPosition))
            })
        machine = Machine(plan)
    }

    private static func characters(_ bytes: Bytes) -> UnsafePointer<CChar>? {
        UnsafeRawPointer(bytes.baseAddress)?.assumingMemoryBound(to: CChar.self)
    }

    deinit {
        machine.deallocate()
        tagsCodes?.deallocate()
        calls.deallocate()
        for text in texts { text.deallocate() }
    }

    func match(
        _ units: UnsafePointer<apus_filter_unit>, count: UInt32, _ bitmap: UnsafeMutablePointer<UInt8>
    ) {
        let machine = machine
        var first = 0
        while first < Int(count) {
            let block = min(Int(count) &- first, Values.blockSize)
            var matches = machine.match(units + first, block)
            var byte = first &>> 3
            while matches != 0 {
                bitmap[byte] = UInt8(truncatingIfNeeded: matches)
                matches &>>= 8
                byte &+= 1
            }
            first &+= block
        }
    }
}

/// What a program is made of, as plain pointers: a copy of it costs nothing, and nothing it reads is counted.
///
/// A block of messages goes through the program one side at a time. Each side of the outermost AND is asked about the
/// messages that all sides before it took. Of a side that is an OR, each alternative is asked about those that none
/// before it took.
private struct Machine {
    private let steps: UnsafeMutableBufferPointer<Step>
    private let alternatives: UnsafeMutableBufferPointer<Range<Int>>
    private let sides: UnsafeMutableBufferPointer<Range<Int>>
    private let spans: UnsafeMutableBufferPointer<Span>
    /// `Span.bounds` of all spans, one after the other.
    private let bounds: UnsafeMutableBufferPointer<Span.Bounds>
    private let numbers: UnsafeMutableBufferPointer<Number>
    private let strings: UnsafeMutableBufferPointer<Bytes>
    /// Of each of them that a CONTAINS searches for.
    private let borders: UnsafeMutableBufferPointer<UnsafeMutableBufferPointer<Int32>>
    private let operands: UnsafeMutableBufferPointer<Operand>
    private let sets: UnsafeMutableBufferPointer<StringSet>
    private let stack: UnsafeMutableBufferPointer<Truth>
    private let values: Values

    init(_ plan: ProgramPlan) {
        steps = .copy(plan.steps)
        alternatives = .copy(plan.alternatives)
        sides = .copy(plan.sides)
        spans = .copy(plan.spans)
        bounds = .copy(plan.spans.flatMap(\.bounds))
        numbers = .copy(plan.numbers)
        strings = .copy(plan.strings.map { .copyBytes($0) })
        let searched = Set(plan.steps.filter { $0.operation == .contains }.map { Int($0.b) })
        borders = .copy(
            plan.strings.enumerated().map { .copy(searched.contains($0) ? TextSearch.borders(of: $1) : []) })
        operands = .copy(plan.operands)
        sets = .copy(plan.sets.map(StringSet.init))
        stack = .copy([Truth](repeating: .unknown, count: plan.stackDepth))
        values = Values(names: plan.names)
    }

    func deallocate() {
        for bytes in strings { bytes.deallocate() }
        for lengths in borders { lengths.deallocate() }
        for set in sets { set.deallocate() }
        values.deallocate()
        steps.deallocate()
        alternatives.deallocate()
        sides.deallocate()
        spans.deallocate()
        bounds.deallocate()
        numbers.deallocate()
        strings.deallocate()
        borders.deallocate()
        operands.deallocate()
        sets.deallocate()
        stack.deallocate()
    }

    /// Bit i states whether message i of a block matches.
    func match(_ units: UnsafePointer<apus_filter_unit>, _ count: Int) -> UInt64 {
        if values.stride > 0 { values.gather(units, count) }
        var left: UInt64 = ~0 &>> UInt64(truncatingIfNeeded: Values.blockSize &- count)
        for side in sides where left != 0 {
            // What one alternative took, the next ones need not look at.
            var taken: UInt64 = 0
            for index in side where left != 0 {
                let found = matches(alternatives[index], units, left)
                taken |= found
                left &= ~found
            }
            left = taken
        }
        return left
    }

    @inline(__always)
    private func matches(
        _ condition: Range<Int>, _ units: UnsafePointer<apus_filter_unit>, _ messages: UInt64
    ) -> UInt64 {
        let step = steps[condition.lowerBound]
        switch (step.operation, step.isNegated) {
        case _ where condition.count > 1: return each(condition, units, messages)
        case (.within, _): return within(step, units, messages)
        case (.equalString, false): return equals(step, units, messages)
        case (.member, false): return member(step, units, messages)
        case (.isMissing, _): return presence(step, messages)
        case (.input, _): return input(step, units, messages)
        default: return each(condition, units, messages)
        }
    }

    // MARK: - One condition, the messages of a block
    // Not inlined: each of these loops has the registers for itself.

    /// Those of some messages, bit by bit, for which a condition holds.
    @inline(__always)
    private func those(of messages: UInt64, _ holds: (Int) -> Bool) -> UInt64 {
        var result = messages
        var left = messages
        while left != 0 {
            let index = left.trailingZeroBitCount
            left &= left &- 1
            if !holds(index) { result &= ~(1 &<< UInt64(truncatingIfNeeded: index)) }
        }
        return result
    }

    /// As above, with what each message has for property `place`.
    @inline(__always)
    private func those(of messages: UInt64, with place: UInt32, _ holds: (Values.Row, Int) -> Bool) -> UInt64 {
        let column = values.row(0) + Int(place)
        let stride = values.stride
        return those(of: messages) { holds(column + $0 &* stride, $0) }
    }

    @inline(__always)
    private func bounds(of step: Step) -> UnsafeMutablePointer<Span.Bounds> {
        bounds.baseAddress.unsafelyUnwrapped + Int(step.b) &* (Number.Scaled.decimalsMax &+ 1)
    }

    @inline(never)
    private func within(_ step: Step, _ units: UnsafePointer<apus_filter_unit>, _ messages: UInt64) -> UInt64 {
        let span = spans[Int(step.b)]
        let bounds = bounds(of: step)
        let inverted = span.inverted
        return those(of: messages, with: step.a) { value, index in
            switch value.reading(units[index].properties) {
            case .isScaled: bounds[Int(value.pointee.decimals)].hold(value.pointee.mantissa) != inverted
            case .isDouble: span.accepts(value.pointee.double)
            case .isNone, .unread: false
            }
        }
    }

    @inline(never)
    private func equals(_ step: Step, _ units: UnsafePointer<apus_filter_unit>, _ messages: UInt64) -> UInt64 {
        let wanted = strings[Int(step.b)]
        guard let word = ShortText.word(of: wanted, wanted.baseAddress) else {
            return those(of: messages, with: step.a) { value, _ in sameBytes(value.pointee.text, wanted) }
        }
        return those(of: messages, with: step.a) { value, index in
            ShortText.word(of: value.pointee.text, units[index].properties) == word
        }
    }

    @inline(never)
    private func member(_ step: Step, _ units: UnsafePointer<apus_filter_unit>, _ messages: UInt64) -> UInt64 {
        let set = sets[Int(step.b)]
        return those(of: messages, with: step.a) { value, index in
            set.contains(value.pointee.text, units[index].properties)
        }
    }

    @inline(never)
    private func presence(_ step: Step, _ messages: UInt64) -> UInt64 {
        let isNegated = step.isNegated
        return those(of: messages, with: step.a) { value, _ in (value.pointee.start == nil) != isNegated }
    }

    @inline(never)
    private func input(_ step: Step, _ units: UnsafePointer<apus_filter_unit>, _ messages: UInt64) -> UInt64 {
        let bit = UInt64(truncatingIfNeeded: step.a)
        let wanted: UInt64 = step.isNegated ? 0 : 1
        return those(of: messages) { units[$0].inputs &>> bit & 1 == wanted }
    }

    @inline(never)
    private func each(
        _ condition: Range<Int>, _ units: UnsafePointer<apus_filter_unit>, _ messages: UInt64
    ) -> UInt64 {
        those(of: messages) { holds(condition, values.row($0), units[$0].properties, units[$0].inputs) }
    }

    // MARK: - One condition, one message

    /// Whether a condition is true of a message; `floor`: where its properties begin; `inputs`: what its calls
    /// answered.
    @inline(__always)
    private func holds(
        _ condition: Range<Int>, _ row: Values.Row, _ floor: UnsafePointer<UInt8>?, _ inputs: UInt64
    ) -> Bool {
        var top = -1
        var at = condition.lowerBound
        while at < condition.upperBound {
            let step = steps[at]
            at &+= 1
            var truth: Truth
            switch step.operation {
            case .within:
                let span = spans[Int(step.b)]
                let value = row + Int(step.a)
                truth =
                    switch value.reading(floor) {
                    case .isScaled:
                        Truth(
                            bounds(of: step)[Int(value.pointee.decimals)].hold(value.pointee.mantissa) != span.inverted)
                    case .isDouble: Truth(span.accepts(value.pointee.double))
                    case .isNone, .unread: .unknown
                    }
            case .equalString:
                let value = row[Int(step.a)]
                truth = value.start == nil ? .unknown : Truth(sameBytes(value.text, strings[Int(step.b)]))
            case .isMissing:
                truth = Truth(row[Int(step.a)].start == nil)
            case .member:
                let value = row[Int(step.a)]
                truth = value.start == nil ? .unknown : Truth(sets[Int(step.b)].contains(value.text, floor))
            case .push:
                truth = step.truth
            case .input:
                truth = Truth(inputs &>> UInt64(truncatingIfNeeded: step.a) & 1 != 0)
            case .skipIfNo:
                if stack[top] == .no { at = Int(step.b) }
                continue
            case .skipIfYes:
                if stack[top] == .yes { at = Int(step.b) }
                continue
            case .require:
                return stack[top] == .yes
            case .not:
                stack[top] = stack[top].negated
                continue
            case .isUnknown:
                stack[top] = Truth(stack[top] == .unknown)
                continue
            case .and, .or, .same:
                top &-= 1
                stack[top] = Self.join(step.operation, stack[top], stack[top + 1])
                continue
            case .compareNumber, .compareOperands, .isNull, .truth, .startsWith, .endsWith, .contains:
                truth = rare(step, row, floor)
            }
            if step.isNegated { truth = truth.negated }
            if step.isRequired { return truth == .yes }
            top &+= 1
            stack[top] = truth
        }
        preconditionFailure("a condition without an end")
    }

    private static func join(_ operation: Step.Operation, _ left: Truth, _ right: Truth) -> Truth {
        switch operation {
        case .and: left.and(right)
        case .or: left.or(right)
        default: left == .unknown || right == .unknown ? .unknown : Truth(left == right)
        }
    }

    // MARK: - The less common predicates

    @inline(never)
    private func rare(_ step: Step, _ row: Values.Row, _ floor: UnsafePointer<UInt8>?) -> Truth {
        switch step.operation {
        case .compareNumber:
            guard let number = (row + Int(step.a)).number(floor) else { return .unknown }
            return Self.truth(step.comparison, Number.compare(number, numbers[Int(step.b)]))
        case .compareOperands:
            return compare(step.comparison, operands[Int(step.a)], operands[Int(step.b)], row, floor)
        case .isNull:
            return Truth(isNull(operands[Int(step.a)], row, floor))
        default:
            return textPredicate(step, row)
        }
    }

    private func textPredicate(_ step: Step, _ row: Values.Row) -> Truth {
        let value = row[Int(step.a)].text
        guard let start = value.baseAddress else { return .unknown }
        switch step.operation {
        case .truth:
            return Truth(Program.isTrue(value))
        case .startsWith, .endsWith, .contains:
            let search = strings[Int(step.b)]
            guard let wanted = search.baseAddress, search.count > 0 else { return .no }
            guard value.count >= search.count else { return .no }
            switch step.operation {
            case .startsWith: return Truth(memcmp(start, wanted, search.count) == 0)
            case .endsWith: return Truth(memcmp(start + (value.count - search.count), wanted, search.count) == 0)
            default:
                return Truth(TextSearch.contains(value, search, UnsafeBufferPointer(borders[Int(step.b)])))
            }
        default:
            preconditionFailure("no predicate of a property: \(step.operation)")
        }
    }

    private static func truth(_ comparison: Expression.Comparison, _ order: Int) -> Truth {
        switch comparison {
        case .equal: Truth(order == 0)
        case .notEqual: Truth(order != 0)
        case .less: Truth(order < 0)
        case .lessOrEqual: Truth(order <= 0)
        case .greater: Truth(order > 0)
        case .greaterOrEqual: Truth(order >= 0)
        }
    }

    private func text(_ operand: Operand, _ row: Values.Row) -> Bytes? {
        switch operand {
        case .property(let place): row[place].start == nil ? nil : row[place].text
        case .string(let index): strings[index]
        case .number, .literal, .null: nil
        }
    }

    private func number(_ operand: Operand, _ row: Values.Row, _ floor: UnsafePointer<UInt8>?) -> Number? {
        switch operand {
        case .property(let place): return (row + place).number(floor)
        case .number(let place, let negative):
            guard let number = (row + place).number(floor) else { return nil }
            return negative ? number.negated : number
        case .literal(let number): return number
        case .string(let index): return Number(UnsafeRawBufferPointer(strings[index]))
        case .null: return nil
        }
    }

    private func isNull(_ operand: Operand, _ row: Values.Row, _ floor: UnsafePointer<UInt8>?) -> Bool {
        switch operand {
        case .property(let place): row[place].start == nil
        case .number: number(operand, row, floor) == nil
        case .literal, .string: false
        case .null: true
        }
    }

    /// Two texts are equal when their bytes are; two properties also when both are numbers of one value. Everything
    /// else compares numbers, and is unknown where there is none.
    private func compare(
        _ comparison: Expression.Comparison, _ left: Operand, _ right: Operand, _ row: Values.Row,
        _ floor: UnsafePointer<UInt8>?
    ) -> Truth {
        if isNull(left, row, floor) || isNull(right, row, floor) { return .unknown }
        if let a = text(left, row), let b = text(right, row), comparison == .equal || comparison == .notEqual {
            var same = sameBytes(a, b)
            if !same, case .property = left, case .property = right, let x = number(left, row, floor),
                let y = number(right, row, floor)
            {
                same = Number.compare(x, y) == 0
            }
            return Truth(same == (comparison == .equal))
        }
        guard let a = number(left, row, floor), let b = number(right, row, floor) else { return .unknown }
        return Self.truth(comparison, Number.compare(a, b))
    }
}

extension Program {
    /// `true` in any case, as Java's `Boolean.valueOf`.
    static func isTrue(_ value: Bytes) -> Bool {
        value.count == 4 && value[0] | 0x20 == UInt8(ascii: "t") && value[1] | 0x20 == UInt8(ascii: "r")
            && value[2] | 0x20 == UInt8(ascii: "u") && value[3] | 0x20 == UInt8(ascii: "e")
    }
}
