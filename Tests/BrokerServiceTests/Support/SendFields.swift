import FastJSON
import RemotingProtocol

extension RawConnection {
    /// A send with everything that matters to what becomes of it.
    func send(
        topic: String, queueID: Int32 = 0, bytes: [UInt8], properties: String, sysFlag: Int32 = 0, retries: Int32 = 0,
        maxRetries: Int32? = nil, batch: String = "false", code: RequestCode = .sendMessageV2
    ) throws -> RemotingCommand {
        var fields = [
            "a": "PG", "b": topic, "c": "TBW102", "d": "4", "e": String(queueID), "f": String(sysFlag),
            "g": "1700000000000", "h": "0", "i": properties, "j": String(retries), "k": "false", "m": batch,
        ]
        fields["l"] = maxRetries.map { String($0) }
        guard code == .sendMessage else { return try invoke(code, fields, body: bytes) }
        let names = [
            "a": "producerGroup", "b": "topic", "c": "defaultTopic", "d": "defaultTopicQueueNums", "e": "queueId",
            "f": "sysFlag", "g": "bornTimestamp", "h": "flag", "i": "properties", "j": "reconsumeTimes",
            "k": "unitMode", "l": "maxReconsumeTimes", "m": "batch",
        ]
        let long = Dictionary(uniqueKeysWithValues: fields.map { (names[$0.key] ?? $0.key, $0.value) })
        return try invoke(code, long, body: bytes)
    }

    /// All that lies in a queue now.
    func all(_ topic: String, queueID: Int32 = 0, from start: Int64 = 0) throws -> [Consumed] {
        var found: [Consumed] = []
        while true {
            let more = try consume(topic, queueID: queueID, from: found.last.map { $0.queueOffset + 1 } ?? start)
            if more.isEmpty { return found }
            found += more
        }
    }

    func sendBack(_ group: String, offset: Int64, delayLevel: Int = 1, maxRetries: Int = 16) throws -> RemotingCommand {
        try invoke(
            .consumerSendMessageBack,
            [
                "group": group, "offset": String(offset), "delayLevel": String(delayLevel), "originTopic": "T",
                "maxReconsumeTimes": String(maxRetries),
            ])
    }

    func makeTopic(_ topic: String, read: Int32 = 4, write: Int32 = 4, perm: Int32 = 6) throws -> RemotingCommand {
        try invoke(
            .updateAndCreateTopic,
            [
                "topic": topic, "defaultTopic": "TBW102", "readQueueNums": String(read),
                "writeQueueNums": String(write), "perm": String(perm), "topicFilterType": "SINGLE_TAG",
                "topicSysFlag": "0", "order": "false",
            ])
    }

    func makeGroup(_ group: String, retryQueues: Int32) throws -> RemotingCommand {
        var config = SubscriptionGroupConfig(groupName: group)
        config.retryQueueNums = retryQueues
        return try invoke(.updateAndCreateSubscriptionGroup, body: config.json.bytes())
    }

    func end(_ half: RemotingCommand, _ outcome: Int32 = 8) throws -> RemotingCommand {
        let place = OffsetMessageID.parse(half.extFields["msgId"] ?? "")?.physicalOffset ?? -1
        return try invoke(
            .endTransaction,
            [
                "producerGroup": "PG", "tranStateTableOffset": half.extFields["queueOffset"] ?? "",
                "commitLogOffset": String(place), "commitOrRollback": String(outcome), "fromTransactionCheck": "false",
            ])
    }
}
