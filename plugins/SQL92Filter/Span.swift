/// What a comparison of a property with a literal accepts: from one number to another, both included, once for properties that
/// are whole numbers and once for the others. Two comparisons of a machine word decide.
struct Span {
    var wholes: (low: Int64, high: Int64) = (.min, .max)
    var doubles: (low: Double, high: Double) = (-.infinity, .infinity)
    /// What lies outside is accepted.
    var inverted = false

    /// Whole numbers up to here are doubles, too: beyond, a comparison takes more than a span.
    private static let limit: Int64 = 1 << 53

    /// Nil: the literal is too large for this.
    init?(_ comparison: Expression.Comparison, _ literal: Number) {
        switch literal {
        case .integer(let value):
            guard value > -Self.limit, value < Self.limit else { return nil }
            self.init(comparison, below: value, above: value, Double(value))
        case .double(let value):
            guard abs(value) < Double(Self.limit) else { return nil }
            let down = value.rounded(.down)
            self.init(comparison, below: Int64(down), above: Int64(value.rounded(.up)), value)
        }
    }

    /// `below` and `above`: the whole numbers next to `value`, or twice itself.
    private init(_ comparison: Expression.Comparison, below: Int64, above: Int64, _ value: Double) {
        let isWhole = below == above
        switch comparison {
        case .equal, .notEqual:
            wholes = isWhole ? (below, below) : (1, 0)
            doubles = (value, value)
            inverted = comparison == .notEqual
        case .less:
            wholes.high = above - 1
            doubles.high = value.nextDown
        case .lessOrEqual:
            wholes.high = below
            doubles.high = value
        case .greater:
            wholes.low = below + 1
            doubles.low = value.nextUp
        case .greaterOrEqual:
            wholes.low = above
            doubles.low = value
        }
    }

    /// What both accept; neither is inverted.
    func intersection(_ other: Span) -> Span {
        var result = self
        result.wholes = (max(wholes.low, other.wholes.low), min(wholes.high, other.wholes.high))
        result.doubles = (max(doubles.low, other.doubles.low), min(doubles.high, other.doubles.high))
        return result
    }

    @inline(__always)
    func accepts(_ value: Int64) -> Bool { (value >= wholes.low && value <= wholes.high) != inverted }
    @inline(__always)
    func accepts(_ value: Double) -> Bool { (value >= doubles.low && value <= doubles.high) != inverted }
}
