package import FastJSON

/// One queue of a topic on one broker.
package struct MessageQueue: JSONBody, Hashable, Comparable {
    /// The topic's name; not checked here.
    package var topic: String
    /// What master and slaves of the queue share.
    package var brokerName: String
    /// From 0; `queueId` on the wire.
    package var queueID: Int32

    package init(topic: String, brokerName: String, queueID: Int32) {
        self.topic = topic
        self.brokerName = brokerName
        self.queueID = queueID
    }

    package init(json: JSONValue) throws(RemotingDecodeError) {
        topic = try json.text("topic")
        brokerName = try json.text("brokerName")
        queueID = try json.int32("queueId", default: 0)
    }

    package var json: JSONValue {
        .fields([
            ("brokerName", .string(brokerName)),
            ("queueId", .integer(queueID)),
            ("topic", .string(topic)),
        ])
    }

    package static func < (left: MessageQueue, right: MessageQueue) -> Bool {
        (left.topic, left.brokerName, left.queueID) < (right.topic, right.brokerName, right.queueID)
    }
}

/// Locks queues for an orderly consumer (41), or unlocks them (42): both have this shape.
package struct LockBatchRequestBody: JSONBody {
    /// Name of the group; not checked yet.
    package var consumerGroup: String
    /// The member that locks; `clientId` on the wire.
    package var clientID: String
    /// The queues to lock or unlock, all of the broker that is asked.
    package var mqSet: [MessageQueue]

    package init(consumerGroup: String, clientID: String, mqSet: [MessageQueue]) {
        self.consumerGroup = consumerGroup
        self.clientID = clientID
        self.mqSet = mqSet
    }

    package init(json: JSONValue) throws(RemotingDecodeError) {
        consumerGroup = try json.text("consumerGroup")
        clientID = try json.text("clientId")
        mqSet = try json.bodies("mqSet")
    }

    package var json: JSONValue {
        .fields([
            ("clientId", .string(clientID)),
            ("consumerGroup", .string(consumerGroup)),
            ("mqSet", .array(mqSet.map { $0.json })),
        ])
    }
}

/// RocketMQ has a class of its own for unlocking (42), with the same fields.
package typealias UnlockBatchRequestBody = LockBatchRequestBody

/// The queues of a `LockBatchRequestBody` that the client has locked now.
package struct LockBatchResponseBody: JSONBody {
    /// A subset of the queues asked for.
    package var lockOKMQSet: [MessageQueue]

    package init(lockOKMQSet: [MessageQueue]) {
        self.lockOKMQSet = lockOKMQSet
    }

    package init(json: JSONValue) throws(RemotingDecodeError) {
        lockOKMQSet = try json.bodies("lockOKMQSet")
    }

    package var json: JSONValue { .fields([("lockOKMQSet", .array(lockOKMQSet.map { $0.json }))]) }
}
