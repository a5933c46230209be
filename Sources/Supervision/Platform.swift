import Glibc
package import LinuxSystem
package import Logging
import Systemd
import WorkerProtocol

/// Carries out what `SupervisorState` decides: the one thread, the one poll loop of apusd. It never touches a message,
/// maps a segment or loads a plug-in, so that it outlives everything it supervises.
package final class Platform {
    /// A worker process and its control channel.
    struct Child {
        var process: ChildProcess
        var control: SharedDescriptor
    }

    var configuration: PlatformConfiguration
    let executables: String
    let resources: Resources
    private let runDirectory: RunDirectory
    private let workersLock: WorkersLock
    private let signals: Signals
    let logger: Logger
    let readAgain: () throws -> PlatformConfiguration
    private let startedAt = MonotonicClock.milliseconds
    var state: SupervisorState
    private(set) var children: [WorkerID: Child] = [:]
    var limiter: Limiter
    /// Operators' plugins, by their files' names.
    var plugins: PluginFolder
    private var control: ControlSocket?
    private var pending: [SupervisorState.Event] = []
    private var exitCode: Int32?
    private var handsBusy = false
    /// Milliseconds of the monotonic clock.
    var nextPluginLook: Int64 = 0

    /// - Parameters:
    ///   - executables: the folder of the worker executables.
    ///   - readAgain: reads the configuration anew, for SIGHUP.
    package init(
        _ configuration: PlatformConfiguration, executables: String, resources: Resources, runDirectory: RunDirectory,
        workersLock: WorkersLock, signals: consuming Signals, limits: SupervisorState.Limits = .init(), logger: Logger,
        readAgain: @escaping () throws -> PlatformConfiguration
    ) {
        self.configuration = configuration
        self.executables = executables
        self.resources = resources
        self.runDirectory = runDirectory
        self.workersLock = workersLock
        self.signals = signals
        self.logger = logger
        self.readAgain = readAgain
        limiter = Limiter(configuration)
        plugins = configuration.pluginFolder(executables: executables)
        var limits = limits
        limits.watchdogMilliseconds = Notifier.watchdogMicroseconds.map { Int64($0 / 2000) }
        state = SupervisorState(workers: configuration.workers, limits: limits, table: configuration.table)
    }

    /// The signals this process takes as data; block them before any other thread starts.
    package static let signalNumbers = [SIGTERM, SIGINT, SIGHUP]

    /// Runs the platform until it has stopped; answers the exit status of apusd.
    /// - Throws: the control socket cannot be bound, or poll(2) fails.
    package func run() throws(SystemError) -> Int32 {
        control = try ControlSocket(in: runDirectory.directory.raw) { [unowned self] in answer($0, $1) }
        for text in limiter.complaints { logger.warning("\(text)") }
        handle(.start)
        while exitCode == nil { try turn() }
        control = nil
        workersLock.remove()
        runDirectory.remove()
        return exitCode ?? 0
    }

    // MARK: - The loop

    private func turn() throws(SystemError) {
        var polled = [pollfd(fd: signals.descriptor.raw, events: Int16(POLLIN), revents: 0)]
        var owners: [WorkerID?] = [nil]
        for (id, child) in children {
            polled.append(pollfd(fd: child.control.raw, events: Int16(POLLIN), revents: 0))
            polled.append(pollfd(fd: child.process.pidfd.raw, events: Int16(POLLIN), revents: 0))
            owners += [id, id]
        }
        for fd in control?.descriptors ?? [] {
            polled.append(pollfd(fd: fd, events: Int16(POLLIN), revents: 0))
            owners.append(nil)
        }
        let wait = max(0, min(state.deadline - MonotonicClock.milliseconds, 60_000))
        let count = polled.count
        try call("poll", "workers") { poll(&polled, nfds_t(count), Int32(wait)) }

        for (entry, owner) in zip(polled, owners) where entry.revents != 0 {
            if let owner {
                // An earlier entry of this round may have ended or replaced the child.
                guard let child = children[owner] else { continue }
                if entry.fd == child.control.raw { receive(from: owner, child) }
                if entry.fd == child.process.pidfd.raw { try reap(owner, child) }
            } else if entry.fd == signals.descriptor.raw {
                while let signal = try signals.take() { handle(signal: signal) }
            } else {
                _ = control?.readable(entry.fd)
            }
        }
        handle(.tick)
        Logs.reportSuppressed(logger)
        lookForPlugins()
    }

    private func handle(signal: Int32) {
        switch signal {
        case SIGHUP: reload()
        case SIGINT: handle(.stop("SIGINT"))
        default: handle(.stop("SIGTERM"))
        }
    }

    /// What carrying out an action brings up (a failed launch) is handled after the actions that came with it.
    func handle(_ event: SupervisorState.Event) {
        pending.append(event)
        guard !handsBusy else { return }
        handsBusy = true
        while !pending.isEmpty {
            for action in state.handle(pending.removeFirst(), at: MonotonicClock.milliseconds) { carryOut(action) }
        }
        handsBusy = false
    }

    private func carryOut(_ action: SupervisorState.Action) {
        switch action {
        case .spawn(let id): spawn(id)
        case .introduce(let pair): introduce(pair)
        case .send(let id, let message): send(message, to: id)
        case .reload(let id): send(.reload(settings: configuration.settings(of: id)), to: id)
        case .kill(let id):
            do {
                try children[id]?.process.send(signal: SIGKILL)
            } catch {
                logger.error("\(id): cannot be killed: \(error)")
            }
        case .closeListeners(let id): resources.closeListeners(of: id)
        case .pauseListeners(let id): resources.pauseListeners(of: id)
        case .removeListeners(let id): resources.removeListeners(of: id)
        case .extend(let id):
            let shared = resources.sharedDescriptors(for: id)
            send(.extend(descriptors: shared.map(\.name)), to: id, descriptors: shared.map(\.fd))
        case .ready: becameReady()
        case .watchdog: Notifier.send([.watchdog])
        case .stopping: Notifier.send([.stopping])
        case .status(let text): Notifier.send([.status(text)])
        case .log(let level, let id, let text):
            logger.log(level: level, "\(id.map { "\($0): " } ?? "")\(text)", metadata: id.map { ["about": "\($0)"] })
        case .exit(let code): exitCode = code
        }
    }

    // MARK: - Workers

    private func spawn(_ id: WorkerID) {
        let path = "\(executables)/apus-\(id.kind.rawValue)"
        do {
            let (ours, theirs) = try SocketPair.create(sequencedPackets: true).ends()
            let null = try RunDirectory.openNull()
            let environment = ChildProcess.environment(without: Notifier.environmentNames)
            // Standard output belongs to the ready line: what a worker prints goes to stderr.
            let child = try ChildProcess.spawn(
                path: path, arguments: ["apus-\(id.kind.rawValue)"], environment: environment,
                descriptors: [(null.raw, 0), (2, 1), (2, 2), (theirs.raw, 3), (workersLock.descriptor.raw, 4)],
                parentDeathSignal: SIGTERM, ownProcessGroup: true, ignoringStrays: true)
            children[id] = Child(process: child, control: ours)
            for text in limiter.apply(to: child, id) { logger.warning("\(id): \(text)") }
            workersLock.note(workers: children.values.map(\.process.pid))
            handle(.spawned(id, pid: child.pid))
            let descriptors = resources.descriptors(for: id)
            send(
                .setup(
                    kind: id.kind, index: id.index, settings: configuration.settings(of: id),
                    descriptors: descriptors.map(\.name)),
                to: id, descriptors: descriptors.map(\.fd))
            resources.giveConnections(of: id) { send(.connections, to: id, descriptors: $0) }
        } catch {
            handle(.exited(id, .spawnFailed("cannot be launched: \(error)")))
        }
    }

    private func introduce(_ pair: WorkerPair) {
        do {
            let (first, second) = try SocketPair.create(sequencedPackets: false).ends()
            send(.peer(kind: pair.b.kind, index: pair.b.index), to: pair.a, descriptors: [first.raw])
            send(.peer(kind: pair.a.kind, index: pair.a.index), to: pair.b, descriptors: [second.raw])
        } catch {
            logger.error(
                "\(pair.a) and \(pair.b) could not be connected: \(error); apus restart \(pair.a) tries it again")
        }
    }

    /// Never waits: a worker that has not read for so long that its channel is full is about to be found hanging.
    func send(_ message: WorkerMessage, to id: WorkerID, descriptors: [Int32] = []) {
        guard let child = children[id] else { return }
        let bytes = message.encoded()
        do {
            guard bytes.count <= WorkerMessage.controlBytesMax else {
                throw SystemError(errno: EMSGSIZE, call: "sendmsg", subject: "\(bytes.count) bytes")
            }
            try bytes.withUnsafeBytes {
                try DescriptorPassing.send($0, descriptors: descriptors, to: child.control.raw, wait: false)
            }
        } catch let error as SystemError where error.errno == EPIPE || error.errno == ECONNRESET {
            // It has just ended; its pidfd shows it.
        } catch {
            logger.error(
                """
                \(id): a message could not be sent to it, it may lack settings or a link: \(error); apus restart \
                \(id.kind.rawValue)@\(id.index) sends it all
                """)
        }
    }

    /// Messages of one worker that are handled before the others have their turn. One that never stops talking, as a
    /// plugin might make it, delays no other.
    private static let messagesInTurn = 64
    /// More than a channel holds.
    private static let lastMessagesMax = 10_000

    private func receive(from id: WorkerID, _ child: Child, atMost most: Int = Platform.messagesInTurn) {
        do {
            var count = 0
            while count < most, let (message, descriptors) = try Platform.receive(child.control.raw) {
                count += 1
                // Without a listener there are no clients: what such a worker passes would only use up descriptors
                // here.
                if case .connections = message, !configuration.row(of: id).listeners.isEmpty {
                    if descriptors.isEmpty {
                        logger.warning(
                            """
                            \(id): there are no free descriptors to keep its clients' connections for its next \
                            process: these clients connect again; raise LimitNOFILE=
                            """)
                    }
                    resources.keep(connections: descriptors, of: id)
                    continue
                }
                handle(.message(id, message))
                if case .ready = message { remember(diskOf: id) }
                if case .pong = message, let note = limiter.noticed(id) { handle(.noticed(id, note)) }
            }
        } catch let error as SystemError where error.errno == ECONNRESET {
        } catch {
            logger.error("\(id): what it sent could not be received: \(error); killed")
            do {
                try child.process.send(signal: SIGKILL)
            } catch {
                logger.error("\(id): cannot be killed: \(error)")
            }
        }
    }

    /// nil: nothing more now, or closed.
    private static func receive(_ fd: Int32) throws -> (WorkerMessage, [SharedDescriptor])? {
        try withUnsafeTemporaryAllocation(byteCount: WorkerMessage.controlBytesMax, alignment: 8) { buffer in
            do {
                guard let (count, descriptors) = try DescriptorPassing.receive(into: buffer, from: fd, wait: false)
                else { return nil }
                let owned = descriptors.map { SharedDescriptor(Descriptor(owning: $0)) }
                return (try WorkerMessage(decoding: UnsafeRawBufferPointer(rebasing: buffer[..<count])), owned)
            } catch let error as SystemError where error.errno == EAGAIN {
                return nil
            }
        }
    }

    private func reap(_ id: WorkerID, _ child: Child) throws(SystemError) {
        // Its last messages (why it failed) may still lie in the channel.
        receive(from: id, child, atMost: Platform.lastMessagesMax)
        guard let ending = try child.process.reap() else { return }
        children[id] = nil
        switch ending {
        case .code(let code): handle(.exited(id, .code(code)))
        case .signal(let signal):
            let name = ChildProcess.signalName(signal) + limiter.explain(signal: signal, of: id)
            handle(.exited(id, .signal(signal, name: name)))
        }
    }

    // MARK: - To the outside

    private var nameserverAddress: String {
        configuration.announcedNameserver ?? configuration.brokers.first?["namesrvAddr"] ?? ""
    }

    private func becameReady() {
        Notifier.send([.ready])
        logger.notice("ready in \(MonotonicClock.milliseconds - startedAt) ms")
        let console = configuration.consoleAddress.map { "console=\($0) " } ?? ""
        let line =
            "ready nameserver=\(nameserverAddress) broker=\(configuration.announcedBrokers.joined(separator: ",")) "
            + "\(console)data=\(configuration.dataDirectory) pid=\(getpid())\n"
        // Without a reader the platform serves all the same.
        _ = Glibc.write(1, line, line.utf8.count)
    }

    private func answer(_ command: ControlSocket.Command, _ subject: String?) -> String {
        switch command {
        case .restart: return restart(subject ?? "")
        case .status: return report.json
        case .reload:
            return reload().json
        case .plugins: return pluginReport
        case .pardon:
            pardon(subject ?? "")
            return JSONText.object([("ok", "true")])
        case .stop:
            let count = children.count
            handle(.stop("apus down"))
            return JSONText.object([("ok", "true"), ("workers", String(count)), ("pid", String(getpid()))])
        }
    }

    private var report: StatusReport {
        let now = MonotonicClock.milliseconds
        let name =
            switch state.mode {
            case .starting: "starting"
            case .running: "running"
            case .stopping: "stopping"
            case .ended: "stopped"
            }
        return StatusReport(
            pid: getpid(), state: name, uptimeMilliseconds: now - startedAt, dataDirectory: configuration.dataDirectory,
            nameserver: nameserverAddress, brokers: configuration.announcedBrokers,
            console: configuration.consoleAddress ?? "", statusLine: state.statusLine,
            workers: state.workers, now: now)
    }
}
