import FastJSON

/// A member of a request's or an answer's JSON, or a parameter of a path or query. Requests are checked by it, and the
/// OpenAPI document is made of it.
struct Field: Sendable {
    indirect enum Kind: Sendable {
        /// A text of so many bytes.
        case text(ClosedRange<Int>)
        /// One of these words.
        case word([String])
        case integer(ClosedRange<Int64>)
        /// So many texts of so many bytes each.
        case texts(ClosedRange<Int>, of: ClosedRange<Int>)
        /// An object of texts: so many bytes of names and values.
        case map(bytesMax: Int)
        case objects(ClosedRange<Int>, of: Shape)
        case object(Shape)
    }

    let name: String
    let kind: Kind
    var isRequired = false
    /// One line, without a full stop.
    let meaning: String

    init(_ name: String, _ kind: Kind, isRequired: Bool = false, _ meaning: String) {
        self.name = name
        self.kind = kind
        self.isRequired = isRequired
        self.meaning = meaning
    }
}

/// The members of an object.
struct Shape: Sendable {
    /// Of the schema in the OpenAPI document.
    let name: String
    let fields: [Field]

    /// - Parameter place: of the object, as `messages[3].`; empty for the whole body.
    /// - Throws: the first member that is unknown, missing, of another type or out of bounds.
    func check(_ value: JSONValue, at place: String = "") throws(Problem) {
        guard let object = value.object else {
            throw .invalid("\(place.isEmpty ? "the body" : String(place.dropLast())) is no JSON object")
        }
        for member in object.members {
            guard let field = fields.first(where: { $0.name == member.key }) else {
                let known = fields.map(\.name).joined(separator: ", ")
                throw .invalid("there is no member \(place)\(Self.shown(member.key))", remedy: "there are \(known)")
            }
            try field.check(member.value, at: place + field.name)
        }
        for field in fields where field.isRequired && object[field.name] == nil {
            throw .invalid("\(place)\(field.name) is missing", remedy: "\(field.name): \(field.meaning)")
        }
    }

    /// A stranger's text in an answer for people: not too long, without control characters.
    static func shown(_ text: String) -> String {
        let visible = text.unicodeScalars.prefix(64).map { $0.properties.generalCategory == .control ? "?" : $0 }
        return String(String.UnicodeScalarView(visible)) + (text.unicodeScalars.count > 64 ? "…" : "")
    }
}

extension Field {
    func check(_ value: JSONValue, at place: String) throws(Problem) {
        func refusal(_ what: String) -> Problem { .invalid("\(place) is not \(what)", remedy: "\(name): \(meaning)") }
        switch kind {
        case .text(let bytes):
            guard case .string(let text) = value, bytes.contains(text.utf8.count) else {
                throw refusal("a text of \(bytes.lowerBound) to \(bytes.upperBound) bytes")
            }
        case .word(let words):
            guard case .string(let text) = value, words.contains(text) else {
                throw refusal(words.joined(separator: " or "))
            }
        case .integer(let bounds):
            guard case .integer(let number) = value, bounds.contains(number) else {
                throw refusal("a whole number from \(bounds.lowerBound) to \(bounds.upperBound)")
            }
        case .texts(let count, let bytes):
            let texts = value.array?.compactMap { if case .string(let text) = $0 { text } else { nil } }
            guard let texts, texts.count == value.array?.count, count.contains(texts.count),
                texts.allSatisfy({ bytes.contains($0.utf8.count) })
            else {
                throw refusal(
                    "an array of \(count.lowerBound) to \(count.upperBound) texts of \(bytes.lowerBound) to "
                        + "\(bytes.upperBound) bytes")
            }
        case .map(let bytesMax):
            let members = value.object?.members
            let isGood = members?.allSatisfy { if case .string = $0.value { true } else { false } } ?? false
            let bytes = members?.reduce(0) { $0 + $1.key.utf8.count + ($1.value.string?.utf8.count ?? 0) } ?? 0
            guard isGood, bytes <= bytesMax else {
                throw refusal("an object of texts of \(bytesMax) bytes together")
            }
        case .objects(let count, let shape):
            guard let array = value.array, count.contains(array.count) else {
                throw refusal("an array of \(count.lowerBound) to \(count.upperBound) objects")
            }
            for (index, element) in array.enumerated() { try shape.check(element, at: "\(place)[\(index)].") }
        case .object(let shape): try shape.check(value, at: "\(place).")
        }
    }

    /// A value of a path or query, which is text there.
    func value(_ text: String) throws(Problem) -> JSONValue {
        let value: JSONValue
        if case .integer = kind, let number = Int64(text) { value = .integer(number) } else { value = .string(text) }
        try check(value, at: name)
        return value
    }
}
