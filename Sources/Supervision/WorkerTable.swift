package import WorkerProtocol

/// One kind of worker: everything the supervisor knows of it. The platform is `WorkerTable.rows` times the counts of the
/// configuration; nothing else in this room names a kind.
package struct WorkerRow: Sendable {
    /// Which workers of another kind this one gets a peer link to.
    package enum PeerRule: Sendable {
        /// Number i to number i.
        case sameIndex(WorkerKind)
        case all(WorkerKind)
        /// Those of its own kind.
        case others
    }

    /// How many there are: as many as the configuration has of these.
    package enum Count: Sendable {
        case nameservers
        case brokers
        case filters
    }

    /// Whose a segment is.
    package enum Sharing: Sendable {
        /// Each worker of this kind has its own, shared with the worker of the same number.
        case own
        /// All of them, called NAME#0, NAME#1, …
        case all
    }

    /// A shared memory segment a worker gets with `setup`.
    package struct SegmentUse: Sendable {
        package var name: String
        package var writes: Bool
        package var sharing: Sharing = .own
    }

    /// A listening socket the supervisor holds for a worker.
    package struct ListenerRow: Sendable {
        /// As the worker asks for it.
        package var name: String
        /// The setting that holds its port. 0 there: any free one; absent: no such listener.
        package var portKey: String
        /// FileDescriptorName= of a socket unit that brings it (with `#1`, `#2`, … for further workers of the kind).
        package var socketUnitName: String
    }

    package var kind: WorkerKind
    package var count: Count
    /// READY=1 and WATCHDOG=1 depend on it.
    package var critical: Bool
    /// A start in which all workers of the kind say why they cannot serve is given up.
    package var refusesStart: Bool
    package var listeners: [ListenerRow] = []
    package var segments: [SegmentUse] = []
    /// Event descriptors it gets, by their names.
    package var events: [String] = []
    package var peers: [PeerRule] = []
    /// Works on the disk of the worker of that kind with its number: while that one waits for its disk, so does this one.
    package var sharesDiskOf: WorkerKind?
    package var restart = RestartRule()
    /// How long it may take from its launch to `ready`.
    package var startMillisMax: Int64
    /// How long it may drain before it is killed.
    package var drainMillisMax: Int64
    /// Stages are drained one after the other, from 0 on.
    package var drainStage: Int
}

/// When a worker that crashed comes back. Times in milliseconds.
package struct RestartRule: Sendable, Hashable {
    /// The first restart comes at once; the delay before the second.
    package var delayMillisMin: Int64 = 100
    /// Doubled from crash to crash up to this.
    package var delayMillisMax: Int64 = 10_000
    /// Having been ready for so long makes the next crash a first one again.
    package var stableMillis: Int64 = 2_000
    /// From so many crashes in a row it is called a crash loop.
    package var crashLoop = 3

    package init() {}

    /// The delay before the restart after `crashes` crashes in a row (at least 1).
    package func delayMillis(crashes: Int) -> Int64 {
        guard crashes > 1 else { return 0 }
        return min(delayMillisMin << Int64(min(crashes - 2, 20)), delayMillisMax)
    }
}

/// The platform as a table.
package enum WorkerTable {
    /// Bytes of every shared segment: one page, 512 slots.
    package static let segmentBytes = 4096
    /// What the slots of the segments mean. Raised with any change of it: then a new version of the platform does not take over the
    /// segments that systemd kept of the old one.
    package static let segmentLayout = 1

    package static let rows: [WorkerRow] = [
        WorkerRow(
            kind: .nameserver, count: .nameservers, critical: true, refusesStart: true,
            listeners: [.init(name: "remoting", portKey: "listenPort", socketUnitName: "nameserver")],
            startMillisMax: 30_000, drainMillisMax: 5_000, drainStage: 2),
        WorkerRow(
            kind: .brokerStore, count: .brokers, critical: true, refusesStart: true,
            listeners: [
                .init(name: "remoting", portKey: "listenPort", socketUnitName: "broker"),
                .init(name: "vip", portKey: "fastListenPort", socketUnitName: "broker-vip"),
            ],
            segments: [.init(name: "watermarks", writes: true), .init(name: "replication", writes: false)],
            events: ["watermarks", "replication"],
            peers: [.sameIndex(.replication), .all(.filter), .others],
            // Recovery reads the end of the commit log again, on a slow disk for minutes.
            startMillisMax: 600_000, drainMillisMax: 60_000, drainStage: 0),
        WorkerRow(
            kind: .replication, count: .brokers, critical: false, refusesStart: false,
            listeners: [.init(name: "ha", portKey: "haListenPort", socketUnitName: "broker-ha")],
            segments: [.init(name: "watermarks", writes: false), .init(name: "replication", writes: true)],
            events: ["watermarks", "replication"], sharesDiskOf: .brokerStore,
            startMillisMax: 30_000, drainMillisMax: 10_000, drainStage: 1),
        WorkerRow(
            kind: .filter, count: .filters, critical: false, refusesStart: true,
            // What plugins did to the filter workers before this one is remembered in a segment of its own, which the others read.
            segments: [
                .init(name: "watermarks", writes: false, sharing: .all), .init(name: "plugins", writes: true),
                .init(name: "plugins", writes: false, sharing: .all),
            ],
            startMillisMax: 30_000, drainMillisMax: 5_000, drainStage: 1),
    ]

    package static func row(_ kind: WorkerKind) -> WorkerRow {
        guard let row = rows.first(where: { $0.kind == kind }) else { preconditionFailure("no row for \(kind)") }
        return row
    }

    /// All workers of a platform with these numbers of each kind, in launch order.
    package static func workers(indexes: (WorkerRow.Count) -> [Int]) -> [WorkerID] {
        rows.flatMap { row in indexes(row.count).map { WorkerID(row.kind, $0) } }
    }

    /// All pairs of `workers` that talk to each other.
    package static func pairs(among workers: [WorkerID]) -> [WorkerPair] {
        workers.flatMap { a in
            row(a.kind).peers.flatMap { rule in
                workers.filter { b in
                    switch rule {
                    case .sameIndex(let kind): b.kind == kind && b.index == a.index
                    case .all(let kind): b.kind == kind
                    case .others: b.kind == a.kind && b.index > a.index
                    }
                }.map { WorkerPair(a: a, b: $0) }
            }
        }
    }
}

/// Two workers with a peer link between them.
package struct WorkerPair: Hashable, Sendable {
    package var a: WorkerID
    package var b: WorkerID

    package init(a: WorkerID, b: WorkerID) {
        self.a = a
        self.b = b
    }

    package func other(than worker: WorkerID) -> WorkerID? { worker == a ? b : worker == b ? a : nil }
}
