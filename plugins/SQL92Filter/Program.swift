internal import CFilterPlugin
internal import Glibc

/// Bytes somewhere in a message or in a program.
typealias Bytes = UnsafeBufferPointer<UInt8>

func sameBytes(_ left: Bytes, _ right: Bytes) -> Bool {
    guard left.count == right.count, let a = left.baseAddress, let b = right.baseAddress else { return false }
    if left.count == 1 { return a[0] == b[0] }
    return memcmp(a, b, left.count) == 0
}

/// True, false or unknown, as SQL has it.
enum Truth: UInt8 {
    case no = 0
    case yes = 1
    case unknown = 2

    init(_ value: Bool) { self = value ? .yes : .no }

    var negated: Truth { self == .unknown ? .unknown : self == .yes ? .no : .yes }
    func and(_ other: Truth) -> Truth {
        self == .no || other == .no ? .no : self == .unknown || other == .unknown ? .unknown : .yes
    }
    func or(_ other: Truth) -> Truth {
        self == .yes || other == .yes ? .yes : self == .unknown || other == .unknown ? .unknown : .no
    }
}

/// One step of a program. Steps work on a stack of truth values.
struct Step {
    enum Operation: UInt8 {
        /// Pushes `truth`.
        case push
        /// Property `a` lies in span `b`.
        case within
        /// Property `a` compared with number `b`, which is too large for a span.
        case compareNumber
        /// Property `a` and string `b` are the same bytes.
        case equalString
        /// Operand `a` compared with operand `b`.
        case compareOperands
        /// Property `a` is one of set `b`.
        case member
        case contains
        case startsWith
        case endsWith
        /// Property `a` is not there.
        case isMissing
        /// Operand `a` is NULL.
        case isNull
        /// Property `a` as a truth value: `true` in any case, or not.
        case truth
        case not
        case and
        case or
        /// The two upper values are the same.
        case same
        /// The upper value is unknown.
        case isUnknown
        /// On to step `b`, when the upper value is no: the right side of an AND changes nothing.
        case skipIfNo
        case skipIfYes
        /// Takes the upper value away and ends the evaluation unless it is yes: a side of the outermost AND.
        case require

        /// Leaves one value more, and looks at no other.
        var isPredicate: Bool {
            switch self {
            case .not, .and, .or, .same, .isUnknown, .skipIfNo, .skipIfYes, .require: false
            default: true
            }
        }
    }

    var operation: Operation
    var comparison: Expression.Comparison = .equal
    var truth: Truth = .unknown
    /// A predicate that is its own `require`.
    var isRequired = false
    var a: UInt32 = 0
    var b: UInt32 = 0
}

/// A side of a comparison that is no condition.
enum Operand {
    case property(Int)
    /// The property as a number, with its sign changed when `negative`.
    case number(property: Int, negative: Bool)
    case literal(Number)
    case string(Int)
    case null
}

/// A property as a number.
enum Parsed {
    case unread
    case none
    case number(Number)
}

/// A flat program: arrays of steps and constants, and scratch memory made once. Evaluating allocates nothing.
final class Program {
    let steps: UnsafeMutableBufferPointer<Step>
    let names: UnsafeMutableBufferPointer<Bytes>
    let spans: UnsafeMutableBufferPointer<Span>
    let numbers: UnsafeMutableBufferPointer<Number>
    let strings: UnsafeMutableBufferPointer<Bytes>
    let operands: UnsafeMutableBufferPointer<Operand>
    let sets: [StringSet]
    /// Codes of the only tags a matching message can have; nil: any.
    let tagsCodes: UnsafeMutableBufferPointer<Int64>?
    let needsProperties: Bool
    /// The values of one message's properties, in the order of `names`; nil where there is none.
    private let values: UnsafeMutableBufferPointer<Bytes>
    /// The same as numbers, each read from its text when it is first wanted.
    private let parsed: UnsafeMutableBufferPointer<Parsed>
    private let index: NameIndex
    private let stack: UnsafeMutableBufferPointer<Truth>

    init(_ plan: ProgramPlan) {
        steps = .copy(plan.steps)
        names = .copy(plan.names.map { .copyBytes(Array($0.utf8)) })
        spans = .copy(plan.spans)
        numbers = .copy(plan.numbers)
        strings = .copy(plan.strings.map { .copyBytes($0) })
        operands = .copy(plan.operands)
        sets = plan.sets.map(StringSet.init)
        tagsCodes = plan.tagsCodes.map { .copy($0) }
        needsProperties = !plan.names.isEmpty
        values = .copy([Bytes](repeating: Bytes(start: nil, count: 0), count: plan.names.count))
        parsed = .copy([Parsed](repeating: .unread, count: plan.names.count))
        index = NameIndex(names)
        stack = .copy([Truth](repeating: .unknown, count: plan.stackDepth))
    }

    deinit {
        for bytes in names { bytes.deallocate() }
        for bytes in strings { bytes.deallocate() }
        steps.deallocate()
        names.deallocate()
        spans.deallocate()
        numbers.deallocate()
        strings.deallocate()
        operands.deallocate()
        tagsCodes?.deallocate()
        values.deallocate()
        parsed.deallocate()
        stack.deallocate()
    }

    func match(
        _ units: UnsafePointer<apus_filter_unit>, count: UInt32, _ bitmap: UnsafeMutablePointer<UInt8>
    ) {
        for index in 0..<count {
            if needsProperties { gather(units + Int(index)) }
            if evaluate() == .yes { apus_filter_set(bitmap, index) }
        }
    }

    // MARK: properties

    /// Finds the values of the program's properties. As in RocketMQ's own decoder, an empty value is none, and the last of
    /// several properties with one name counts.
    @inline(__always)
    private func gather(_ unit: UnsafePointer<apus_filter_unit>) {
        for place in values.indices {
            values[place] = Bytes(start: nil, count: 0)
            parsed[place] = .unread
        }
        guard var at = unit.pointee.properties else { return }
        let end = at + Int(unit.pointee.properties_size)
        while at < end {
            let stop = memchr(at, 2, end - at).map { UnsafePointer($0.assumingMemoryBound(to: UInt8.self)) } ?? end
            let place = stop > at ? index.find(at, stop - at, in: names) : -1
            if place >= 0 {
                let value = at + names[place].count + 1
                values[place] = Bytes(start: value, count: stop - value)
            }
            at = stop + 1
        }
    }

    /// The property as a number; nil: there is none, or it is no number.
    @inline(__always)
    private func number(ofProperty place: Int) -> Number? {
        switch parsed[place] {
        case .number(let number): return number
        case .none: return nil
        case .unread:
            let value = values[place]
            guard value.baseAddress != nil, let number = Number(UnsafeRawBufferPointer(value)) else {
                parsed[place] = .none
                return nil
            }
            parsed[place] = .number(number)
            return number
        }
    }

    // MARK: evaluation

    private func evaluate() -> Truth {
        var top = -1
        var at = 0
        while at < steps.count {
            let step = steps[at]
            at += 1
            switch step.operation {
            case .skipIfNo:
                if stack[top] == .no { at = Int(step.b) }
            case .skipIfYes:
                if stack[top] == .yes { at = Int(step.b) }
            case .not:
                stack[top] = stack[top].negated
            case .and:
                top -= 1
                stack[top] = stack[top].and(stack[top + 1])
            case .or:
                top -= 1
                stack[top] = stack[top].or(stack[top + 1])
            case .same:
                top -= 1
                let (left, right) = (stack[top], stack[top + 1])
                stack[top] = left == .unknown || right == .unknown ? .unknown : Truth(left == right)
            case .isUnknown:
                stack[top] = Truth(stack[top] == .unknown)
            case .require:
                if stack[top] != .yes { return .no }
                top -= 1
            default:
                let truth = predicate(step)
                if step.isRequired {
                    if truth != .yes { return .no }
                } else {
                    top += 1
                    stack[top] = truth
                }
            }
        }
        return top >= 0 ? stack[0] : .yes
    }

    @inline(__always)
    private func predicate(_ step: Step) -> Truth {
        switch step.operation {
        case .push:
            return step.truth
        case .within:
            guard let number = number(ofProperty: Int(step.a)) else { return .unknown }
            return Truth(spans[Int(step.b)].accepts(number))
        case .isMissing:
            return Truth(values[Int(step.a)].baseAddress == nil)
        case .compareNumber:
            guard let number = number(ofProperty: Int(step.a)) else { return .unknown }
            return Self.truth(step.comparison, Number.compare(number, numbers[Int(step.b)]))
        case .compareOperands:
            return compare(step.comparison, operands[Int(step.a)], operands[Int(step.b)])
        case .isNull:
            return Truth(isNull(operands[Int(step.a)]))
        default:
            return textPredicate(step)
        }
    }

    private func textPredicate(_ step: Step) -> Truth {
        let value = values[Int(step.a)]
        guard let start = value.baseAddress else { return .unknown }
        switch step.operation {
        case .equalString:
            return Truth(sameBytes(value, strings[Int(step.b)]))
        case .member:
            return Truth(sets[Int(step.b)].contains(value))
        case .truth:
            return Truth(Self.isTrue(value))
        case .startsWith, .endsWith, .contains:
            let search = strings[Int(step.b)]
            guard let wanted = search.baseAddress, search.count > 0 else { return .no }
            guard value.count >= search.count else { return .no }
            switch step.operation {
            case .startsWith: return Truth(memcmp(start, wanted, search.count) == 0)
            case .endsWith: return Truth(memcmp(start + (value.count - search.count), wanted, search.count) == 0)
            default: return Truth(Self.contains(value, search))
            }
        default:
            preconditionFailure("no predicate of a property: \(step.operation)")
        }
    }

    private static func contains(_ value: Bytes, _ search: Bytes) -> Bool {
        guard let wanted = search.baseAddress, var at = value.baseAddress else { return false }
        let last = at + (value.count - search.count)
        while at <= last, let hit = memchr(at, Int32(wanted[0]), last - at + 1) {
            let place = UnsafePointer(hit.assumingMemoryBound(to: UInt8.self))
            if memcmp(place, wanted, search.count) == 0 { return true }
            at = place + 1
        }
        return false
    }

    /// `true` in any case, as Java's `Boolean.valueOf`.
    static func isTrue(_ value: Bytes) -> Bool {
        value.count == 4 && value[0] | 0x20 == UInt8(ascii: "t") && value[1] | 0x20 == UInt8(ascii: "r")
            && value[2] | 0x20 == UInt8(ascii: "u") && value[3] | 0x20 == UInt8(ascii: "e")
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

    private func text(_ operand: Operand) -> Bytes? {
        switch operand {
        case .property(let index): values[index].baseAddress == nil ? nil : values[index]
        case .string(let index): strings[index]
        case .number, .literal, .null: nil
        }
    }

    private func number(_ operand: Operand) -> Number? {
        switch operand {
        case .property(let place): return number(ofProperty: place)
        case .number(let place, let negative):
            guard let number = number(ofProperty: place) else { return nil }
            return negative ? number.negated : number
        case .literal(let number): return number
        case .string(let index): return Number(UnsafeRawBufferPointer(strings[index]))
        case .null: return nil
        }
    }

    private func isNull(_ operand: Operand) -> Bool {
        switch operand {
        case .property(let index): values[index].baseAddress == nil
        case .number: number(operand) == nil
        case .literal, .string: false
        case .null: true
        }
    }

    /// Two texts are equal when their bytes are; two properties also when both are numbers of one value. Everything else
    /// compares numbers, and is unknown where there is none.
    private func compare(_ comparison: Expression.Comparison, _ left: Operand, _ right: Operand) -> Truth {
        if isNull(left) || isNull(right) { return .unknown }
        if let a = text(left), let b = text(right), comparison == .equal || comparison == .notEqual {
            var same = sameBytes(a, b)
            if !same, case .property = left, case .property = right, let x = number(left), let y = number(right) {
                same = Number.compare(x, y) == 0
            }
            return Truth(same == (comparison == .equal))
        }
        guard let a = number(left), let b = number(right) else { return .unknown }
        return Self.truth(comparison, Number.compare(a, b))
    }
}
