import MessageModel
import MessageStore
import RemotingProtocol
import StoreFormat

/// What the log contains of transactions that are open no longer. An outcome of one that was parked is still accepted,
/// as by Apache, but only the first time.
struct EndedTransactions {
    enum Standing: Equatable {
        /// It has had its outcome.
        case ended
        /// It lies in `TRANS_CHECK_MAX_TIME_TOPIC`, and no producer has sent an outcome since.
        case putAside
        /// It lies there; whether it has had an outcome since is unknown: there is no index, or too many share its
        /// unique key.
        case unknown
    }

    /// Parked messages looked at when there is no index.
    static let scanMax: Int64 = 1000
    /// Their bytes, after which it is unknown: one request looks at them in one turn of the loop.
    static let scanBytes = 16 << 20
    /// Messages of one unique key looked at.
    static let sameKeyMax = 4096

    private let storage: StoreAccess

    init(_ storage: StoreAccess) { self.storage = storage }

    /// - Parameters:
    ///   - half: any copy of it.
    ///   - uniqueKey: its `UNIQ_KEY`, if it has one.
    ///   - realTopic: where it was sent to.
    func standing(of half: HalfMessage, uniqueKey: String?, realTopic: String) -> Standing {
        guard let aside = storage.store.consumeQueue(topic: TopicNames.transactionCheckMaxTime, queueID: 0),
            aside.maxOffset > aside.minOffset
        else { return .ended }
        guard let uniqueKey, storage.store.configuration.messageIndexEnable else {
            let last = aside.maxOffset.rawValue
            let from = QueueOffset(max(aside.minOffset.rawValue, last - Self.scanMax))
            var bytes = 0
            let isAside = storage.store.entries(aside, from: from, maxCount: Int(Self.scanMax)).contains { entry in
                let range = LogRange(start: entry.physicalOffset, length: Int(entry.recordSize), count: 1)
                bytes += range.length
                return bytes > Self.scanBytes || see(range) { HalfMessage($0).isCopy(of: half) }
            }
            return isAside ? .unknown : .ended
        }
        switch find(TopicNames.transactionCheckMaxTime, uniqueKey, { HalfMessage($0).isCopy(of: half) }) {
        case .none: return .ended
        case .unknown: return .unknown
        case .found: break
        }
        switch wasEndedAside(uniqueKey, half) {
        case .found: return .ended
        case .unknown: return .unknown
        case .none: break
        }
        // Resumed and committed then, or a kill came between the message and its mark.
        for topic in [realTopic, TopicNames.schedule, TopicNames.timer, TopicNames.undeliverable] {
            switch find(topic, uniqueKey, { isDelivery($0, of: half) }) {
            case .found: return .ended
            case .unknown: return .unknown
            case .none: continue
            }
        }
        return .putAside
    }

    /// Whether an outcome has come after it was parked: such op messages carry its unique key.
    func wasEndedAside(_ uniqueKey: String, _ half: HalfMessage) -> MessageSearch {
        find(TopicNames.opHalf, uniqueKey) { record in
            guard half.isOriginKnown, let origin = record.property(PropertyName.halfOffset) else { return true }
            return TimerProperties.integer(origin) == half.origin
        }
    }

    /// A committed message contains where its half message lies.
    private func isDelivery(_ record: CommitLogRecordView, of half: HalfMessage) -> Bool {
        guard SysFlag.transactionValue(record.sysFlag) == SysFlag.transactionCommitType else { return false }
        let place = PhysicalOffset(record.preparedTransactionOffset)
        guard let range = storage.store.lookMessage(at: place) else { return HalfMessage(record).isCopy(of: half) }
        return see(range) { HalfMessage($0).isCopy(of: half) }
    }

    private func find(_ topic: String, _ key: String, _ isIt: (CommitLogRecordView) -> Bool) -> MessageSearch {
        storage.store.findMessage(topic: topic, key: key, atMost: Self.sameKeyMax) { see($0, isIt) }
    }

    private func see(_ range: LogRange, _ isIt: (CommitLogRecordView) -> Bool) -> Bool {
        storage.store.withBytes(range) { bytes in
            guard case .record(let record) = CommitLogRecord.parse(bytes) else { return false }
            return isIt(record)
        } ?? false
    }
}

/// An outcome that came after the message was parked, as its op message notes it.
struct LateOutcome {
    var uniqueKey: String
    /// `HalfMessage.origin`.
    var origin: Int64

    /// With the separator before them.
    var properties: String {
        "\u{2}\(PropertyName.uniqueKey)\u{1}\(uniqueKey)\u{2}\(PropertyName.halfOffset)\u{1}\(origin)"
    }
}
