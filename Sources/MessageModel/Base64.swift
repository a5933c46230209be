/// Base 64 of RFC 4648, in one of its two alphabets.
package struct Base64: Sendable {
    /// With `+` and `/`: Java's `Base64.getEncoder`.
    package static let standard = Base64(lastDigits: "+/")
    /// With `-` and `_`: Java's `Base64.getUrlEncoder`.
    package static let urlSafe = Base64(lastDigits: "-_")

    private static let padding = UInt8(ascii: "=")
    private static let noDigit = UInt8.max
    private let alphabet: [UInt8]
    /// By byte: the digit's value.
    private let values: [UInt8]

    private init(lastDigits: String) {
        let alphabet = Array(("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789" + lastDigits).utf8)
        var values = [UInt8](repeating: Self.noDigit, count: 256)
        for (value, digit) in alphabet.enumerated() { values[Int(digit)] = UInt8(value) }
        self.alphabet = alphabet
        self.values = values
    }

    /// The text, padded.
    package func encode(_ bytes: some Collection<UInt8>) -> String {
        var result: [UInt8] = []
        var bits: UInt32 = 0
        var count = 0
        func put(_ shift: UInt32) { result.append(alphabet[Int(bits >> shift & 63)]) }
        for byte in bytes {
            bits = bits << 8 | UInt32(byte)
            count += 1
            if count == 3 {
                put(18)
                put(12)
                put(6)
                put(0)
                bits = 0
                count = 0
            }
        }
        if count > 0 {
            bits <<= UInt32(8 * (3 - count))
            put(18)
            put(12)
            if count == 2 { put(6) }
            result.append(contentsOf: repeatElement(Self.padding, count: 3 - count))
        }
        return String(decoding: result, as: UTF8.self)
    }

    /// Padding may be missing; `nil` for anything that is not the alphabet.
    package func decode(_ text: some Collection<UInt8>) -> [UInt8]? {
        var result: [UInt8] = []
        result.reserveCapacity(text.count / 4 * 3 + 3)
        var bits: UInt32 = 0
        var digits = 0
        var isPadded = false
        for byte in text {
            if byte == Self.padding {
                isPadded = true
                continue
            }
            let value = values[Int(byte)]
            guard !isPadded, value != Self.noDigit else { return nil }
            bits = bits << 6 | UInt32(value)
            digits += 1
            if digits % 4 == 0 {
                result.append(UInt8(truncatingIfNeeded: bits >> 16))
                result.append(UInt8(truncatingIfNeeded: bits >> 8))
                result.append(UInt8(truncatingIfNeeded: bits))
                bits = 0
            }
        }
        switch digits % 4 {
        case 0: return result
        case 2:
            result.append(UInt8(truncatingIfNeeded: bits >> 4))
            return result
        case 3:
            result.append(UInt8(truncatingIfNeeded: bits >> 10))
            result.append(UInt8(truncatingIfNeeded: bits >> 2))
            return result
        default: return nil
        }
    }
}
