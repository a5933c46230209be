/// Names RocketMQ's protocol fixes.
package enum WireNames {
    /// Its route says where topics may be created by their first message.
    package static let templateTopic = "TBW102"
    /// The group RocketMQ's tools pull and send as.
    package static let toolsGroup = "TOOLS_CONSUMER"
    /// Name space of order configurations in the name servers' key-value tables.
    package static let orderNamespace = "ORDER_TOPIC_CONFIG"

    /// Where messages wait that a group's consumers sent back.
    package static func retryTopic(_ group: String) -> String { "%RETRY%\(group)" }
    /// Where messages go that a group failed to consume too often.
    package static func deadLetterTopic(_ group: String) -> String { "%DLQ%\(group)" }

    /// Properties beside those of `MessageProperties`.
    enum Property {
        static let waitsForStore = "WAIT"
        static let delayLevel = "DELAY"
        static let timerDelay = "TIMER_DELAY_MS"
        static let timerDelivery = "TIMER_DELIVER_MS"
        static let isTransaction = "TRAN_MSG"
        static let producerGroup = "PGROUP"
        static let retryTopic = "RETRY_TOPIC"
        static let transactionID = "__transactionId__"
    }
}
