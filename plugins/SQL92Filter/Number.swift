internal import Glibc

/// A number of an expression or a property: whole numbers exactly, others as doubles.
enum Number: Equatable {
    case integer(Int64)
    case double(Double)

    /// Reads `[+-] digits [. digits] [e [+-] digits]`, spaces around it ignored; nil when `text` is anything else.
    /// Allocates nothing.
    @inline(__always)
    init?(_ text: UnsafeRawBufferPointer) {
        if let plain = Self.plain(text) {
            self = plain
        } else {
            self.init(general: text)
        }
    }

    /// What most numbers are: up to 15 digits, perhaps a minus, perhaps a decimal point among them. So many are exact in a
    /// double, too.
    @inline(__always)
    private static func plain(_ text: UnsafeRawBufferPointer) -> Number? {
        guard text.count > 0, text.count <= 16 else { return nil }
        let negative = text[0] == UInt8(ascii: "-")
        var at = negative ? 1 : 0
        guard text.count - at <= 15, at < text.count else { return nil }
        var value: Int64 = 0
        var point = -1
        while at < text.count {
            let digit = text[at] &- 0x30
            if digit < 10 {
                value = value &* 10 &+ Int64(digit)
            } else {
                // A number begins and ends with a digit here; what else there may be is for others to judge.
                guard text[at] == UInt8(ascii: "."), point < 0, at + 1 < text.count, at > (negative ? 1 : 0) else {
                    return nil
                }
                point = at
            }
            at += 1
        }
        if negative { value = -value }
        return point < 0 ? .integer(value) : .double(Double(value) / powers[text.count - 1 - point])
    }

    private init?(general text: UnsafeRawBufferPointer) {
        var at = 0
        var end = text.count
        while at < end, text[at] <= 0x20 { at += 1 }
        while end > at, text[end - 1] <= 0x20 { end -= 1 }
        guard at < end else { return nil }
        let start = at
        let negative = text[at] == UInt8(ascii: "-")
        if negative || text[at] == UInt8(ascii: "+") { at += 1 }

        var mantissa = Mantissa()
        var digits = 0
        while at < end, text[at] &- 0x30 < 10 {
            mantissa.add(text[at] &- 0x30)
            digits += 1
            at += 1
        }
        if at < end, text[at] == UInt8(ascii: ".") {
            at += 1
            while at < end, text[at] &- 0x30 < 10 {
                mantissa.addDecimal(text[at] &- 0x30)
                digits += 1
                at += 1
            }
        }
        guard digits > 0 else { return nil }
        var scale = -mantissa.decimals
        if at < end, text[at] | 0x20 == UInt8(ascii: "e") {
            at += 1
            let down = at < end && text[at] == UInt8(ascii: "-")
            if down || (at < end && text[at] == UInt8(ascii: "+")) { at += 1 }
            guard at < end, text[at] &- 0x30 < 10 else { return nil }
            var exponent = 0
            while at < end, text[at] &- 0x30 < 10 {
                exponent = min(exponent * 10 + Int(text[at] &- 0x30), 100_000)
                at += 1
            }
            scale += down ? -exponent : exponent
        }
        guard at == end else { return nil }

        if mantissa.isExact, let whole = Self.whole(mantissa.value, scale, negative) {
            self = .integer(whole)
        } else if mantissa.isExact, mantissa.value <= 1 << 53, abs(scale) <= 22 {
            // Both parts are exact doubles, so one rounding gives the nearest.
            let power = Self.powers[abs(scale)]
            let value = scale < 0 ? Double(mantissa.value) / power : Double(mantissa.value) * power
            self = .double(negative ? -value : value)
        } else {
            self = .double(Self.rounded(UnsafeRawBufferPointer(rebasing: text[start..<end])))
        }
    }

    /// The digits of a number as a 64-bit whole number, as long as they fit. Zeros at the end of the decimals count only when
    /// another digit follows.
    private struct Mantissa {
        var value: UInt64 = 0
        var isExact = true
        /// Decimals in `value`.
        var decimals = 0
        private var zeros = 0

        mutating func add(_ digit: UInt8) {
            let (product, overflow) = value.multipliedReportingOverflow(by: 10)
            let (sum, carry) = product.addingReportingOverflow(UInt64(digit))
            if overflow || carry { isExact = false } else { value = sum }
        }

        mutating func addDecimal(_ digit: UInt8) {
            guard digit != 0 else { return zeros += 1 }
            while zeros > 0, isExact {
                add(0)
                decimals += 1
                zeros -= 1
            }
            add(digit)
            decimals += 1
        }
    }

    /// A whole number however it is spelled (`5.0`, `5e0`, `500e-2`), so that it compares exactly; nil when it is none, or beyond 64 bits.
    private static func whole(_ mantissa: UInt64, _ scale: Int, _ negative: Bool) -> Int64? {
        var value = mantissa
        var scale = value == 0 ? 0 : scale
        while scale < 0, value % 10 == 0 {
            value /= 10
            scale += 1
        }
        guard scale >= 0, scale < 20 else { return nil }
        while scale > 0 {
            let (product, overflow) = value.multipliedReportingOverflow(by: 10)
            if overflow { return nil }
            value = product
            scale -= 1
        }
        guard value <= UInt64(Int64.max) + (negative ? 1 : 0) else { return nil }
        return negative ? 0 &- Int64(bitPattern: value) : Int64(value)
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
