import Logging
import MessageModel

/// So many lines a second and no more; the others are counted, and the count is logged with the next line or after a
/// while.
struct LineLimiter {
    static let linesPerSecond = 10

    private var second: Int64 = .min
    private var lines = 0
    /// Lines that were not written since the last one that was.
    private(set) var omitted: Int64 = 0

    /// Whether a line may be written now, milliseconds since 1970; `omitted` of the lines before it are then mentioned
    /// in it.
    mutating func allows(at now: Int64) -> (isAllowed: Bool, omitted: Int64) {
        if now / 1000 != second {
            second = now / 1000
            lines = 0
        }
        guard lines < Self.linesPerSecond else {
            omitted += 1
            return (false, 0)
        }
        lines += 1
        defer { omitted = 0 }
        return (true, omitted)
    }

    /// The count that is left to be logged when nothing follows.
    mutating func takeOmitted() -> Int64 {
        defer { omitted = 0 }
        return omitted
    }
}

/// What operators should learn of consumers: that one has left, and each message that was given up. Confined to the
/// broker's loop.
struct ConsumerNotices {
    /// Groups whose dead letters are counted apart; those of further groups count in all.
    static let groupsMax = 10_000

    /// Dead letters since the broker's start, in all and by group.
    private(set) var deadLetters: Int64 = 0
    private(set) var deadLettersByGroup: [String: Int64] = [:]
    /// Those groups that have the most.
    func mostDeadLetters(of groups: Int) -> [(group: String, count: Int64)] {
        let all = deadLettersByGroup.map { (group: $0.key, count: $0.value) }
        guard all.count > groups else { return all }
        return Array(all.sorted { $0.count > $1.count }.prefix(groups))
    }

    private var deadLetterLines = LineLimiter()
    private var leavingLines = LineLimiter()

    /// A message went to the group's dead-letter topic.
    /// - Parameters:
    ///   - place: where it lies now, queue and offset.
    ///   - tries: how often it was delivered in vain.
    mutating func deadLetter(group: String, place: String, tries: Int32, now: Int64, _ logger: Logger) {
        deadLetters += 1
        if deadLettersByGroup[group] != nil || deadLettersByGroup.count < Self.groupsMax {
            deadLettersByGroup[group, default: 0] += 1
        }
        let (isAllowed, omitted) = deadLetterLines.allows(at: now)
        guard isAllowed else { return }
        let topic = TopicName.deadLetterPrefix + group
        let more = omitted > 0 ? "; \(omitted) more dead letters were not written here" : ""
        logger.warning(
            """
            a message of consumer group \(group) was given up after \(tries) deliveries and lies in \(topic) \(place); \
            \(deadLettersByGroup[group] ?? 0) of the group since the start (apus admin printMsg -t \(topic))\(more)
            """,
            metadata: ["consumerGroup": "\(group)", "topic": "\(topic)"])
    }

    /// A consumer is not part of its group any more.
    mutating func left(group: String, client: ClientChannelInfo, remaining: Int, now: Int64, _ logger: Logger) {
        let (isAllowed, omitted) = leavingLines.allows(at: now)
        guard isAllowed else { return }
        let rest =
            remaining == 0
            ? "no client consumes for it now" : remaining == 1 ? "one client remains" : "\(remaining) clients remain"
        let more = omitted > 0 ? "; \(omitted) more have left without a line" : ""
        logger.notice(
            "consumer \(client.clientID) at \(client.client.address) has left group \(group): \(rest)\(more)",
            metadata: ["consumerGroup": "\(group)"])
    }

    /// Every few seconds: logs the count that no line has had.
    mutating func sayOmitted(_ logger: Logger) {
        let letters = deadLetterLines.takeOmitted()
        if letters > 0 { logger.warning("\(letters) more messages were given up (dead letters) without a line each") }
        let clients = leavingLines.takeOmitted()
        if clients > 0 { logger.notice("\(clients) more consumers have left their groups without a line each") }
    }
}
