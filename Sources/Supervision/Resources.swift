package import LinuxSystem
package import Systemd
package import WorkerProtocol

/// What outlives the workers: listening sockets, shared segments, eventfds. Kept over restarts, so that clients'
/// connects wait in the backlog, and passed to every process of a worker. The supervisor maps none of the segments.
///
/// Sockets and segments are also left with systemd (`DescriptorStore`), so that they outlive the supervisor, too.
package final class Resources {
    /// A segment or an event: its name, and the worker it belongs to.
    private struct Key: Hashable {
        var name: String
        var owner: WorkerID
    }

    private let table: WorkerTable
    private var listeners: [WorkerID: [(name: String, socket: SharedDescriptor)]] = [:]
    private var segments: [Key: (writable: SharedDescriptor, readOnly: SharedDescriptor)] = [:]
    private var events: [Key: SharedDescriptor] = [:]
    /// Of clients: from a worker that has drained, for its next process.
    private var connections: [WorkerID: [SharedDescriptor]] = [:]
    /// Workers that left the platform.
    private var gone: Set<WorkerID> = []
    private var given: GivenDescriptors
    private let store: DescriptorStore
    /// Bound, and left with the store only when all the others are: it would hold a port that is reported as taken.
    private var unkept: [(socket: SharedDescriptor, name: String)] = []
    /// Workers the platform starts without because another process has their port: texts for the operator.
    package private(set) var omitted: [String] = []

    /// Binds what `configuration` asks for, but takes `activated` descriptors where they fit. These are sockets of
    /// socket units by their names or ports, and what the store kept. Afterwards the ports in `configuration` are the
    /// real ones.
    ///
    /// What the store holds for no listener or segment of this configuration is removed from it.
    /// - Throws: a port cannot be bound, or systemd passed a socket that no worker listens on; with the remedy.
    package init(
        _ configuration: inout PlatformConfiguration, activated: [(name: String, fd: Int32)],
        store: DescriptorStore = .none
    ) throws(ConfigurationError) {
        table = configuration.table
        given = GivenDescriptors(activated)
        self.store = store
        do throws(SystemError) {
            for worker in configuration.workers {
                do throws(SystemError) {
                    try bind(worker, &configuration)
                } catch  where table.row(worker.kind).startsWithoutPort && error.call == "bind" {
                    omitted.append(
                        "this platform runs without its \(table.row(worker.kind).title): "
                            + Resources.explain(error, configuration))
                    configuration.remove(worker.kind)
                    continue
                }
                try createShared(worker, configuration)
                connections[worker] = given.takeKept(connectionsName(worker))
            }
            keepBound()
        } catch {
            throw ConfigurationError(Resources.explain(error, configuration))
        }
        guard given.unused.isEmpty else {
            let names = given.unused.joined(separator: ", ")
            let known = table.rows.flatMap(\.listeners).map(\.socketUnitName).joined(separator: ", ")
            throw ConfigurationError(
                "systemd passed sockets that no worker listens on: \(names); make ListenStream= of the socket unit and "
                    + "the ports of the configuration agree, or set FileDescriptorName= to one of \(known)")
        }
        for name in given.stale { store.forget(name) }
        given = GivenDescriptors([])
    }

    /// For workers that come to a platform that runs. All of them, or none.
    /// - Throws: a port cannot be bound; none of the workers has anything then.
    package func add(_ workers: [WorkerID], _ configuration: inout PlatformConfiguration) throws(ConfigurationError) {
        do throws(SystemError) {
            for worker in workers where listeners[worker] == nil {
                gone.remove(worker)
                try bind(worker, &configuration)
                try createShared(worker, configuration)
            }
            keepBound()
        } catch {
            unkept = []
            for worker in workers { removeListeners(of: worker) }
            throw ConfigurationError(Resources.explain(error, configuration))
        }
    }

    // MARK: - Listeners

    private func bind(_ worker: WorkerID, _ configuration: inout PlatformConfiguration) throws(SystemError) {
        for row in table.row(worker.kind).listeners {
            // Bound with a listener before it, as its neighbour.
            if listeners[worker]?.contains(where: { $0.name == row.name }) == true { continue }
            let unitName = worker.index == 0 ? row.socketUnitName : "\(row.socketUnitName)#\(worker.index)"
            let settings = configuration.settings(of: worker)
            let address = settings.string("bindAddress", default: "127.0.0.1")
            let port = settings[row.portKey].flatMap { Int($0) }
            let socket: SharedDescriptor
            if let activated = given.takeSocket(name: unitName, port: port ?? 0) {
                // It stays with its unit: nothing to keep.
                listeners[worker, default: []].append((row.name, activated))
                configuration.set(row.portKey, String(try ListenSocket.port(of: activated.raw)), for: worker)
                continue
            } else if let port, let kept = keptListener(worker, row.name, address, port) {
                socket = kept
                if port == 0 { setNeighbours(of: try ListenSocket.port(of: kept.raw), row, worker, &configuration) }
            } else if let port {
                if port == 0, !row.neighbours.isEmpty {
                    try bindWithNeighbours(row, worker, address, &configuration)
                    continue
                }
                socket = SharedDescriptor(try ListenSocket.tcp(address: address, port: port))
            } else {
                continue
            }
            try add(socket, row, worker, &configuration)
        }
    }

    private func keptListener(_ worker: WorkerID, _ name: String, _ address: String, _ port: Int) -> SharedDescriptor? {
        kept(GivenDescriptors.listenerName(owner: "\(worker)", name)) {
            ListenSocket.listens($0, address: address, port: port)
        }
    }

    /// What an earlier supervisor left with systemd under `name`, if it still `fits`; removed there if not.
    private func kept(_ name: String, where fits: (Int32) -> Bool) -> SharedDescriptor? {
        guard let found = given.takeKept(name) else { return nil }
        if found.count == 1, fits(found[0].raw) { return found[0] }
        store.forget(name)
        return nil
    }

    private func add(
        _ socket: SharedDescriptor, _ row: WorkerRow.ListenerRow, _ worker: WorkerID,
        _ configuration: inout PlatformConfiguration
    ) throws(SystemError) {
        configuration.set(row.portKey, String(try ListenSocket.port(of: socket.raw)), for: worker)
        listeners[worker, default: []].append((row.name, socket))
        unkept.append((socket, GivenDescriptors.listenerName(owner: "\(worker)", row.name)))
    }

    private func keepBound() {
        for (socket, name) in unkept { store.keep(socket.raw, name) }
        unkept = []
    }

    /// Any free port whose neighbours are free too. Neighbours of this worker are bound with it; those of a worker that
    /// reads the same settings are bound when its turn comes.
    private func bindWithNeighbours(
        _ row: WorkerRow.ListenerRow, _ worker: WorkerID, _ address: String,
        _ configuration: inout PlatformConfiguration
    ) throws(SystemError) {
        let settings = configuration.settings(of: worker)
        let own = table.row(worker.kind).listeners
        for attempt in 1...64 {
            let main = SharedDescriptor(try ListenSocket.tcp(address: address, port: 0))
            let port = try ListenSocket.port(of: main.raw)
            do throws(SystemError) {
                var bound = [(main, row)]
                for neighbour in row.neighbours {
                    if let listener = own.first(where: { $0.portKey == neighbour.portKey }) {
                        let wanted = settings.int(neighbour.portKey, default: port + neighbour.offset)
                        let socket = SharedDescriptor(try ListenSocket.tcp(address: address, port: wanted))
                        bound.append((socket, listener))
                    } else if settings[neighbour.portKey] == nil {
                        // Free now; that another process takes it before it is bound is unlikely.
                        _ = try ListenSocket.tcp(address: address, port: port + neighbour.offset)
                    }
                }
                for (socket, listener) in bound { try add(socket, listener, worker, &configuration) }
                setNeighbours(of: port, row, worker, &configuration)
                return
            } catch  where attempt < 64 {
                continue
            }
        }
    }

    private func setNeighbours(
        of port: Int, _ row: WorkerRow.ListenerRow, _ worker: WorkerID, _ configuration: inout PlatformConfiguration
    ) {
        let settings = configuration.settings(of: worker)
        for neighbour in row.neighbours where settings[neighbour.portKey] == nil {
            configuration.set(neighbour.portKey, String(port + neighbour.offset), for: worker)
        }
    }

    /// What to do about a port that cannot be bound.
    static func explain(_ error: SystemError, _ configuration: PlatformConfiguration) -> String {
        guard error.call == "bind" else { return error.description }
        let port = error.subject.split(separator: ":").last.map(String.init) ?? ""
        let listeners = configuration.workers.flatMap { worker in
            configuration.row(of: worker).listeners.filter { configuration.settings(of: worker)[$0.portKey] == port }
        }
        let option = listeners.first?.option ?? "--set KEY=PORT"
        switch error.errno {
        case 98:  // EADDRINUSE
            return "port \(port) is in use (\(error.subject)): stop what listens there (ss -ltnp 'sport = :\(port)') "
                + "or choose another port with \(option) (0 picks a free one)"
        case 99:  // EADDRNOTAVAIL
            return "\(error.subject) is no address of this machine: correct bindAddress"
        case 13:  // EACCES
            return "port \(port) needs root or CAP_NET_BIND_SERVICE: choose one above 1023 with \(option)"
        default: return error.description
        }
    }

    /// So many of a worker are handed over; more end with the worker. Names of all of them must fit one environment
    /// variable.
    package static let connectionsMax = 4000

    /// A worker that drains gives its clients' connections away: they stay open, and what clients send waits in them.
    ///
    /// Those of a worker that has ended for good end here.
    package func keep(connections new: [SharedDescriptor], of worker: WorkerID) {
        guard !gone.contains(worker) else { return }
        let free = Resources.connectionsMax - (connections[worker]?.count ?? 0)
        for connection in new.prefix(free) {
            connections[worker, default: []].append(connection)
            store.keep(connection.raw, connectionsName(worker))
        }
    }

    /// Its next process takes them; from then on only the worker has them, so that it can close them.
    func giveConnections(of worker: WorkerID, send: ([Int32]) -> Void) {
        guard let kept = connections.removeValue(forKey: worker) else { return }
        for start in stride(from: 0, to: kept.count, by: DescriptorPassing.descriptorsMax) {
            send(kept[start...].prefix(DescriptorPassing.descriptorsMax).map(\.raw))
        }
        store.forget(connectionsName(worker))
    }

    /// The platform stops: from now on connects to this worker are refused, unless systemd keeps the sockets for a
    /// restart.
    package func closeListeners(of worker: WorkerID) { listeners[worker] = nil }

    /// Connects are refused at once until the worker, back again, listens on its sockets anew. They stay bound, so that
    /// no process else takes the ports.
    package func pauseListeners(of worker: WorkerID) {
        endConnections(of: worker)
        for listener in listeners[worker] ?? [] { ListenSocket.pause(listener.socket.raw) }
    }

    /// The worker left the platform: connects are refused at once, also under systemd.
    package func removeListeners(of worker: WorkerID) {
        for listener in listeners[worker] ?? [] {
            store.forget(GivenDescriptors.listenerName(owner: "\(worker)", listener.name))
        }
        listeners[worker] = nil
        gone.insert(worker)
        endConnections(of: worker)
    }

    private func endConnections(of worker: WorkerID) {
        guard connections.removeValue(forKey: worker) != nil else { return }
        store.forget(connectionsName(worker))
    }

    /// As short as can be, for there may be thousands of that name.
    private func connectionsName(_ worker: WorkerID) -> String {
        GivenDescriptors.connectionsName(table.row(worker.kind).shortName, worker.index)
    }

    // MARK: - Segments and events

    private func createShared(_ worker: WorkerID, _ configuration: PlatformConfiguration) throws(SystemError) {
        let row = table.row(worker.kind)
        for case .writes(let name, let bytes) in row.segments {
            // A segment is about the one store its worker works on.
            let label = GivenDescriptors.segmentName(
                name, owner: "\(worker)", layout: WorkerTable.segmentLayout,
                subject: configuration.settings(of: worker).string("storePathRootDir", default: ""))
            let writable: SharedDescriptor
            if let found = kept(label, where: { SharedSegment.isSegment($0, bytes: bytes) }) {
                writable = found
            } else {
                writable = SharedDescriptor(
                    try SharedSegment.createDescriptor(name: "apus-\(worker)-\(name)", bytes: bytes))
                store.keep(writable.raw, label)
            }
            segments[Key(name: name, owner: worker)] = (
                writable, SharedDescriptor(try SharedSegment.readOnly(writable.raw))
            )
        }
        for event in row.events {
            let key = Key(name: event.name, owner: WorkerID(event.owner, worker.index))
            if events[key] == nil { events[key] = SharedDescriptor(try EventFD.create()) }
        }
    }

    /// Names and descriptors for `setup`; the descriptors stay ours.
    package func descriptors(for worker: WorkerID) -> [(name: String, fd: Int32)] {
        var all = (listeners[worker] ?? []).map { (name: "listener:\($0.name)", fd: $0.socket.raw) }
        let row = table.row(worker.kind)
        for use in row.segments {
            switch use {
            case .writes(let name, _):
                guard let segment = segments[Key(name: name, owner: worker)] else { continue }
                all.append(("segment:\(name)", segment.writable.raw))
            case .reads(let name, let kind):
                guard let segment = segments[Key(name: name, owner: WorkerID(kind, worker.index))] else { continue }
                all.append(("segment:\(name)", segment.readOnly.raw))
            case .readsAll: break
            }
        }
        all += sharedDescriptors(for: worker)
        for event in row.events {
            guard let fd = events[Key(name: event.name, owner: WorkerID(event.owner, worker.index))] else { continue }
            all.append(("event:\(event.name)", fd.raw))
        }
        return all
    }

    /// The part of them that grows with the platform: segments of all workers of a kind.
    package func sharedDescriptors(for worker: WorkerID) -> [(name: String, fd: Int32)] {
        table.row(worker.kind).segments.flatMap { use -> [(name: String, fd: Int32)] in
            guard case .readsAll(let name, let kind) = use else { return [] }
            return segments.filter { $0.key.name == name && $0.key.owner.kind == kind }
                .sorted { $0.key.owner.index < $1.key.owner.index }
                .map { (name: "segment:\($0.key.owner.segment(name))", fd: $0.value.readOnly.raw) }
        }
    }
}
