import FastJSON
import MessageModel
import MessageStore
import RemotingProtocol
import SettingTable
import StoreFormat

/// The tables on their way to disk and to those who ask for all of one.
extension Broker {
    /// Changes of one tick go to disk together; the answers that depend on them wait (`TableKeeper`, `AckGate`).
    func persistConfigurationChanges() {
        if topics.isDirty { persist(.topics) }
        if groups.isDirty { persist(.subscriptionGroups) }
        if changedSettings.isDirty { persist(.changedSettings) }
    }

    /// Groups that come one after the other are written together, and so is the list of topics for the platform's other brokers, which
    /// nobody waits for.
    func persistNewGroups() {
        if autoCreated.isDirty { persist(.autoCreatedTopics) }
        if topics.isDirtyLater { persist(.topics) }
        if groups.isDirtyLater { persist(.subscriptionGroups) }
    }

    /// Has a table written; one of those that change all the time only if it has changed. A failure is logged and tried again every
    /// few seconds until it works.
    func persist(_ file: ConfigurationFile) {
        switch file {
        case .changedSettings: changedSettings.markWritten()
        case .topics: topics.markWritten()
        case .subscriptionGroups: groups.markWritten()
        case .autoCreatedTopics: autoCreated.markWritten()
        case .consumerOffsets:
            guard offsets.isDirty || keeper.failure(file) != nil, !keeper.isBusy(file) else { return }
            offsets.markWritten()
        case .delayOffsets:
            guard schedule.isDirty || keeper.failure(file) != nil, !keeper.isBusy(file) else { return }
        case .timerMetrics:
            guard timerMessages.metrics.isDirty || keeper.failure(file) != nil, !keeper.isBusy(file) else { return }
            timerMessages.metrics.markWritten()
        }
        keeper.write(file)
    }

    /// Answers once every change of a table so far is on disk; a failure is answered in its place.
    func answerWhenKept(_ address: ReturnAddress, _ client: ClientContext, _ answer: @escaping () -> Void) {
        persistConfigurationChanges()
        keeper.whenKept { failure in
            guard let failure else { return answer() }
            client.answer(
                address, .systemError,
                remark: "changed in memory, but not kept for the next start: \(failure); free the disk and say it again"
            )
        }
    }

    /// The first so many topics are on disk, or could not be put there.
    func topicsWritten(_ made: Int64, _ failure: String?) {
        if let failure {
            gate.topicsNotKept(upTo: made, failure)
        } else {
            topics.keptOnDisk(made)
            gate.topicsKept(to: topics.kept)
        }
        scheduleTick()
    }

    /// Between two tries of writing the topics because somebody sends to a new one.
    private static let topicsRetryMillis: Int64 = 500

    /// Why nothing may be promised of a topic: it is new, and its table could not be written. `nil` when the topic is on disk, or
    /// on its way there: then the acknowledgement waits (`AckGate`).
    func reasonNotKept(_ topic: TopicEntry) -> String? {
        guard topic.madeAt > topics.kept, let failure = keeper.failure(.topics) else { return nil }
        // There may be room again: the sender's next try shall find the topic on disk.
        let time = now()
        if abs(time -| topicsTriedMillis) >= Self.topicsRetryMillis, !keeper.isBusy(.topics) {
            topicsTriedMillis = time
            persist(.topics)
        }
        return "the topic[\(topic.name)] is new and could not be put on disk: \(failure)"
    }

    // MARK: Contents

    /// Hands over what makes a table's text on another thread; a large table is copied in slices first.
    func copy(_ file: ConfigurationFile, _ done: @escaping (@escaping @Sendable () -> JSONValue) -> Void) {
        switch file {
        case .topics: topics.copied(in: slices) { table in done { table.json } }
        case .subscriptionGroups: groups.copied(in: slices) { table in done { table.json } }
        case .consumerOffsets: offsets.copied(in: slices) { table in done { ConsumerOffsetManager.json(table) } }
        case .autoCreatedTopics:
            let copy = autoCreated
            done { copy.json }
        case .changedSettings, .delayOffsets, .timerMetrics:
            let json = json(file)
            done { json }
        }
    }

    /// The same at once.
    func json(_ file: ConfigurationFile) -> JSONValue {
        switch file {
        case .changedSettings: return changedSettings.json
        case .topics: return topics.json
        case .subscriptionGroups: return groups.json
        case .consumerOffsets: return offsets.json
        case .autoCreatedTopics: return autoCreated.json
        case .timerMetrics: return timerMessages.metrics.json(topics, forFile: true)
        case .delayOffsets:
            defer { schedule.markWritten() }
            return schedule.durableJSON(flushed: store.flushedOffset.rawValue, logEnd: store.writtenOffset.rawValue)
        }
    }
}
