package import FastJSON

/// A body that is JSON on the wire. Class names and field spellings are RocketMQ's; fields a reader does not know are
/// skipped, fields a writer left out get RocketMQ's defaults.
package protocol JSONBody: Equatable, Sendable {
    /// - Throws: `badBody`: a field is missing, of a wrong type or out of its bounds.
    init(json: JSONValue) throws(RemotingDecodeError)
    /// The body in RocketMQ's spelling; `encoded` writes it in this order of fields.
    var json: JSONValue { get }
}

extension JSONBody {
    /// - Throws: `badBody`: the bytes are no JSON, or no JSON of this type.
    package init(body: UnsafeRawBufferPointer) throws(RemotingDecodeError) {
        let json: JSONValue
        do {
            json = try JSONValue(parsing: body)
        } catch {
            throw .badBody(error.description)
        }
        self = try Self(json: json)
    }

    /// - Throws: `badBody`: the bytes are no JSON, or no JSON of this type.
    package init(body: [UInt8]) throws(RemotingDecodeError) {
        let result = body.withUnsafeBytes { bytes in
            Result { () throws(RemotingDecodeError) in try Self(body: bytes) }
        }
        self = try result.get()
    }

    /// - Throws: `badBody`: the text is no JSON, or no JSON of this type.
    package init(text: String) throws(RemotingDecodeError) {
        self = try Self(body: Array(text.utf8))
    }

    /// As fastjson writes it (`RemotingSerializable.encode`).
    package func encoded(_ options: JSONWriter.Options = []) -> [UInt8] {
        json.bytes(options)
    }
}

extension JSONValue {
    /// The members of an object, or an error that names what should have been one.
    func members(_ what: StaticString) throws(RemotingDecodeError) -> [JSONObject.Member] {
        switch self {
        case .object(let object): return object.members
        case .null: return []
        default: throw .badBody("\(what.text) is not an object")
        }
    }

    func elements(_ what: StaticString) throws(RemotingDecodeError) -> [JSONValue] {
        switch self {
        case .array(let elements): return elements
        case .null: return []
        default: throw .badBody("\(what.text) is not an array")
        }
    }

    func text(_ name: StaticString) throws(RemotingDecodeError) -> String {
        guard let text = self[name.text]?.string else { throw .badBody("\(name.text) is missing") }
        return text
    }

    func int32(_ name: StaticString, default value: Int32) throws(RemotingDecodeError) -> Int32 {
        guard let field = self[name.text], !field.isNull else { return value }
        guard let number = field.int32 else { throw .badBody("\(name.text) is not a number in range") }
        return number
    }

    func int64(_ name: StaticString, default value: Int64) throws(RemotingDecodeError) -> Int64 {
        guard let field = self[name.text], !field.isNull else { return value }
        guard let number = field.integer else { throw .badBody("\(name.text) is not a number") }
        return number
    }

    func flag(_ name: StaticString, default value: Bool) -> Bool {
        self[name.text]?.bool ?? value
    }

    func strings(_ name: StaticString) throws(RemotingDecodeError) -> [String] {
        guard let field = self[name.text] else { return [] }
        return try field.elements(name).compactMap { $0.string }
    }

    /// Decodes each element of an array field.
    func bodies<Body: JSONBody>(_ name: StaticString) throws(RemotingDecodeError) -> [Body] {
        guard let field = self[name.text] else { return [] }
        var result: [Body] = []
        for element in try field.elements(name) {
            result.append(try Body(json: element))
        }
        return result
    }

    func requireObject(_ what: StaticString) throws(RemotingDecodeError) {
        guard case .object = self else { throw .badBody("\(what.text) is not an object") }
    }
}
