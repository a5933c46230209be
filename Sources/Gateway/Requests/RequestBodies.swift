import FastJSON
import MessageModel
import RocketMQClient

/// Bodies of requests as calls of the client library. They were checked by their shapes.
enum RequestBodies {
    /// Our bodies nest four levels.
    private static let limits = JSONReader.Limits(depth: 8, bytes: Shapes.requestBytesMax)

    /// - Throws: 400 with the place of what is wrong.
    static func object(_ bytes: [UInt8], _ shape: Shape) throws(Problem) -> JSONValue {
        let value: JSONValue
        do throws(JSONError) {
            value = try JSONValue(parsing: bytes, limits: limits)
        } catch {
            throw .invalid("the body is not JSON: \(error)", remedy: "send one object of JSON in UTF-8")
        }
        try shape.check(value)
        return value
    }

    // MARK: - Sending

    struct Sending: Sendable {
        let messages: [Message]
        let isBatch: Bool
        let selector: QueueSelector
    }

    /// - Throws: 400 for members that exclude each other.
    static func sending(_ value: JSONValue, topic: String) throws(Problem) -> Sending {
        guard let array = value["messages"]?.array else {
            let message = try message(value, topic: topic, at: "")
            return Sending(messages: [message], isBatch: false, selector: message.queueSelector)
        }
        guard value.object?.count == 1 else {
            throw .invalid("beside messages stand members of one message", remedy: "put them into messages")
        }
        var messages: [Message] = []
        for (index, element) in array.enumerated() {
            let message = try message(element, topic: topic, at: "messages[\(index)].")
            guard message.delivery == .immediate else {
                throw .invalid(
                    "messages[\(index)] is delayed, and RocketMQ's batches cannot be",
                    remedy: "send each message that is delayed in a request of its own")
            }
            guard messages.first.map({ $0.shardKey == message.shardKey }) ?? true else {
                throw .invalid(
                    "messages[\(index)] has another orderingKey than messages[0], and a batch lies in one queue",
                    remedy: "send one request for each orderingKey")
            }
            messages.append(message)
        }
        return Sending(messages: messages, isBatch: true, selector: messages.first?.queueSelector ?? .roundRobin)
    }

    private static func message(_ value: JSONValue, topic: String, at place: String) throws(Problem) -> Message {
        var message = Message(topic: topic, body: try body(value, at: place), tag: value["tag"]?.string)
        message.keys = value["keys"]?.array?.compactMap(\.string) ?? []
        guard !message.keys.contains(where: { $0.contains(" ") }) else {
            throw .invalid("\(place)keys: a key has a blank, which separates keys", remedy: "use another character")
        }
        for member in value["properties"]?.object?.members ?? [] {
            guard !Properties.isReserved(member.key) else {
                throw .invalid(
                    "\(place)properties: \(Shape.shown(member.key)) is a name of RocketMQ's own",
                    remedy: "use another name; tag, keys, orderingKey and deliverAt are members of the message")
            }
            message.properties[member.key] = member.value.string
        }
        switch (value["deliverAt"]?.integer, value["delayMilliseconds"]?.integer) {
        case (nil, nil): break
        case (let time?, nil): message.delivery = .at(milliseconds: time)
        case (nil, let delay?): message.delivery = delay == 0 ? .immediate : .after(.milliseconds(delay))
        default: throw .invalid("\(place)deliverAt and \(place)delayMilliseconds are both given", remedy: "keep one")
        }
        message.shardKey = value["orderingKey"]?.string
        return message
    }

    private static func body(_ value: JSONValue, at place: String) throws(Problem) -> [UInt8] {
        switch (value["body"]?.string, value["bodyBase64"]?.string) {
        case (let text?, nil): return Array(text.utf8)
        case (nil, let text?):
            guard let bytes = Base64.standard.decode(text.utf8) else {
                throw .invalid("\(place)bodyBase64 is no base 64", remedy: "use A-Z, a-z, 0-9, + and /")
            }
            return bytes
        case (nil, nil): throw .invalid("\(place)body is missing", remedy: "body has text, bodyBase64 any bytes")
        default: throw .invalid("\(place)body and \(place)bodyBase64 are both given", remedy: "keep one")
        }
    }

    // MARK: - Receiving

    static func receiving(_ values: (String) -> JSONValue?, topic: String, group: String) -> ReceiveRequest {
        var request = ReceiveRequest(topic: topic, group: group)
        if let most = values("max")?.integer { request.messagesMax = Int(most) }
        if let wait = values("waitMilliseconds")?.integer { request.wait = .milliseconds(wait) }
        if let time = values("invisibleMilliseconds")?.integer { request.timeout = .milliseconds(time) }
        if let filter = values("filter")?.string { request.expression = filter }
        if let type = values("filterType")?.string { request.expressionType = type }
        return request
    }

    /// - Throws: 400 for the first text that is no handle.
    static func handles(_ value: JSONValue, topic: String, group: String) throws(Problem) -> [DeliveryHandle] {
        var handles: [DeliveryHandle] = []
        for (index, text) in (value["handles"]?.array ?? []).enumerated() {
            guard let handle = text.string.flatMap({ DeliveryHandle($0, topic: topic, group: group) }) else {
                throw .invalid(
                    "handles[\(index)] is no handle", remedy: "take it as it stands in a received message, unchanged")
            }
            handles.append(handle)
        }
        return handles
    }
}
