/// A request of HTTP without its body.
package struct RequestHead: Sendable {
    /// `GET`, `POST` and so on.
    package var method: String
    /// Path and query as they were sent.
    package var target: String
    private var headers: [(name: String, value: String)]

    /// - Parameter headers: with names in lower case.
    package init(method: String, target: String, headers: [(name: String, value: String)]) {
        self.method = method
        self.target = target
        self.headers = headers
    }

    /// The value of a field by its name in lower case; of one that repeats the first. nil: it is not there.
    package subscript(name: String) -> String? { headers.first { $0.name == name }?.value }

    /// As the client says. nil: it does not say.
    var contentLength: Int? { self["content-length"].flatMap { Int($0) } }

    /// Whether the body is said to be JSON.
    var isJSON: Bool {
        let type = self["content-type"] ?? ""
        // As nearly all have it.
        if type == "application/json" { return true }
        return SettingText.trimmed(type.prefix { $0 != ";" }.lowercased()[...]) == "application/json"
    }
}

/// Texts of settings and fields.
enum SettingText {
    static func trimmed(_ text: Substring) -> String {
        var text = text
        while text.utf8.first == UInt8(ascii: " ") { text = text.dropFirst() }
        while text.utf8.last == UInt8(ascii: " ") { text = text.dropLast() }
        return String(text)
    }
}
