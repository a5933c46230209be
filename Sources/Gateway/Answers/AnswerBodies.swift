import FastJSON
import MessageModel
import RocketMQClient

/// What calls have returned, as JSON.
enum AnswerBodies {
    static func sent(_ results: [SendResult]) -> JSONValue {
        .fields([
            (
                "messages",
                .array(
                    results.map { result in
                        .fields([
                            ("messageID", .string(result.messageID)), ("broker", .string(result.queue.brokerName)),
                            ("queueID", .integer(result.queue.queueID)), ("queueOffset", .integer(result.queueOffset)),
                            ("status", .string(result.status.rawValue)),
                        ])
                    })
            )
        ])
    }

    static func received(_ deliveries: [ReceivedDelivery]) -> JSONValue {
        .fields([("messages", .array(deliveries.map(delivery)))])
    }

    static func delivery(_ delivery: ReceivedDelivery) -> JSONValue {
        let message = delivery.message
        let text = String(validating: message.body, as: UTF8.self)
        let properties = message.properties.filter { !Properties.isReserved($0.key) }.sorted { $0.key < $1.key }
        let keys = message.keys?.split(separator: " ").map(String.init) ?? []
        return .fields([
            ("handle", .string(delivery.handle.text)), ("messageID", .string(message.messageID)),
            ("attempt", .integer(delivery.attempt)), ("body", text.map { .string($0) }),
            ("bodyBase64", text == nil ? .string(Base64.standard.encode(message.body)) : nil),
            ("tag", message.tag.map { .string($0) }), ("keys", keys.isEmpty ? nil : .strings(keys)),
            (
                "properties",
                properties.isEmpty ? nil : .fields(properties.map { ($0.key, .string($0.value)) })
            ),
            ("orderingKey", message.properties["\(PropertyName.shardingKey)"].map { .string($0) }),
            ("broker", .string(message.queue.brokerName)), ("queueID", .integer(message.queue.queueID)),
            ("queueOffset", .integer(message.queueOffset)), ("bornAt", .integer(message.bornTimestamp)),
            ("storedAt", .integer(message.storeTimestamp)),
        ])
    }

    /// What became of one handle.
    struct Outcome: Sendable {
        let handle: String
        var isOver = false
        var next: DeliveryHandle?
        var problem: Problem?

        var json: JSONValue {
            .fields([
                ("handle", .string(handle)), ("status", problem != nil ? "failed" : isOver ? "over" : "ok"),
                ("newHandle", next.map { .string($0.text) }), ("code", problem.map { .string($0.code) }),
                ("cause", problem.map { .string($0.cause) }),
            ])
        }
    }

    /// - Throws: the first failure, with what became of all of them.
    static func outcomes(_ outcomes: [Outcome]) throws(Problem) -> JSONValue {
        let all = JSONValue.array(outcomes.map(\.json))
        guard var problem = outcomes.lazy.compactMap(\.problem).first else { return .fields([("handles", all)]) }
        problem.members.append(("handles", all))
        throw problem
    }

    /// An event of a stream: JSON has no line ends.
    static func event(_ delivery: ReceivedDelivery) -> [UInt8] {
        Array("event: message\ndata: ".utf8) + Self.delivery(delivery).bytes() + Array("\n\n".utf8)
    }
}
