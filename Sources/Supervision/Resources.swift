import LinuxSystem
package import WorkerProtocol

/// What outlives the workers: listening sockets, shared segments, eventfds. Kept over restarts, so that clients' connects
/// wait in the backlog, and passed to every new life of a worker. The supervisor maps none of the segments.
package final class Resources {
    private var listeners: [WorkerID: [(name: String, socket: SharedDescriptor)]] = [:]
    private var segments: [String: (writable: SharedDescriptor, readOnly: SharedDescriptor)] = [:]
    private var events: [String: SharedDescriptor] = [:]

    /// Binds what `configuration` asks for, but takes `activated` sockets (systemd's) where their names fit. Afterwards the
    /// ports in `configuration` are the real ones.
    package init(
        _ configuration: inout PlatformConfiguration, activated: [(name: String, fd: Int32)]
    ) throws(ConfigurationError) {
        var given: [String: SharedDescriptor] = [:]
        for (name, fd) in activated { given[name] = SharedDescriptor(Descriptor(owning: fd)) }
        do throws(SystemError) {
            for worker in configuration.workers {
                try bind(worker, &configuration, &given)
                try createShared(worker)
            }
        } catch {
            throw ConfigurationError(Resources.explain(error, configuration))
        }
        guard given.isEmpty else {
            let names = given.keys.sorted().joined(separator: ", ")
            let known = WorkerTable.rows.flatMap(\.listeners).map(\.socketUnitName).joined(separator: ", ")
            throw ConfigurationError(
                "systemd passed sockets called \(names); FileDescriptorName= must be one of \(known)")
        }
    }

    // MARK: listeners

    private func bind(
        _ worker: WorkerID, _ configuration: inout PlatformConfiguration, _ given: inout [String: SharedDescriptor]
    ) throws(SystemError) {
        let rows = WorkerTable.row(worker.kind).listeners
        for row in rows {
            let unitName = worker.index == 0 ? row.socketUnitName : "\(row.socketUnitName)#\(worker.index)"
            let settings = configuration.settings(of: worker)
            let socket: SharedDescriptor
            if let activated = given.removeValue(forKey: unitName) {
                socket = activated
            } else if let port = settings[row.portKey].flatMap({ Int($0) }) {
                let address = settings.string("bindAddress", default: "127.0.0.1")
                if worker.kind == .brokerStore && row.name == "remoting" && port == 0 {
                    try bindAnyBroker(worker, address, &configuration)
                    return
                }
                socket = SharedDescriptor(try ListenSocket.tcp(address: address, port: port))
            } else {
                continue
            }
            listeners[worker, default: []].append((row.name, socket))
            configuration.set(row.portKey, String(try ListenSocket.port(of: socket.raw)), for: worker)
        }
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
                let vipSocket = SharedDescriptor(vip)
                listeners[worker] = [("remoting", main), ("vip", vipSocket)]
                configuration.set("listenPort", String(port), for: worker)
                configuration.set("fastListenPort", String(try ListenSocket.port(of: vipSocket.raw)), for: worker)
                if settings["haListenPort"] == nil { configuration.set("haListenPort", String(port + 1), for: worker) }
                return
            } catch  where attempt < 64 {
                continue
            }
        }
    }

    /// What to do about a port that cannot be bound.
    private static func explain(_ error: SystemError, _ configuration: PlatformConfiguration) -> String {
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

    /// From now on connects to this worker are refused instead of waiting.
    package func closeListeners(of worker: WorkerID) { listeners[worker] = nil }

    // MARK: segments and events

    /// `watermarks` of number 1 is called `watermarks#1` here.
    private static func key(_ name: String, _ index: Int) -> String { "\(name)#\(index)" }

    private func createShared(_ worker: WorkerID) throws(SystemError) {
        let row = WorkerTable.row(worker.kind)
        for use in row.segments where use.writes {
            let name = Resources.key(use.name, worker.index)
            let writable = try SharedSegment.createDescriptor(name: "apus-\(name)", bytes: WorkerTable.segmentBytes)
            let readOnly = try SharedSegment.readOnly(writable.raw)
            segments[name] = (SharedDescriptor(writable), SharedDescriptor(readOnly))
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
        for use in row.segments {
            switch use.sharing {
            case .own:
                guard let segment = segments[Resources.key(use.name, worker.index)] else { continue }
                all.append(("segment:\(use.name)", use.writes ? segment.writable.raw : segment.readOnly.raw))
            case .all:
                for (name, segment) in segments.sorted(by: { $0.key < $1.key }) where name.hasPrefix("\(use.name)#") {
                    all.append(("segment:\(name)", segment.readOnly.raw))
                }
            }
        }
        for event in row.events {
            guard let fd = events[Resources.key(event, worker.index)] else { continue }
            all.append(("event:\(event)", fd.raw))
        }
        return all
    }
}
