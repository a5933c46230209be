package import FastJSON

/// One queue of a topic on one broker.
package struct MessageQueue: JSONBody, Hashable, Comparable {
    package var topic: String
    package var brokerName: String
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
    package var consumerGroup: String
    package var clientID: String
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

package typealias UnlockBatchRequestBody = LockBatchRequestBody

/// The queues of a `LockBatchRequestBody` that the client has locked now.
package struct LockBatchResponseBody: JSONBody {
    package var lockOKMQSet: [MessageQueue]

    package init(lockOKMQSet: [MessageQueue]) {
        self.lockOKMQSet = lockOKMQSet
    }

    package init(json: JSONValue) throws(RemotingDecodeError) {
        lockOKMQSet = try json.bodies("lockOKMQSet")
    }

    package var json: JSONValue { .fields([("lockOKMQSet", .array(lockOKMQSet.map { $0.json }))]) }
}
