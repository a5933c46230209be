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
        self.topic = try json.text("topic")
        self.brokerName = try json.text("brokerName")
        self.queueID = try json.int32("queueId", default: 0)
    }

    package var json: JSONValue {
        .fields([
            ("brokerName", .string(self.brokerName)),
            ("queueId", .integer(self.queueID)),
            ("topic", .string(self.topic)),
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
        self.consumerGroup = try json.text("consumerGroup")
        self.clientID = try json.text("clientId")
        self.mqSet = try json.bodies("mqSet")
    }

    package var json: JSONValue {
        .fields([
            ("clientId", .string(self.clientID)),
            ("consumerGroup", .string(self.consumerGroup)),
            ("mqSet", .array(self.mqSet.map { $0.json })),
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
        self.lockOKMQSet = try json.bodies("lockOKMQSet")
    }

    package var json: JSONValue { .fields([("lockOKMQSet", .array(self.lockOKMQSet.map { $0.json }))]) }
}
