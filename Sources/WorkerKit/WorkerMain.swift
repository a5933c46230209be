import Glibc
import LinuxSystem
import Logging
import NIOCore
import NIOPosix
import SettingTable
import Systemd
import WorkerProtocol

/// The main thread of a worker: takes the setup from the control channel, starts the event loop with the worker on it.
/// Then it carries messages from the channel onto the loop until the supervisor sends drain, or has ended.
package enum WorkerMain {
    /// How long a worker whose supervisor died, or that got SIGTERM, may drain before it ends regardless.
    static let orphanDrainSecondsMax: Int32 = 10

    /// Runs a worker process from its start on, and ends it with the status its supervisor reads.
    package static func run<W: Worker>(_ type: W.Type) -> Never {
        if CommandLine.arguments.dropFirst().first == SettingsCheck.option { check(type) }
        OpenFiles.raiseLimit()
        let control = ControlChannel()
        var status = stat()
        guard fstat(ControlChannel.descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFSOCK else {
            end(64, "apus-\(W.kind.rawValue) is started by apusd and cannot run on its own (try: apus up)")
        }
        do {
            // Before any other thread exists, so that all of them have these signals blocked.
            let signals = try Signals([SIGTERM, SIGINT])
            guard let (first, descriptors) = try control.receive() else { exit(0) }
            guard case .setup(let kind, let index, let settings, let names) = first, kind == W.kind else {
                end(70, "apus-\(W.kind.rawValue): the supervisor began with an unexpected message")
            }
            let id = WorkerID(kind, index)
            Logs.bootstrap(worker: id.description, level: settings["logLevel"].flatMap(Logger.Level.init(rawValue:)))
            if let shortage = descriptorShortage(id, names, descriptors, for: "its start") {
                failed(id, WorkerError(shortage, cause: .settings), on: control)
            }
            do {
                try checkTable(settings)
                try W.confine(settings: settings, logger: Logger(label: kind.rawValue))
            } catch {
                failed(id, error, on: control)
            }
            let turns = LoopTurns(logger: Logger(label: kind.rawValue))
            let group = MultiThreadedEventLoopGroup(numberOfThreads: 1, metricsDelegate: turns)
            let host = WorkerHost<W>(
                id: id, control: control, group: group, turns: turns, settings: settings,
                descriptors: Array(zip(names, descriptors)).map { (name: $0, fd: $1) })
            host.eventLoop.execute { host.create() }
            throw serve(host, control: control, signals: signals)
        } catch {
            end(70, "apus-\(W.kind.rawValue): control channel: \(error)")
        }
    }

    /// What to say when descriptors that were sent found no free ones here; nil: they came.
    static func descriptorShortage(
        _ id: WorkerID, _ names: [String], _ descriptors: [Int32], for what: String
    ) -> String? {
        guard names.count != descriptors.count else { return nil }
        return """
            there are no free descriptors for \(what): raise limits.\(id.kind.rawValue).files or LimitNOFILE=, then \
            apus restart \(id.kind.rawValue)@\(id.index)
            """
    }

    /// Answers `SettingsCheck`: ends with 0, or with 78 and a text under the name it was called by.
    private static func check<W: Worker>(_ type: W.Type) -> Never {
        do {
            let settings = SettingsCheck.settings(CommandLine.arguments)
            try checkTable(settings)
            try W.check(settings: settings)
        } catch {
            end(SettingsCheck.unusable, "\(CommandLine.arguments[0]): \(error)")
        }
        end(0, "")
    }

    /// No worker begins with a value the table of settings does not take.
    private static func checkTable(_ settings: Settings) throws(WorkerError) {
        let refusals = SettingTable.refusals(settings.values)
        guard !refusals.isEmpty else { return }
        throw WorkerError(refusals.map(\.description).joined(separator: "; "), cause: .settings)
    }

    /// Ends only by an error of the channel itself.
    private static func serve<W: Worker>(
        _ host: WorkerHost<W>, control: ControlChannel, signals: borrowing Signals
    ) -> any Error {
        do {
            while true {
                switch try signals.wait(orReadable: ControlChannel.descriptor) {
                case .readable:
                    guard let (message, descriptors) = try control.receive() else {
                        orphaned(host, "the supervisor is gone")
                    }
                    host.eventLoop.execute { host.handle(message, descriptors: descriptors) }
                case .signal(let signal):
                    orphaned(host, signal == SIGTERM ? "SIGTERM" : "SIGINT")
                }
            }
        } catch {
            return error
        }
    }

    private static func orphaned<W: Worker>(_ host: WorkerHost<W>, _ reason: String) -> Never {
        host.eventLoop.execute { host.drain(.stop, because: reason) }
        // The drain ends the process from the event loop; this is only the limit.
        poll(nil, 0, orphanDrainSecondsMax * 1000)
        end(1, "apus-\(W.kind.rawValue): \(reason), and draining took more than \(orphanDrainSecondsMax) s: ended")
    }

    static func end(_ status: Int32, _ text: String) -> Never {
        if !text.isEmpty { StandardError.write(text + "\n") }
        // Not exit(): other threads still run, and nothing here relies on atexit handlers.
        _exit(status)
    }
}

/// Holds the worker on its event loop. Only `id`, `control` and `eventLoop` are touched elsewhere.
final class WorkerHost<W: Worker>: @unchecked Sendable {
    let eventLoop: any EventLoop
    private let id: WorkerID
    private let control: ControlChannel
    private let group: any EventLoopGroup
    private let turns: LoopTurns
    private let settings: Settings
    private var descriptors: [(name: String, fd: Int32)]
    private let logger: Logger
    private var worker: W?
    private var environment: WorkerEnvironment?
    private var serving = false
    private var draining = false
    /// The limit this process is at, as text.
    private var limitNote = ""

    init(
        id: WorkerID, control: ControlChannel, group: any EventLoopGroup, turns: LoopTurns, settings: Settings,
        descriptors: [(name: String, fd: Int32)]
    ) {
        self.turns = turns
        self.id = id
        self.control = control
        self.group = group
        self.settings = settings
        self.descriptors = descriptors
        eventLoop = group.next()
        logger = Logger(label: id.kind.rawValue)
    }

    func create() {
        eventLoop.preconditionInEventLoop()
        do {
            let environment = try WorkerEnvironment(
                kind: id.kind, index: id.index, settings: settings, group: group, eventLoop: eventLoop, logger: logger,
                turns: turns, descriptors: descriptors, onFailure: { [control, id] in failed(id, $0, on: control) },
                onHandOver: { [control] connections in
                    for start in stride(from: 0, to: connections.count, by: DescriptorPassing.descriptorsMax) {
                        let some = connections[start...].prefix(DescriptorPassing.descriptorsMax)
                        control.send(.connections, descriptors: Array(some), wait: true)
                    }
                }, onSend: { [control] in control.send($0, wait: true) })
            self.environment = environment
            descriptors = []
            worker = try W(environment: environment)
        } catch {
            failed(id, error, on: control)
        }
    }

    func handle(_ message: WorkerMessage, descriptors: [Int32]) {
        eventLoop.preconditionInEventLoop()
        guard let worker else { preconditionFailure("a message before the worker was created") }
        switch message {
        case .peer(let kind, let index):
            guard let descriptor = descriptors.first else {
                logger.error(
                    """
                    there is no free descriptor for the link to \(kind.rawValue)@\(index), what needs it waits: raise \
                    limits.\(id.kind.rawValue).files or LimitNOFILE=, then apus restart \(kind.rawValue)@\(index)
                    """)
                return
            }
            worker.peer(kind: kind, index: index, descriptor: descriptor)
        case .connections:
            if descriptors.isEmpty {
                logger.warning(
                    """
                    there are no free descriptors for clients' connections of the process before: these clients \
                    connect again; raise limits.\(id.kind.rawValue).files or LimitNOFILE=
                    """)
            }
            worker.adopt(connections: descriptors)
        case .setupDone:
            worker.start().assumeIsolated().whenComplete { result in
                switch result {
                case .success(let detail):
                    self.serving = true
                    self.turns.serve()
                    StartupMemory.release()
                    self.logger.debug("ready: \(detail)")
                    self.control.send(.ready(detail: detail), wait: true)
                case .failure(let error): failed(self.id, error, on: self.control)
                }
            }
        case .ping(let number):
            lookAtLimits()
            Logs.reportSuppressed(logger)
            func joined(_ notes: [String]) -> String { notes.filter { !$0.isEmpty }.joined(separator: "; ") }
            control.send(
                .pong(
                    number,
                    status: joined([
                        serving ? worker.status() : "", serving ? turns.summary : "",
                        environment?.connectionsNote ?? "",
                    ]), trouble: joined([serving ? worker.trouble() : "", limitNote])),
                wait: false)
        case .drain(let reason): drain(reason, because: nil)
        case .reload(let settings):
            environment?.settings = settings
            worker.reload(settings: settings)
        case .pardon(let name): worker.pardon(name: name)
        case .extend(let names):
            if let shortage = WorkerMain.descriptorShortage(
                id, names, descriptors, for: "what a new broker shares, it is not served")
            {
                return logger.error("\(shortage)")
            }
            do {
                try environment?.adopt(Array(zip(names, descriptors)).map { (name: $0, fd: $1) })
            } catch {
                failed(id, error, on: control)
            }
        case .setup, .ready, .pong, .failed, .drained, .renew, .explained, .report, .filterServes, .filterCompile,
            .filterRelease, .filterBatch, .filterCompiled,
            .filterMatched, .filterFailed, .replicaBytes, .replicaMetadata, .replicaState, .replicaPosition,
            .replicaRefused, .brokerRole, .slaves, .slavesWanted, .claimsWanted, .claims, .topicCreated:
            preconditionFailure("the supervisor never sends \(message)")
        }
    }

    /// A process without memory would fail anywhere without a report; one without descriptors goes on, and should be
    /// seen to.
    private func lookAtLimits() {
        if W.endsBeforeMemoryDoes, let (used, limit) = OwnLimits.memory(), used > limit / 16 * 15 {
            let reason =
                """
                \(used >> 20) MB of memory are in use and \(limit >> 20) MB allowed: raise \
                limits.\(id.kind.rawValue).memory
                """
            failed(id, WorkerError(reason), on: control)
        }
        let note = OwnLimits.filesExhausted().map {
            "all \($0) open files it may have are in use: raise limits.\(id.kind.rawValue).files or LimitNOFILE="
        }
        if let note, note != limitNote { logger.error("\(note)") }
        limitNote = note ?? ""
    }

    func drain(_ reason: DrainReason, because text: String?) {
        eventLoop.preconditionInEventLoop()
        guard !draining else { return }
        draining = true
        if let text { logger.notice("\(text): draining") }
        guard let worker else { WorkerMain.end(0, "") }
        worker.drain(reason).whenComplete { [control, logger] result in
            if case .failure(let error) = result {
                logger.error("draining failed, the worker ends all the same: \(error)")
            }
            control.send(.drained, wait: true)
            _exit(0)
        }
    }
}

/// Reports why and ends the process.
private func failed(_ id: WorkerID, _ error: any Error, on control: ControlChannel) -> Never {
    let cause = (error as? WorkerError)?.cause ?? .own
    control.send(.failed(reason: "\(error)", cause: cause), wait: true)
    _exit(1)
}
