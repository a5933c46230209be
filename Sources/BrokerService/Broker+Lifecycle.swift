import Claims
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
    static let maintenanceMilliseconds: Int64 = 100
    static let clientScanMilliseconds: Int64 = 10_000
    static let newGroupsMilliseconds: Int64 = 1000
    static let delayOffsetMilliseconds: Int64 = 10_000
    static let claimsMilliseconds: Int64 = 1000

    // MARK: - Starting

    /// Loads the tables, then opens (and if need be recovers) the store.
    ///
    /// - Parameter platform: outlives the broker, which does not own it.
    /// - Throws: `BrokerError`: a table or the store cannot be used.
    package func open(on platform: any BrokerPlatform) throws(BrokerError) {
        environment.attach(platform)
        try files.load()
        for topic in topics.all {
            for problem in TopicPolicy.problems(in: topic.config.attributes) {
                logger.warning("an attribute of topic \(topic.name) in topics.json has no effect: \(problem)")
            }
        }
        gate.topicsKept(to: topics.kept)
        do throws(StoreError) {
            store.retentionHolds = kinds.retentionHolds
            try store.open(storeEvents)
        } catch {
            throw .store(error)
        }
        try kinds.prepare()
        takeEarlyTables()
        // A slave's folder of claims is filled with its master's files.
        guard claimsReplica == nil else { return }
        let takeover = PopTakeover(environment, tables, store)
        // A slave's master does it, and its offsets come here.
        if !configuration.isSlave { takeover.read(delivered: kinds.timers.progress) }
        do throws(ClaimError) {
            try claims.open(takingOver: takeover.places) { topics[$0] != nil }
        } catch {
            throw .claims(error)
        }
        takeover.commit()
        // Where groups begin and what was read of RocketMQ's log are on disk together, before anything else happens.
        // So are offsets that were ahead of the log or of the claims: the next start would take them for true.
        if takeover.hasRead || claims.hasLowered { try keeper.keep(.consumerOffsets) }
        do throws(ClaimError) { try claims.store.mirrorTaken() } catch { throw .claims(error) }
    }

    /// Begins to serve: timers, delayed delivery, registration. The transport may have frames at once.
    package func start() {
        every(Self.maintenanceMilliseconds, "maintenance of the store") { $0.store.runMaintenance() }
        every(configuration.flushConsumerOffsetInterval, "copying changed tables") { $0.keeper.persistPeriodic() }
        every(Self.delayOffsetMilliseconds, "copying delay offsets") { $0.keeper.persist(.delayOffsets) }
        every(Self.clientScanMilliseconds, "looking for silent clients") { $0.dropExpiredClients() }
        every(Self.newGroupsMilliseconds, "copying new groups") { broker in
            broker.keeper.persistNewGroups()
            broker.registration.registerChanges()
        }
        every(StatsTable.sampleIntervalMilliseconds, "sampling statistics") { broker in
            broker.storage.statistics.sample(now: broker.environment.now())
            broker.storage.stats.sample(now: broker.environment.now())
        }
        every(Self.claimsMilliseconds, "having claims synchronized") { $0.claims.synchronize() }
        claimsReplica?.start()
        kinds.start()
        registration.start()
    }

    private func every(_ milliseconds: Int64, _ name: String, _ work: @escaping (Broker) -> Void) {
        let this = NIOLoopBound((self, work), eventLoop: eventLoop)
        let interval = TimeAmount.milliseconds(milliseconds)
        timers.append(
            eventLoop.scheduleRepeatedTask(initialDelay: interval, delay: interval) { _ in
                this.value.0.environment.meter.measured(name) { this.value.1(this.value.0) }
            })
    }

    private func dropExpiredClients() {
        notifier.logOmitted()
        expected = [:]
        let time = environment.now()
        for info in consumers.expired(now: time) + producers.expired(now: time) {
            logger.warning(
                """
                client \(info.clientID) at \(info.client.address) sent no heartbeat for 120 s: its connection is \
                closed, and its groups go on without it
                """
            )
            info.client.connection.close(reason: "no heartbeat for 120 s")
        }
        var left = tables.locks.groups[...]
        let slice = { [self] () -> Bool in
            for group in tables.locks.removeExpired(in: &left, now: time) { notifier.rebalance(group, groups) }
            return !left.isEmpty
        }
        if slice() { slices.add(slice) }
    }

    /// The configuration file was read again. Values it contains as before do not undo what operators changed since.
    package func reload(settings: [(String, String)]) { self.settings.reload(settings: settings) }

    /// Connections that will be opened presently, and their clients' last heartbeats (`ClientHandOver.bytes`).
    package func expect(clients bytes: [UInt8]) { expected = ClientHandOver.read(bytes) }

    // MARK: - Stopping

    /// Takes no more messages, answers what waits, writes everything down and closes the store.
    ///
    /// - Parameters:
    ///   - reason: whether name servers are notified.
    ///   - stopReading: from now on the transport leaves requests unread; what it has read is answered.
    ///   - close: ends the transport's connections, or gives them to the next process.
    package func drain(
        _ reason: DrainReason = .leave, stopReading: (() -> Void)? = nil, close: @escaping () -> EventLoopFuture<Void>
    ) -> EventLoopFuture<Void> {
        let this = NIOLoopBound(self, eventLoop: eventLoop)
        let boundClose = NIOLoopBound(close, eventLoop: eventLoop)
        let boundStop = NIOLoopBound(stopReading, eventLoop: eventLoop)
        // Requests that may still be read are refused; when none may be, none needs to be.
        storage.admission.isDraining = stopReading == nil
        return registration.end(reason).flatMap {
            let broker = this.value
            boundStop.value?()
            broker.storage.admission.isDraining = true
            broker.kinds.stop()
            broker.hold.expireAllNow()
            broker.popWaiters.expireAllNow()
            broker.endOfTick()
            return broker.acknowledgementsDone()
        }.flatMap {
            this.value.keeper.finish()
        }.flatMap {
            // Answers that other threads work on are given before their connections go.
            this.value.textsDone()
        }.flatMap {
            this.value.claims.synchronizationDone()
        }.flatMap {
            this.value.claimsReplica?.finish() ?? this.value.eventLoop.makeSucceededVoidFuture()
        }.flatMap {
            this.value.gate.close()
            return boundClose.value()
        }.flatMapThrowing {
            let broker = this.value
            for timer in broker.timers { timer.cancel() }
            broker.timers = []
            broker.claims.leases.stop()
            broker.filters.close()
            broker.keeper.persistChanges()
            broker.keeper.persistNewGroups()
            broker.claimsReplica?.stop()
            try broker.store.close()
            try broker.claims.close()
            // Now everything is flushed, so that all of it counts.
            broker.kinds.closed()
            broker.keeper.persist(.consumerOffsets)
            broker.keeper.persist(.delayOffsets)
            broker.keeper.persist(.timerMetrics)
        }
    }

    /// Whether messages of this connection wait for disk or slave.
    package static func owes(_ connection: RemotingConnection) -> Bool {
        ((connection.context as? ClientContext)?.waitingAcknowledgements ?? 0) > 0
    }

    /// Waits until the texts asked for are made; their thread ends.
    private func textsDone() -> EventLoopFuture<Void> {
        let done = eventLoop.makePromise(of: Void.self)
        environment.textWork.submit({}) { done.succeed() }
        return done.futureResult.assumeIsolated().map { [environment] in environment.textWork.stop() }.nonisolated()
    }

    /// Waits, for the time their senders wait at most, until everything accepted is on disk and at the slave.
    private func acknowledgementsDone() -> EventLoopFuture<Void> {
        guard !gate.isEmpty else { return eventLoop.makeSucceededVoidFuture() }
        let done = eventLoop.makePromise(of: Void.self)
        let deadline =
            environment.now() + max(configuration.syncFlushTimeoutMilliseconds, configuration.slaveTimeoutMilliseconds)
        let this = NIOLoopBound(self, eventLoop: eventLoop)
        eventLoop.scheduleRepeatedTask(initialDelay: .milliseconds(5), delay: .milliseconds(5)) { task in
            let broker = this.value
            guard broker.gate.isEmpty || broker.environment.now() >= deadline else { return }
            task.cancel()
            done.succeed()
        }
        return done.futureResult
    }
}
