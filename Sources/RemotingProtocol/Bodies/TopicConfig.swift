package import FastJSON

/// The version of a configuration table: it changed when any of the three differs.
package struct DataVersion: JSONBody, Hashable {
    /// 5.x; 0 for older writers.
    package var stateVersion: Int64
    /// Milliseconds since 1970 of the last change.
    package var timestamp: Int64
    /// Changes so far; may wrap.
    package var counter: Int64

    package init(timestamp: Int64 = 0, counter: Int64 = 0, stateVersion: Int64 = 0) {
        self.timestamp = timestamp
        self.counter = counter
        self.stateVersion = stateVersion
    }

    package init(json: JSONValue) throws(RemotingDecodeError) {
        try json.requireObject("dataVersion")
        timestamp = try json.int64("timestamp", default: 0)
        counter = try json.int64("counter", default: 0)
        stateVersion = try json.int64("stateVersion", default: 0)
    }

    package var json: JSONValue {
        .fields([
            ("counter", .integer(counter)),
            // 4.9.8 knows no stateVersion; only what has one writes it.
            ("stateVersion", stateVersion == 0 ? nil : .integer(stateVersion)),
            ("timestamp", .integer(timestamp)),
        ])
    }

    package mutating func next(now milliseconds: Int64) {
        timestamp = milliseconds
        // As Java's counter does; another program's may stand anywhere.
        counter &+= 1
    }
}

/// `PermName`.
package enum Permission {
    /// A topic may be created from this one.
    /// Consumers may read.
    /// Producers may send.
    @inlinable package static var inherit: Int32 { 1 }
    @inlinable package static var write: Int32 { 2 }
    @inlinable package static var read: Int32 { 4 }
    /// All bits there are.
    @inlinable package static var all: Int32 { 7 }
}

/// What a broker knows of a topic.
package struct TopicConfig: JSONBody {
    /// Not checked yet.
    package var topicName: String
    /// Queues that consumers read; 16 when the writer left it out.
    package var readQueueNums: Int32
    /// Queues that producers write; 16 when the writer left it out.
    package var writeQueueNums: Int32
    /// See `Permission`.
    package var perm: Int32
    /// `SINGLE_TAG` or `MULTI_TAG`.
    package var topicFilterType: String
    /// `TopicSysFlag`: 1 unit, 2 unit subscription.
    package var topicSysFlag: Int32
    /// An ordered topic: a broker without write permission refuses its messages at once.
    package var order: Bool
    /// 5.x (`message.type` …); nil for writers that have none.
    package var attributes: [String: String]?

    package init(
        topicName: String, readQueueNums: Int32 = 16, writeQueueNums: Int32 = 16,
        perm: Int32 = Permission.read | Permission.write, topicFilterType: String = "SINGLE_TAG",
        topicSysFlag: Int32 = 0, order: Bool = false, attributes: [String: String]? = nil
    ) {
        self.topicName = topicName
        self.readQueueNums = readQueueNums
        self.writeQueueNums = writeQueueNums
        self.perm = perm
        self.topicFilterType = topicFilterType
        self.topicSysFlag = topicSysFlag
        self.order = order
        self.attributes = attributes
    }

    package init(json: JSONValue) throws(RemotingDecodeError) {
        self.init(
            topicName: try json.text("topicName"),
            readQueueNums: try json.int32("readQueueNums", default: 16),
            writeQueueNums: try json.int32("writeQueueNums", default: 16),
            perm: try json.int32("perm", default: Permission.read | Permission.write),
            topicFilterType: json["topicFilterType"]?.string ?? "SINGLE_TAG",
            topicSysFlag: try json.int32("topicSysFlag", default: 0),
            order: json.flag("order", default: false))
        if let attributes = json["attributes"], !attributes.isNull {
            self.attributes = Dictionary(
                try attributes.members("attributes").map { ($0.key, $0.value.string ?? "") },
                uniquingKeysWith: { $1 })
        }
    }

    package var json: JSONValue {
        .fields([
            (
                "attributes",
                self.attributes.map { attributes in
                    .fields(attributes.sorted { $0.key < $1.key }.map { ($0.key, .string($0.value)) })
                }
            ),
            ("order", .bool(order)),
            ("perm", .integer(perm)),
            ("readQueueNums", .integer(readQueueNums)),
            ("topicFilterType", .string(topicFilterType)),
            ("topicName", .string(topicName)),
            ("topicSysFlag", .integer(topicSysFlag)),
            ("writeQueueNums", .integer(writeQueueNums)),
        ])
    }

    /// The short form inside a compressed registration: name, read queues, write queues, permission, filter type and,
    /// from 5.x on, attributes as JSON, with spaces between.
    package init?(registrationText text: String) {
        let words = text.split(separator: " ", maxSplits: 5)
        guard words.count >= 5, let readQueues = Int32(words[1]), let writeQueues = Int32(words[2]),
            let perm = Int32(words[3])
        else { return nil }
        self.init(
            topicName: String(words[0]), readQueueNums: readQueues, writeQueueNums: writeQueues, perm: perm,
            topicFilterType: String(words[4]))
        if words.count == 6, case .object(let attributes)? = try? JSONValue(parsing: String(words[5])) {
            self.attributes = Dictionary(
                attributes.members.map { ($0.key, $0.value.string ?? "") }, uniquingKeysWith: { $1 })
        }
    }

    /// The short form that `init(registrationText:)` reads, without attributes.
    package var registrationText: String {
        "\(topicName) \(readQueueNums) \(writeQueueNums) \(perm) \(topicFilterType)"
    }
}

/// All topics of a broker (21, registration, `config/topics.json`).
package struct TopicConfigSerializeWrapper: JSONBody {
    /// In the order they were read or shall be written.
    package var topicConfigTable: [TopicConfig]
    /// Version of the table; a new one makes a name server read the topics again.
    package var dataVersion: DataVersion

    package init(topicConfigTable: [TopicConfig] = [], dataVersion: DataVersion = DataVersion()) {
        self.topicConfigTable = topicConfigTable
        self.dataVersion = dataVersion
    }

    package init(json: JSONValue) throws(RemotingDecodeError) {
        topicConfigTable = []
        for member in try (json["topicConfigTable"] ?? .null).members("topicConfigTable") {
            topicConfigTable.append(try TopicConfig(json: member.value))
        }
        dataVersion =
            try json["dataVersion"].map { value throws(RemotingDecodeError) in
                try DataVersion(json: value)
            } ?? DataVersion()
    }

    package var json: JSONValue {
        .fields([
            ("dataVersion", dataVersion.json),
            ("topicConfigTable", .fields(topicConfigTable.map { ($0.topicName, $0.json) })),
        ])
    }
}

/// What a consumer group may do on a broker (200, 201, `config/subscriptionGroup.json`).
package struct SubscriptionGroupConfig: JSONBody {
    /// Not checked yet.
    package var groupName: String
    /// Members may consume; otherwise their reads are refused.
    package var consumeEnable = true
    /// Members may begin at a queue's first message. Kept for tools: brokers of Apus do not read it.
    package var consumeFromMinEnable = true
    /// Members that broadcast may pull.
    package var consumeBroadcastEnable = true
    /// Queues of the group's retry topic.
    package var retryQueueNums: Int32 = 1
    /// How often a message may be sent back before it is a dead letter; a client may state its own number.
    package var retryMaxTimes: Int32 = 16
    /// The server that clients are told to pull from; 0 is the master.
    package var brokerID: Int64 = 0
    /// The same for messages that have left the master's memory.
    package var whichBrokerWhenConsumeSlowly: Int64 = 1
    /// Members are told when others come or go (40).
    package var notifyConsumerIDsChangedEnable = true
    /// Fields of later versions, kept as they were read.
    package var otherFields: [JSONObject.Member] = []

    package init(groupName: String) {
        self.groupName = groupName
    }

    private static let known: Set<String> = [
        "groupName", "consumeEnable", "consumeFromMinEnable", "consumeBroadcastEnable", "retryQueueNums",
        "retryMaxTimes", "brokerId", "whichBrokerWhenConsumeSlowly", "notifyConsumerIdsChangedEnable",
    ]

    package static func == (left: Self, right: Self) -> Bool { left.json == right.json }

    package init(json: JSONValue) throws(RemotingDecodeError) {
        groupName = try json.text("groupName")
        consumeEnable = json.flag("consumeEnable", default: true)
        consumeFromMinEnable = json.flag("consumeFromMinEnable", default: true)
        consumeBroadcastEnable = json.flag("consumeBroadcastEnable", default: true)
        retryQueueNums = try json.int32("retryQueueNums", default: 1)
        retryMaxTimes = try json.int32("retryMaxTimes", default: 16)
        brokerID = try json.int64("brokerId", default: 0)
        whichBrokerWhenConsumeSlowly = try json.int64("whichBrokerWhenConsumeSlowly", default: 1)
        notifyConsumerIDsChangedEnable = json.flag("notifyConsumerIdsChangedEnable", default: true)
        otherFields = try json.members("subscriptionGroupConfig").filter { !Self.known.contains($0.key) }
    }

    package var json: JSONValue {
        let value = JSONValue.fields([
            ("brokerId", .integer(brokerID)),
            ("consumeBroadcastEnable", .bool(consumeBroadcastEnable)),
            ("consumeEnable", .bool(consumeEnable)),
            ("consumeFromMinEnable", .bool(consumeFromMinEnable)),
            ("groupName", .string(groupName)),
            ("notifyConsumerIdsChangedEnable", .bool(notifyConsumerIDsChangedEnable)),
            ("retryMaxTimes", .integer(retryMaxTimes)),
            ("retryQueueNums", .integer(retryQueueNums)),
            ("whichBrokerWhenConsumeSlowly", .integer(whichBrokerWhenConsumeSlowly)),
        ])
        return .object(JSONObject(members: (value.object?.members ?? []) + otherFields))
    }
}

/// All consumer groups of a broker.
package struct SubscriptionGroupWrapper: JSONBody {
    /// In the order they were read or shall be written.
    package var subscriptionGroupTable: [SubscriptionGroupConfig]
    /// Version of the table; another one makes a slave take it.
    package var dataVersion: DataVersion

    package init(subscriptionGroupTable: [SubscriptionGroupConfig] = [], dataVersion: DataVersion = DataVersion()) {
        self.subscriptionGroupTable = subscriptionGroupTable
        self.dataVersion = dataVersion
    }

    package init(json: JSONValue) throws(RemotingDecodeError) {
        subscriptionGroupTable = []
        for member in try (json["subscriptionGroupTable"] ?? .null).members("subscriptionGroupTable") {
            subscriptionGroupTable.append(try SubscriptionGroupConfig(json: member.value))
        }
        dataVersion =
            try json["dataVersion"].map { value throws(RemotingDecodeError) in
                try DataVersion(json: value)
            } ?? DataVersion()
    }

    package var json: JSONValue {
        .fields([
            ("dataVersion", dataVersion.json),
            ("subscriptionGroupTable", .fields(subscriptionGroupTable.map { ($0.groupName, $0.json) })),
        ])
    }
}

/// How far groups have consumed (43, `config/consumerOffset.json`).
package struct ConsumerOffsetSerializeWrapper: JSONBody {
    /// Key `topic@group`; then queue id → next offset to consume.
    package var offsetTable: [String: [Int32: Int64]]

    package init(offsetTable: [String: [Int32: Int64]] = [:]) {
        self.offsetTable = offsetTable
    }

    package init(json: JSONValue) throws(RemotingDecodeError) {
        offsetTable = [:]
        for member in try (json["offsetTable"] ?? .null).members("offsetTable") {
            var queues: [Int32: Int64] = [:]
            for queue in try member.value.members("offsetTable") {
                guard let id = Int32(queue.key), let offset = queue.value.integer else {
                    throw .badBody("offsetTable has an entry that is not queue:offset")
                }
                queues[id] = offset
            }
            offsetTable[member.key] = queues
        }
    }

    package var json: JSONValue {
        .fields([
            (
                "offsetTable",
                .fields(
                    offsetTable.sorted { $0.key < $1.key }.map { key, queues in
                        var table = JSONObject()
                        for (id, offset) in queues.sorted(by: { $0.key < $1.key }) {
                            table.append(rawKey: String(id), .integer(offset))
                        }
                        return (key, .object(table))
                    })
            )
        ])
    }
}
