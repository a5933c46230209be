import LinuxSystem
import Logging
import MessageStore
import StoreFormat

/// Everything that makes a stored message appear somewhere else later: delay levels, timers, transactions. Notified by
/// the broker of every write of the log, on its loop.
final class MessageKinds {
    private let environment: BrokerEnvironment
    private let storage: StoreAccess
    let schedule: ScheduleMessageService
    let timers: TimerMessageStore
    let transactions: TransactionalMessageService
    let undeliverable: UndeliverableMessages
    let archive: ArchivedMessages
    private var progressFile: DeliveryProgressFile?
    private var known: DeliveryProgress?
    private var hasUnsavedProgress = false

    init(_ environment: BrokerEnvironment, _ tables: BrokerTables, _ storage: StoreAccess) {
        self.environment = environment
        self.storage = storage
        undeliverable = UndeliverableMessages(environment, tables, storage)
        archive = ArchivedMessages(environment, tables, storage)
        schedule = ScheduleMessageService(environment, tables, storage, undeliverable)
        timers = TimerMessageStore(environment, tables, storage, undeliverable)
        transactions = TransactionalMessageService(environment, tables, storage, undeliverable)
    }

    /// Reads what was delivered before; the store is open.
    func prepare() throws(BrokerError) {
        do throws(SystemError) {
            guard !environment.configuration.isSlave else { return try timers.prepare(progress: nil) }
            let file = try DeliveryProgressFile(
                disk: environment.disk, storePath: storage.store.configuration.storePathRootDir)
            known = try file.load(logEnd: storage.store.writtenOffset.rawValue)
            progressFile = file
            try timers.prepare(progress: known?.timer)
        } catch {
            throw .store(.disk(error))
        }
    }

    /// Begins to deliver. A slave does not: its master's log holds the deliveries; it only keeps timer messages.
    func start() {
        timers.start()
        guard !environment.configuration.isSlave else { return }
        schedule.start(offsets: known?.levels ?? [])
        transactions.start()
        saveProgress()
        do throws(SystemError) {
            if !hasUnsavedProgress { try timers.becameMaster() }
        } catch {
            environment.logger.error(
                """
                that this broker is master now was not saved for its timer messages, after the next start some may be \
                delivered twice: \(error)
                """
            )
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
            RetentionHold(
                "messages of topics with apus.archive", until: ArchivedMessages.until,
                isKnown: { [unowned archive] in archive.isKnown },
                neededFrom: { [unowned archive] in archive.neededFrom }),
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
            logEnd: storage.store.writtenOffset.rawValue, timer: timer, levels: schedule.committedOffsets)
        do throws(SystemError) {
            try progressFile.save(progress)
            hasUnsavedProgress = false
        } catch {
            // Deliveries go on; after a crash some of them would come twice.
            if !hasUnsavedProgress {
                environment.logger.error(
                    """
                    the progress of deliveries was not saved: \(error); deliveries go on, after a crash some would \
                    come twice
                    """
                )
            }
            hasUnsavedProgress = true
        }
    }
}
