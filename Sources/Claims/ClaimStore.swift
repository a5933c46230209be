package import LinuxSystem
package import Logging
package import MessageModel

/// Which messages are in whose hands, for all groups and queues of a broker. It consists of claim tables, and of a
/// journal that brings them back after a restart. It reads no messages and no clock. All calls on one thread, the
/// broker's event loop.
package final class ClaimStore {
    private(set) var registry = ClaimRegistry()
    /// Nil until `open`.
    private(set) var files: JournalFiles?
    /// Bytes of blocks the disk has refused, from which on they are dropped for a snapshot.
    var uncommittedMax = 64 << 20
    /// When a snapshot of the memory is tried next, steady milliseconds; nil when the journal is whole.
    var rewritesAt: Int64?
    /// Whether a slave has copied these claims from its master, and this broker opens them for the first time.
    package private(set) var isMirrored = false
    let folder: String
    let disk: any Disk
    let logger: Logger
    private let trailBytesMax: Int64

    /// Reads and writes nothing yet.
    /// - Parameters:
    ///   - folder: `STORE/popState`, made when the first claim is made.
    ///   - trailBytesMax: bytes of journals that are kept for the trail after a snapshot has replaced them; 0 for none.
    package init(folder: String, disk: any Disk, logger: Logger, trailBytesMax: Int64 = 0) {
        self.folder = folder
        self.disk = disk
        self.logger = logger
        self.trailBytesMax = trailBytesMax
    }

    /// Reads snapshot and journal. Claims keep their deadlines by the wall clock, but are invisible no longer than they
    /// were given out for. What has passed becomes due with the next `expire`, in the order of deadlines.
    ///
    /// - Parameters:
    ///   - observer: not kept alive; it is not notified during `open`.
    ///   - bounds: minimum and maximum offset (the next one to be appended) of a table's queue; nil when topic or queue
    ///     was deleted: its table is dropped. What is claimed or due outside of them is dropped, too, with one warning.
    /// - Throws: `disk`. Damage is no error: what lies before it counts.
    package func open(
        at now: ClaimTime, observer: any ClaimObserver, bounds: (ClaimTable) -> (min: Int64, max: Int64)?
    ) throws(ClaimError) {
        precondition(files == nil, "the store is open already")
        let recovery = try onDisk { () throws(SystemError) in
            try MirrorFolders(folder, disk).settle()
            isMirrored = try disk.information("\(folder)/\(MirrorFolders.marker)") != nil
            return try ClaimRecovery(folder, disk)
        }
        for damage in recovery.damage {
            logger.warning(
                "the journal of claims is damaged, messages whose claims are lost are delivered again: \(damage)")
        }
        let files = try onDisk { () throws(SystemError) in
            try JournalFiles(
                folder, disk, logger, trailBytesMax: trailBytesMax, after: recovery, at: now.wall)
        }
        self.files = files
        registry = recovery.registry
        registry.now = now
        registry.convertDeadlines(at: now)
        let header = files.currentHeader
        let goesOn = header == recovery.header
        registry.journal = ClaimJournal(
            for: header, blockTime: goesOn ? recovery.blockTime : header.time, clients: goesOn ? recovery.clients : [])
        applyBounds(bounds)
        registry.observer = observer
    }

    /// Drops what the queues have not got any more.
    private func applyBounds(_ bounds: (ClaimTable) -> (min: Int64, max: Int64)?) {
        var gone = 0
        var dropped = 0
        for table in registry.byNumber.values.sorted(by: { $0.number < $1.number }) {
            guard let (min, max) = bounds(table) else {
                gone += 1
                dropped += table.claimedCount + table.dueCount
                remove([table])
                continue
            }
            if table.floor < min {
                registry.journal?.retain(table, from: min)
                dropped += table.retainWithoutJournal(from: min)
            }
            if table.next > max {
                registry.journal?.lower(table, to: max)
                dropped += table.lowerWithoutJournal(to: max)
            }
        }
        registry.statistics.dropped += dropped
        guard gone > 0 || dropped > 0 else { return }
        logger.warning(
            "\(dropped) claims are dropped, because their messages are gone; \(gone) claim tables had no queue any more"
        )
    }

    /// What was copied from a master is this broker's own now: the table of offsets on disk agrees with it.
    /// - Throws: `disk`.
    package func mirrorTaken() throws(ClaimError) {
        guard isMirrored else { return }
        try onDisk { () throws(SystemError) in try disk.remove("\(folder)/\(MirrorFolders.marker)") }
        isMirrored = false
    }

    // MARK: - Tables

    /// A group's table of a queue, if it has one.
    package func table(group: String, topic: String, queueID: Int32) -> ClaimTable? {
        registry.table(ClaimRegistry.Key(group: group, topic: topic), queueID)
    }

    /// All of them, in no order.
    package var tables: [ClaimTable] { registry.tables { _ in true } }

    /// A group's tables of a topic, by queue.
    package func tables(of group: String, topic: String) -> [ClaimTable] {
        registry.tables(ClaimRegistry.Key(group: group, topic: topic))
    }

    /// All groups' tables of a topic, in no order; looks at all tables.
    package func tables(of topic: String) -> [ClaimTable] {
        registry.tables { $0.topic.utf8.elementsEqual(topic.utf8) }
    }

    /// All groups' tables of one queue, in no order.
    package func tables(of topic: String, queueID: Int32) -> [ClaimTable] { registry.tables(topic: topic, queueID) }

    /// Makes a table that is not there, with `floor` and `next` at a queue offset.
    package func makeTable(group: GroupName, topic: TopicName, queueID: Int32, at offset: Int64) -> ClaimTable {
        precondition(files != nil && offset >= 0, "no claims before the store is open, nor at offset \(offset)")
        let table = registry.makeTable(group: group, topic: topic, queueID: queueID, at: offset)
        registry.journal?.define(table)
        return table
    }

    /// A topic was deleted: its tables are dropped. Looks at all tables.
    package func removeTables(topic: String) { remove(tables(of: topic)) }

    /// A group was deleted: its tables are dropped. Looks at all tables.
    package func removeTables(group: String) {
        remove(registry.tables { $0.group.utf8.elementsEqual(group.utf8) })
    }

    private func remove(_ tables: [ClaimTable]) {
        for table in tables {
            registry.journal?.remove(table)
            registry.remove(table)
        }
    }

    /// Queue bounds moved (retention): what is claimed or due below `min` is dropped, counted and logged once.
    package func retain(_ table: ClaimTable, from min: Int64) {
        guard table.floor < min else { return }
        registry.journal?.retain(table, from: min)
        let dropped = table.retainWithoutJournal(from: min)
        guard dropped > 0 else { return }
        registry.statistics.dropped += dropped
        logger.warning(
            """
            \(dropped) messages of \(table.topic), queue \(table.queueID), that \(table.group) has not acknowledged \
            were deleted by retention below offset \(min)
            """
        )
    }

    // MARK: - Clients

    /// The number of a client's name. To be asked for at each pop: with very many names, those without claims are
    /// forgotten.
    package func client(_ name: String) -> ClaimClient {
        if registry.clients.isFull { registry.forgetUnusedClients() }
        return ClaimClient(number: registry.clients.number(of: name))
    }

    /// Nil for an unknown client, and for one whose name was forgotten.
    package func name(of client: ClaimClient) -> String? { registry.clients[client.number] }

    // MARK: - Time

    /// Makes due what has passed its deadline, at most `limit` pops' and single messages; true when there is more at
    /// `now`. Within a table in the order of deadlines.
    package func expire(at now: ClaimTime, limit: Int) -> Bool {
        registry.now = now
        return registry.expire(at: now.steady, limit: limit)
    }

    /// Steady milliseconds of the earliest deadline (may be early, never late); nil when nothing is claimed.
    package var nextDeadline: Int64? { registry.earliest }

    /// The smallest pop time (milliseconds since 1970) that no unordered table refuses: for a pop of several queues.
    package var popTimeMin: Int64 { registry.popTimeMin }

    /// Figures of now.
    package var statistics: ClaimStatistics {
        var statistics = registry.statistics
        statistics.journalBytes = files?.journalBytes ?? 0
        statistics.writtenBytes = files?.writtenBytes ?? 0
        statistics.snapshotBytes = files?.lastSnapshotBytes ?? 0
        return statistics
    }
}

extension ClaimRegistry {
    /// Forgets the names of clients that hold nothing.
    func forgetUnusedClients() {
        var used: Set<UInt32> = []
        for table in byNumber.values { table.open?.forEach { _, single in used.insert(single.client) } }
        clients.keep(used)
    }
}
