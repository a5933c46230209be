internal import Glibc

/// A number of an expression or a property: whole numbers exactly, others as doubles.
enum Number: Equatable {
    case integer(Int64)
    case double(Double)

    /// Reads `[+-] digits [. digits] [e [+-] digits]`, spaces around it ignored; nil when `text` is anything else.
    /// Allocates nothing.
    init?(_ text: UnsafeRawBufferPointer) {
        var at = 0
        var end = text.count
        while at < end, text[at] <= 0x20 { at += 1 }
        while end > at, text[end - 1] <= 0x20 { end -= 1 }
        guard at < end else { return nil }
        let start = at
        let negative = text[at] == UInt8(ascii: "-")
        if negative || text[at] == UInt8(ascii: "+") { at += 1 }

        // Digits into a 64-bit mantissa as long as they fit.
        var mantissa: UInt64 = 0
        var digits = 0
        var exact = true
        var scale = 0
        func isDigit(_ index: Int) -> Bool { index < end && text[index] >= 0x30 && text[index] <= 0x39 }
        func take(_ digit: UInt8) {
            digits += 1
            let (product, overflow) = mantissa.multipliedReportingOverflow(by: 10)
            let (sum, carry) = product.addingReportingOverflow(UInt64(digit &- 0x30))
            if overflow || carry || !exact { exact = false } else { mantissa = sum }
        }
        while isDigit(at) {
            take(text[at])
            at += 1
        }
        var isWhole = true
        if at < end, text[at] == UInt8(ascii: ".") {
            isWhole = false
            at += 1
            while isDigit(at) {
                take(text[at])
                if exact { scale -= 1 }
                at += 1
            }
        }
        guard digits > 0 else { return nil }
        if at < end, text[at] | 0x20 == UInt8(ascii: "e") {
            isWhole = false
            var exponentAt = at + 1
            let down = exponentAt < end && text[exponentAt] == UInt8(ascii: "-")
            if down || (exponentAt < end && text[exponentAt] == UInt8(ascii: "+")) { exponentAt += 1 }
            guard isDigit(exponentAt) else { return nil }
            var exponent = 0
            while isDigit(exponentAt) {
                exponent = min(exponent * 10 + Int(text[exponentAt] - 0x30), 100_000)
                exponentAt += 1
            }
            scale += down ? -exponent : exponent
            at = exponentAt
        }
        guard at == end else { return nil }

        if isWhole, exact, mantissa <= UInt64(Int64.max) + (negative ? 1 : 0) {
            self = .integer(negative ? 0 &- Int64(bitPattern: mantissa) : Int64(mantissa))
        } else if exact, mantissa <= 1 << 53, abs(scale) <= 22 {
            // Both parts are exact doubles, so one rounding gives the nearest.
            let value = scale < 0 ? Double(mantissa) / Self.powers[-scale] : Double(mantissa) * Self.powers[scale]
            self = .double(negative ? -value : value)
        } else {
            self = .double(Self.rounded(UnsafeRawBufferPointer(rebasing: text[start..<end])))
        }
    }

    private static let powers: [Double] = [
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19,
        1e20, 1e21, 1e22,
    ]

    /// The C library's rounding, for what is rare; `text` is a number already.
    private static func rounded(_ text: UnsafeRawBufferPointer) -> Double {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: text.count + 1) { buffer in
            for index in text.indices { buffer.initializeElement(at: index, to: CChar(bitPattern: text[index])) }
            buffer.initializeElement(at: text.count, to: 0)
            guard let start = buffer.baseAddress else { return 0 }
            return strtod(start, nil)
        }
    }

    var isFinite: Bool { if case .double(let value) = self { value.isFinite } else { true } }

    var negated: Number {
        switch self {
        case .integer(let value): value == .min ? .double(-Double(value)) : .integer(-value)
        case .double(let value): .double(-value)
        }
    }

    /// -1, 0 or 1; exact also between a whole number beyond 2^53 and a double.
    static func compare(_ left: Number, _ right: Number) -> Int {
        switch (left, right) {
        case (.integer(let left), .integer(let right)): left < right ? -1 : left == right ? 0 : 1
        case (.double(let left), .double(let right)): left < right ? -1 : left == right ? 0 : 1
        case (.integer(let left), .double(let right)): compare(left, right)
        case (.double(let left), .integer(let right)): -compare(right, left)
        }
    }

    private static func compare(_ left: Int64, _ right: Double) -> Int {
        if right >= 0x1p63 { return -1 }
        if right < -0x1p63 { return 1 }
        let whole = Int64(right)  // Towards zero.
        if left != whole { return left < whole ? -1 : 1 }
        let fraction = right - Double(whole)
        return fraction > 0 ? -1 : fraction < 0 ? 1 : 0
    }
}
