/// What requests and answers look like.
enum Shapes {
    /// Bytes of a body of a request.
    static let requestBytesMax = 8 << 20
    private static let name = 1...255
    private static let handle = 1...1024
    static let handlesMax = 256
    private static let waitMax: Int64 = 60_000
    private static let threeDays: Int64 = 3 * 86_400_000
    private static let day: Int64 = 86_400_000

    private static let messageFields: [Field] = [
        Field("body", .text(0...requestBytesMax), "the content as text; this or bodyBase64"),
        Field("bodyBase64", .text(0...requestBytesMax), "the content in base 64, for bytes that are no text"),
        Field("tag", .text(1...255), "what consumers select by"),
        Field("keys", .texts(1...64, of: 1...255), "what operators find the message by; none has a blank"),
        Field("properties", .map(bytesMax: 32_767), "further properties: names and values"),
        Field("deliverAt", .integer(1...Int64.max), "when consumers get it: milliseconds since 1970"),
        Field(
            "delayMilliseconds", .integer(0...Int64(Int32.max) * 1000),
            "consumers get it so long after it was stored; this or deliverAt"),
        Field(
            "orderingKey", .text(1...255),
            "messages of one key go to one queue, in the order in which they are sent one after the other"),
    ]
    static let message = Shape(name: "Message", fields: messageFields)
    static let send = Shape(
        name: "SendRequest",
        fields: messageFields + [
            Field(
                "messages", .objects(1...1024, of: message),
                "several messages instead of one: all are stored, or none; they have one orderingKey and no delay")
        ])
    static let stored = Shape(
        name: "StoredMessage",
        fields: [
            Field("messageID", .text(name), "the ID the gateway made for it"),
            Field("broker", .text(name), "name of the broker that has it"),
            Field("queueID", .integer(0...Int64(Int32.max)), "the queue it lies in"),
            Field("queueOffset", .integer(-1...Int64.max), "its position there; -1: not known yet"),
            Field(
                "status",
                .word(["SEND_OK", "FLUSH_DISK_TIMEOUT", "FLUSH_SLAVE_TIMEOUT", "SLAVE_NOT_AVAILABLE"]),
                "how safely it is stored"),
        ])
    static let sent = Shape(
        name: "SendAnswer",
        fields: [
            Field("messages", .objects(1...1024, of: stored), isRequired: true, "one for each message, in their order")
        ])

    /// Of receiving, in a body or a query.
    static let receiving: [Field] = [
        Field(
            "invisibleMilliseconds", .integer(1000...day),
            "how long no other consumer gets the messages (default: the topic's apus.timeout, else 60000)"),
        Field("filter", .text(1...16_384), "which messages: tags with || between, or an expression (default: *)"),
        Field("filterType", .text(1...64), "TAG, SQL92 or the type of a filter plugin (default: TAG)"),
    ]
    static let receive = Shape(
        name: "ReceiveRequest",
        fields: [
            Field("max", .integer(1...32), "messages at most (default: 1)"),
            Field("waitMilliseconds", .integer(0...waitMax), "how long to wait for a message (default: 0)"),
        ] + receiving)
    static let delivery = Shape(
        name: "Delivery",
        fields: [
            Field("handle", .text(handle), isRequired: true, "names this delivery in ack, nack and extend"),
            Field("messageID", .text(name), "the ID its producer made"),
            Field("attempt", .integer(1...Int64.max), "deliveries to the group, this one included"),
            Field("body", .text(0...requestBytesMax), "the content, if it is text in UTF-8"),
            Field("bodyBase64", .text(0...requestBytesMax), "the content in base 64, if it is no text"),
            Field("tag", .text(1...255), "what its producer gave it"),
            Field("keys", .texts(1...64, of: 1...255), "what operators find it by"),
            Field("properties", .map(bytesMax: 32_767), "further properties"),
            Field("orderingKey", .text(1...255), "what its producer gave it"),
            Field("broker", .text(name), "name of the broker that has it"),
            Field("queueID", .integer(0...Int64(Int32.max)), "the queue it lies in"),
            Field("queueOffset", .integer(0...Int64.max), "its position there"),
            Field("bornAt", .integer(0...Int64.max), "when it was sent: milliseconds since 1970"),
            Field("storedAt", .integer(0...Int64.max), "when it was stored: milliseconds since 1970"),
        ])
    static let received = Shape(
        name: "ReceiveAnswer",
        fields: [
            Field("messages", .objects(0...32, of: delivery), isRequired: true, "empty: none came while it waited")
        ])

    private static let handles = Field(
        "handles", .texts(1...handlesMax, of: handle), isRequired: true, "of messages that were received")
    static let ack = Shape(name: "AckRequest", fields: [handles])
    static let nack = Shape(
        name: "NackRequest",
        fields: [
            handles,
            Field("reason", .text(1...512), "kept with a dead letter that the message becomes"),
            Field(
                "delayMilliseconds", .integer(1...threeDays),
                "when it comes again (default: by the topic's strategy of retries)"),
        ])
    static let extend = Shape(
        name: "ExtendRequest",
        fields: [
            handles,
            Field(
                "invisibleMilliseconds", .integer(1...threeDays), isRequired: true,
                "how long no other consumer gets the messages, from now on"),
        ])
    static let outcome = Shape(
        name: "HandleOutcome",
        fields: [
            Field("handle", .text(handle), isRequired: true, "as it was given"),
            Field(
                "status", .word(["ok", "over", "failed"]), isRequired: true,
                "over: its time was over or it was settled before, nothing was changed; failed: see code"),
            Field("newHandle", .text(handle), "names the delivery from now on, after extend"),
            Field("code", .text(name), "of a problem"),
            Field("cause", .text(name), "of a problem"),
        ])
    static let outcomes = Shape(
        name: "HandlesAnswer",
        fields: [
            Field(
                "handles", .objects(1...handlesMax, of: outcome), isRequired: true, "one for each, in their order")
        ])
    static let health = Shape(
        name: "Health",
        fields: [
            Field("status", .word(["ok"]), isRequired: true, "the gateway serves, and a name server answers"),
            Field("nameServer", .text(name), "the one that has answered"),
        ])
    static let problem = Shape(
        name: "Problem",
        fields: [
            Field("title", .text(name), "the status in words"), Field("status", .integer(400...599), "as the answer's"),
            Field("code", .text(name), isRequired: true, "for programs"),
            Field("cause", .text(0...4096), isRequired: true, "what is wrong"),
            Field("remedy", .text(0...4096), isRequired: true, "what to do about it"),
            Field("rocketmq", .object(refusal), "a server's own answer"),
            Field("handles", .objects(1...handlesMax, of: outcome), "what became of each handle"),
        ])
    private static let refusal = Shape(
        name: "Refusal",
        fields: [
            Field("code", .integer(0...Int64(Int32.max)), "RocketMQ's response code"),
            Field("name", .text(name), "its name"), Field("remark", .text(0...4096), "the server's explanation"),
            Field("server", .text(name), "HOST:PORT"),
        ])
}
