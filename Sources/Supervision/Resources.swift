package import LinuxSystem
package import Systemd
package import WorkerProtocol

/// What outlives the workers: listening sockets, shared segments, eventfds. Kept over restarts, so that clients' connects
/// wait in the backlog, and passed to every new life of a worker. The supervisor maps none of the segments.
///
/// Sockets and segments are also left with systemd (`DescriptorStore`), so that the next life of the supervisor has them, too.
package final class Resources {
    private var listeners: [WorkerID: [(name: String, socket: SharedDescriptor)]] = [:]
    private var segments: [String: (writable: SharedDescriptor, readOnly: SharedDescriptor)] = [:]
    private var events: [String: SharedDescriptor] = [:]
    /// Of clients: from a worker that has drained to its next life.
    private var connections: [WorkerID: [SharedDescriptor]] = [:]
    /// Workers without a next life.
    private var gone: Set<WorkerID> = []
    private var given: GivenDescriptors
    private let store: DescriptorStore
    /// Bound, and left with the store only when all the others are: it would hold a port that is said to be taken.
    private var unkept: [(socket: SharedDescriptor, name: String)] = []

    /// Binds what `configuration` asks for, but takes `activated` descriptors where they fit: sockets of socket units by
    /// their names or ports, and what the store kept. Afterwards the ports in `configuration` are the real ones.
    ///
    /// What the store holds for no listener or segment of this configuration is removed from it.
    package init(
        _ configuration: inout PlatformConfiguration, activated: [(name: String, fd: Int32)],
        store: DescriptorStore = .none
    ) throws(ConfigurationError) {
        given = GivenDescriptors(activated)
        self.store = store
        do throws(SystemError) {
            for worker in configuration.workers {
                try bind(worker, &configuration)
                try createShared(worker, configuration)
                connections[worker] = given.takeKept(GivenDescriptors.connectionsName(owner: worker))
            }
            keepBound()
        } catch {
            throw ConfigurationError(Resources.explain(error, configuration))
        }
        guard given.unused.isEmpty else {
            let names = given.unused.joined(separator: ", ")
            let known = WorkerTable.rows.flatMap(\.listeners).map(\.socketUnitName).joined(separator: ", ")
            throw ConfigurationError(
                "systemd passed sockets that no worker listens on: \(names); make ListenStream= of the socket unit and the "
                    + "ports of the configuration agree, or set FileDescriptorName= to one of \(known)")
        }
        for name in given.stale { store.forget(name) }
        given = GivenDescriptors([])
    }

    /// For workers that come to a platform that runs. All of them, or none.
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

    // MARK: listeners

    private func bind(_ worker: WorkerID, _ configuration: inout PlatformConfiguration) throws(SystemError) {
        let rows = WorkerTable.row(worker.kind).listeners
        for row in rows {
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
                if port == 0 && worker.kind == .brokerStore {
                    setNeighbours(of: try ListenSocket.port(of: kept.raw), worker, &configuration)
                }
            } else if let port {
                if worker.kind == .brokerStore && row.name == "remoting" && port == 0 {
                    try bindAnyBroker(worker, address, &configuration)
                    return
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

    /// What a former life left with systemd under `name`, if it still `fits`; removed there if not.
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

    /// Any free broker port whose neighbours are free too: clients derive the VIP port (2 below) from it, and slaves'
    /// operators the HA port (1 above). The HA port itself is bound when replication's turn comes.
    private func bindAnyBroker(
        _ worker: WorkerID, _ address: String, _ configuration: inout PlatformConfiguration
    ) throws(SystemError) {
        let settings = configuration.settings(of: worker)
        for attempt in 1...64 {
            let main = SharedDescriptor(try ListenSocket.tcp(address: address, port: 0))
            let port = try ListenSocket.port(of: main.raw)
            do throws(SystemError) {
                let vip = try ListenSocket.tcp(
                    address: address, port: settings.int("fastListenPort", default: port - 2))
                if settings["haListenPort"] == nil {
                    // Free now; nobody else picks it in the moment until it is bound for replication.
                    _ = try ListenSocket.tcp(address: address, port: port + 1)
                }
                let rows = WorkerTable.row(worker.kind).listeners
                for (row, socket) in zip(rows, [main, SharedDescriptor(vip)]) {
                    try add(socket, row, worker, &configuration)
                }
                setNeighbours(of: port, worker, &configuration)
                return
            } catch  where attempt < 64 {
                continue
            }
        }
    }

    private func setNeighbours(of port: Int, _ worker: WorkerID, _ configuration: inout PlatformConfiguration) {
        let settings = configuration.settings(of: worker)
        for (key, neighbour) in [("fastListenPort", port - 2), ("haListenPort", port + 1)] where settings[key] == nil {
            configuration.set(key, String(neighbour), for: worker)
        }
    }

    /// What to do about a port that cannot be bound.
    static func explain(_ error: SystemError, _ configuration: PlatformConfiguration) -> String {
        guard error.call == "bind" else { return error.description }
        let port = error.subject.split(separator: ":").last.map(String.init) ?? ""
        let option =
            if configuration.nameserver?["listenPort"] == port { "--nameserver-port" } else { "--broker-port" }
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

    /// So many of a worker are handed over; more end with the worker. Names of all of them must fit one environment variable.
    package static let connectionsMax = 4000

    /// A worker that drains gives its clients' connections away: they stay open, and what clients send waits in them.
    ///
    /// Those of a worker that is gone for good end here.
    package func keep(connections new: [SharedDescriptor], of worker: WorkerID) {
        guard !gone.contains(worker) else { return }
        let room = Resources.connectionsMax - (connections[worker]?.count ?? 0)
        for connection in new.prefix(room) {
            connections[worker, default: []].append(connection)
            store.keep(connection.raw, GivenDescriptors.connectionsName(owner: worker))
        }
    }

    /// Its next life takes them; from then on they are nobody else's, so that they end when the worker ends them.
    func giveConnections(of worker: WorkerID, send: ([Int32]) -> Void) {
        guard let kept = connections.removeValue(forKey: worker) else { return }
        for start in stride(from: 0, to: kept.count, by: DescriptorPassing.descriptorsMax) {
            send(kept[start...].prefix(DescriptorPassing.descriptorsMax).map(\.raw))
        }
        store.forget(GivenDescriptors.connectionsName(owner: worker))
    }

    /// The platform stops: from now on connects to this worker are refused, unless systemd keeps the sockets for a restart.
    package func closeListeners(of worker: WorkerID) { listeners[worker] = nil }

    /// Connects are refused at once until the worker, back again, listens on its sockets anew. They stay bound, so that nobody
    /// else takes the ports.
    package func pauseListeners(of worker: WorkerID) {
        endConnections(of: worker)
        for listener in listeners[worker] ?? [] { ListenSocket.pause(listener.socket.raw) }
    }

    /// The worker is gone for good: connects are refused at once, also under systemd.
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
        store.forget(GivenDescriptors.connectionsName(owner: worker))
    }

    // MARK: segments and events

    /// `watermarks` of number 1 is called `watermarks#1` here.
    private static func key(_ name: String, _ index: Int) -> String { "\(name)#\(index)" }

    private func createShared(_ worker: WorkerID, _ configuration: PlatformConfiguration) throws(SystemError) {
        let row = WorkerTable.row(worker.kind)
        for use in row.segments where use.writes {
            let name = Resources.key(use.name, worker.index)
            // What a segment says is about the one store its worker works on.
            let label = GivenDescriptors.segmentName(
                name, layout: WorkerTable.segmentLayout,
                subject: configuration.settings(of: worker).string("storePathRootDir", default: ""))
            let writable: SharedDescriptor
            if let found = kept(label, where: { SharedSegment.isSegment($0, bytes: WorkerTable.segmentBytes) }) {
                writable = found
            } else {
                writable = SharedDescriptor(
                    try SharedSegment.createDescriptor(name: "apus-\(name)", bytes: WorkerTable.segmentBytes))
                store.keep(writable.raw, label)
            }
            segments[name] = (writable, SharedDescriptor(try SharedSegment.readOnly(writable.raw)))
        }
        for event in row.events {
            let name = Resources.key(event, worker.index)
            if events[name] == nil { events[name] = SharedDescriptor(try EventFD.create()) }
        }
    }

    /// Names and descriptors for `setup`; they stay ours.
    package func descriptors(for worker: WorkerID) -> [(name: String, fd: Int32)] {
        var all = (listeners[worker] ?? []).map { (name: "listener:\($0.name)", fd: $0.socket.raw) }
        let row = WorkerTable.row(worker.kind)
        for use in row.segments where use.sharing == .own {
            guard let segment = segments[Resources.key(use.name, worker.index)] else { continue }
            all.append(("segment:\(use.name)", use.writes ? segment.writable.raw : segment.readOnly.raw))
        }
        all += sharedDescriptors(for: worker)
        for event in row.events {
            guard let fd = events[Resources.key(event, worker.index)] else { continue }
            all.append(("event:\(event)", fd.raw))
        }
        return all
    }

    /// The part of them that is every worker's: it grows with the platform.
    package func sharedDescriptors(for worker: WorkerID) -> [(name: String, fd: Int32)] {
        WorkerTable.row(worker.kind).segments.filter { $0.sharing == .all }.flatMap { use in
            segments.sorted { $0.key < $1.key }.filter { $0.key.hasPrefix("\(use.name)#") }
                .map { (name: "segment:\($0.key)", fd: $0.value.readOnly.raw) }
        }
    }
}
