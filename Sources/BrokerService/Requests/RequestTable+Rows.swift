import FastJSON
import RemotingProtocol

// Actions and resources are those of RocketMQ 5.3's annotations (`@RocketMQAction`, `@RocketMQResource` of the header
// classes). A code that has none there is given what its neighbours have.

extension RequestTable {
    /// Messages come in.
    static var sendRows: [RequestRow] {
        [
            RequestRow(
                .sendMessage, "SEND_MESSAGE", .publish, [.topic("topic")], refused: .send, hasMessageBody: true,
                "stores a message"
            ) { $0.send.process },
            RequestRow(
                .sendMessageV2, "SEND_MESSAGE_V2", .publish, [.topic("b")], refused: .send, hasMessageBody: true,
                "the same with short field names"
            ) { $0.send.process },
            RequestRow(
                .sendBatchMessage, "SEND_BATCH_MESSAGE", .publish, [.topic("b")], refused: .send, hasMessageBody: true,
                "stores several messages of one topic, all or none"
            ) { $0.send.process },
            RequestRow(
                .consumerSendMessageBack, "CONSUMER_SEND_MSG_BACK", .subscribe,
                [.group("group"), .topic("originTopic")], refused: .sendBack,
                "stores a message again for a later try, or as a dead letter"
            ) { $0.sendBack.process },
            RequestRow(
                .endTransaction, "END_TRANSACTION", .publish, [.topic("topic")], refused: .transaction,
                "commits or rolls back a prepared message"
            ) { $0.endTransaction.process },
            RequestRow(
                .resumeCheckHalfMessage, "RESUME_CHECK_HALF_MESSAGE", .update, [.topic("topic")],
                "has a producer asked again about a transaction after its last check"
            ) { $0.endTransaction.resumeCheck },
            RequestRow(
                .sendReplyMessage, "SEND_REPLY_MESSAGE", .publish, [.topic("topic")], refused: .send,
                hasMessageBody: true, "pushes a reply to the client that asked, and stores it"
            ) { $0.reply.process },
            RequestRow(
                .sendReplyMessageV2, "SEND_REPLY_MESSAGE_V2", .publish, [.topic("b")], refused: .send,
                hasMessageBody: true, "the same with short field names"
            ) { $0.reply.process },
            RequestRow(
                .recallMessage, "RECALL_MESSAGE", .publish, [.topic("topic")], refused: .recall,
                "cancels a timer message (5.x)"
            ) { $0.recall.process },
        ]
    }

    /// Messages go out to consumers.
    static var pullRows: [RequestRow] {
        [
            RequestRow(
                .pullMessage, "PULL_MESSAGE", .subscribe, [.group("consumerGroup"), .topic("topic")],
                hasExpression: true, "the next messages of a queue, held until there is one"
            ) { $0.pull.process },
            RequestRow(
                .litePullMessage, "LITE_PULL_MESSAGE", .subscribe, [.group("consumerGroup"), .topic("topic")],
                hasExpression: true, "the same for consumers that are no member of their group (5.x)"
            ) { $0.pull.process },
        ]
    }

    /// The connected clients.
    static var clientRows: [RequestRow] {
        [
            RequestRow(
                .heartBeat, "HEART_BEAT", .publishOrSubscribe, [.body], hasMessageBody: true,
                "a client says which groups it is in, and what it subscribes to"
            ) { $0.clients.heartBeat },
            RequestRow(
                .unregisterClient, "UNREGISTER_CLIENT", .publishOrSubscribe,
                [.group("producerGroup"), .group("consumerGroup")], "a client leaves a group"
            ) { $0.clients.unregister },
            RequestRow(
                .checkClientConfig, "CHECK_CLIENT_CONFIG", .subscribe, [.body],
                "whether the expression of a subscription is understood"
            ) { $0.clients.checkClientConfig },
            RequestRow(
                .getConsumerListByGroup, "GET_CONSUMER_LIST_BY_GROUP", .subscribe, [.group("consumerGroup")],
                "the members of a group"
            ) { $0.clients.consumerList },
            RequestRow(
                .lockBatchMQ, "LOCK_BATCH_MQ", .subscribe, [.body], "locks queues for orderly consumption"
            ) { $0.clients.lock },
            RequestRow(
                .unlockBatchMQ, "UNLOCK_BATCH_MQ", .subscribe, [.body], "gives such locks back"
            ) { $0.clients.unlock },
            RequestRow(
                .invokeBrokerToResetOffset, "INVOKE_BROKER_TO_RESET_OFFSET", .update,
                [.group("group"), .topic("topic")], "sets a group's offsets by time, here and at its members"
            ) { $0.relay.resetOffset },
            RequestRow(
                .invokeBrokerToGetConsumerStatus, "INVOKE_BROKER_TO_GET_CONSUMER_STATUS", .get,
                [.group("group"), .topic("topic")], "how far a group's members say they are"
            ) { $0.relay.consumerStatus },
            RequestRow(
                .getConsumerRunningInfo, "GET_CONSUMER_RUNNING_INFO", .get, [.group("consumerGroup")],
                "asks a member about itself"
            ) { $0.relay.runningInfo },
            RequestRow(
                .consumeMessageDirectly, "CONSUME_MESSAGE_DIRECTLY", .subscribe,
                [.group("consumerGroup"), .topic("topic")], "has a member consume one message now"
            ) { $0.relay.consumeDirectly },
            RequestRow(
                .getConsumerConnectionList, "GET_CONSUMER_CONNECTION_LIST", .get, [.group("consumerGroup")],
                "a group's connections and subscriptions"
            ) { $0.admin.consumerConnections },
            RequestRow(
                .getProducerConnectionList, "GET_PRODUCER_CONNECTION_LIST", .get, [.cluster],
                "a producer group's connections"
            ) { $0.admin.producerConnections },
            RequestRow(
                .getAllProducerInfo, "GET_ALL_PRODUCER_INFO", .get, [.cluster], "all producers' connections"
            ) { $0.admin.producerInfo },
        ]
    }

    /// Offsets of queues and groups.
    static var offsetRows: [RequestRow] {
        [
            RequestRow(
                .queryConsumerOffset, "QUERY_CONSUMER_OFFSET", .get, [.group("consumerGroup"), .topic("topic")],
                "how far a group is in a queue"
            ) { $0.queues.consumerOffset },
            RequestRow(
                .updateConsumerOffset, "UPDATE_CONSUMER_OFFSET", .subscribe,
                [.group("consumerGroup"), .topic("topic")], "commits how far a group is in a queue"
            ) { $0.queues.commit },
            RequestRow(
                .searchOffsetByTimestamp, "SEARCH_OFFSET_BY_TIMESTAMP", .get, [.topic("topic")],
                "a queue's offset at a time"
            ) { $0.queues.searchOffset },
            RequestRow(.getMaxOffset, "GET_MAX_OFFSET", .get, [.topic("topic")], "a queue's end") {
                $0.queues.maxOffset
            },
            RequestRow(.getMinOffset, "GET_MIN_OFFSET", .get, [.topic("topic")], "a queue's beginning") {
                $0.queues.minOffset
            },
            RequestRow(
                .getEarliestMessageStoreTime, "GET_EARLIEST_MSG_STORETIME", .get, [.topic("topic")],
                "when a queue's first message was stored"
            ) { $0.queues.earliestTime },
            RequestRow(
                .cloneGroupOffset, "CLONE_GROUP_OFFSET", .update, [.group("srcGroup"), .topic("topic")],
                "copies a group's offsets to another"
            ) { $0.admin.cloneOffsets },
            RequestRow(
                .queryCorrectionOffset, "QUERY_CORRECTION_OFFSET", .get,
                [.group("compareGroup"), .group("filterGroups"), .topic("topic")],
                "the smallest offsets of some groups where another has none"
            ) { $0.admin.correctionOffset },
            RequestRow(
                .getAllConsumerOffset, "GET_ALL_CONSUMER_OFFSET", .get, [.cluster], "the table of offsets, for slaves"
            ) { processors in { processors.answers.answer(with: .consumerOffsets, $0.asker) } },
            RequestRow(
                .getAllDelayOffset, "GET_ALL_DELAY_OFFSET", .get, [.cluster],
                "how far each delay level is, for slaves"
            ) { $0.admin.delayOffsets },
        ]
    }

    /// Single messages.
    static var queryRows: [RequestRow] {
        [
            RequestRow(.queryMessage, "QUERY_MESSAGE", .get, [.topic("topic")], "messages by key or unique key") {
                $0.queries.query
            },
            RequestRow(
                .viewMessageByID, "VIEW_MESSAGE_BY_ID", .get, [.topic("topic")], "the message at an offset of the log"
            ) { $0.queries.view },
            RequestRow(
                .queryConsumeQueue, "QUERY_CONSUME_QUEUE", .get, [.topic("topic"), .group("consumerGroup")],
                "entries of a consume queue, and what a group's filter says of them"
            ) { $0.consumeStats.consumeQueue },
        ]
    }

    static var topicRows: [RequestRow] {
        [
            RequestRow(
                .updateAndCreateTopic, "UPDATE_AND_CREATE_TOPIC", .create, [.topic("topic")], refused: .tables,
                "makes or changes a topic"
            ) { $0.admin.updateTopic },
            RequestRow(
                .updateAndCreateTopicList, "UPDATE_AND_CREATE_TOPIC_LIST", .create, [.body], refused: .tables,
                "several at once (5.x)"
            ) { $0.admin.updateTopics },
            RequestRow(.getTopicConfig, "GET_TOPIC_CONFIG", .get, [.topic("topic")], "one topic (5.x)") {
                $0.admin.topicConfig
            },
            RequestRow(
                .deleteTopicInBroker, "DELETE_TOPIC_IN_BROKER", .delete, [.topic("topic")], refused: .tables,
                "deletes a topic with its messages and offsets"
            ) { $0.admin.deleteTopic },
            RequestRow(.getAllTopicConfig, "GET_ALL_TOPIC_CONFIG", .list, [.allTopics], "all topics, for slaves too") {
                processors in { processors.answers.answer(with: .topics, $0.asker) }
            },
            RequestRow(
                .getSystemTopicListFromBroker, "GET_SYSTEM_TOPIC_LIST_FROM_BROKER", .list, [.allTopics],
                "names of the broker's own topics"
            ) { $0.admin.systemTopics },
            RequestRow(
                .cleanUnusedTopic, "CLEAN_UNUSED_TOPIC", .delete, [.cluster], "deletes queues of topics that are gone"
            ) { $0.admin.cleanUnusedTopics },
        ]
    }

    static var groupRows: [RequestRow] {
        [
            RequestRow(
                .updateAndCreateSubscriptionGroup, "UPDATE_AND_CREATE_SUBSCRIPTIONGROUP", .update, [.body],
                refused: .tables, "makes or changes a consumer group"
            ) { $0.admin.updateGroup },
            RequestRow(
                .updateAndCreateSubscriptionGroupList, "UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST", .update, [.body],
                refused: .tables, "several at once (5.x)"
            ) { $0.admin.updateGroups },
            RequestRow(
                .getSubscriptionGroupConfig, "GET_SUBSCRIPTIONGROUP_CONFIG", .get, [.group("group")],
                "one group (5.x)"
            ) { $0.admin.groupConfig },
            RequestRow(
                .deleteSubscriptionGroup, "DELETE_SUBSCRIPTIONGROUP", .delete, [.group("groupName")], refused: .tables,
                "deletes a group, and its offsets if asked to"
            ) { $0.admin.deleteGroup },
            RequestRow(
                .getAllSubscriptionGroupConfig, "GET_ALL_SUBSCRIPTIONGROUP_CONFIG", .list, [.allGroups],
                "all groups, for slaves too"
            ) { processors in { processors.answers.answer(with: .subscriptionGroups, $0.asker) } },
        ]
    }

    /// The broker itself.
    static var brokerRows: [RequestRow] {
        [
            RequestRow(.getBrokerConfig, "GET_BROKER_CONFIG", .get, [.cluster], "the settings as they are now") {
                $0.admin.getConfig
            },
            RequestRow(.updateBrokerConfig, "UPDATE_BROKER_CONFIG", .update, [.cluster], "changes settings") {
                $0.admin.updateConfig
            },
            RequestRow(
                .getBrokerRuntimeInfo, "GET_BROKER_RUNTIME_INFO", .get, [.cluster], "counts, rates and times"
            ) { $0.admin.runtimeInformation },
            RequestRow(
                .cleanExpiredConsumeQueue, "CLEAN_EXPIRED_CONSUMEQUEUE", .update, [.cluster],
                "shortens queues to what the log holds"
            ) { $0.admin.cleanExpiredQueues },
            RequestRow(
                .deleteExpiredCommitLog, "DELETE_EXPIRED_COMMITLOG", .update, [.cluster], "deletes expired files now"
            ) { $0.admin.deleteExpiredLog },
            RequestRow(.getTimerCheckPoint, "TIMER_CHECKPOINT", .get, [.cluster], "how far the timer is (5.x)") {
                $0.admin.timerCheckpoint
            },
            RequestRow(
                .getTimerMetrics, "TIMER_METRICS", .get, [.cluster], "timer messages that wait, by topic (5.x)"
            ) { $0.admin.timerMetrics },
            RequestRow(.getBrokerHAStatus, "GET_BROKER_HA_STATUS", .get, [.cluster], "who follows, and how far (5.x)") {
                $0.admin.haStatus
            },
            RequestRow(
                .resetMasterFlushOffset, "RESET_MASTER_FLUSH_OFFSET", .update, [.cluster],
                "where a master's flushed log ends, told to its slave (5.x)"
            ) { $0.admin.resetMasterFlushOffset },
        ]
    }

    /// Tables of offsets and rates, for operators.
    static var statsRows: [RequestRow] {
        [
            RequestRow(.getTopicStatsInfo, "GET_TOPIC_STATS_INFO", .get, [.topic("topic")], "a topic's queues") {
                $0.consumeStats.topicStats
            },
            RequestRow(
                .getConsumeStats, "GET_CONSUME_STATS", .get, [.group("consumerGroup"), .topic("topic")],
                "a group's progress in each queue"
            ) { $0.consumeStats.consumeStats },
            RequestRow(
                .editMessage, "APUS_EDIT_MESSAGE", .update, [.topic("topic")], refused: .pop, hasMessageBody: true,
                "changes, withdraws, postpones or repeats a message (Apus's own)"
            ) { $0.edits.process },
            RequestRow(
                .getMessageStatus, "APUS_GET_MESSAGE_STATUS", .get, [.topic("topic"), .group("group")],
                refused: .claim,
                "what has become of a message for each group, and what it has been through (Apus's own)"
            ) { $0.status.status },
            RequestRow(
                .queryTopicConsumeByWho, "QUERY_TOPIC_CONSUME_BY_WHO", .get, [.topic("topic")],
                "the groups that consume a topic"
            ) { $0.consumeStats.consumedByWhom },
            RequestRow(
                .queryTopicsByConsumer, "QUERY_TOPICS_BY_CONSUMER", .get, [.group("group")],
                "the topics a group consumes (5.x)"
            ) { $0.consumeStats.topics },
            RequestRow(
                .querySubscriptionByConsumer, "QUERY_SUBSCRIPTION_BY_CONSUMER", .get,
                [.group("group"), .topic("topic")], "what a group subscribes to in a topic (5.x)"
            ) { $0.consumeStats.subscription },
            RequestRow(
                .queryConsumeTimeSpan, "QUERY_CONSUME_TIME_SPAN", .get, [.topic("topic"), .group("group")],
                "the times of a topic's first, last and next message"
            ) { $0.consumeStats.timeSpan },
            RequestRow(
                .getBrokerConsumeStats, "GET_BROKER_CONSUME_STATS", .get, [.cluster], "all groups' progress"
            ) { $0.consumeStats.brokerConsumeStats },
            RequestRow(
                .viewBrokerStatsData, "VIEW_BROKER_STATS_DATA", .get, [.cluster], "rates of the last minute, hour, day"
            ) { $0.consumeStats.stats },
        ]
    }
}
