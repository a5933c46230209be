internal import CFilterPlugin
internal import Glibc

/// Bytes somewhere in a message or in a program.
typealias Bytes = UnsafeBufferPointer<UInt8>

func sameBytes(_ left: Bytes, _ right: Bytes) -> Bool {
    guard left.count == right.count, let a = left.baseAddress, let b = right.baseAddress else { return false }
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
        /// Property `a` compared with number `b`.
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
    }

    var operation: Operation
    var comparison: Expression.Comparison = .equal
    var truth: Truth = .unknown
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

/// A flat program: arrays of steps and constants, and scratch memory made once. Evaluating allocates nothing.
final class Program {
    let steps: UnsafeMutableBufferPointer<Step>
    let names: UnsafeMutableBufferPointer<Bytes>
    let numbers: UnsafeMutableBufferPointer<Number>
    let strings: UnsafeMutableBufferPointer<Bytes>
    let operands: UnsafeMutableBufferPointer<Operand>
    let sets: [StringSet]
    /// Codes of the only tags a matching message can have; nil: any.
    let tagsCodes: UnsafeMutableBufferPointer<Int64>?
    let needsProperties: Bool
    private let values: UnsafeMutableBufferPointer<Bytes>
    private let stack: UnsafeMutableBufferPointer<Truth>

    init(_ plan: ProgramPlan) {
        steps = .copy(plan.steps)
        names = .copy(plan.names.map { .copyBytes(Array($0.utf8)) })
        numbers = .copy(plan.numbers)
        strings = .copy(plan.strings.map { .copyBytes($0) })
        operands = .copy(plan.operands)
        sets = plan.sets.map(StringSet.init)
        tagsCodes = plan.tagsCodes.map { .copy($0) }
        needsProperties = !plan.names.isEmpty
        values = .copy([Bytes](repeating: Bytes(start: nil, count: 0), count: plan.names.count))
        stack = .copy([Truth](repeating: .unknown, count: plan.stackDepth))
    }

    deinit {
        for bytes in names { bytes.deallocate() }
        for bytes in strings { bytes.deallocate() }
        steps.deallocate()
        names.deallocate()
        numbers.deallocate()
        strings.deallocate()
        operands.deallocate()
        tagsCodes?.deallocate()
        values.deallocate()
        stack.deallocate()
    }

    func match(_ units: UnsafeBufferPointer<apus_filter_unit>, _ bitmap: UnsafeMutablePointer<UInt8>) {
        for index in units.indices {
            if needsProperties { gather(units[index].properties, Int(units[index].properties_size)) }
            if evaluate() == .yes { apus_filter_set(bitmap, UInt32(index)) }
        }
    }

    // MARK: properties

    /// Finds the values of the program's properties. As in RocketMQ's own decoder, an empty value is none, and the last of
    /// several properties with one name counts.
    private func gather(_ start: UnsafePointer<UInt8>?, _ size: Int) {
        values.update(repeating: Bytes(start: nil, count: 0))
        guard let start else { return }
        var at = start
        let end = start + size
        let names = self.names
        while at < end {
            let stop = memchr(at, 2, end - at).map { UnsafePointer($0.assumingMemoryBound(to: UInt8.self)) } ?? end
            let size = stop - at
            for index in names.indices {
                let length = names[index].count
                // The value has a byte at least.
                guard size > length + 1, at[length] == 1, let name = names[index].baseAddress else { continue }
                if memcmp(at, name, length) == 0 {
                    values[index] = Bytes(start: at + length + 1, count: size - length - 1)
                    break
                }
            }
            at = stop + 1
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
            default:
                top += 1
                stack[top] = predicate(step)
            }
        }
        return stack[0]
    }

    @inline(__always)
    private func predicate(_ step: Step) -> Truth {
        switch step.operation {
        case .push:
            return step.truth
        case .compareNumber:
            let value = values[Int(step.a)]
            guard value.baseAddress != nil, let number = Number(UnsafeRawBufferPointer(value)) else { return .unknown }
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
        case .property(let index):
            return values[index].baseAddress == nil ? nil : Number(UnsafeRawBufferPointer(values[index]))
        case .number(let index, let negative):
            guard values[index].baseAddress != nil, let number = Number(UnsafeRawBufferPointer(values[index])) else {
                return nil
            }
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

/// The strings of an IN: an open-addressed hash table, at most half full.
struct StringSet {
    private let slots: UnsafeMutableBufferPointer<Bytes>
    private let owner: Owner

    private final class Owner {
        let slots: UnsafeMutableBufferPointer<Bytes>
        init(_ slots: UnsafeMutableBufferPointer<Bytes>) { self.slots = slots }
        deinit {
            for bytes in slots { bytes.deallocate() }
            slots.deallocate()
        }
    }

    init(_ strings: [[UInt8]]) {
        var size = 4
        while size < strings.count * 2 { size *= 2 }
        slots = .copy([Bytes](repeating: Bytes(start: nil, count: 0), count: size))
        owner = Owner(slots)
        for string in strings {
            let copy = Bytes.copyBytes(string)
            var at = Self.hash(copy) & (size - 1)
            var known = false
            while slots[at].baseAddress != nil {
                if sameBytes(slots[at], copy) { known = true }
                at = (at + 1) & (size - 1)
            }
            if known { copy.deallocate() } else { slots[at] = copy }
        }
    }

    func contains(_ value: Bytes) -> Bool {
        let mask = slots.count - 1
        var at = Self.hash(value) & mask
        while slots[at].baseAddress != nil {
            if sameBytes(slots[at], value) { return true }
            at = (at + 1) & mask
        }
        return false
    }

    /// FNV-1a.
    private static func hash(_ bytes: Bytes) -> Int {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        return Int(truncatingIfNeeded: hash ^ hash >> 32)
    }
}

extension UnsafeMutableBufferPointer {
    static func copy(_ elements: [Element]) -> Self {
        let buffer = Self.allocate(capacity: elements.count)
        _ = buffer.initialize(from: elements)
        return buffer
    }
}

extension Bytes {
    /// A copy that is never nil, so that an empty text differs from none.
    static func copyBytes(_ bytes: [UInt8]) -> Bytes {
        let start = UnsafeMutablePointer<UInt8>.allocate(capacity: Swift.max(bytes.count, 1))
        start.initialize(repeating: 0, count: Swift.max(bytes.count, 1))
        for (index, byte) in bytes.enumerated() { start[index] = byte }
        return Bytes(start: start, count: bytes.count)
    }
}
