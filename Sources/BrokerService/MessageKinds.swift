import LinuxSystem
import Logging
import MessageStore
import StoreFormat

/// Everything that makes a stored message appear somewhere else later: delay levels, timers, transactions. Told by the
/// broker of every write of the log, on its loop.
final class MessageKinds {
    private unowned let broker: Broker
    let schedule: ScheduleMessageService
    let timers: TimerMessageStore
    let transactions: TransactionalMessageService
    let undeliverable: UndeliverableMessages
    private var progressFile: DeliveryProgressFile?
    private var known: DeliveryProgress?
    private var hasUnsavedProgress = false

    init(_ broker: Broker) {
        self.broker = broker
        schedule = ScheduleMessageService(broker)
        timers = TimerMessageStore(broker, work: broker.timerFileWork)
        transactions = TransactionalMessageService(broker)
        undeliverable = UndeliverableMessages(broker)
    }

    /// Reads what was delivered before; the store is open.
    func prepare() throws(BrokerError) {
        do throws(SystemError) {
            guard !broker.configuration.isSlave else { return try timers.prepare(progress: nil) }
            let file = try DeliveryProgressFile(
                disk: broker.disk, storePath: broker.store.configuration.storePathRootDir)
            known = try file.load(logEnd: broker.store.writtenOffset.rawValue)
            progressFile = file
            try timers.prepare(progress: known?.timer)
        } catch {
            throw .store(.disk(error))
        }
    }

    /// Begins to deliver. A slave does not: its master's log holds the deliveries; it only keeps timer messages.
    func start() {
        timers.start()
        guard !broker.configuration.isSlave else { return }
        schedule.start(offsets: known?.levels ?? [])
        transactions.start()
        saveProgress()
        do throws(SystemError) {
            if !hasUnsavedProgress { try timers.becameMaster() }
        } catch {
            broker.logger.error("timer messages: \(error); after the next start some may come twice")
        }
    }

    func stop() {
        schedule.stop()
        timers.stop()
        transactions.stop()
    }

    /// Messages of the log that still wait for their time or their outcome: retention keeps them.
    var retentionHolds: [RetentionHold] {
        [
            RetentionHold("delayed messages", neededFrom: { [unowned schedule] in schedule.neededFrom }),
            RetentionHold("timer messages", neededFrom: { [unowned timers] in timers.neededFrom }),
            RetentionHold(
                "prepared messages", neededFrom: { [unowned transactions] in transactions.neededFrom },
                makeRoom: { [unowned transactions] offset in transactions.move(before: offset) }),
        ]
    }

    /// The tick's bytes are in the log.
    func committed() {
        transactions.committed()
        let delayed = schedule.committed()
        let timed = timers.committed()
        if delayed || timed || hasUnsavedProgress { saveProgress() }
    }

    /// They are not.
    func failed() {
        transactions.failed()
        schedule.failed()
        timers.failed()
    }

    /// More of the log survives power loss.
    func flushed() { transactions.flushed() }

    /// The store is closed: all of it does.
    func closed() { transactions.closed() }

    private func saveProgress() {
        guard let progressFile, let timer = timers.progress else { return }
        let progress = DeliveryProgress(
            logEnd: broker.store.writtenOffset.rawValue, timer: timer, levels: schedule.committedOffsets)
        do throws(SystemError) {
            try progressFile.save(progress)
            hasUnsavedProgress = false
        } catch {
            // Deliveries go on; after a crash some of them would come twice.
            if !hasUnsavedProgress { broker.logger.error("the progress of deliveries was not noted: \(error)") }
            hasUnsavedProgress = true
        }
    }
}

/// The broker's settings for timer messages.
struct TimerSettings {
    /// RocketMQ 5 allows three days; nothing here asks for less than a year.
    static let maxDelaySeconds: Int64 = 366 * 86_400

    /// Milliseconds (`timerMaxDelaySec`).
    let maxDelay: Int64
    /// `recallMessageEnable`; on unless switched off.
    let isRecallEnabled: Bool

    init(_ configuration: BrokerConfiguration) {
        let seconds = configuration.integer("timerMaxDelaySec") ?? Self.maxDelaySeconds
        maxDelay = min(max(seconds, 0), 10 * Self.maxDelaySeconds) * 1000
        isRecallEnabled = configuration.flag("recallMessageEnable") ?? true
    }
}
