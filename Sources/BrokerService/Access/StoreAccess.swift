import Glibc
import Logging
import MessageModel
import MessageStore
import RemotingProtocol
import StoreFormat

/// The store with what stands before and after it: admission, acknowledgements, counts. Made once by `Broker`;
/// confined to its event loop.
final class StoreAccess {
    private let environment: BrokerEnvironment
    private let tables: BrokerTables
    let store: MessageStore
    /// Answers sends when what they promise holds.
    let gate: AckGate
    /// What is refused at the moment, and why.
    let admission: Admission
    var statistics: BrokerStatistics
    let stats: StatsTable

    init(
        _ environment: BrokerEnvironment, _ tables: BrokerTables, _ store: MessageStore, _ gate: AckGate,
        _ admission: Admission
    ) {
        self.environment = environment
        self.tables = tables
        self.store = store
        self.gate = gate
        self.admission = admission
        statistics = BrokerStatistics(bootMilliseconds: environment.now())
        stats = StatsTable(now: environment.now())
    }

    func scheduleTick() { environment.scheduleTick() }

    /// Stores a message of the broker's own.
    func storeOwn(topic: String, queueID: Int32, properties: PropertyList, body: [UInt8]) {
        let time = environment.now()
        let outcome = Array(topic.utf8).withUnsafeBytes { topic in
            properties.bytes.withUnsafeBytes { properties in
                body.withUnsafeBytes { body in
                    var draft = MessageDraft(
                        topic: topic, queueID: queueID, bornHost: environment.storeHost,
                        storeHost: environment.storeHost, body: body)
                    draft.bornTimestamp = time
                    draft.properties = properties
                    return store.append(draft)
                }
            }
        }
        if case .refused(let refusal) = outcome {
            environment.logger.warning(
                "the broker's own message for topic \(topic) was not stored and is lost: \(refusal)")
        }
        environment.scheduleTick()
    }

    /// Stores a record again under other properties, delayed if they ask for it.
    func append(
        _ record: CommitLogRecordView, to topic: String, queueID: Int32, properties: PropertyList,
        _ adjust: (inout MessageDraft) -> Void
    ) -> AppendOutcome {
        var topic = topic
        var queueID = queueID
        var properties = properties
        if let wanted = properties[PropertyName.delayLevel].flatMap({ Int($0) }), wanted > 0 {
            // Not 0, whatever the setting: queue -1 has no readers.
            let level = max(1, min(wanted, environment.delayLevels.count))
            properties[PropertyName.delayLevel] = String(level)
            properties[PropertyName.realTopic] = topic
            properties[PropertyName.realQueueID] = String(queueID)
            topic = TopicNames.schedule
            queueID = Int32(level - 1)
        } else if record.topic.matches(KnownTopic.half),
            case .at(let due) = properties.timerRequest(
                now: environment.now(), maxDelay: environment.timerSettings.maxDelay)
        {
            properties.makeTimer(due: due, topic: topic, queueID: queueID)
            topic = TopicNames.timer
            queueID = 0
        }
        let isDelayed = topic == TopicNames.schedule
        let waits = isDelayed || topic == TopicNames.timer
        return Array(topic.utf8).withUnsafeBytes { topic in
            properties.bytes.withUnsafeBytes { properties in
                var draft = MessageDraft(copyOf: record, topic: topic, queueID: queueID, properties: properties)
                adjust(&draft)
                if waits { draft.growth = 0 }
                let outcome = store.append(draft)
                if case .appended(let result) = outcome {
                    tables.topics[UnsafeRawBufferPointer(topic)]?.count(1, bytes: result.size, in: stats)
                    if isDelayed { stats.delayed(queueID: queueID, bytes: result.size) }
                }
                return outcome
            }
        }
    }

    /// Whether the queue's first message is so far behind the log's end that a slave should serve it
    /// (RocketMQ's `checkInDiskByConsumeOffset` of offset 0).
    func isFirstMessageOnDisk(_ queue: ConsumeQueue?) -> Bool {
        guard let queue, let first = store.firstPlace(queue, at: QueueOffset(0)) else { return false }
        let memory = Int64(sysconf(Int32(_SC_PHYS_PAGES))) * Int64(sysconf(Int32(_SC_PAGESIZE)))
        let inMemory = memory / 100 * Int64(store.configuration.accessMessageInMemoryMaxRatio)
        return store.writtenOffset.rawValue - first.rawValue > inMemory
    }
}
