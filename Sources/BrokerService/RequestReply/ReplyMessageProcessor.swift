import Logging
import MessageModel
import MessageStore
import NIOCore
import RemotingProtocol
import RemotingTransport
import StoreFormat

/// SEND_REPLY_MESSAGE (324) and its V2 (325): the answer to a request that was sent as a message. It is pushed to the
/// client that asked (326), and stored in the reply topic as a record of it (`storeReplyMessageEnable`). The replier's
/// own answer states whether the push arrived.
final class ReplyMessageProcessor {
    static let pushTimeout = TimeAmount.seconds(10)
    static let replyToClient = "\(PropertyName.replyToClient)"
    static let pushReplyTime = "\(PropertyName.pushReplyTime)"

    private let environment: BrokerEnvironment
    private let tables: BrokerTables
    private let storage: StoreAccess
    private let send: SendMessageProcessor
    /// `storeReplyMessageEnable`.
    private let storesReplies: Bool

    init(
        _ environment: BrokerEnvironment, _ tables: BrokerTables, _ storage: StoreAccess, _ send: SendMessageProcessor
    ) {
        self.environment = environment
        self.tables = tables
        self.storage = storage
        self.send = send
        storesReplies = environment.configuration.flag("storeReplyMessageEnable") ?? true
    }

    /// What is kept of a reply while it is pushed.
    private struct Reply {
        let topic: [UInt8]
        let queueID: Int32
        let flag: Int32
        let sysFlag: Int32
        let bornTimestamp: Int64
        let reconsumeTimes: Int32
        let properties: [UInt8]
        let body: [UInt8]
    }

    func process(_ request: borrowing Request) throws(RemotingDecodeError) {
        let header = try SendMessageRequestHeader(request.frame)
        guard let target = send.admit(header, request) else { return }
        let reply = Reply(
            topic: target.topic.nameBytes, queueID: target.queueID, flag: header.flag, sysFlag: header.sysFlag,
            bornTimestamp: header.bornTimestamp, reconsumeTimes: header.reconsumeTimes,
            properties: [UInt8](header.properties), body: [UInt8](request.body))
        let asker = request.asker
        var properties = PropertyList(header.properties)
        guard let requester = properties[Self.replyToClient] else {
            return finish(
                reply, asker, failure: "reply message properties[\(Self.replyToClient)] is null")
        }
        let members = tables.producers.clients(withID: requester)
        guard !members.isEmpty else {
            return finish(
                reply, asker, failure: "push reply message fail, channel of <\(requester)> not found.")
        }
        let now = environment.now()
        properties[Self.pushReplyTime] = String(now)
        let fields = [
            "bornHost": request.client.address, "storeHost": environment.configuration.address,
            "storeTimestamp": String(now),
            "producerGroup": String(decoding: header.producerGroup, as: UTF8.self), "topic": target.topic.name,
            "defaultTopic": String(decoding: header.defaultTopic, as: UTF8.self),
            "defaultTopicQueueNums": String(header.defaultTopicQueueNums), "queueId": String(header.queueID),
            "sysFlag": String(header.sysFlag), "bornTimestamp": String(header.bornTimestamp),
            "flag": String(header.flag), "properties": String(decoding: properties.bytes, as: UTF8.self),
            "reconsumeTimes": String(header.reconsumeTimes), "unitMode": String(header.unitMode),
        ]
        let push = RemotingCommand(.pushReplyMessageToClient, extFields: fields, body: reply.body)
        // Where several instances share the identifier, the one that asked knows its question, and the others pass it
        // over.
        var left = members.count
        var isTaken = false
        for member in members {
            member.client.connection.request(
                push, serialization: asker.address.serialization, timeout: Self.pushTimeout
            )
            .assumeIsolated().whenComplete { [self] result in
                left -= 1
                let isLast = left == 0
                switch result {
                case .success(let answer) where answer.responseCode == .success:
                    if !isTaken { finish(reply, asker, failure: nil) }
                    isTaken = true
                case .success(let answer):
                    let reason = answer.remark ?? "code \(answer.code)"
                    environment.logger.warning(
                        """
                        client <\(requester)> refused a reply: unless another of that name takes it, the sender \
                        is told and may send it again: \(reason)
                        """)
                case .failure(let error):
                    environment.logger.warning(
                        """
                        client <\(requester)> did not take a reply: unless another of that name takes it, the \
                        sender is told and may send it again: \(error)
                        """)
                }
                if isLast, !isTaken {
                    finish(reply, asker, failure: "push reply message to \(requester)fail.")
                }
                storage.scheduleTick()
            }
        }
    }

    private func finish(_ reply: Reply, _ asker: Asker, failure: String?) {
        let stored = storesReplies ? store(reply, asker.client) : nil
        if let failure {
            return asker.answer(.systemError, remark: failure, fields: environment.sendResponseFields)
        }
        guard case .appended(let result) = stored else {
            // Zeros: the clients of RocketMQ read these fields as numbers.
            return asker.answer(
                .success,
                fields: [("msgId", "0"), ("queueId", String(reply.queueID)), ("queueOffset", "0")]
                    + environment.sendResponseFields)
        }
        storage.gate.add(
            PendingAck(
                client: asker.client, address: asker.address, kind: .send, queueID: reply.queueID,
                queueOffset: result.queueOffset.rawValue, physicalOffset: result.physicalOffset.rawValue,
                end: result.end.rawValue, waits: false,
                topicMadeAt: reply.topic.withUnsafeBytes { tables.topics[$0]?.madeAt } ?? 0))
    }

    private func store(_ reply: Reply, _ client: ClientContext) -> AppendOutcome {
        let outcome = reply.topic.withUnsafeBytes { topic in
            reply.properties.withUnsafeBytes { properties in
                reply.body.withUnsafeBytes { body in
                    var draft = MessageDraft(
                        topic: topic, queueID: reply.queueID, bornHost: client.bornHost,
                        storeHost: environment.storeHost,
                        body: body)
                    draft.flag = reply.flag
                    draft.sysFlag = reply.sysFlag
                    draft.bornTimestamp = reply.bornTimestamp
                    draft.reconsumeTimes = reply.reconsumeTimes
                    draft.properties = properties
                    return storage.store.append(draft)
                }
            }
        }
        switch outcome {
        case .appended(let result):
            storage.statistics.put(messages: 1)
            reply.topic.withUnsafeBytes { tables.topics[$0] }?.count(1, bytes: result.size, in: storage.stats)
        case .refused(let refusal): environment.logger.warning("a reply was pushed but not stored: \(refusal)")
        }
        return outcome
    }
}
