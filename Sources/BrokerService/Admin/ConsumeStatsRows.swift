import FastJSON
import RemotingProtocol

/// What is noted of queues on the event loop; another thread makes the text of an answer of it.
extension ConsumeStatsProcessor {
    /// One queue of GET_TOPIC_STATS_INFO.
    struct TopicRow: Sendable {
        let queueID: Int32
        let start: Int64
        let end: Int64
        /// Milliseconds since 1970.
        let updated: Int64

        var json: JSONValue {
            .fields([
                ("lastUpdateTimestamp", .integer(updated)), ("maxOffset", .integer(end)),
                ("minOffset", .integer(start)),
            ])
        }
    }

    /// One group's offsets in one queue.
    struct GroupRow: Sendable {
        let topic: String
        let queueID: Int32
        let end: Int64
        let consumed: Int64
        let pulled: Int64
        /// Milliseconds since 1970, of the last message the group has consumed.
        let lastMilliseconds: Int64

        var json: JSONValue {
            .fields([
                ("brokerOffset", .integer(end)), ("consumerOffset", .integer(consumed)),
                ("lastTimestamp", .integer(lastMilliseconds)), ("pullOffset", .integer(pulled)),
            ])
        }
    }

    /// One queue of QUERY_CONSUME_TIME_SPAN; milliseconds since 1970, but for the delay.
    struct TimeSpanRow: Sendable {
        let queueID: Int32
        let first: Int64
        let last: Int64
        let consumed: Int64
        let delay: Int64

        func json(_ topic: String, _ brokerName: String) -> JSONValue {
            .fields([
                ("consumeTimeStamp", .integer(consumed)), ("delayTime", .integer(delay)),
                ("maxTimeStamp", .integer(last)),
                ("messageQueue", MessageQueue(topic: topic, brokerName: brokerName, queueID: queueID).json),
                ("minTimeStamp", .integer(first)),
            ])
        }
    }

    /// What GET_BROKER_CONSUME_STATS has of one group and topic.
    struct GroupStats: Sendable {
        let group: String
        let tps: Double
        /// Among all rows.
        var rows: Range<Int>
    }
}
