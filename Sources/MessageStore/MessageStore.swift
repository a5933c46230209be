import Glibc
package import LinuxSystem
package import Logging
package import MessageModel
package import StoreFormat
import StoreReader

/// The only writer of a store: commit log, consume queues, index.
///
/// Confined to one thread, its owner's event loop: every call below and every event happens there. `append…` only fills
/// a buffer; `commitTick` writes it, makes the messages readable and reports events. Acknowledgements wait for
/// `commitTick` (asynchronous flush) or for the event `flushed` (synchronous flush).
///
/// Life cycle: `init` – `open` – appends, ticks, reads, `runMaintenance` – `close`.
package final class MessageStore {
    /// Runs a piece of work on the owner's thread, later.
    package typealias Executor = @Sendable (@escaping @Sendable () -> Void) -> Void

    /// The settings in force; `change` replaces those that can change while the store is open.
    package private(set) var configuration: StoreConfiguration
    let disk: any Disk
    let logger: Logger
    let executor: Executor
    let background: any StoreBackground
    /// Milliseconds since 1970.
    let clock: @Sendable () -> Int64

    /// What is reported to the owner; given to `open`.
    var events = StoreEvents.ignored
    /// What needs messages besides consumers. Retention asks all of them before it deletes a file.
    package var retentionHolds: [RetentionHold] = []

    // The log.
    let logFiles: CommitLogFiles
    var windows: LogWindows
    var hot: HotBuffer
    /// Properties an old checksum was taken out of, for the time of one encoding.
    var propertyScratch = GrowableBytes()
    var log = LogPosition()
    var reservation = BlockReservation()
    var flush = FlushState()

    // Queues.
    var table = QueueTable()
    let queueFiles: ConsumeQueueFiles
    /// Have entries that are in memory only.
    var dirtyQueues: [ConsumeQueue] = []
    var queuePass = QueuePass()
    /// Queues that got messages in this tick.
    var tickQueues: [ConsumeQueue] = []
    var tickNumber: UInt64 = 1
    /// Blank entries that may still be added for messages the log lacks, until a pass has ended.
    var blanksLeft = MessageStore.blanksPerPass
    /// Messages that lay at most in the damaged bytes a replay has skipped: queues may lack so many entries.
    var skippedMessages: Int64 = 0
    /// Records that do not continue their queues, until those go on.
    var waiting: [ObjectIdentifier: WaitingRecord] = [:]
    var deleted = DeletedTopics()
    var removals = QueueRemovals()
    var edits = EditsState()
    /// Records dispatched since the start that no queue can hold.
    var withoutQueue: Int64 = 0
    let index: IndexService?
    let checksums: RecordChecksumTable?
    let delayLevels: DelayLevels

    // Condition.
    var isOpen = false
    var lockFile: (any DiskFile)?
    /// `abort` holds our mark.
    var isMarkedOwned = false
    var gate = WriteGate()
    var lastStoreTimestamp: Int64 = 0
    var checkpoint = CheckpointState()
    var retention = RetentionState()
    var reported = ReportedProblems()
    /// When mapped windows were released last, milliseconds since 1970.
    var lastReleaseMilliseconds: Int64 = 0
    var checkState = CheckState()
    let recoveryPoint: RecoveryPointFile
    let memoryBytes: Int64
    let bootIdentity: [UInt8]
    /// When the machine started, milliseconds since 1970; 0 when unknown.
    let machineStart: Int64
    /// Where the last start began to dispatch again: what lies below was trusted.
    var recoveredFrom = PhysicalOffset(0)
    /// What lies below that was not written to its end by Apus, or not for the first time.
    var needsCheck = false
    /// What lies below was found on the disk: its bodies are checked when they are read.
    var verifiedFrom = PhysicalOffset(0)
    var statistics = StoreStatistics()
    var liveness: StoreLiveness

    /// Consume queue files that are kept open: a quarter of the descriptors of a process that may have few.
    package static var openQueueFilesMax: Int { min(256, max(16, OpenFiles.limit / 4)) }

    /// - Parameters:
    ///   - background: where blocking work is done; the default has a thread for each kind of work.
    ///   - clock: milliseconds since 1970.
    ///   - bootIdentity: which start of the machine this is, 16 bytes; nil asks the kernel.
    ///   - machineStart: when that was, milliseconds since 1970, 0 for unknown; nil asks the kernel.
    ///   - executor: hops onto the owner's thread (`eventLoop.execute`).
    package init(
        configuration: StoreConfiguration, disk: any Disk, logger: Logger,
        background: any StoreBackground = StoreThreads(),
        clock: @escaping @Sendable () -> Int64 = StoreClock.now, bootIdentity: [UInt8]? = nil,
        machineStart: Int64? = nil, executor: @escaping Executor
    ) {
        self.configuration = configuration
        self.disk = disk
        self.logger = logger
        self.background = background
        self.clock = clock
        self.bootIdentity = bootIdentity ?? RecoveryPoint.currentBoot()
        self.machineStart = machineStart ?? RecoveryPoint.machineStart()
        self.executor = executor
        let files = CommitLogFiles(
            directory: configuration.commitLogPath, fileSize: configuration.mappedFileSizeCommitLog, disk: disk)
        logFiles = files
        windows = LogWindows(fileSize: files.fileSize) { files.file(base: $0) }
        windows.readFailed = {
            logger.error(
                "reading the commit log failed, messages there are not delivered until it works; see to the disk: \($0)"
            )
        }
        hot = HotBuffer(capacity: 256 * 1024)
        queueFiles = ConsumeQueueFiles(
            directory: configuration.consumeQueuePath, disk: disk,
            entriesPerFile: configuration.entriesPerConsumeQueueFile, maximumOpen: Self.openQueueFilesMax)
        index =
            configuration.messageIndexEnable
            ? IndexService(
                directory: configuration.indexPath, disk: disk,
                layout: IndexLayout(slots: configuration.maxHashSlotNum, entries: configuration.maxIndexNum),
                logger: logger)
            : nil
        checksums =
            configuration.recordSumEnable
            ? RecordChecksumTable(
                directory: configuration.recordChecksumPath, disk: disk, fileSize: files.fileSize, logger: logger)
            : nil
        delayLevels = configuration.delayLevels
        recoveryPoint = RecoveryPointFile(
            path: configuration.consumeQueuePath + "/" + RecoveryPoint.fileName, disk: disk)
        memoryBytes = Int64(sysconf(Int32(_SC_PHYS_PAGES))) * Int64(sysconf(Int32(_SC_PAGESIZE)))
        liveness = StoreLiveness()
        liveness.store = self
    }

    /// Takes over values of settings that can change while the store is open; other keys are left alone.
    /// - Throws: the first key whose value is not understood; then nothing has changed.
    package func change(_ settings: [(String, String)]) throws(StoreError) {
        configuration = try configuration.changed(settings)
    }

    deinit {
        liveness.store = nil
        hot.deallocate()
        propertyScratch.deallocate()
    }

    // MARK: - Where the log stands

    /// Why nothing is accepted at the moment, or nil.
    package var notWritable: AppendRefusal? { gate.refusal }
    /// First byte of the first file, -1 while there is none.
    package var minPhysicalOffset: PhysicalOffset { logFiles.first ?? PhysicalOffset(-1) }
    /// First byte of the first file, 0 while there is none.
    var logStart: PhysicalOffset { logFiles.first ?? PhysicalOffset(0) }
    /// End of what is written: other processes may read below.
    package var writtenOffset: PhysicalOffset { log.written }
    /// End of what survives power loss.
    package var flushedOffset: PhysicalOffset { log.flushed }
    /// End of what is readable by queue; on a slave it trails by the record that is not whole yet.
    package var dispatchedOffset: PhysicalOffset { log.dispatched }

    // MARK: - Queues

    /// Nil when nothing was ever stored in it.
    package func consumeQueue(topic: UnsafeRawBufferPointer, queueID: Int32) -> ConsumeQueue? {
        table.find(topic, queueID)
    }

    /// Nil when nothing was ever stored in it.
    package func consumeQueue(topic: String, queueID: Int32) -> ConsumeQueue? {
        var topic = topic
        return topic.withUTF8 { table.find(UnsafeRawBufferPointer($0), queueID) }
    }

    /// As above; creates it (in memory) when absent, so that a long poll can wait for its first message. `queueID` is
    /// not negative.
    package func findConsumeQueue(topic: TopicName, queueID: Int32) -> ConsumeQueue {
        consumeQueue(topic: topic.text, queueID: queueID)
            ?? table.make(topic, queueID, entriesPerFile: configuration.entriesPerConsumeQueueFile)
    }

    /// Every queue; in the order of creation until topics are removed.
    package var consumeQueues: [ConsumeQueue] { table.queues }
}

/// The default clock.
package enum StoreClock {
    /// Milliseconds since 1970.
    package static let now: @Sendable () -> Int64 = {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
    }
}

/// How work of another thread finds the store again. Set and read on the owner's thread only.
final class StoreLiveness: @unchecked Sendable {
    weak var store: MessageStore?
}

/// Problems of the store's files that have been reported: each is reported once and not with every read.
struct ReportedProblems {
    /// Where the damage lies that was reported last.
    private var damage: PhysicalOffset?
    private var unreadableChecksums = false

    /// Whether damage at `offset` is to be reported.
    mutating func isNew(damageAt offset: PhysicalOffset) -> Bool {
        defer { damage = offset }
        return damage != offset
    }

    /// Whether it is to be reported that record checksums cannot be read.
    mutating func isNewUnreadableChecksums() -> Bool {
        defer { unreadableChecksums = true }
        return !unreadableChecksums
    }
}

/// Counters since the start.
struct StoreStatistics {
    var putMessages: Int64 = 0
    var putBytes: Int64 = 0
    var gotMessages: Int64 = 0
}
