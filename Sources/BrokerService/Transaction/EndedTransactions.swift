import MessageStore
import RemotingProtocol
import StoreFormat

/// What the log knows of transactions that are open no longer: whoever says the outcome of one that was put aside is still
/// heard, as by Apache, but only the first time.
struct EndedTransactions {
    enum Standing: Equatable {
        /// It has had its outcome.
        case ended
        /// It lies in `TRANS_CHECK_MAX_TIME_TOPIC`, and nobody has said an outcome since.
        case putAside
        /// It lies there; there is no index that would tell whether it has had an outcome since.
        case unknown
    }

    /// Put aside messages looked at when there is no index.
    static let scanMax: Int64 = 1000

    private unowned let broker: Broker

    init(_ broker: Broker) { self.broker = broker }

    /// - Parameters:
    ///   - half: any copy of it.
    ///   - uniqueKey: its `UNIQ_KEY`, if it has one.
    ///   - realTopic: where it was sent to.
    func standing(of half: HalfMessage, uniqueKey: String?, realTopic: String) -> Standing {
        guard let aside = broker.store.consumeQueue(topic: TopicNames.transactionCheckMaxTime, queueId: 0),
            aside.maxOffset > aside.minOffset
        else { return .ended }
        guard let uniqueKey, broker.store.configuration.messageIndexEnable else {
            let last = aside.maxOffset.rawValue
            let from = QueueOffset(max(aside.minOffset.rawValue, last - Self.scanMax))
            let isAside = broker.store.entries(aside, from: from, maxCount: Int(Self.scanMax)).contains { entry in
                let range = LogRange(start: entry.physicalOffset, length: Int(entry.recordSize), count: 1)
                return see(range) { HalfMessage($0).identity == half.identity }
            }
            return isAside ? .unknown : .ended
        }
        guard finds(TopicNames.transactionCheckMaxTime, uniqueKey, { HalfMessage($0).identity == half.identity }),
            !wasEndedAside(uniqueKey)
        else { return .ended }
        // Resumed and committed then, or a kill came between the message and its mark.
        let isDelivered = [realTopic, TopicNames.schedule, TimerMessageStore.topic].contains { topic in
            finds(topic, uniqueKey) { record in
                SysFlag.transactionValue(record.sysFlag) == SysFlag.transactionCommitType
                    && HalfMessage(record).identity == half.identity
            }
        }
        return isDelivered ? .ended : .putAside
    }

    /// Whether an outcome has come after it was put aside: such op messages carry its unique key.
    func wasEndedAside(_ uniqueKey: String) -> Bool { finds(TopicNames.opHalf, uniqueKey) { _ in true } }

    private func finds(_ topic: String, _ key: String, _ isIt: (CommitLogRecordView) -> Bool) -> Bool {
        let found = broker.store.queryMessage(
            topic: topic, key: key, maxCount: broker.store.configuration.maxMsgsNumBatch, begin: 0, end: Int64.max)
        return found.records.contains { see($0, isIt) }
    }

    private func see(_ range: LogRange, _ isIt: (CommitLogRecordView) -> Bool) -> Bool {
        broker.store.withBytes(range) { bytes in
            guard case .record(let record) = CommitLogRecord.parse(bytes) else { return false }
            return isIt(record)
        } ?? false
    }
}
