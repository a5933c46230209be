import MessageModel
import RemotingProtocol
import StoreFormat

/// What becomes of a message a group could not consume.
extension PropertyList {
    /// Those of a record that is stored again for its group.
    /// - Parameter origin: the topic it was sent to, if the record does not state it.
    init(sentBack record: CommitLogRecordView, from origin: String) {
        self.init(record.properties)
        if self[PropertyName.retryTopic] == nil { self[PropertyName.retryTopic] = origin }
        self[PropertyName.waitStoreMsgOK] = "false"
        if self[PropertyName.originMessageID] == nil {
            self[PropertyName.originMessageID] = OffsetMessageID.text(
                host: record.storeHost, physicalOffset: record.physicalOffset.rawValue)
        }
    }

    /// A dead letter waits for nothing.
    mutating func waitForNothing() {
        for name in TimerProperties.requests { self["\(name)"] = nil }
        self[PropertyName.delayLevel] = "0"
    }
}
