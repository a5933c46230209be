package import MessageModel
package import StoreFormat

/// A message to append. The pointers need to be valid only during the call.
package struct MessageDraft {
    /// UTF-8, 1...127 bytes.
    package var topic: UnsafeRawBufferPointer
    /// From 0 on.
    package var queueID: Int32
    /// The client's own; stored as it is.
    package var flag: Int32 = 0
    /// The address family bits are set by the store from the hosts.
    package var sysFlag: Int32 = 0
    /// Milliseconds since 1970.
    package var bornTimestamp: Int64 = 0
    /// Of the client.
    package var bornHost: HostAddress
    /// Of this broker.
    package var storeHost: HostAddress
    /// How often a consumer has sent it back.
    package var reconsumeTimes: Int32 = 0
    /// Of a committed message: where its half message lies.
    package var preparedTransactionOffset: Int64 = 0
    /// Encoded properties as received …
    package var properties = UnsafeRawBufferPointer(start: nil, count: 0)
    /// … and more to put after them; a separator is added between the two when there is none.
    package var propertiesSuffix = UnsafeRawBufferPointer(start: nil, count: 0)
    /// A waiting message that is stored again where it was sent to. It is taken although the disk is fuller than
    /// `diskSpaceWarningLevelRatio` and `diskReservedBytes` allow, as long as the disk takes bytes at all. Only so what
    /// holds old log files (`RetentionHold`) releases them.
    package var mayUseReserve = false
    /// The log holds this body already: `maxMessageSize`, which may have been lowered since, is for what clients send.
    package var isCopy = false
    /// Set for a message that waits and will be stored again under another topic: how many bytes of properties may be
    /// added until then. It is refused unless the store can hold that record too.
    package var growth: Int?
    /// The body; for `appendBatch` the encoded messages.
    package var body: UnsafeRawBufferPointer

    /// A message of these; all else is empty or 0.
    package init(
        topic: UnsafeRawBufferPointer, queueID: Int32, bornHost: HostAddress, storeHost: HostAddress,
        body: UnsafeRawBufferPointer
    ) {
        self.topic = topic
        self.queueID = queueID
        self.bornHost = bornHost
        self.storeHost = storeHost
        self.body = body
    }

    /// What the log holds already, stored again elsewhere: body, hosts, flags, time of birth and times sent back are
    /// the record's. The record must not lie in the log itself, which is written meanwhile.
    package init(
        copyOf record: CommitLogRecordView, topic: UnsafeRawBufferPointer, queueID: Int32,
        properties: UnsafeRawBufferPointer
    ) {
        self.init(
            topic: topic, queueID: queueID, bornHost: record.bornHost, storeHost: record.storeHost, body: record.body)
        flag = record.flag
        // The copy of a newer version is a message like others.
        sysFlag = record.isEdit ? record.sysFlag & ~SysFlag.transactionRollbackType : record.sysFlag
        bornTimestamp = record.bornTimestamp
        reconsumeTimes = record.reconsumeTimes
        self.properties = properties
        isCopy = true
    }
}
