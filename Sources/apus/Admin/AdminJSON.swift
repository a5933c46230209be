import FastJSON
import RocketMQClient

/// The client library's values for programs, with RocketMQ's spelling of the keys.
extension MessageQueue {
    /// `{"brokerName":"a","queueId":0,"topic":"t"}`
    var json: JSONValue {
        .fields([("brokerName", .string(brokerName)), ("queueId", .integer(queueID)), ("topic", .string(topic))])
    }

    /// As Java prints it.
    var javaText: String { "MessageQueue [topic=\(topic), brokerName=\(brokerName), queueId=\(queueID)]" }

    /// The same, its members before others.
    func json(with more: [(String, JSONValue?)]) -> JSONValue {
        .fields(
            [("topic", .string(topic)), ("brokerName", .string(brokerName)), ("queueId", .integer(queueID))] + more)
    }
}

extension BrokerDescription {
    var json: JSONValue {
        var servers = JSONObject()
        for (id, address) in addresses.sorted(by: { $0.key < $1.key }) {
            servers.append(rawKey: String(id), .string(address))
        }
        return .fields([
            ("brokerAddrs", .object(servers)), ("brokerName", .string(name)), ("cluster", .string(cluster)),
        ])
    }
}

extension TopicRoute {
    /// As name servers answer it.
    var json: JSONValue {
        .fields([
            ("brokerDatas", .array(brokers.map(\.json))),
            (
                "filterServerTable",
                .fields(filterServers.sorted { $0.key < $1.key }.map { ($0.key, .strings($0.value)) })
            ),
            ("orderTopicConf", orderConfiguration.map { .string($0) }),
            (
                "queueDatas",
                .array(
                    queues.map {
                        .fields([
                            ("brokerName", .string($0.brokerName)), ("perm", .integer($0.permission)),
                            ("readQueueNums", .integer($0.readQueues)), ("topicSysFlag", .integer($0.systemFlag)),
                            ("writeQueueNums", .integer($0.writeQueues)),
                        ])
                    })
            ),
        ])
    }
}

extension ClientConnection {
    var json: JSONValue {
        .fields([
            ("clientId", .string(clientID)), ("clientAddr", .string(address)), ("language", .string(language)),
            ("version", .string(versionName(version))),
        ])
    }
}

extension ConsumerProgressReport.Row {
    var json: JSONValue {
        queue.json(with: [
            ("brokerOffset", .integer(brokerOffset)), ("consumerOffset", .integer(consumerOffset)),
            ("diff", .integer(difference)), ("lastTimestamp", .integer(lastTimestamp)),
        ])
    }
}

extension ReceivedMessage {
    var json: JSONValue {
        .fields([
            ("topic", .string(queue.topic)), ("brokerName", .string(queue.brokerName)),
            ("queueId", .integer(queue.queueID)), ("queueOffset", .integer(queueOffset)),
            ("msgId", .string(messageID)), ("offsetMsgId", .string(offsetMessageID)),
            ("tags", tag.map { .string($0) }), ("keys", keys.map { .string($0) }),
            ("commitLogOffset", .integer(commitLogOffset)), ("storeSize", .integer(storedBytes)),
            ("bornTimestamp", .integer(bornTimestamp)), ("bornHost", .string(bornHost)),
            ("storeTimestamp", .integer(storeTimestamp)), ("storeHost", .string(storeHost)),
            ("reconsumeTimes", .integer(reconsumeTimes)), ("sysFlag", .integer(systemFlag)),
            ("flag", .integer(flag)), ("bodyCRC", .integer(bodyChecksum)),
            ("preparedTransactionOffset", .integer(preparedTransactionOffset)),
            ("properties", .fields(properties.sorted { $0.key < $1.key }.map { ($0.key, .string($0.value)) })),
            ("body", .string(text)),
        ])
    }

    /// Its keys, for the help of commands.
    static let jsonKeys = """
        topic, brokerName, queueId, queueOffset, msgId, offsetMsgId, tags, keys, commitLogOffset, storeSize, \
        bornTimestamp, bornHost, storeTimestamp, storeHost, reconsumeTimes, sysFlag, flag, bodyCRC, \
        preparedTransactionOffset, properties, body
        """
}

extension SendResult {
    var json: JSONValue {
        queue.json(with: [
            ("sendStatus", .string(status.rawValue)), ("msgId", .string(messageID)),
            ("offsetMsgId", .string(offsetMessageID)), ("queueOffset", .integer(queueOffset)),
        ])
    }

    static let jsonKeys = "topic, brokerName, queueId, sendStatus, msgId, offsetMsgId, queueOffset"

    /// As Java prints it.
    var javaText: String {
        "SendResult [sendStatus=\(status.rawValue), msgId=\(messageID), offsetMsgId=\(offsetMessageID), "
            + "messageQueue=\(queue.javaText), queueOffset=\(queueOffset < 0 ? "" : String(queueOffset))]"
    }
}

/// Settings and figures as an object.
func settingsJSON(_ pairs: [(name: String, value: String)]) -> JSONValue {
    .fields(pairs.map { ($0.name, .string($0.value)) })
}
