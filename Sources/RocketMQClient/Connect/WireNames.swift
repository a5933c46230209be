import MessageModel

/// Names RocketMQ's protocol fixes.
package enum WireNames {
    /// Its route states where topics may be created by their first message.
    package static let templateTopic = TopicName.autoCreateKey.text
    /// The group RocketMQ's tools pull and send as.
    package static let toolsGroup = "TOOLS_CONSUMER"
    /// Name space of order configurations in the name servers' key-value tables.
    package static let orderNamespace = "ORDER_TOPIC_CONFIG"

    /// Where messages wait that a group's consumers sent back.
    package static func retryTopic(_ group: String) -> String { TopicName.retryPrefix + group }
    /// Where messages go that a group failed to consume too often.
    package static func deadLetterTopic(_ group: String) -> String { TopicName.deadLetterPrefix + group }

    /// Properties as texts.
    enum Property {
        static let waitsForStore = "\(PropertyName.waitStoreMsgOK)"
        static let delayLevel = "\(PropertyName.delayLevel)"
        static let timerDelay = "\(PropertyName.timerDelayMilliseconds)"
        static let timerDelivery = "\(PropertyName.timerDeliverMilliseconds)"
        static let isTransaction = "\(PropertyName.isPrepared)"
        static let producerGroup = "\(PropertyName.producerGroup)"
        static let retryTopic = "\(PropertyName.retryTopic)"
        static let transactionID = "\(PropertyName.transactionID)"
        static let shardingKey = "\(PropertyName.shardingKey)"
        static let popHandle = "\(PropertyName.popHandle)"
    }
}
