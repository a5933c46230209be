import RemotingProtocol
import RemotingTransport

/// One request code that the name server answers.
final class NameServerRequest: Sendable {
    /// Carries a request out on the event loop. The frame is valid inside this call only. `nil`: the request is
    /// answered later, or has been.
    /// - Throws: the request cannot be understood; it is answered with code 1 and the reason.
    typealias Processor = (RemotingFrame, RemotingConnection) throws(RemotingDecodeError) -> NameServer.Answer?

    let code: RequestCode
    /// RocketMQ's constant; in lower case the label of metrics.
    let name: String
    let action: RequestAction
    let resources: [RequestResource]
    /// Bytes of the body, at most: it is read on the event loop, but for registrations.
    let bodyBytesMax: Int
    /// Bytes of the header, at most. A value of the KV configuration is in the header.
    let headerBytesMax: Int
    /// One line for the README.
    let text: String
    let processor: @Sendable (NameServer) -> Processor

    init(
        _ code: RequestCode, _ name: String, _ action: RequestAction, _ resources: [RequestResource],
        isRegistration: Bool = false, _ text: String, _ processor: @escaping @Sendable (NameServer) -> Processor
    ) {
        self.code = code
        self.name = name
        self.action = action
        self.resources = resources
        bodyBytesMax = isRegistration ? .max : ControlBody.bytesMax
        headerBytesMax = code == .putKVConfig ? .max : ControlBody.headerBytesMax
        self.text = text
        self.processor = processor
    }
}

/// Every request code the name server answers. A code that is not here is answered with REQUEST_CODE_NOT_SUPPORTED, and
/// the connection is kept. Actions and resources are those of RocketMQ 5.3's annotations.
enum NameServerRequests {
    static let rows: [NameServerRequest] = brokerRows + routeRows + settingRows

    static let byCode = Dictionary(uniqueKeysWithValues: rows.map { ($0.code.rawValue, $0) })

    /// What brokers report of themselves.
    private static var brokerRows: [NameServerRequest] {
        [
            NameServerRequest(
                .registerBroker, "REGISTER_BROKER", .update, [.cluster], isRegistration: true,
                "a broker's topics; large ones are read on another thread"
            ) { $0.registerBroker },
            NameServerRequest(
                .queryDataVersion, "QUERY_DATA_VERSION", .get, [.cluster],
                "whether a broker's topics have changed since it registered"
            ) { $0.queryDataVersion },
            NameServerRequest(
                .brokerHeartbeat, "BROKER_HEARTBEAT", .update, [.cluster], "a broker is still there (5.x)"
            ) { $0.brokerHeartbeat },
            NameServerRequest(
                .unregisterBroker, "UNREGISTER_BROKER", .update, [.cluster], "a broker leaves"
            ) { $0.unregisterBroker },
            NameServerRequest(
                .wipeWritePermOfBroker, "WIPE_WRITE_PERM_OF_BROKER", .update, [.cluster],
                "routes send producers to other brokers"
            ) { $0.wipeWritePermission },
            NameServerRequest(
                .addWritePermOfBroker, "ADD_WRITE_PERM_OF_BROKER", .update, [.cluster], "and back"
            ) { $0.addWritePermission },
        ]
    }

    /// What clients and tools ask for.
    private static var routeRows: [NameServerRequest] {
        [
            NameServerRequest(
                .getRouteInfoByTopic, "GET_ROUTEINFO_BY_TOPIC", .get, [.topic("topic")],
                "a topic's brokers and queues; waits for brokers after a start (`StartHold`)"
            ) { $0.routeInfo },
            NameServerRequest(
                .getBrokerClusterInfo, "GET_BROKER_CLUSTER_INFO", .get, [.cluster],
                "all brokers and clusters; waits as well"
            ) { $0.clusterInfo },
            NameServerRequest(
                .getBrokerMemberGroup, "GET_BROKER_MEMBER_GROUP", .get, [.cluster], "a broker's master and slaves (5.x)"
            ) { $0.memberGroup },
            NameServerRequest(
                .getAllTopicListFromNameServer, "GET_ALL_TOPIC_LIST_FROM_NAMESERVER", .list, [.allTopics],
                "names of all topics"
            ) { $0.allTopics },
            NameServerRequest(
                .getTopicsByCluster, "GET_TOPICS_BY_CLUSTER", .list, [.allTopics], "names of a cluster's topics"
            ) { $0.topicsOfCluster },
            NameServerRequest(
                .getSystemTopicListFromNameServer, "GET_SYSTEM_TOPIC_LIST_FROM_NS", .list, [.allTopics],
                "names of clusters and brokers, which are topics"
            ) { $0.systemTopics },
            NameServerRequest(.getUnitTopicList, "GET_UNIT_TOPIC_LIST", .list, [.allTopics], "topics of units") {
                $0.unitTopics
            },
            NameServerRequest(
                .getHasUnitSubTopicList, "GET_HAS_UNIT_SUB_TOPIC_LIST", .list, [.allTopics],
                "topics units subscribe to"
            ) { $0.topicsUnitsSubscribeTo },
            NameServerRequest(
                .getHasUnitSubUnUnitTopicList, "GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST", .list, [.allTopics],
                "those of them that are no topics of units"
            ) { $0.commonTopicsUnitsSubscribeTo },
            NameServerRequest(
                .registerTopicInNamesrv, "REGISTER_TOPIC_IN_NAMESRV", .update, [.topic("topic")],
                "a topic's queues (5.x)"
            ) { $0.registerTopic },
            NameServerRequest(
                .deleteTopicInNamesrv, "DELETE_TOPIC_IN_NAMESRV", .update, [.topic("topic")],
                "forgets a topic until a broker names it again"
            ) { $0.deleteTopic },
        ]
    }

    /// What is kept in files. A change is answered when it is on disk.
    private static var settingRows: [NameServerRequest] {
        [
            NameServerRequest(.putKVConfig, "PUT_KV_CONFIG", .update, [.cluster], "sets a value, e.g. a topic's order")
            {
                $0.putKVConfig
            },
            NameServerRequest(.getKVConfig, "GET_KV_CONFIG", .get, [.cluster], "a value") { $0.getKVConfig },
            NameServerRequest(.deleteKVConfig, "DELETE_KV_CONFIG", .update, [.cluster], "removes a value") {
                $0.deleteKVConfig
            },
            NameServerRequest(
                .getKVListByNamespace, "GET_KVLIST_BY_NAMESPACE", .get, [.cluster], "all values of a namespace"
            ) { $0.kvList },
            NameServerRequest(
                .updateNamesrvConfig, "UPDATE_NAMESRV_CONFIG", .update, [.cluster], "changes settings"
            ) { $0.updateConfiguration },
            NameServerRequest(.getNamesrvConfig, "GET_NAMESRV_CONFIG", .get, [.cluster], "the settings") {
                $0.getConfiguration
            },
        ]
    }

    /// The table of the README, in the order of codes.
    static var markdown: String {
        var lines = ["| code | name | action | touches | what it does |", "|---:|---|---|---|---|"]
        for row in rows.sorted(by: { $0.code.rawValue < $1.code.rawValue }) {
            let touches = row.resources.map(\.text).joined(separator: ", ")
            lines.append(
                "| \(row.code.rawValue) | `\(row.name)` | \(row.action.rawValue) | \(touches) | \(row.text) |")
        }
        return lines.joined(separator: "\n")
    }
}
