package import RemotingProtocol

/// A request that stores messages (310, and 320 for a batch).
package struct SendRequest: Sendable {
    /// Bit of `systemFlag`: the message is prepared, no consumer sees it (`TRANSACTION_PREPARED_TYPE`).
    package static let preparedFlag: Int32 = 4

    /// The producer group.
    package var group: String
    /// Topic and queue ID to store into; the broker's name goes along (`n`).
    package var queue: MessageQueue
    /// In the form of the log.
    package var properties: String
    /// `MessageSysFlag`: compression and transaction state.
    package var systemFlag: Int32 = 0
    /// The body is a `MessageBatch`.
    package var isBatch = false
    /// Queues a topic gets that this message creates.
    package var newTopicQueues = 4

    package init(
        group: String, queue: MessageQueue, properties: String, systemFlag: Int32 = 0, isBatch: Bool = false,
        newTopicQueues: Int = 4
    ) {
        self.group = group
        self.queue = queue
        self.properties = properties
        self.systemFlag = systemFlag
        self.isBatch = isBatch
        self.newTopicQueues = newTopicQueues
    }

    /// Stamped with this machine's time as born time.
    package func command(body: [UInt8]) -> RemotingCommand {
        RemotingCommand(
            isBatch ? .sendBatchMessage : .sendMessageV2,
            extFields: [
                "a": group, "b": queue.topic, "c": WireNames.templateTopic, "d": String(newTopicQueues),
                "e": String(queue.queueID), "f": String(systemFlag), "g": String(WallClock.milliseconds), "h": "0",
                "i": properties, "j": "0", "k": "false", "m": String(isBatch), "n": queue.brokerName,
            ], body: body)
    }
}

/// What became of a transaction (37).
package struct TransactionEnd: Sendable {
    /// The producer group.
    package var group: String
    /// In the queue of prepared messages.
    package var queueOffset: Int64
    /// Of the prepared message.
    package var commitLogOffset: Int64
    /// What the producer's transaction came to, or that it is not known.
    package var state: TransactionState
    /// The prepared message's own (`msgId`).
    package var messageID: String
    /// As the broker or the producer named the transaction.
    package var transactionID: String
    /// The broker asked for it.
    package var isCheckBack: Bool

    package init(
        group: String, queueOffset: Int64, commitLogOffset: Int64, state: TransactionState, messageID: String,
        transactionID: String, isCheckBack: Bool
    ) {
        self.group = group
        self.queueOffset = queueOffset
        self.commitLogOffset = commitLogOffset
        self.state = state
        self.messageID = messageID
        self.transactionID = transactionID
        self.isCheckBack = isCheckBack
    }

    /// The answer to a broker's question (39); nil for a question without the fields it needs.
    package init?(answering request: RemotingCommand, group: String, state: TransactionState) {
        guard let queueOffset = try? request.integer("tranStateTableOffset"),
            let commitLogOffset = try? request.integer("commitLogOffset")
        else { return nil }
        self.init(
            group: group, queueOffset: queueOffset, commitLogOffset: commitLogOffset, state: state,
            messageID: request.extFields["msgId"] ?? "", transactionID: request.extFields["transactionId"] ?? "",
            isCheckBack: true)
    }

    /// `END_TRANSACTION`.
    package var command: RemotingCommand {
        RemotingCommand(
            .endTransaction,
            extFields: [
                "producerGroup": group, "tranStateTableOffset": String(queueOffset),
                "commitLogOffset": String(commitLogOffset), "commitOrRollback": String(state.rawValue),
                "fromTransactionCheck": String(isCheckBack), "msgId": messageID, "transactionId": transactionID,
            ])
    }
}
