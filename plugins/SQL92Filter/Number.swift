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

    /// What most numbers are: up to 15 digits, perhaps a minus, perhaps a decimal point among them. So many are exact
    /// in a double, too.
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
        return point < 0 ? .integer(value) : .double(divided(value, by: text.count - 1 - point))
    }

    /// A number as its digits give it: `mantissa` with so many decimals, at most 15 digits when there are decimals.
    struct Scaled {
        static let decimalsMax = 15

        let mantissa: Int64
        let decimals: UInt8

        var number: Number {
            decimals == 0 ? .integer(mantissa) : .double(Number.divided(mantissa, by: Int(decimals)))
        }
    }

    /// The double next to a number of at most 15 digits: both parts are exact, so one rounding gives it.
    static func divided(_ mantissa: Int64, by decimals: Int) -> Double { Double(mantissa) / powers[decimals] }

    /// As `init`, for up to 16 characters after a sign, read eight at a time: digits with perhaps a point among them.
    /// Nil: it is not that short, or something else.
    /// - Parameter floor: what may be read before `start` begins there.
    @inline(__always)
    static func short(_ start: UnsafePointer<UInt8>, _ count: Int, _ floor: UnsafePointer<UInt8>) -> Scaled? {
        guard count > 0 else { return nil }
        let first = start[0]
        if count == 1 { return first &- 0x30 < 10 ? Scaled(mantissa: Int64(first &- 0x30), decimals: 0) : nil }
        let negative = first == UInt8(ascii: "-")
        let size = count &- (negative ? 1 : 0)
        let end = UnsafeRawPointer(start) + count
        guard size <= 16, end - 16 >= UnsafeRawPointer(floor) else { return nil }
        // The digits' values, the last character in the highest byte of `low`; what lies before the first is 0.
        var low: UInt64
        var decimals = 0
        var value: Int64
        if size <= 8 {
            low = digits(end - 8, size)
            let odd = others(low)
            if odd != 0 {
                // One character is no digit: it is taken out if it is a point.
                guard let shift = point(low, odd) else { return nil }
                decimals = 7 &- shift &>> 3
                low = without(low, shift)
                guard decimals > 0, decimals < size &- 1 else { return nil }
            }
            value = Int64(bitPattern: decimal(low))
        } else {
            low = digits(end - 8, 8)
            var high = digits(end - 16, size &- 8)
            let odd = (others(low), others(high))
            if odd.0 | odd.1 != 0 {
                if odd.1 == 0 {
                    guard let shift = point(low, odd.0) else { return nil }
                    decimals = 7 &- shift &>> 3
                    low = without(low, shift) | high &>> 56
                    high = high &<< 8
                } else {
                    guard odd.0 == 0, let shift = point(high, odd.1) else { return nil }
                    decimals = 15 &- shift &>> 3
                    high = without(high, shift)
                }
                guard decimals > 0, decimals < size &- 1 else { return nil }
            }
            value = Int64(bitPattern: decimal(low))
            if high != 0 { value = value &+ Int64(bitPattern: decimal(high)) &* 100_000_000 }
        }
        if negative { value = 0 &- value }
        return Scaled(mantissa: value, decimals: UInt8(truncatingIfNeeded: decimals))
    }

    /// The last `count` (1 to 8) of eight characters, less "0".
    @inline(__always)
    private static func digits(_ place: UnsafeRawPointer, _ count: Int) -> UInt64 {
        let bytes = UInt64(littleEndian: place.loadUnaligned(as: UInt64.self)) ^ 0x3030_3030_3030_3030
        return bytes & (~0 &<< UInt64(64 &- 8 &* count))
    }

    /// Bit 7 of each byte above 9. Of those after one above 0x89 this may be wrong.
    @inline(__always)
    private static func others(_ digits: UInt64) -> UInt64 {
        ((digits &+ 0x7676_7676_7676_7676) | digits) & 0x8080_8080_8080_8080
    }

    /// How far up the byte marked by `mark` is, when that is the only one and a point.
    @inline(__always)
    private static func point(_ digits: UInt64, _ mark: UInt64) -> Int? {
        let shift = mark.trailingZeroBitCount &- 7
        guard mark & (mark &- 1) == 0, digits &>> UInt64(shift) & 0xFF == UInt64(UInt8(ascii: ".") ^ 0x30) else {
            return nil
        }
        return shift
    }

    /// The byte `shift` bits up taken out, what lies before it moved into its position.
    @inline(__always)
    private static func without(_ digits: UInt64, _ shift: Int) -> UInt64 {
        let before = digits & (1 &<< UInt64(shift) &- 1)
        return digits & (~0xFF &<< UInt64(shift)) & ~(1 &<< UInt64(shift) &- 1) | before &<< 8
    }

    /// The number that eight digits make, the first one in the lowest byte.
    @inline(__always)
    private static func decimal(_ digits: UInt64) -> UInt64 {
        let pairs = digits &* 10 &+ digits &>> 8
        let mask: UInt64 = 0x0000_00FF_0000_00FF
        return ((pairs & mask) &* 0x000F_4240_0000_0064 &+ (pairs &>> 16 & mask) &* 0x0000_2710_0000_0001) &>> 32
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

    /// The digits of a number as a 64-bit whole number, as long as they fit. Zeros at the end of the decimals count
    /// only when another digit follows.
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

    /// A whole number however it is spelled (`5.0`, `5e0`, `500e-2`), so that it compares exactly; nil when it is none,
    /// or beyond 64 bits.
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
