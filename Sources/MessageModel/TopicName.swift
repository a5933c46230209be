/// The checked name of a topic. The one that holds one may use it as one component of a path.
package struct TopicName: Hashable, Sendable, CustomStringConvertible {
    /// Bytes a new topic has at most: RocketMQ's `TOPIC_MAX_LENGTH`, and what a record of the log has room for.
    package static let bytesMax = 127
    /// Begins the name of a consumer group's retry topic.
    package static let retryPrefix = "%RETRY%"
    /// Begins the name of a consumer group's dead-letter topic.
    package static let deadLetterPrefix = "%DLQ%"
    /// Begins the name of one of RocketMQ's light queues, which hold messages of other topics.
    package static let lightQueuePrefix = "%LMQ%"

    /// UTF-8 of 1 to 255 bytes, one component of a path.
    package let text: String
    package var description: String { text }

    /// A name that is about to be used for the first time: RocketMQ's character set, 1 to 127 bytes.
    /// - Throws: what is wrong with it, with the text of RocketMQ's remark.
    package init(_ text: String) throws(NameError) {
        if let problem = Self.problem(text) { throw problem }
        self.text = text
    }

    /// A name that tables, logs or folders hold already: any single visible component of a path, up to 255 bytes.
    /// - Throws: why no folder can have that name.
    package init(existing text: String) throws(NameError) {
        if let problem = withBytes(text, NameRules.problem(ofExisting:)) {
            throw NameError(.topic, problem, isNew: false)
        }
        self.text = text
    }

    /// The same for bytes of a record.
    /// - Throws: why no folder can have that name.
    package init(existing bytes: UnsafeRawBufferPointer) throws(NameError) {
        if let problem = NameRules.problem(ofExisting: bytes) { throw NameError(.topic, problem, isNew: false) }
        text = String(decoding: bytes, as: UTF8.self)
    }

    /// A name of RocketMQ's or ours.
    package init(constant: StaticString) {
        text = constant.withUTF8Buffer { String(decoding: $0, as: UTF8.self) }
        precondition(Self.problem(text) == nil, "\(constant) is no name")
    }

    /// By bytes: names that mean the same to Unicode are folders of their own.
    package static func == (left: Self, right: Self) -> Bool { left.text.utf8.elementsEqual(right.text.utf8) }

    package func hash(into hasher: inout Hasher) {
        withBytes(text) { hasher.combine(bytes: $0) }
    }

    /// Whether `init(existing:)` takes the bytes.
    package static func canExist(_ bytes: UnsafeRawBufferPointer) -> Bool {
        NameRules.problem(ofExisting: bytes) == nil
    }

    /// Why bytes are no name for a new topic; `nil` if they are one. Allocates nothing for a good name.
    package static func problem(_ bytes: UnsafeRawBufferPointer) -> NameError? {
        NameRules.problem(ofNew: bytes, longest: bytesMax).map { NameError(.topic, $0, isNew: true) }
    }

    /// The same for text.
    package static func problem(_ text: String) -> NameError? { withBytes(text) { problem($0) } }
}
