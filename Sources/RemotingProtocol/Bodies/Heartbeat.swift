package import FastJSON

/// What one consumer group of a client wants of one topic.
package struct SubscriptionData: JSONBody {
    /// The subscribed topic; not checked yet.
    package var topic: String
    /// The expression: tags with `||` between, `*` for all, or what `expressionType` says.
    package var subString: String
    /// The tags of a `TAG` expression; empty for `*`.
    package var tagsSet: [String]
    /// Hashes of the tags (`String.hashCode`).
    package var codeSet: [Int32]
    /// Milliseconds since 1970 when the client last changed it.
    package var subVersion: Int64
    /// `TAG`, `SQL92` or the type of a plugin.
    package var expressionType: String
    /// RocketMQ's filter by a class of the consumer's.
    package var classFilterMode: Bool

    package init(
        topic: String, subString: String = "*", tagsSet: [String] = [], codeSet: [Int32] = [], subVersion: Int64 = 0,
        expressionType: String = "TAG", classFilterMode: Bool = false
    ) {
        self.topic = topic
        self.subString = subString
        self.tagsSet = tagsSet
        self.codeSet = codeSet
        self.subVersion = subVersion
        self.expressionType = expressionType
        self.classFilterMode = classFilterMode
    }

    package init(json: JSONValue) throws(RemotingDecodeError) {
        self.init(
            topic: try json.text("topic"), subString: json["subString"]?.string ?? "*",
            tagsSet: try json.strings("tagsSet"),
            codeSet: try (json["codeSet"] ?? .null).elements("codeSet").compactMap { $0.int32 },
            subVersion: try json.int64("subVersion", default: 0),
            expressionType: json["expressionType"]?.string ?? "TAG",
            classFilterMode: json.flag("classFilterMode", default: false))
    }

    package var json: JSONValue {
        .fields([
            ("classFilterMode", .bool(classFilterMode)),
            ("codeSet", .array(codeSet.map { .integer($0) })),
            ("expressionType", .string(expressionType)),
            ("subString", .string(subString)),
            ("subVersion", .integer(subVersion)),
            ("tagsSet", .strings(tagsSet)),
            ("topic", .string(topic)),
        ])
    }
}

/// One consumer group a client takes part in.
package struct ConsumerData: JSONBody {
    /// Name of the consumer group; not checked yet.
    package var groupName: String
    /// `CONSUME_ACTIVELY` (pull) or `CONSUME_PASSIVELY` (push).
    package var consumeType: String
    /// `BROADCASTING` or `CLUSTERING`.
    package var messageModel: String
    /// Where a group without offsets begins: a name of RocketMQ's `ConsumeFromWhere`.
    package var consumeFromWhere: String
    /// One for each topic the group subscribes to.
    package var subscriptionDataSet: [SubscriptionData]
    /// The client works in a unit: a retry topic made for it gets `topicSysFlag` 2.
    package var unitMode: Bool

    package init(
        groupName: String, consumeType: String = "CONSUME_PASSIVELY", messageModel: String = "CLUSTERING",
        consumeFromWhere: String = "CONSUME_FROM_LAST_OFFSET", subscriptionDataSet: [SubscriptionData] = [],
        unitMode: Bool = false
    ) {
        self.groupName = groupName
        self.consumeType = consumeType
        self.messageModel = messageModel
        self.consumeFromWhere = consumeFromWhere
        self.subscriptionDataSet = subscriptionDataSet
        self.unitMode = unitMode
    }

    package init(json: JSONValue) throws(RemotingDecodeError) {
        self.init(
            groupName: try json.text("groupName"),
            consumeType: Self.name(json["consumeType"], ["CONSUME_ACTIVELY", "CONSUME_PASSIVELY"])
                ?? "CONSUME_PASSIVELY",
            messageModel: Self.name(json["messageModel"], ["BROADCASTING", "CLUSTERING"]) ?? "CLUSTERING",
            consumeFromWhere: Self.name(
                json["consumeFromWhere"],
                [
                    "CONSUME_FROM_LAST_OFFSET", "CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST",
                    "CONSUME_FROM_MIN_OFFSET", "CONSUME_FROM_MAX_OFFSET", "CONSUME_FROM_FIRST_OFFSET",
                    "CONSUME_FROM_TIMESTAMP",
                ]) ?? "CONSUME_FROM_LAST_OFFSET",
            subscriptionDataSet: try json.bodies("subscriptionDataSet"), unitMode: json.flag("unitMode", default: false)
        )
    }

    /// An enum's name: the C++ client sends its number, the position in Java's declaration.
    private static func name(_ value: JSONValue?, _ names: [String]) -> String? {
        if case .integer(let ordinal)? = value {
            return names.indices.contains(Int(ordinal)) ? names[Int(ordinal)] : nil
        }
        return value?.string
    }

    package var json: JSONValue {
        .fields([
            ("consumeFromWhere", .string(consumeFromWhere)),
            ("consumeType", .string(consumeType)),
            ("groupName", .string(groupName)),
            ("messageModel", .string(messageModel)),
            ("subscriptionDataSet", .array(subscriptionDataSet.map { $0.json })),
            ("unitMode", .bool(unitMode)),
        ])
    }
}

/// What a client sends each broker every 30 s (34).
package struct HeartbeatData: JSONBody {
    /// Unique among clients; those in Java say `IP@instance`.
    package var clientID: String
    /// Names of its producer groups.
    package var producerGroups: [String]
    /// One for each consumer group the client takes part in.
    package var consumerDataSet: [ConsumerData]

    package init(clientID: String, producerGroups: [String] = [], consumerDataSet: [ConsumerData] = []) {
        self.clientID = clientID
        self.producerGroups = producerGroups
        self.consumerDataSet = consumerDataSet
    }

    package init(json: JSONValue) throws(RemotingDecodeError) {
        clientID = try json.text("clientID")
        producerGroups = []
        for producer in try (json["producerDataSet"] ?? .null).elements("producerDataSet") {
            producerGroups.append(try producer.text("groupName"))
        }
        consumerDataSet = try json.bodies("consumerDataSet")
    }

    package var json: JSONValue {
        .fields([
            ("clientID", .string(clientID)),
            ("consumerDataSet", .array(consumerDataSet.map { $0.json })),
            ("producerDataSet", .array(producerGroups.map { .fields([("groupName", .string($0))]) })),
        ])
    }
}

/// Asks whether a subscription's expression compiles (46).
package struct CheckClientRequestBody: JSONBody {
    /// `clientId` on the wire; empty when it is missing.
    package var clientID: String
    /// The consumer group; empty when it is missing.
    package var group: String
    /// Topic, type and expression to try.
    package var subscriptionData: SubscriptionData

    package init(clientID: String, group: String, subscriptionData: SubscriptionData) {
        self.clientID = clientID
        self.group = group
        self.subscriptionData = subscriptionData
    }

    package init(json: JSONValue) throws(RemotingDecodeError) {
        clientID = json["clientId"]?.string ?? ""
        group = json["group"]?.string ?? ""
        subscriptionData = try SubscriptionData(json: json["subscriptionData"] ?? .null)
    }

    package var json: JSONValue {
        .fields([
            ("clientId", .string(clientID)),
            ("group", .string(group)),
            ("subscriptionData", subscriptionData.json),
        ])
    }
}

/// The clients of a consumer group (38).
package struct GetConsumerListByGroupResponseBody: JSONBody {
    /// Client IDs (`consumerIdList` on the wire).
    package var consumerIDList: [String]

    package init(consumerIDList: [String]) {
        self.consumerIDList = consumerIDList
    }

    package init(json: JSONValue) throws(RemotingDecodeError) {
        consumerIDList = try json.strings("consumerIdList")
    }

    package var json: JSONValue { .fields([("consumerIdList", .strings(consumerIDList))]) }
}
