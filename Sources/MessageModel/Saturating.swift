infix operator +| : AdditionPrecedence
infix operator -| : AdditionPrecedence
infix operator *| : MultiplicationPrecedence

/// Arithmetic for numbers that came from outside: instead of trapping, a result that does not fit is the nearest that
/// does.
extension FixedWidthInteger {
    /// The sum, or the type's nearest bound.
    @inlinable @inline(__always)
    package static func +| (left: Self, right: Self) -> Self {
        let (sum, overflow) = left.addingReportingOverflow(right)
        guard overflow else { return sum }
        return right < 0 ? .min : .max
    }

    /// The difference, or the type's nearest bound.
    @inlinable @inline(__always)
    package static func -| (left: Self, right: Self) -> Self {
        let (difference, overflow) = left.subtractingReportingOverflow(right)
        guard overflow else { return difference }
        return left < right ? .min : .max
    }

    /// The product, or the type's nearest bound.
    @inlinable @inline(__always)
    package static func *| (left: Self, right: Self) -> Self {
        let (product, overflow) = left.multipliedReportingOverflow(by: right)
        guard overflow else { return product }
        return (left < 0) == (right < 0) ? .max : .min
    }
}
