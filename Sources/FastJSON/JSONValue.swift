/// JSON as RocketMQ's Java code reads and writes it (fastjson 1.2). It is a tree whose objects keep the order of their
/// members. Their keys may be numbers (`{0:"10.0.0.1:10911"}`) or objects (`{{"queueId":0}:{…}}`).
///
/// Two values are equal when they mean the same. The order of an object's members does not count, that of an array's
/// elements does. A number key equals the same key in quotes.
package enum JSONValue: Sendable {
    case null
    case bool(Bool)
    case integer(Int64)
    /// A number with a fraction or exponent, or one too large for 64 bits.
    case number(Double)
    case string(String)
    case array([JSONValue])
    case object(JSONObject)
}

/// The members of an object in the order they were read or added.
package struct JSONObject: Sendable {
    /// A key and its value.
    package struct Member: Sendable {
        /// The key's text; for a number or object key its JSON text.
        package var key: String
        /// True for a key that fastjson writes without quotes because it is a number or an object.
        package var isRaw: Bool
        /// `null` is a value too: it is written.
        package var value: JSONValue

        package init(key: String, isRaw: Bool = false, value: JSONValue) {
            self.key = key
            self.isRaw = isRaw
            self.value = value
        }
    }

    /// Keys may repeat, as in the text that was read.
    package var members: [Member]

    package init(members: [Member] = []) {
        self.members = members
    }

    /// Members, repeated keys included.
    package var count: Int { members.count }
    /// Whether the object is `{}`.
    package var isEmpty: Bool { members.isEmpty }

    /// The value of a key (linear search: bodies have few members; build a dictionary for large tables).
    /// Like fastjson, the last of several equal keys counts.
    package subscript(key: String) -> JSONValue? {
        get { members.last { $0.key == key }?.value }
        set {
            if let index = members.lastIndex(where: { $0.key == key }) {
                if let newValue {
                    members[index].value = newValue
                } else {
                    members.remove(at: index)
                }
            } else if let newValue {
                members.append(Member(key: key, value: newValue))
            }
        }
    }

    /// Adds a member without looking for an equal key.
    package mutating func append(_ key: String, _ value: JSONValue) {
        members.append(Member(key: key, value: value))
    }

    /// Adds a member whose key is a number or an object, written without quotes.
    package mutating func append(rawKey: String, _ value: JSONValue) {
        members.append(Member(key: rawKey, isRaw: true, value: value))
    }
}

extension JSONValue {
    /// An object from key/value pairs, in that order. `nil` values are left out, as fastjson leaves out null fields.
    package static func fields(_ pairs: [(String, JSONValue?)]) -> JSONValue {
        var object = JSONObject()
        object.members.reserveCapacity(pairs.count)
        for (key, value) in pairs {
            if let value {
                object.append(key, value)
            }
        }
        return .object(object)
    }

    /// An array of strings, in the order of the sequence.
    package static func strings(_ values: some Sequence<String>) -> JSONValue {
        .array(values.map { .string($0) })
    }

    /// A whole number; of one that does not fit 64 bits the lowest 64.
    package static func integer(_ value: some BinaryInteger) -> JSONValue {
        .integer(Int64(truncatingIfNeeded: value))
    }

    /// A member of an object; nil of anything else.
    package subscript(key: String) -> JSONValue? {
        guard case .object(let object) = self else { return nil }
        return object[key]
    }

    /// nil for anything else; so for the next.
    package var object: JSONObject? {
        guard case .object(let object) = self else { return nil }
        return object
    }

    /// nil for anything else.
    package var array: [JSONValue]? {
        guard case .array(let array) = self else { return nil }
        return array
    }

    /// The text of a string, number or boolean: Java's setters take all of them for a String field.
    package var string: String? {
        switch self {
        case .string(let text): text
        case .integer(let value): String(value)
        case .number(let value): String(value)
        case .bool(let value): value ? "true" : "false"
        case .null, .array, .object: nil
        }
    }

    /// A whole number, also out of a string, as fastjson converts.
    package var integer: Int64? {
        switch self {
        case .integer(let value): value
        case .number(let value): Int64(exactly: value.rounded(.towardZero))
        case .string(let text): Int64(text)
        case .null, .bool, .array, .object: nil
        }
    }

    /// nil also when it is too large.
    package var int32: Int32? {
        integer.flatMap { Int32(exactly: $0) }
    }

    /// Any number, also out of a string.
    package var double: Double? {
        switch self {
        case .integer(let value): Double(value)
        case .number(let value): value
        case .string(let text): Double(text)
        case .null, .bool, .array, .object: nil
        }
    }

    /// Also out of the strings and the numbers Java's setters take for one.
    package var bool: Bool? {
        switch self {
        case .bool(let value): value
        case .string("true"): true
        case .string("false"): false
        case .integer(1): true
        case .integer(0): false
        default: nil
        }
    }

    /// Whether it is the literal `null`; a missing member is nil, not this.
    package var isNull: Bool {
        guard case .null = self else { return false }
        return true
    }
}

extension JSONObject.Member {
    /// Arrays and objects in each other in a key that is an object; brackets in its strings count, too.
    var keyDepth: Int {
        guard isRaw, key.utf8.first == UInt8(ascii: "{") || key.utf8.first == UInt8(ascii: "[") else { return 0 }
        return key.utf8.count { $0 == UInt8(ascii: "{") || $0 == UInt8(ascii: "[") }
    }
}

extension JSONValue {
    /// How many arrays and objects stand in each other; 0 for a string, a number, a boolean and `null`.
    package var depth: Int {
        switch self {
        case .array(let elements): 1 + (elements.lazy.map(\.depth).max() ?? 0)
        case .object(let object): 1 + (object.members.lazy.map { max($0.keyDepth, $0.value.depth) }.max() ?? 0)
        case .null, .bool, .integer, .number, .string: 0
        }
    }
}

extension JSONValue: Equatable {
    package static func == (left: JSONValue, right: JSONValue) -> Bool {
        switch (left, right) {
        case (.null, .null): true
        case (.bool(let left), .bool(let right)): left == right
        case (.integer(let left), .integer(let right)): left == right
        case (.number(let left), .number(let right)): left == right
        case (.string(let left), .string(let right)): left == right
        case (.array(let left), .array(let right)): left == right
        case (.object(let left), .object(let right)): left == right
        default: false
        }
    }
}

extension JSONObject: Equatable {
    package static func == (left: JSONObject, right: JSONObject) -> Bool {
        guard left.count == right.count else { return false }
        if zip(left.members, right.members).allSatisfy({ $0.key == $1.key }) {
            return zip(left.members, right.members).allSatisfy { $0.value == $1.value }
        }
        let table = Dictionary(right.members.map { ($0.key, $0.value) }, uniquingKeysWith: { $1 })
        return left.members.allSatisfy { table[$0.key] == $0.value }
    }
}

extension JSONValue: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral, ExpressibleByBooleanLiteral {
    package init(stringLiteral value: String) { self = .string(value) }
    package init(integerLiteral value: Int64) { self = .integer(value) }
    package init(booleanLiteral value: Bool) { self = .bool(value) }
}
