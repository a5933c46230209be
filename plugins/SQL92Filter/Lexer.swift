/// The tokens of an expression, as RocketMQ's `SelectorParser` cuts them.
enum Token: Equatable {
    case name(Range<Int>)
    /// Keywords in any case. `contains`, `startsWith` and `endsWith` are operators only after an operand: elsewhere
    /// they are ordinary property names, as they were before RocketMQ 5.
    case keyword(Keyword)
    case string([UInt8])
    case number(Number)
    case symbol(Symbol)
    case end

    enum Keyword: String, CaseIterable {
        case not = "NOT"
        case and = "AND"
        case or = "OR"
        case between = "BETWEEN"
        case `in` = "IN"
        case `true` = "TRUE"
        case `false` = "FALSE"
        case null = "NULL"
        case `is` = "IS"
    }

    enum Symbol: String {
        case equal = "="
        case notEqual = "<>"
        case less = "<"
        case lessOrEqual = "<="
        case greater = ">"
        case greaterOrEqual = ">="
        case open = "("
        case close = ")"
        case comma = ","
        case plus = "+"
        case minus = "-"
    }
}

/// Why an expression is no expression, and where: a byte offset.
struct SyntaxError: Error {
    var position: Int
    var reason: String
}

struct Lexer {
    let text: UnsafeRawBufferPointer
    private var position = 0

    init(_ text: UnsafeRawBufferPointer) {
        self.text = text
    }

    /// The next token and where it starts.
    mutating func next() throws(SyntaxError) -> (token: Token, position: Int) {
        try skipBlanks()
        let start = position
        guard let byte = byte(0) else { return (.end, start) }
        switch byte {
        case UInt8(ascii: "'"): return (try string(), start)
        case UInt8(ascii: "0")...UInt8(ascii: "9"): return (try number(), start)
        case UInt8(ascii: "."): return (try number(), start)
        case UInt8(ascii: "="): return symbol(.equal, 1)
        case UInt8(ascii: "("): return symbol(.open, 1)
        case UInt8(ascii: ")"): return symbol(.close, 1)
        case UInt8(ascii: ","): return symbol(.comma, 1)
        case UInt8(ascii: "+"): return symbol(.plus, 1)
        case UInt8(ascii: "-"): return symbol(.minus, 1)
        case UInt8(ascii: "<"):
            if self.byte(1) == UInt8(ascii: ">") { return symbol(.notEqual, 2) }
            return self.byte(1) == UInt8(ascii: "=") ? symbol(.lessOrEqual, 2) : symbol(.less, 1)
        case UInt8(ascii: ">"):
            return self.byte(1) == UInt8(ascii: "=") ? symbol(.greaterOrEqual, 2) : symbol(.greater, 1)
        case UInt8(ascii: "!"):
            throw SyntaxError(position: start, reason: "! is no operator here; \"not equal\" is written <>")
        default:
            guard Self.startsName(byte) else {
                throw SyntaxError(position: start, reason: "unexpected character \(Self.describe(byte))")
            }
            return (word(), start)
        }
    }

    private func byte(_ ahead: Int) -> UInt8? {
        position + ahead < text.count ? text[position + ahead] : nil
    }

    private mutating func symbol(_ symbol: Token.Symbol, _ length: Int) -> (token: Token, position: Int) {
        let start = position
        position += length
        return (.symbol(symbol), start)
    }

    private mutating func skipBlanks() throws(SyntaxError) {
        while let byte = byte(0) {
            switch byte {
            case 0x20, 0x09, 0x0A, 0x0D, 0x0C:
                position += 1
            case UInt8(ascii: "-") where self.byte(1) == UInt8(ascii: "-"):
                // A comment only when its line ends: `5 > --3` is two minus signs.
                guard let end = text[position...].firstIndex(where: { $0 == 0x0A || $0 == 0x0D }) else { return }
                position = end
            case UInt8(ascii: "/") where self.byte(1) == UInt8(ascii: "*"):
                let start = position
                position += 2
                while !(self.byte(0) == UInt8(ascii: "*") && self.byte(1) == UInt8(ascii: "/")) {
                    guard self.byte(0) != nil else {
                        throw SyntaxError(position: start, reason: "the comment does not end")
                    }
                    position += 1
                }
                position += 2
            default:
                return
            }
        }
    }

    private mutating func string() throws(SyntaxError) -> Token {
        let start = position
        position += 1
        var value: [UInt8] = []
        while let byte = byte(0) {
            position += 1
            guard byte == UInt8(ascii: "'") else {
                value.append(byte)
                continue
            }
            guard self.byte(0) == UInt8(ascii: "'") else { return .string(value) }
            value.append(byte)
            position += 1
        }
        throw SyntaxError(position: start, reason: "the string does not end; a ' inside it is written ''")
    }

    private mutating func number() throws(SyntaxError) -> Token {
        let start = position
        func digits(from at: Int) -> Int {
            var end = at
            while end < text.count, Self.isDigit(text[end]) { end += 1 }
            return end
        }
        var end = digits(from: start)
        let whole = end - start
        var isDecimal = false
        if end < text.count, text[end] == UInt8(ascii: ".") {
            let after = digits(from: end + 1)
            guard whole > 0 || after > end + 1 else { throw SyntaxError(position: start, reason: "unexpected .") }
            isDecimal = true
            end = after
        }
        if end < text.count, text[end] | 0x20 == UInt8(ascii: "e") {
            var exponent = end + 1
            if exponent < text.count, text[exponent] == UInt8(ascii: "+") || text[exponent] == UInt8(ascii: "-") {
                exponent += 1
            }
            let after = digits(from: exponent)
            if after > exponent {
                isDecimal = true
                end = after
            }
        }
        let spelled = UnsafeRawBufferPointer(rebasing: text[start..<end])
        position = end
        guard isDecimal else {
            guard whole == 1 || text[start] != UInt8(ascii: "0") else {
                throw SyntaxError(position: start, reason: "a whole number does not start with 0")
            }
            if end < text.count, text[end] | 0x20 == UInt8(ascii: "l"), text[start] != UInt8(ascii: "0") {
                position += 1
            }
            guard let number = Number(spelled), case .integer = number else {
                throw SyntaxError(
                    position: start, reason: "a whole number lies between \(Int64.min) and \(Int64.max)")
            }
            return .number(number)
        }
        guard let number = Number(spelled), number.isFinite else {
            throw SyntaxError(position: start, reason: "the number is too large")
        }
        return .number(number)
    }

    private mutating func word() -> Token {
        let start = position
        while let byte = byte(0), Self.startsName(byte) || Self.isDigit(byte) { position += 1 }
        let range = start..<position
        return Token.Keyword.allCases.first { Self.equal(text[range], $0.rawValue) }.map { .keyword($0) }
            ?? .name(range)
    }

    /// Compares with an upper-case ASCII word, in any case.
    static func equal(_ bytes: Slice<UnsafeRawBufferPointer>, _ word: String) -> Bool {
        bytes.count == word.utf8.count
            && zip(bytes, word.utf8).allSatisfy { $0 == $1 || ($0 >= 0x61 && $0 <= 0x7A && $0 & 0xDF == $1) }
    }

    private static func startsName(_ byte: UInt8) -> Bool {
        (byte >= 0x41 && byte <= 0x5A) || (byte >= 0x61 && byte <= 0x7A) || byte == UInt8(ascii: "_")
            || byte == UInt8(ascii: "$")
    }

    private static func isDigit(_ byte: UInt8) -> Bool { byte >= 0x30 && byte <= 0x39 }

    private static func describe(_ byte: UInt8) -> String {
        byte > 0x20 && byte < 0x7F ? String(UnicodeScalar(byte)) : "(byte \(byte))"
    }
}
