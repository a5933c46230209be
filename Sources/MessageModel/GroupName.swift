/// The checked name of a group of consumers or producers.
package struct GroupName: Hashable, Sendable, CustomStringConvertible {
    /// Bytes a group has at most: `CHARACTER_MAX_LENGTH` of RocketMQ's clients.
    package static let bytesMax = 255

    /// UTF-8 of 1 to 255 bytes, fit to be part of a topic's name.
    package let text: String
    package var description: String { text }

    /// A name that is about to be used for the first time: RocketMQ's character set, 1 to 255 bytes.
    /// - Throws: what is wrong with it, with the text of RocketMQ's remark.
    package init(_ text: String) throws(NameError) {
        if let problem = Self.problem(text) { throw problem }
        self.text = text
    }

    /// A name that tables hold already. RocketMQ's broker takes any; this one must be fit to be part of a topic's name.
    /// - Throws: why it is not.
    package init(existing text: String) throws(NameError) {
        if let problem = withBytes(text, NameRules.problem(ofExisting:)) {
            throw NameError(.group, problem, isNew: false)
        }
        self.text = text
    }

    /// The topic messages wait in that this group has sent back. `nil`: no record of the log has room for its name,
    /// because the group has more than 120 bytes. Such a group can consume, but nothing it sends back can be stored.
    package var retryTopic: TopicName? { topic(TopicName.retryPrefix) }

    /// The topic of messages this group could not consume. `nil`: the group has more than 122 bytes.
    package var deadLetterTopic: TopicName? { topic(TopicName.deadLetterPrefix) }

    private func topic(_ prefix: String) -> TopicName? {
        guard prefix.utf8.count + text.utf8.count <= TopicName.bytesMax else { return nil }
        return try? TopicName(existing: prefix + text)
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

    /// Why bytes are no name for a new group; `nil` if they are one. Allocates nothing for a good name.
    package static func problem(_ bytes: UnsafeRawBufferPointer) -> NameError? {
        NameRules.problem(ofNew: bytes, longest: bytesMax).map { NameError(.group, $0, isNew: true) }
    }

    /// The same for text.
    package static func problem(_ text: String) -> NameError? { withBytes(text) { problem($0) } }
}
