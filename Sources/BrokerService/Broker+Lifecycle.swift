import FastJSON
import LinuxSystem
import Logging
import MessageModel
import MessageStore
package import NIOCore
import RemotingProtocol
package import RemotingTransport
import SettingTable
import StoreFormat
package import WorkerProtocol

extension Broker {
    /// Files under `storePathRootDir/config`, by RocketMQ's names.
    enum ConfigurationFile: String, CaseIterable {
        /// Apus's own, and the first to be loaded: the others may depend on it.
        case changedSettings = "changedSettings.json"
        case topics = "topics.json"
        case subscriptionGroups = "subscriptionGroup.json"
        case consumerOffsets = "consumerOffset.json"
        case delayOffsets = "delayOffset.json"
        case timerMetrics = "timermetrics"
        /// Apus's own.
        case autoCreatedTopics = "autoCreatedTopics.json"
    }

    static let maintenanceMillis: Int64 = 100
    static let clientScanMillis: Int64 = 10_000
    static let newGroupsMillis: Int64 = 1000
    static let delayOffsetMillis: Int64 = 10_000

    // MARK: Starting

    /// Loads the tables, then opens (and if need be recovers) the store.
    package func open() throws(BrokerError) {
        for file in ConfigurationFile.allCases { try load(file) }
        gate.topicsKept(to: topics.kept)
        do throws(StoreError) {
            store.retentionHolds = kinds.retentionHolds
            try store.open(storeEvents)
        } catch {
            throw .store(error)
        }
        try kinds.prepare()
    }

    /// Begins to serve: timers, delayed delivery, registration. The transport may have frames at once.
    package func start() {
        every(Self.maintenanceMillis, "maintenance of the store") { $0.store.runMaintenance() }
        every(configuration.flushConsumerOffsetInterval, "copying changed tables") { broker in
            broker.persist(.consumerOffsets)
            broker.persist(.timerMetrics)
            let unwritten = broker.keeper.failed
            for file in unwritten where file != .consumerOffsets { broker.persist(file) }
        }
        every(Self.delayOffsetMillis, "copying delay offsets") { $0.persist(.delayOffsets) }
        every(Self.clientScanMillis, "looking for silent clients") { $0.dropExpiredClients() }
        every(Self.newGroupsMillis, "copying new groups") { $0.persistNewGroups() }
        every(StatsTable.sampleIntervalMillis, "sampling statistics") { broker in
            broker.statistics.sample(now: broker.now())
            broker.stats.sample(now: broker.now())
        }
        kinds.start()
        registration.start()
    }

    private func every(_ millis: Int64, _ name: String, _ work: @escaping (Broker) -> Void) {
        let this = NIOLoopBound((self, work), eventLoop: eventLoop)
        let interval = TimeAmount.milliseconds(millis)
        timers.append(
            eventLoop.scheduleRepeatedTask(initialDelay: interval, delay: interval) { _ in
                this.value.0.measured(name) { this.value.1(this.value.0) }
            })
    }

    private func dropExpiredClients() {
        consumerNotices.sayOmitted(logger)
        expected = [:]
        let time = now()
        for info in consumers.expired(now: time) + producers.expired(now: time) {
            logger.warning("client \(info.clientId) at \(info.client.address) has not been heard of for 120 s")
            info.client.connection.close(reason: "no heartbeat for 120 s")
        }
        var left = locks.groups[...]
        let slice = { [self] () -> Bool in
            let some = left.prefix(RebalanceLockManager.groupsPerSlice)
            left = left.dropFirst(some.count)
            for group in locks.removeExpired(in: some, now: time) { rebalance(group) }
            return !left.isEmpty
        }
        if slice() { slices.add(slice) }
    }

    // MARK: Tables on disk

    func path(_ file: ConfigurationFile) -> String {
        store.configuration.configPath + "/" + file.rawValue
    }

    private func load(_ file: ConfigurationFile) throws(BrokerError) {
        let path = path(file)
        let metadata = MetadataFile(path: path, disk: disk)
        do {
            switch try metadata.load(quality: { file.quality(of: $0) }) {
            case .absent: break
            case .empty(let reason):
                logger.error(
                    "\(reason), and so is its backup, if there is one: the broker begins without it; if it held something, stop the broker and restore it"
                )
            case .current(let bytes): try take(file, bytes)
            case .backup(let bytes, let reason):
                logger.error("\(reason); its backup is used, and what was changed after that is lost")
                try take(file, bytes)
                restore(metadata, bytes)
            }
        } catch {
            guard file != .timerMetrics else {
                // Counts for display: nobody is kept from starting by them.
                logger.warning("\(path) is not usable: \(error); timer messages are counted anew")
                return
            }
            throw .metadata(path: path, reason: "\(error)")
        }
    }

    /// A disk that is full at the start keeps nobody from starting: the backup is still there.
    private func restore(_ metadata: MetadataFile, _ bytes: [UInt8]) {
        do throws(StoreError) {
            try metadata.restore(bytes)
        } catch {
            logger.error("\(metadata.path) could not be written anew: \(error)")
        }
    }

    private func take(_ file: ConfigurationFile, _ bytes: [UInt8]) throws {
        let json = try JSONValue(parsing: bytes)
        var refused: [RefusedEntry] = []
        switch file {
        case .changedSettings: load(changedSettings: json)
        case .topics: refused = try topics.load(json)
        case .subscriptionGroups: refused = try groups.load(json)
        case .consumerOffsets:
            refused = try offsets.load(json)
            offsets.markWritten()
        case .delayOffsets:
            refused = try schedule.load(json)
            schedule.markWritten()
        case .timerMetrics: try timerMessages.metrics.load(json, topics)
        case .autoCreatedTopics: autoCreated.load(json)
        }
        if !refused.isEmpty { putAside(refused, of: file) }
    }

    /// What is left out of a table is kept beside it, for an operator; the table's next write does not have it any more.
    private func putAside(_ refused: [RefusedEntry], of file: ConfigurationFile) {
        let aside = path(file) + ".refused"
        do throws(StoreError) {
            try MetadataFile(path: aside, disk: disk).save(refused.json.bytes(.pretty))
        } catch {
            logger.error("\(aside) could not be written: \(error)")
        }
        logger.error(
            "\(refused.count) entries of \(path(file)) are none and are left out: \(refused.summary); they stand in \(aside), put them right and make them again (mqadmin), or delete it"
        )
    }

    // MARK: Changes of operators

    func delete(topic: String) {
        if let entry = topics[topic] {
            // Statistics of a topic that is not there any more are not asked for; they may go later.
            TableCopy.make(in: slices, table: { self.groups.table }, { $0.forget(topic: entry) }, then: { _ in })
            stats.forget(topic: topic)
        }
        topics.delete(topic)
        autoCreated.remove(topic)
        offsets.remove(topic: topic, in: slices)
        hold.expire(at: store.removeTopic(topic))
    }

    /// Topics looked at, and queues removed, in one slice.
    private static let unusedPerSlice = 1024

    /// Removes queues of topics that exist no more, in slices.
    func removeUnusedTopics(for client: ClientContext, then: @escaping () -> Void) {
        var names = store.topicsWithQueues[...]
        inSlices(for: client) { [self] in
            var budget = Self.unusedPerSlice
            while budget > 0, let name = names.popFirst() {
                budget -= 1
                guard topics[name] == nil, !topics.isSystemTopic(name) else { continue }
                let removed = store.removeTopic(name)
                budget -= removed.count
                hold.expire(at: removed)
            }
            return !names.isEmpty
        } then: { [self] in
            store.whenRemoved(then)
        }
    }

    // MARK: Stopping

    /// Takes no more messages, answers whoever waits, writes everything down and closes the store.
    ///
    /// - Parameters:
    ///   - reason: whether name servers are told.
    ///   - stopReading: from now on the transport leaves requests unread; what it has read is answered.
    ///   - close: ends the transport's connections, or gives them to the next life.
    package func drain(
        _ reason: DrainReason = .leave, stopReading: (() -> Void)? = nil, close: @escaping () -> EventLoopFuture<Void>
    ) -> EventLoopFuture<Void> {
        let this = NIOLoopBound(self, eventLoop: eventLoop)
        let boundClose = NIOLoopBound(close, eventLoop: eventLoop)
        let boundStop = NIOLoopBound(stopReading, eventLoop: eventLoop)
        // Who may still be heard is refused; else nobody is, and nobody needs to be.
        isDraining = stopReading == nil
        return registration.end(reason).flatMap {
            let broker = this.value
            boundStop.value?()
            broker.isDraining = true
            broker.kinds.stop()
            broker.hold.expireAllNow()
            broker.endOfTick()
            return broker.acknowledgementsDone()
        }.flatMap {
            this.value.keeper.finish()
        }.flatMap {
            // Answers that other threads work on are given before their connections go.
            this.value.textsDone()
        }.flatMap {
            this.value.gate.close()
            return boundClose.value()
        }.flatMapThrowing {
            let broker = this.value
            for timer in broker.timers { timer.cancel() }
            broker.timers = []
            broker.filters.close()
            broker.persistConfigurationChanges()
            broker.persistNewGroups()
            try broker.store.close()
            // Now everything is flushed, so that all of it counts.
            broker.kinds.closed()
            broker.persist(.consumerOffsets)
            broker.persist(.delayOffsets)
            broker.persist(.timerMetrics)
        }
    }

    /// Whether messages of this connection wait for disk or slave.
    package static func owes(_ connection: RemotingConnection) -> Bool {
        ((connection.context as? ClientContext)?.waitingAcknowledgements ?? 0) > 0
    }

    /// Waits until the texts asked for are made; their thread ends.
    private func textsDone() -> EventLoopFuture<Void> {
        let done = eventLoop.makePromise(of: Void.self)
        textWork.submit({}) { done.succeed() }
        return done.futureResult.assumeIsolated().map { [self] in textWork.stop() }.nonisolated()
    }

    /// Waits, for the time their senders wait at most, until everything accepted is on disk and at the slave.
    private func acknowledgementsDone() -> EventLoopFuture<Void> {
        guard !gate.isEmpty else { return eventLoop.makeSucceededVoidFuture() }
        let done = eventLoop.makePromise(of: Void.self)
        let deadline = now() + max(configuration.syncFlushTimeout, configuration.slaveTimeout)
        let this = NIOLoopBound(self, eventLoop: eventLoop)
        eventLoop.scheduleRepeatedTask(initialDelay: .milliseconds(5), delay: .milliseconds(5)) { task in
            let broker = this.value
            guard broker.gate.isEmpty || broker.now() >= deadline else { return }
            task.cancel()
            done.succeed()
        }
        return done.futureResult
    }
}
