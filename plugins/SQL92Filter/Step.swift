/// True, false or unknown, as SQL has it.
enum Truth: UInt8 {
    case no = 0
    case yes = 1
    case unknown = 2

    @inline(__always)
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
        /// What call `a` answered.
        case input
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
    /// A predicate whose answer is turned round.
    var isNegated = false
    /// A predicate that is its own `require`, after `isNegated`.
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
