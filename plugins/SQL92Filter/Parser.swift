/// An expression as it was written. Which of them may stand where is what RocketMQ's parser allows.
indirect enum Expression {
    case property(String)
    case string([UInt8])
    case number(Number)
    case boolean(Bool)
    case null
    case negate(Expression)
    case compare(Comparison, Expression, Expression)
    case between(Expression, Expression, Expression, not: Bool)
    case isNull(Expression, not: Bool)
    case `in`(String, [[UInt8]], not: Bool)
    case text(TextTest, Expression, [UInt8], not: Bool)
    case not(Expression)
    case and(Expression, Expression)
    case or(Expression, Expression)
    case call(PluginCall)

    enum Comparison {
        case equal, notEqual, less, lessOrEqual, greater, greaterOrEqual
    }

    enum TextTest: String, CaseIterable {
        case contains = "CONTAINS"
        case startsWith = "STARTSWITH"
        case endsWith = "ENDSWITH"
    }

    /// True for what is true, false or unknown by itself; a property may be used as one, too.
    var isBoolean: Bool {
        switch self {
        case .property, .string, .number, .negate: false
        case .boolean, .null, .compare, .between, .isNull, .in, .text, .not, .and, .or, .call: true
        }
    }

    var isLiteral: Bool {
        switch self {
        case .string, .number, .boolean, .null: true
        default: false
        }
    }
}

/// `PLUGIN('TYPE', 'expression')`: true where the plugin of that type matches, else false.
struct PluginCall {
    let type: [UInt8]
    let expression: [UInt8]
    /// Byte offsets in the whole expression where the texts between the quotes begin.
    let typePosition: Int
    let expressionPosition: Int

    func isSame(as other: PluginCall) -> Bool { type == other.type && expression == other.expression }
}

/// Reads an expression:
///
///     or         = and { OR and }
///     and        = equality { AND equality }
///     equality   = comparison { = comparison | <> comparison | IS [NOT] NULL }
///     comparison = unary { > unary | >= unary | < unary | <= unary | [NOT] BETWEEN unary AND unary
///                        | [NOT] IN ( string {, string} ) | [NOT] CONTAINS string | … STARTSWITH … | … ENDSWITH … }
///     unary      = + unary | - unary | NOT unary | literal | property | PLUGIN ( string , string ) | ( or )
struct Parser {
    /// Parentheses, signs and NOTs may be nested this deep; the stack of the worker holds far more.
    static let maximumDepth = 200

    /// Operands of one expression: bounds the depth of the tree, and the time a message takes.
    static let maximumOperands = 2000

    private let text: UnsafeRawBufferPointer
    private var lexer: Lexer
    private var token: Token = .end
    private var position = 0
    private var depth = 0
    private var operands = 0

    static func parse(_ text: UnsafeRawBufferPointer) throws(SyntaxError) -> Expression {
        var parser = Parser(text)
        try parser.advance()
        let start = parser.position
        let expression = try parser.or()
        guard parser.token == .end else { throw parser.unexpected("an operator or the end") }
        try parser.requireBoolean(expression, at: start)
        return expression
    }

    private init(_ text: UnsafeRawBufferPointer) {
        self.text = text
        lexer = Lexer(text)
    }

    private mutating func advance() throws(SyntaxError) {
        (token, position) = try lexer.next()
    }

    private mutating func take(_ symbol: Token.Symbol) throws(SyntaxError) -> Bool {
        guard token == .symbol(symbol) else { return false }
        try advance()
        return true
    }

    private mutating func take(_ keyword: Token.Keyword) throws(SyntaxError) -> Bool {
        guard token == .keyword(keyword) else { return false }
        try advance()
        return true
    }

    private func unexpected(_ wanted: String) -> SyntaxError {
        let found =
            switch token {
            case .end: "the expression ends"
            case .name(let range): "\"\(String(decoding: text[range], as: UTF8.self))\""
            case .keyword(let keyword): keyword.rawValue
            case .symbol(let symbol): symbol.rawValue
            case .string: "a string"
            case .number: "a number"
            }
        return SyntaxError(position: position, reason: "expected \(wanted), found \(found)")
    }

    private func requireBoolean(_ expression: Expression, at position: Int) throws(SyntaxError) {
        if expression.isBoolean { return }
        if case .property = expression { return }
        throw SyntaxError(position: position, reason: "this is a value, not a condition")
    }

    // MARK: - The grammar

    private mutating func or() throws(SyntaxError) -> Expression {
        let start = position
        var left = try and()
        while token == .keyword(.or) {
            try requireBoolean(left, at: start)
            try advance()
            let rightStart = position
            let right = try and()
            try requireBoolean(right, at: rightStart)
            left = .or(left, right)
        }
        return left
    }

    private mutating func and() throws(SyntaxError) -> Expression {
        let start = position
        var left = try equality()
        while token == .keyword(.and) {
            try requireBoolean(left, at: start)
            try advance()
            let rightStart = position
            let right = try equality()
            try requireBoolean(right, at: rightStart)
            left = .and(left, right)
        }
        return left
    }

    private mutating func equality() throws(SyntaxError) -> Expression {
        let start = position
        var left = try comparison()
        while true {
            let at = position
            if try take(.equal) {
                left = try equal(.equal, left, start, at)
            } else if try take(.notEqual) {
                left = try equal(.notEqual, left, start, at)
            } else if try take(.is) {
                let not = try take(.not)
                guard try take(.null) else { throw unexpected(not ? "NULL" : "NULL or NOT NULL") }
                left = .isNull(left, not: not)
            } else {
                return left
            }
        }
    }

    private mutating func equal(
        _ comparison: Expression.Comparison, _ left: Expression, _ start: Int, _ at: Int
    ) throws(SyntaxError) -> Expression {
        let rightStart = position
        let right = try self.comparison()
        for (side, place) in [(left, start), (right, rightStart)] {
            if case .null = side {
                throw SyntaxError(position: place, reason: "nothing equals NULL; write IS NULL or IS NOT NULL")
            }
        }
        if case .boolean = left, right.isLiteral, !right.isBoolean {
            throw SyntaxError(position: at, reason: "a truth value cannot be compared with this literal")
        }
        return .compare(comparison, left, right)
    }

    private mutating func comparison() throws(SyntaxError) -> Expression {
        let start = position
        var left = try unary()
        while true {
            let comparison: Expression.Comparison
            switch token {
            case .symbol(.greater): comparison = .greater
            case .symbol(.greaterOrEqual): comparison = .greaterOrEqual
            case .symbol(.less): comparison = .less
            case .symbol(.lessOrEqual): comparison = .lessOrEqual
            default:
                guard let next = try wordOperator(left, start) else { return left }
                left = next
                continue
            }
            try requireOrdered(left, at: start)
            try advance()
            let rightStart = position
            let right = try unary()
            try requireOrdered(right, at: rightStart)
            left = .compare(comparison, left, right)
        }
    }

    /// `[NOT] BETWEEN | IN | CONTAINS | STARTSWITH | ENDSWITH`; nil when none of them follows.
    private mutating func wordOperator(_ left: Expression, _ start: Int) throws(SyntaxError) -> Expression? {
        let not = try take(.not)
        if try take(.between) {
            try requireOrdered(left, at: start)
            let lowStart = position
            let low = try unary()
            try requireOrdered(low, at: lowStart)
            guard try take(.and) else { throw unexpected("AND and the upper bound of BETWEEN") }
            let highStart = position
            let high = try unary()
            try requireOrdered(high, at: highStart)
            if case .number(let first) = low, case .number(let last) = high, Number.compare(first, last) > 0 {
                throw SyntaxError(position: lowStart, reason: "the lower bound of BETWEEN is above the upper one")
            }
            return .between(left, low, high, not: not)
        }
        if try take(.in) {
            guard case .property(let name) = left else {
                throw SyntaxError(position: start, reason: "left of IN stands a property")
            }
            return .in(name, try list(), not: not)
        }
        if case .name(let range) = token,
            let test = Expression.TextTest.allCases.first(where: { Lexer.equal(text[range], $0.rawValue) })
        {
            try advance()
            guard case .string(let search) = token else { throw unexpected("a string after \(test.rawValue)") }
            try advance()
            return .text(test, left, search, not: not)
        }
        if not { throw unexpected("BETWEEN, IN, CONTAINS, STARTSWITH or ENDSWITH after NOT") }
        return nil
    }

    private mutating func list() throws(SyntaxError) -> [[UInt8]] {
        guard try take(.open) else { throw unexpected("( and the strings of IN") }
        var strings: [[UInt8]] = []
        repeat {
            guard case .string(let value) = token else { throw unexpected("a string; the values of IN are strings") }
            strings.append(value)
            try advance()
        } while try take(.comma)
        guard try take(.close) else { throw unexpected(", or )") }
        return strings
    }

    /// Only numbers have an order: literals of another kind and conditions are refused, as RocketMQ does.
    private func requireOrdered(_ expression: Expression, at position: Int) throws(SyntaxError) {
        switch expression {
        case .property, .number, .negate: return
        case .string:
            throw SyntaxError(position: position, reason: "strings have no order here; they can only be equal or not")
        default:
            throw SyntaxError(position: position, reason: "a truth value has no order")
        }
    }

    private mutating func unary() throws(SyntaxError) -> Expression {
        depth += 1
        defer { depth -= 1 }
        guard depth <= Self.maximumDepth else {
            throw SyntaxError(position: position, reason: "nested more than \(Self.maximumDepth) deep")
        }
        if try take(.plus) { return try unary() }
        if try take(.minus) {
            let operand = try unary()
            if case .number(let number) = operand { return .negate(.number(number)) }
            return .negate(operand)
        }
        if try take(.not) {
            let start = position
            let operand = try unary()
            try requireBoolean(operand, at: start)
            return .not(operand)
        }
        return try primary()
    }

    /// Behind `PLUGIN`: the two strings in parentheses.
    private mutating func call() throws(SyntaxError) -> PluginCall {
        func text(_ wanted: String) throws(SyntaxError) -> (bytes: [UInt8], position: Int) {
            guard case .string(let bytes) = token else { throw unexpected(wanted) }
            return (bytes, position + 1)
        }
        try advance()
        let type = try text("the plugin's type as a string: PLUGIN('TYPE', 'expression')")
        guard !type.bytes.isEmpty, type.bytes.count <= 64 else {
            throw SyntaxError(position: type.position, reason: "a plugin's type has 1 to 64 bytes")
        }
        try advance()
        guard try take(.comma) else { throw unexpected(", and the plugin's expression: PLUGIN('TYPE', 'expression')") }
        let expression = try text("the plugin's expression as a string: PLUGIN('TYPE', 'expression')")
        try advance()
        guard try take(.close) else { throw unexpected(") after the plugin's expression") }
        return PluginCall(
            type: type.bytes, expression: expression.bytes, typePosition: type.position,
            expressionPosition: expression.position)
    }

    private mutating func primary() throws(SyntaxError) -> Expression {
        operands += 1
        guard operands <= Self.maximumOperands else {
            throw SyntaxError(position: position, reason: "more than \(Self.maximumOperands) operands")
        }
        let result: Expression
        switch token {
        case .string(let value): result = .string(value)
        case .number(let number): result = .number(number)
        case .keyword(.true): result = .boolean(true)
        case .keyword(.false): result = .boolean(false)
        case .keyword(.null): result = .null
        case .name(let range):
            try advance()
            if Lexer.equal(text[range], "PLUGIN"), token == .symbol(.open) { return .call(try call()) }
            return .property(String(decoding: text[range], as: UTF8.self))
        case .symbol(.open):
            try advance()
            let inner = try or()
            guard try take(.close) else { throw unexpected(")") }
            return inner
        default: throw unexpected("a property, a literal, NOT or (")
        }
        try advance()
        return result
    }
}
