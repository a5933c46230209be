import MessageModel

/// Properties that are no business of HTTP's clients.
enum Properties {
    private static let names: Set<String> = Set(
        [
            PropertyName.keys, PropertyName.tags, PropertyName.uniqueKey, PropertyName.delayLevel,
            PropertyName.waitStoreMsgOK, PropertyName.retryTopic, PropertyName.originMessageID, PropertyName.isPrepared,
            PropertyName.shardingKey, PropertyName.producerGroup, PropertyName.cluster, PropertyName.region,
            PropertyName.traceSwitch, PropertyName.recordCRC, PropertyName.instanceID, PropertyName.minOffset,
            PropertyName.maxOffset, PropertyName.reconsumeTime, PropertyName.maxReconsumeTimes,
            PropertyName.consumeStartTime, PropertyName.popHandle, PropertyName.firstPopTime,
            PropertyName.innerMultiDispatch, PropertyName.innerMultiQueueOffset, PropertyName.innerNum,
            PropertyName.transactionCheckTimes, PropertyName.checkImmunityTime, PropertyName.preparedQueueOffset,
            PropertyName.transactionID, PropertyName.bornTimestamp,
        ].map { "\($0)" })
    private static let prefixes = [
        "\(PropertyName.realPrefix)", "\(PropertyName.timerPrefix)", "\(PropertyName.apusPrefix)",
    ]

    /// RocketMQ's clients refuse such names, too; and brokers add them.
    static func isReserved(_ name: String) -> Bool {
        names.contains(name) || prefixes.contains { name.hasPrefix($0) }
    }
}
