package import LinuxSystem
package import Logging
package import StoreFormat

/// The only writer of a store: commit log, consume queues, index.
///
/// Confined to one thread, its owner's event loop: every call below and every hook happens there. `append…` only fills a buffer;
/// `commitTick` writes it, makes the messages readable and calls the hooks. Acknowledgements wait for `commitTick`
/// (asynchronous flush) or for the `flushed` hook (synchronous flush).
package final class MessageStore {
    /// Runs a piece of work on the owner's thread, later.
    package typealias Executor = @Sendable (@escaping @Sendable () -> Void) -> Void

    package let configuration: StoreConfiguration
    let disk: any Disk
    let logger: Logger
    let executor: Executor

    /// A message has become readable in a queue whose `wantsArrival` is set. Called during dispatch: note it, read after `commitTick`.
    package var arrival: ((ConsumeQueue, MessageArrival) -> Void)?
    /// The end of the written log moved (once a tick).
    package var written: ((PhysicalOffset) -> Void)?
    /// The end of the flushed log moved.
    package var flushed: ((PhysicalOffset) -> Void)?
    /// The beginning of the log moved: files were deleted.
    package var minimumMoved: ((PhysicalOffset) -> Void)?
    /// A flush failed: whoever waits for `flushed` must be told; the store takes nothing until it has verified itself.
    package var flushFailed: ((StoreError) -> Void)?

    /// - Parameter executor: hops onto the owner's thread (`eventLoop.execute`).
    package init(configuration: StoreConfiguration, disk: any Disk, logger: Logger, executor: @escaping Executor) {
        self.configuration = configuration
        self.disk = disk
        self.logger = logger
        self.executor = executor
    }

    // MARK: Opening and closing

    /// Locks the folder, loads what is there and recovers it. Afterwards everything in the log is readable by queue.
    package func open() throws(StoreError) { fatalError("unfinished") }
    /// Writes and synchronizes everything, removes `abort`, releases the lock.
    package func close() throws(StoreError) { fatalError("unfinished") }
    /// Bounded background work: tails of consume queues, index, checkpoint, retention, release of mapped windows.
    /// The owner calls it about every 100 ms.
    package func runMaintenance() { fatalError("unfinished") }

    // MARK: Writing

    /// Encodes one message into this tick's buffer.
    package func append(_ draft: MessageDraft) -> AppendOutcome { fatalError("unfinished") }
    /// Encodes the messages of a batch (`draft.body`: encoded as in request 320), all or none.
    /// - Parameter physicalOffsets: gets one offset per message.
    package func appendBatch(_ draft: MessageDraft, physicalOffsets: inout [PhysicalOffset]) -> AppendOutcome {
        fatalError("unfinished")
    }
    /// Slave: takes bytes of the master's log that belong at exactly `offset`. They may begin and end inside records and cross
    /// file ends. An empty store begins where the first bytes say.
    package func appendReplicated(at offset: PhysicalOffset, _ bytes: UnsafeRawBufferPointer) -> ReplicatedAppendOutcome
    {
        fatalError("unfinished")
    }
    /// Writes all that was appended since the last call, one `pwrite` per file, and dispatches it. When it throws nothing of
    /// it is in the log and the queue offsets are rolled back: everything appended since the last call has failed.
    package func commitTick() throws(StoreError) { fatalError("unfinished") }
    /// Wakes the flush thread. `commitTick` does it by itself with synchronous flush.
    package func requestFlush() { fatalError("unfinished") }

    /// Why nothing is accepted at the moment, or nil.
    package var notWritable: AppendRefusal? { fatalError("unfinished") }
    /// First byte of the first file, -1 while there is none.
    package var minPhysicalOffset: PhysicalOffset { fatalError("unfinished") }
    /// End of what is written: other processes may read below.
    package var writtenOffset: PhysicalOffset { fatalError("unfinished") }
    /// End of what survives power loss.
    package var flushedOffset: PhysicalOffset { fatalError("unfinished") }
    /// End of what is readable by queue; on a slave it trails by the record that is not whole yet.
    package var dispatchedOffset: PhysicalOffset { fatalError("unfinished") }

    // MARK: Queues

    /// Nil when nothing was ever stored in it.
    package func consumeQueue(topic: UnsafeRawBufferPointer, queueId: Int32) -> ConsumeQueue? {
        fatalError("unfinished")
    }
    package func consumeQueue(topic: String, queueId: Int32) -> ConsumeQueue? { fatalError("unfinished") }
    /// As above; creates it (in memory) when absent, so that a long poll can wait for its first message.
    package func findConsumeQueue(topic: String, queueId: Int32) -> ConsumeQueue { fatalError("unfinished") }
    /// Every queue; the order is that of creation.
    package var consumeQueues: [ConsumeQueue] { fatalError("unfinished") }
    /// Forgets the queues of the topics and deletes their files; the messages stay in the log until it expires.
    package func removeTopics(where remove: (String) -> Bool) { fatalError("unfinished") }

    // MARK: Reading

    /// Chooses messages by RocketMQ's rules (`DefaultMessageStore.getMessage`) without touching their bytes. Adjacent ones
    /// become one range.
    /// - Parameters:
    ///   - tagsCodes: only messages whose code is among them; nil for all.
    ///   - ranges: emptied, then filled.
    package func selectMessages(
        topic: UnsafeRawBufferPointer, queueId: Int32, from offset: QueueOffset, maxCount: Int, maxBytes: Int = .max,
        tagsCodes: [Int64]? = nil, into ranges: inout [LogRange]
    ) -> GetMessageResult { fatalError("unfinished") }
    /// As `selectMessages`, and hands the chosen bytes to `sink`, run by run; the pointers are valid during the call.
    package func getMessages(
        topic: UnsafeRawBufferPointer, queueId: Int32, from offset: QueueOffset, maxCount: Int, maxBytes: Int = .max,
        tagsCodes: [Int64]? = nil, into sink: (UnsafeRawBufferPointer) -> Void
    ) -> GetMessageResult { fatalError("unfinished") }
    /// Entries of a queue from `offset` on, at most `maxCount`; fewer at the queue's end.
    package func entries(_ queue: ConsumeQueue, from offset: QueueOffset, maxCount: Int) -> [ConsumeQueueEntry] {
        fatalError("unfinished")
    }
    /// The bytes of a range; nil when they are not (any more) there. The pointer is valid during the call.
    package func withBytes<R>(_ range: LogRange, _ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R? {
        fatalError("unfinished")
    }
    /// The log file that holds `offset`, for `sendfile`: descriptor (owned by the store, valid until the file is deleted) and the
    /// offset inside it.
    package func logFile(at offset: PhysicalOffset) -> (descriptor: Int32, fileOffset: Int64)? {
        fatalError("unfinished")
    }
    /// The record that begins at `offset`; nil when none does.
    package func lookMessage(at offset: PhysicalOffset) -> LogRange? { fatalError("unfinished") }
    /// Records by key or unique key within a time window (milliseconds), oldest first.
    package func queryMessage(topic: String, key: String, maxCount: Int, begin: Int64, end: Int64) -> QueryResult {
        fatalError("unfinished")
    }
    /// The entry stored nearest to a time (`getOffsetInQueueByTime`).
    package func offset(topic: String, queueId: Int32, byTimestamp: Int64) -> QueueOffset { fatalError("unfinished") }
    /// When the message at an offset of a queue was stored; -1 when there is none.
    package func storeTimestamp(_ queue: ConsumeQueue, at offset: QueueOffset) -> Int64 { fatalError("unfinished") }
    /// When the oldest message of the log was stored; -1 when it is empty.
    package var earliestMessageTime: Int64 { fatalError("unfinished") }
    /// Figures for `getBrokerRuntimeInfo`.
    package var runtimeInformation: StoreRuntimeInformation { fatalError("unfinished") }
}

/// The store's part of request 28.
package struct StoreRuntimeInformation: Sendable {
    package var commitLogMinOffset: Int64 = 0
    package var commitLogMaxOffset: Int64 = 0
    package var dispatchBehindBytes: Int64 = 0
    package var remainHowManyDataToFlush: Int64 = 0
    /// 0...1.
    package var commitLogDiskRatio = 0.0
    package var consumeQueueDiskRatio = 0.0
    package var putMessageTimesTotal: Int64 = 0
    package var putMessageSizeTotal: Int64 = 0
    package var getMessageTransferredCount: Int64 = 0
    package var queueCount = 0
}
