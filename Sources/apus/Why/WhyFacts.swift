import FastJSON
import MessageModel
import RocketMQClient

/// What is known about a consumer group and what it should get: asked by `WhyInquiry`, judged by `WhyDiagnosis`. A
/// value, so that a console can show it as well as `apus why`.
struct WhyFacts: Equatable, Sendable {
    /// One broker that serves a topic of the group.
    struct Broker: Equatable, Sendable {
        let name: String
        let address: String
        /// Why it could not be asked.
        var unreachable: String?
        /// nil: the broker does not know the group.
        var config: GroupConfig?
        /// Apus only: clients of the group disagree, and what that costs.
        var inconsistency: String?
    }

    struct GroupConfig: Equatable, Sendable {
        var consumeEnable: Bool
        var consumeBroadcastEnable: Bool
        var retryMaxTimes: Int
    }

    struct Member: Equatable, Sendable {
        let id: String
        let address: String
        /// It reported of itself (307); clients in some languages do not answer.
        var hasAnswered = false
        var queues: Set<MessageQueue> = []
        /// Messages it holds and has not finished.
        var cached: Int64 = 0
        var failedPerHour: Int64 = 0
    }

    struct Wanted: Hashable, Sendable {
        var topic: String
        var type: String
        var expression: String

        var isTag: Bool { type.isEmpty || type == "TAG" }
        var isAll: Bool { isTag && (expression.isEmpty || expression == "*") }
    }

    struct Queue: Equatable, Sendable {
        let queue: MessageQueue
        let minimum: Int64
        let end: Int64
        /// The group's offset; 0 also when it has none.
        let consumed: Int64

        /// Messages there that the group has not had.
        var waiting: Int64 { max(0, end -| max(consumed, minimum)) }
    }

    /// Recent messages of a topic, and which of them one expression chooses.
    struct Sample: Equatable, Sendable {
        let wanted: Wanted
        var looked = 0
        var matched = 0
        /// Not chosen, and the group's offset is after them: it will not get them.
        var skipped = 0
        /// Tags, for others property names, with the number of messages that have them.
        var seen: [String: Int] = [:]
        var untagged = 0
        /// Why the broker could not answer.
        var failure: String?
    }

    struct Topic: Equatable, Sendable {
        let name: String
        /// nil: no name server knows it.
        var permissions: [String: Int]?
        var isSubscribed: Bool
        var queues: [Queue] = []
        var samples: [Sample] = []
    }

    let group: String
    let nameServers: String
    var brokers: [Broker] = []
    var members: [Member] = []
    var isBroadcast = false
    var consumeFromWhere = ""
    var wanted: [Wanted] = []
    var topics: [Topic] = []
    /// Messages in `%RETRY%group` the group has not had again.
    var retries: Int64 = 0
    /// Messages in `%DLQ%group`.
    var deadLetters: Int64 = 0
}

/// One thing that explains something, and the command to type next.
struct WhyFinding: Equatable, Sendable {
    enum Weight: String, Sendable {
        /// Keeps messages from the group.
        case cause
        /// Worth knowing.
        case note
    }

    let weight: Weight
    let text: String
    let command: String?

    var json: JSONValue {
        .fields([
            ("weight", .string(weight.rawValue)), ("text", .string(text)), ("command", command.map { .string($0) }),
        ])
    }
}

extension WhyFacts {
    var json: JSONValue {
        .fields([
            ("group", .string(group)), ("nameServers", .string(nameServers)), ("broadcast", .bool(isBroadcast)),
            ("consumeFromWhere", .string(consumeFromWhere)), ("brokers", .array(brokers.map(\.json))),
            ("members", .array(members.map(\.json))), ("topics", .array(topics.map(\.json))),
            ("retries", .integer(retries)), ("deadLetters", .integer(deadLetters)),
        ])
    }
}

extension WhyFacts.Broker {
    var json: JSONValue {
        .fields([
            ("name", .string(name)), ("address", .string(address)),
            ("unreachable", unreachable.map { .string($0) }), ("knowsGroup", .bool(config != nil)),
            ("consumeEnable", config.map { .bool($0.consumeEnable) }),
            ("consumeBroadcastEnable", config.map { .bool($0.consumeBroadcastEnable) }),
            ("inconsistency", inconsistency.map { .string($0) }),
        ])
    }
}

extension WhyFacts.Member {
    var json: JSONValue {
        .fields([
            ("clientId", .string(id)), ("address", .string(address)), ("answers", .bool(hasAnswered)),
            ("queues", .array(queues.sorted().map(\.json))), ("cached", .integer(cached)),
            ("failedPerHour", .integer(failedPerHour)),
        ])
    }
}

extension WhyFacts.Topic {
    var json: JSONValue {
        .fields([
            ("name", .string(name)), ("exists", .bool(permissions != nil)), ("subscribed", .bool(isSubscribed)),
            (
                "permissions",
                permissions.map { .fields($0.sorted { $0.key < $1.key }.map { ($0.key, .integer($0.value)) }) }
            ),
            (
                "queues",
                .array(
                    queues.map {
                        .fields([
                            ("queue", $0.queue.json), ("minOffset", .integer($0.minimum)),
                            ("maxOffset", .integer($0.end)),
                            ("consumerOffset", .integer($0.consumed)),
                        ])
                    })
            ), ("samples", .array(samples.map(\.json))),
        ])
    }
}

extension WhyFacts.Sample {
    var json: JSONValue {
        .fields([
            ("type", .string(wanted.isTag ? "TAG" : wanted.type)), ("expression", .string(wanted.expression)),
            ("looked", .integer(looked)), ("matched", .integer(matched)), ("skipped", .integer(skipped)),
            ("seen", .fields(seen.sorted { $0.key < $1.key }.map { ($0.key, .integer($0.value)) })),
            ("untagged", .integer(untagged)), ("failure", failure.map { .string($0) }),
        ])
    }
}
