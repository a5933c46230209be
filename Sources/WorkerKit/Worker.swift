import Glibc
package import LinuxSystem
package import Logging
package import NIOCore
package import WorkerProtocol

/// What one kind of worker process does. Every call comes on the worker's one event loop, which owns all its state.
/// `main.swift` of a worker is `WorkerMain.run(ItsWorker.self)`.
///
/// Sequence: `init` → `peer`… → `start` → (`peer`, `reload`, `status`)… → `drain` → exit. A worker is restarted as a
/// fresh process, so nothing has to be undone.
package protocol Worker: AnyObject, SendableMetatype {
    /// Its row of the supervisor's table; its program is `apus-KIND`.
    static var kind: WorkerKind { get }

    /// Whether the process is ended, with the reason, before it uses up its memory limit. Not for a worker that knows
    /// better whose fault that is.
    static var endsBeforeMemoryDoes: Bool { get }

    /// Checks settings without a worker, for `apus config check`.
    /// - Throws: which setting cannot be used, and what it takes; `init` throws the same.
    static func check(settings: Settings) throws

    /// Called first of all, on the main thread while there is no other: for limits that threads hand down to those they
    /// start.
    /// - Throws: what keeps the worker from serving.
    static func confine(settings: Settings, logger: Logger) throws

    /// - Throws: what keeps it from serving at all, best as `WorkerError`: the supervisor shows the text.
    init(environment: WorkerEnvironment) throws

    /// Opens for business. The text names what is served, for people: `127.0.0.1:9876`.
    func start() -> EventLoopFuture<String>

    /// A stream socket to another worker, given away: see `PeerLink`. Comes again, replacing the one before, whenever
    /// that worker was restarted.
    func peer(kind: WorkerKind, index: Int, descriptor: Int32)

    /// Clients' connections that the process before handed over, before `start`. Owns the descriptors.
    func adopt(connections: [Int32])

    /// Takes no new work, finishes what is accepted, flushes. The process exits when the future is done.
    func drain(_ reason: DrainReason) -> EventLoopFuture<Void>

    /// All settings as they are now.
    func reload(settings: Settings)

    /// What is held against a plugin of this name is forgotten.
    func pardon(name: String)

    /// One line for `apus status`; empty when there is nothing to report.
    func status() -> String

    /// What keeps it from doing all its work at present, with the remedy; empty when it serves. It is for STATUS= and
    /// `apus status`, which then ends with 1.
    func trouble() -> String
}

extension Worker {
    /// Ended, which is right for all that call no foreign code.
    package static var endsBeforeMemoryDoes: Bool { true }
    /// Closes them: their clients connect again.
    package func adopt(connections: [Int32]) {
        for connection in connections { _ = Descriptor(owning: connection) }
    }
    /// Takes all settings.
    package static func check(settings: Settings) throws {}
    /// Sets no limits.
    package static func confine(settings: Settings, logger: Logger) throws {}
    /// Changes nothing: its settings hold until the next process.
    package func reload(settings: Settings) {}
    /// Does nothing: only the filter worker loads plugins.
    package func pardon(name: String) {}
    /// Nothing to report.
    package func status() -> String { "" }
    /// It serves.
    package func trouble() -> String { "" }
}

/// Why a worker cannot serve: the cause and the remedy, as text for the operator.
package struct WorkerError: Error, CustomStringConvertible, Sendable {
    /// Cause and remedy.
    package var description: String
    /// What the worker's end is to be taken for.
    package var cause: FailureCause
    package init(_ description: String, cause: FailureCause = .own) {
        self.description = description
        self.cause = cause
    }
}

/// What the supervisor gave this worker. Confined to the event loop.
package final class WorkerEnvironment {
    /// This worker's.
    package let kind: WorkerKind
    /// This worker's number within its kind.
    package let index: Int
    /// As they are now: a reload replaces them.
    package internal(set) var settings: Settings
    /// With one thread.
    package let group: any EventLoopGroup
    /// The worker's only one.
    package let eventLoop: any EventLoop
    /// With the kind as its label.
    package let logger: Logger
    /// How long the turns of `eventLoop` take.
    package let turns: LoopTurns
    private var listeners: [String: Int32] = [:]
    private var segments: [String: SharedSegment] = [:]
    private var events: [String: Int32] = [:]
    /// That fewer connections fit than the settings ask for; empty when all do.
    private(set) var connectionsNote = ""
    private let onFailure: @Sendable (WorkerError) -> Void
    private let onHandOver: @Sendable ([Int32]) -> Void
    private let onSend: @Sendable (WorkerMessage) -> Void

    /// Takes over the descriptors; `names` as in `WorkerMessage.setup`.
    /// - Throws: a segment cannot be mapped, or a descriptor has an unknown name.
    package init(
        kind: WorkerKind, index: Int, settings: Settings, group: any EventLoopGroup, eventLoop: any EventLoop,
        logger: Logger, turns: LoopTurns? = nil, descriptors: [(name: String, fd: Int32)] = [],
        onFailure: @escaping @Sendable (WorkerError) -> Void = { _ in },
        onHandOver: @escaping @Sendable ([Int32]) -> Void = { _ in },
        onSend: @escaping @Sendable (WorkerMessage) -> Void = { _ in }
    ) throws {
        self.kind = kind
        self.index = index
        self.settings = settings
        self.group = group
        self.eventLoop = eventLoop
        self.logger = logger
        self.turns = turns ?? LoopTurns(logger: logger)
        self.onFailure = onFailure
        self.onHandOver = onHandOver
        self.onSend = onSend
        try adopt(descriptors)
    }

    /// Takes over more descriptors; one of a known name replaces that one.
    func adopt(_ descriptors: [(name: String, fd: Int32)]) throws {
        for (name, fd) in descriptors {
            let parts = name.split(separator: ":", maxSplits: 1).map(String.init)
            switch (parts.first, parts.last) {
            case ("listener", let name?): listeners[name] = fd
            case ("segment", let name?): segments[name] = try SharedSegment(adopting: fd)
            case ("event", let name?): events[name] = fd
            default: throw WorkerError("the supervisor passed a descriptor called \(name)")
            }
        }
    }

    /// A listening, non-blocking TCP socket; the caller owns it from now on. `remoting` everywhere, also `vip` in
    /// broker-store, `ha` in replication.
    /// - Throws: the supervisor passed none of that name, or it was taken before.
    package func listener(_ name: String) throws(WorkerError) -> Int32 {
        guard let fd = takeListener(name) else { throw WorkerError("\(kind.rawValue) was given no listener \(name)") }
        return fd
    }

    /// The same for one that need not be there.
    package func takeListener(_ name: String) -> Int32? { listeners.removeValue(forKey: name) }

    /// A shared segment that the worker writes, or that the worker of the same number writes for it. Mapped writable
    /// only in its one writer.
    /// - Throws: the supervisor passed none of that name.
    package func segment(_ name: String) throws(WorkerError) -> SharedSegment {
        guard let segment = segments[name] else { throw WorkerError("\(kind.rawValue) was given no segment \(name)") }
        return segment
    }

    /// The segment that worker writes, read-only: for kinds that read those of all workers of a kind.
    /// - Throws: the supervisor passed none of that name.
    package func segment(_ name: String, of worker: WorkerID) throws(WorkerError) -> SharedSegment {
        try segment(worker.segment(name))
    }

    /// Those of all workers of a kind, by the workers' numbers.
    package func segments(_ name: String, of kind: WorkerKind) -> [(index: Int, segment: SharedSegment)] {
        let prefix = "\(name)@\(kind.rawValue)-"
        return segments.compactMap { name, segment in
            guard name.hasPrefix(prefix), let index = Int(name.dropFirst(prefix.count)) else { return nil }
            return (index, segment)
        }.sorted { $0.index < $1.index }
    }

    /// An eventfd, owned by this environment until the process ends.
    /// - Throws: the supervisor passed none of that name.
    package func event(_ name: String) throws(WorkerError) -> Int32 {
        guard let fd = events[name] else { throw WorkerError("\(kind.rawValue) was given no event \(name)") }
        return fd
    }

    /// The worker cannot go on (its disk is missing, for example): reports why to the supervisor and ends the process
    /// at once, without draining. It will be restarted with back-off.
    package func fail(_ reason: String, cause: FailureCause = .own) { onFailure(WorkerError(reason, cause: cause)) }

    /// How many connections a worker serves.
    package struct ConnectionBounds: Sendable {
        /// From all addresses.
        package var total: Int
        /// From one remote address.
        package var perAddress: Int
    }

    /// Decides how many connections fit beside the files of this worker, and holds descriptors back for those. To be
    /// asked when the files it needs from the start on are open. What does not fit is reported in the log and in `apus
    /// status`.
    ///
    /// - Parameters:
    ///   - growth: files it may open later on, at most.
    ///   - adopted: clients' connections of the process before that are open already.
    package func boundConnections(growth: Int, adopted: Int = 0) -> ConnectionBounds {
        let wanted = max(1, settings.int("connectionsMax", default: 10_000))
        let perAddress = max(1, settings.int("connectionsPerAddressMax", default: max(wanted / 4, 1)))
        let limit = OpenFiles.limit
        let plan = DescriptorPlan(
            limit: limit, inUse: (OpenFiles.count ?? 64) - adopted, growth: growth, wanted: wanted)
        DescriptorReserve.shared.hold(plan.reserve)
        if plan.connections < wanted {
            connectionsNote =
                "\(plan.connections) connections at most, not \(wanted) (connectionsMax): beside its own files "
                + "\(limit) open files allow no more; raise limits.\(kind.rawValue).files or LimitNOFILE="
            logger.warning("\(connectionsNote)")
        }
        return ConnectionBounds(total: plan.connections, perAddress: min(perAddress, plan.connections))
    }

    /// Half of the descriptors a process may have: they must fit into the supervisor, too.
    package var connectionsHandedOverMax: Int {
        max(0, OpenFiles.limit / 2 - 64)
    }

    /// Sends `renew`, `explained` or `report` to the supervisor. From any thread.
    package func send(_ message: WorkerMessage) { onSend(message) }

    /// While draining: gives clients' connections to this worker's next process. Takes over the descriptors.
    package func handOver(connections: [Int32]) {
        onHandOver(connections)
        for connection in connections { _ = Descriptor(owning: connection) }
    }
}
