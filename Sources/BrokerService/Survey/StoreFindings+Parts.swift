import MessageModel

extension StoreFindings {
    /// What a part of RocketMQ's means for an operator who moves over.
    mutating func note(_ part: ForeignPart) {
        switch part {
        case .dledger(let folders):
            decide(
                "messages lie in DLedger's log (\(Self.some(folders))), which Apus does not read", for: [.apus],
                "let consumers finish them with RocketMQ, then move the rest over")
        case .rocksDB(let folders):
            decide(
                """
                RocksDB holds what Apus keeps in files (\(Self.some(folders))): queues, offsets or topics would be \
                missing
                """,
                for: [.apus],
                "in RocketMQ, go back to files first: rocksdbCQDoubleWriteEnable=true and mqadmin rocksDBConfigToJson, "
                    + "then storeType=default"
            )
        case .compaction(let topics):
            decide(
                "topics with cleanup.policy=COMPACTION (\(Self.some(topics))) keep the newest message of each key in "
                    + "RocketMQ; Apus deletes all messages by age (fileReservedTime)", for: [.apus],
                "leave these topics with RocketMQ, or raise fileReservedTime")
        case .batchQueues(let topics):
            decide(
                "topics with queue.type=BatchCQ (\(Self.some(topics))) have queues Apus does not read", for: [.apus],
                "let consumers finish them with RocketMQ first")
        case .staticTopics(let topics):
            decide(
                "static topics (\(Self.some(topics))): Apus has no logical queues, consumers see the broker's own and "
                    + "begin at their offsets",
                for: [.apus], "let consumers finish these topics with RocketMQ, then make them anew in Apus")
        case .pop(let groups, let unrevived):
            note(
                "POP consumers (\(groups.isEmpty ? "groups unknown" : Self.some(groups))): the first start of Apus "
                    + "reads RocketMQ's revive log, of which \(unrevived) entries are not worked off, and what waits "
                    + "for it among the timer messages. What was popped and not acknowledged comes again when its "
                    + "time is over",
                for: [.apus])
        case .queueExtensions:
            decide(
                "there are queue extensions (consumequeue_ext, enableConsumeQueueExt): Apus's filters do not find the "
                    + "tags of messages in them",
                for: [.apus], "let consumers with tags finish these messages with RocketMQ first")
        case .tieredStore:
            decide(
                "older messages lie in a tiered storage, which Apus does not read", for: [.apus],
                "let consumers finish them with RocketMQ first")
        case .longTopics(let topics):
            decide(
                "topics of more than \(TopicName.bytesMax) bytes (\(Self.some(topics))): RocketMQ 4.x takes their "
                    + "first record for the log's end and cuts off what follows",
                for: [.rocketMQ4], "go back to RocketMQ 5.x")
            decide(
                "topics of more than \(TopicName.bytesMax) bytes (\(Self.some(topics))) can be consumed in Apus, but "
                    + "not sent to", for: [.apus],
                "let producers use shorter names")
        }
    }
}
