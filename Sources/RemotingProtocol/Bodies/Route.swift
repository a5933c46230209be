package import FastJSON

/// A topic's queues on one broker.
package struct QueueData: JSONBody {
    /// Key of the `BrokerData` with the addresses.
    package var brokerName: String
    /// Consumers read queues 0 to this, exclusive.
    package var readQueueNums: Int32
    /// Producers write queues 0 to this, exclusive.
    package var writeQueueNums: Int32
    /// Bits of `Permission`.
    package var perm: Int32
    /// `TopicSysFlag`: 1 unit, 2 unit subscription.
    package var topicSysFlag: Int32

    package init(
        brokerName: String, readQueueNums: Int32, writeQueueNums: Int32, perm: Int32, topicSysFlag: Int32 = 0
    ) {
        self.brokerName = brokerName
        self.readQueueNums = readQueueNums
        self.writeQueueNums = writeQueueNums
        self.perm = perm
        self.topicSysFlag = topicSysFlag
    }

    package init(json: JSONValue) throws(RemotingDecodeError) {
        self.init(
            brokerName: try json.text("brokerName"), readQueueNums: try json.int32("readQueueNums", default: 0),
            writeQueueNums: try json.int32("writeQueueNums", default: 0), perm: try json.int32("perm", default: 0),
            // Old name servers spell it topicSynFlag.
            topicSysFlag: try json.int32(json["topicSysFlag"] == nil ? "topicSynFlag" : "topicSysFlag", default: 0))
    }

    package var json: JSONValue {
        .fields([
            ("brokerName", .string(brokerName)),
            ("perm", .integer(perm)),
            ("readQueueNums", .integer(readQueueNums)),
            ("topicSysFlag", .integer(topicSysFlag)),
            ("writeQueueNums", .integer(writeQueueNums)),
        ])
    }
}

/// The addresses of the brokers of one name: 0 is the master's id.
package struct BrokerData: JSONBody {
    /// Name of the cluster the broker belongs to.
    package var cluster: String
    /// What master and slaves share.
    package var brokerName: String
    /// Broker ID → `host:port`. Keys are numbers, which fastjson writes without quotes.
    package var brokerAddrs: [Int64: String]

    package init(cluster: String, brokerName: String, brokerAddrs: [Int64: String]) {
        self.cluster = cluster
        self.brokerName = brokerName
        self.brokerAddrs = brokerAddrs
    }

    package init(json: JSONValue) throws(RemotingDecodeError) {
        cluster = json["cluster"]?.string ?? ""
        brokerName = try json.text("brokerName")
        brokerAddrs = [:]
        for member in try (json["brokerAddrs"] ?? .null).members("brokerAddrs") {
            guard let id = Int64(member.key), let address = member.value.string else {
                throw .badBody("brokerAddrs has an entry that is not id:address")
            }
            brokerAddrs[id] = address
        }
    }

    package var json: JSONValue {
        var addresses = JSONObject()
        for (id, address) in brokerAddrs.sorted(by: { $0.key < $1.key }) {
            addresses.append(rawKey: String(id), .string(address))
        }
        return .fields([
            ("brokerAddrs", .object(addresses)),
            ("brokerName", .string(brokerName)),
            ("cluster", .string(cluster)),
        ])
    }

    /// The master's address, else that of the lowest id.
    package var preferredAddress: String? {
        brokerAddrs[0] ?? brokerAddrs.min { $0.key < $1.key }?.value
    }
}

/// Where a topic is (105).
package struct TopicRouteData: JSONBody {
    /// Queues of an ordered topic: `broker:count`, with `;` between; nil for other topics.
    package var orderTopicConf: String?
    /// One for each broker name that has the topic.
    package var queueDatas: [QueueData]
    /// The brokers that `queueDatas` name.
    package var brokerDatas: [BrokerData]
    /// Broker address → its filter servers.
    package var filterServerTable: [String: [String]]

    package init(
        orderTopicConf: String? = nil, queueDatas: [QueueData] = [], brokerDatas: [BrokerData] = [],
        filterServerTable: [String: [String]] = [:]
    ) {
        self.orderTopicConf = orderTopicConf
        self.queueDatas = queueDatas
        self.brokerDatas = brokerDatas
        self.filterServerTable = filterServerTable
    }

    package init(json: JSONValue) throws(RemotingDecodeError) {
        try json.requireObject("the route data")
        orderTopicConf = json["orderTopicConf"]?.string
        queueDatas = try json.bodies("queueDatas")
        brokerDatas = try json.bodies("brokerDatas")
        filterServerTable = [:]
        for member in try (json["filterServerTable"] ?? .null).members("filterServerTable") {
            filterServerTable[member.key] = try member.value.elements("filterServerTable").compactMap {
                $0.string
            }
        }
    }

    package var json: JSONValue {
        .fields([
            ("brokerDatas", .array(brokerDatas.map { $0.json })),
            (
                "filterServerTable",
                .fields(filterServerTable.sorted { $0.key < $1.key }.map { ($0.key, .strings($0.value)) })
            ),
            ("orderTopicConf", orderTopicConf.map { .string($0) }),
            ("queueDatas", .array(queueDatas.map { $0.json })),
        ])
    }
}

/// All brokers a name server knows (106).
package struct ClusterInfo: JSONBody {
    /// Broker name → its addresses.
    package var brokerAddrTable: [String: BrokerData]
    /// Cluster name → names of its brokers.
    package var clusterAddrTable: [String: Set<String>]

    package init(brokerAddrTable: [String: BrokerData] = [:], clusterAddrTable: [String: Set<String>] = [:]) {
        self.brokerAddrTable = brokerAddrTable
        self.clusterAddrTable = clusterAddrTable
    }

    package init(json: JSONValue) throws(RemotingDecodeError) {
        brokerAddrTable = [:]
        clusterAddrTable = [:]
        for member in try (json["brokerAddrTable"] ?? .null).members("brokerAddrTable") {
            brokerAddrTable[member.key] = try BrokerData(json: member.value)
        }
        for member in try (json["clusterAddrTable"] ?? .null).members("clusterAddrTable") {
            clusterAddrTable[member.key] = Set(
                try member.value.elements("clusterAddrTable").compactMap { $0.string })
        }
    }

    package var json: JSONValue {
        .fields([
            (
                "brokerAddrTable",
                .fields(brokerAddrTable.sorted { $0.key < $1.key }.map { ($0.key, $0.value.json) })
            ),
            (
                "clusterAddrTable",
                .fields(clusterAddrTable.sorted { $0.key < $1.key }.map { ($0.key, .strings($0.value.sorted())) })
            ),
        ])
    }
}

/// Names of topics (206, 224, 304, 305, …).
package struct TopicList: JSONBody {
    /// In the answer to 304 the topics that are named after clusters and brokers.
    package var topicList: [String]
    /// `host:port` of a broker to ask for its system topics; nil in other answers.
    package var brokerAddr: String?

    package init(topicList: [String] = [], brokerAddr: String? = nil) {
        self.topicList = topicList
        self.brokerAddr = brokerAddr
    }

    package init(json: JSONValue) throws(RemotingDecodeError) {
        try json.requireObject("the topic list")
        topicList = try json.strings("topicList")
        brokerAddr = json["brokerAddr"]?.string
    }

    package var json: JSONValue {
        .fields([
            ("brokerAddr", brokerAddr.map { .string($0) }),
            ("topicList", .strings(topicList)),
        ])
    }
}

/// Names and values (28, 219, the answer to 103).
package struct KVTable: JSONBody {
    /// Values that are no text are read as empty.
    package var table: [String: String]

    package init(table: [String: String] = [:]) {
        self.table = table
    }

    package init(json: JSONValue) throws(RemotingDecodeError) {
        table = [:]
        for member in try (json["table"] ?? .null).members("table") {
            table[member.key] = member.value.string ?? ""
        }
    }

    package var json: JSONValue {
        .fields([("table", .fields(table.sorted { $0.key < $1.key }.map { ($0.key, .string($0.value)) }))])
    }
}
