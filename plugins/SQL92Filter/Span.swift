/// What a comparison of a property with a literal accepts: from one number to another, both included. There is one
/// range for properties that are whole numbers and one for the others. Two comparisons of a machine word decide.
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

    /// The same for numbers of so many decimals, as their digits give them.
    struct Bounds {
        var low: Int64
        var high: Int64

        @inline(__always)
        func hold(_ mantissa: Int64) -> Bool { mantissa >= low && mantissa <= high }
    }

    /// One for each number of decimals up to `Number.Scaled.decimalsMax`. Rounding to a double keeps the order of
    /// numbers, so that comparing mantissas yields what comparing doubles would.
    var bounds: [Bounds] {
        [Bounds(low: wholes.low, high: wholes.high)]
            + (1...Number.Scaled.decimalsMax).map { decimals in
                Bounds(
                    low: Self.first(decimals) { $0 >= doubles.low },
                    high: Self.first(decimals) { $0 > doubles.high } - 1)
            }
    }

    /// The first mantissa whose number fulfils a condition that all larger ones do, too; one more than there are when
    /// none does.
    private static func first(_ decimals: Int, _ condition: (Double) -> Bool) -> Int64 {
        var low: Int64 = -1_000_000_000_000_000
        var high = -low + 1
        while low < high {
            let middle = low + (high - low) / 2
            if condition(Number.divided(middle, by: decimals)) { high = middle } else { low = middle + 1 }
        }
        return low
    }

    @inline(__always)
    func accepts(_ value: Double) -> Bool { (value >= doubles.low && value <= doubles.high) != inverted }
}
