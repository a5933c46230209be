package import FastJSON

/// An answer of HTTP: status, fields and a whole body.
package struct GatewayAnswer: Sendable {
    /// 200 to 599.
    package var status: Int
    /// Fields besides those of the body's length.
    package var headers: [(name: String, value: String)]
    /// In UTF-8 where it is text.
    package var body: [UInt8]

    package init(status: Int, headers: [(name: String, value: String)] = [], body: [UInt8] = []) {
        self.status = status
        self.headers = headers
        self.body = body
    }

    /// A body of JSON.
    package static func json(_ value: JSONValue, status: Int = 200, type: String = "application/json") -> GatewayAnswer
    {
        GatewayAnswer(status: status, headers: [("content-type", type)], body: value.bytes())
    }

    /// A body of plain text.
    package static func text(_ text: String) -> GatewayAnswer {
        GatewayAnswer(
            status: 200, headers: [("content-type", "text/plain; charset=utf-8")], body: Array(text.utf8))
    }
}
