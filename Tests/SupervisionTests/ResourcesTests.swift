import Foundation
import LinuxSystem
import SettingTable
import Systemd
import Testing
import WorkerProtocol

@testable import Supervision

@Suite struct SocketActivationTests {
    private func platform() throws -> PlatformConfiguration {
        var raw = RawConfiguration()
        raw.common["listenPort"] = "0"
        raw.nameserver["listenPort"] = "0"
        raw.gateway["listenPort"] = "0"
        return try PlatformConfiguration(raw, .init(dataDirectory: "/d", executables: "/x"))
    }

    /// A socket of systemd's takes the place of the one the configuration asks for, found by its name.
    @Test func socketsOfSystemdAreUsed() throws {
        let socket = try ListenSocket.tcp(address: "127.0.0.1", port: 0)
        let port = try ListenSocket.port(of: socket.raw)
        var platform = try platform()
        let resources = try Resources(&platform, activated: [("nameserver", socket.release())])
        #expect(platform.nameserver?["listenPort"] == String(port))
        #expect(resources.descriptors(for: WorkerID(.nameserver, 0)).map(\.name) == ["listener:remoting"])
    }

    @Test func socketsWithoutAPlaceAreRefusedInWords() throws {
        let fd = try ListenSocket.tcp(address: "127.0.0.1", port: 0).release()
        var platform = try platform()
        let error = #expect(throws: ConfigurationError.self) {
            try Resources(&platform, activated: [("broekr", fd)])
        }
        #expect(error?.description.contains("broekr") == true)
        #expect(error?.description.contains("nameserver, broker, broker-vip, broker-ha") == true)
    }
}

private func inode(_ fd: Int32) -> UInt {
    var status = stat()
    fstat(fd, &status)
    return status.st_ino
}

/// What is left with systemd comes back to the next process, if it still fits.
@Suite struct DescriptorStoreTests {
    /// Stands in for systemd: keeps copies, none twice, and gives them back by name.
    private final class Keeper {
        var kept: [(name: String, fd: SharedDescriptor)] = []

        var store: DescriptorStore {
            DescriptorStore { [unowned self] fd, name in
                guard !kept.contains(where: { inode($0.fd.raw) == inode(fd) }) else { return }
                kept.append((name, SharedDescriptor(Descriptor(owning: dup(fd)))))
            } forget: { [unowned self] name in
                kept.removeAll { $0.name == name }
            }
        }

        /// What a new main process is given.
        var activated: [(name: String, fd: Int32)] { kept.map { ($0.name, dup($0.fd.raw)) } }

        func socket(_ name: String) -> Int32? { kept.first { $0.name.hasSuffix(name) }?.fd.raw }
    }

    private func platform(_ common: [String: String] = [:], brokers: Int = 1) throws -> PlatformConfiguration {
        var raw = RawConfiguration()
        raw.common = ["listenPort": "0"].merging(common) { $1 }
        raw.brokers = Array(repeating: [:], count: brokers)
        raw.nameserver["listenPort"] = "0"
        raw.gateway["listenPort"] = "0"
        return try PlatformConfiguration(raw, .init(dataDirectory: "/d", executables: "/x"))
    }

    private func inodes(_ resources: Resources, _ worker: WorkerID) -> [String: UInt] {
        Dictionary(
            uniqueKeysWithValues: resources.descriptors(for: worker).filter { !$0.name.hasPrefix("event:") }
                .map { ($0.name, inode($0.fd)) })
    }

    @Test func theNextLifeHasTheSameSocketsAndSegments() throws {
        let keeper = Keeper()
        var first = try platform()
        var before: [WorkerID: [String: UInt]] = [:]
        do {
            let resources = try Resources(&first, activated: [], store: keeper.store)
            for worker in first.workers { before[worker] = inodes(resources, worker) }
        }
        #expect(
            keeper.kept.map(\.name).filter { $0.hasPrefix("k-listener") }.sorted() == [
                "k-listener-broker-store-0-remoting", "k-listener-broker-store-0-vip", "k-listener-gateway-0-http",
                "k-listener-nameserver-0-remoting", "k-listener-replication-0-ha",
            ])
        // Nothing listens in this process any more, but a connect is not refused: the socket lives on in the store.
        let port = first.brokers[0].string("listenPort", default: "")
        _ = try EchoPlatform.connect("127.0.0.1:\(port)")

        var second = try platform()
        let resources = try Resources(&second, activated: keeper.activated, store: keeper.store)
        for worker in second.workers { #expect(inodes(resources, worker) == before[worker], "\(worker)") }
        #expect(second == first)
        // And with the ports written down.
        var third = try platform(["listenPort": port])
        let again = try Resources(&third, activated: keeper.activated, store: .none)
        #expect(inodes(again, WorkerID(.replication, 0)) == before[WorkerID(.replication, 0)])
    }

    private func freePort() throws -> Int {
        let socket = try ListenSocket.tcp(address: "127.0.0.1", port: 0)
        return try ListenSocket.port(of: socket.raw)
    }

    /// Tried again when a neighbour of the port that is free happens to be another process's.
    private func elsewhere(_ keeper: Keeper, attempts: Int = 20) throws -> (Int, PlatformConfiguration, Resources) {
        let port = try freePort()
        var platform = try platform(["listenPort": String(port), "storePathRootDir": "/elsewhere"])
        if let resources = try? Resources(&platform, activated: keeper.activated, store: keeper.store) {
            return (port, platform, resources)
        }
        try #require(attempts > 0)
        return try elsewhere(keeper, attempts: attempts - 1)
    }

    /// Whether a listening socket is still open anywhere. Its port says nothing: it may be another test's by now.
    private func isListening(_ inode: UInt) throws -> Bool {
        // TCP_LISTEN in the fourth column of /proc/net/tcp, proc_net_tcp(5); the tenth is the inode.
        let listening = "0A"
        return try String(contentsOfFile: "/proc/net/tcp", encoding: .utf8).split(separator: "\n").contains {
            let columns = $0.split(separator: " ")
            return columns.count > 9 && columns[3] == listening && columns[9] == String(inode)
        }
    }

    @Test func whatDoesNotFitAnyMoreIsForgotten() throws {
        let keeper = Keeper()
        var first = try platform(brokers: 2)
        do { _ = try Resources(&first, activated: [], store: keeper.store) }
        let old = try #require(keeper.socket("broker-store-0-remoting"))
        let oldSocket = inode(old)
        #expect(try isListening(oldSocket))
        let segments = Set(keeper.kept.map(\.name).filter { $0.contains("segment") })
        #expect(segments.count == 5)  // 2 × (watermarks, replication) and plugins

        // One broker instead of two, at another port and on another store.
        let (newPort, second, resources) = try elsewhere(keeper)
        #expect(second.brokers[0]["listenPort"] == String(newPort))
        #expect(keeper.kept.allSatisfy { !$0.name.contains("store-1") && !$0.name.contains("#1") })
        #expect(keeper.kept.filter { $0.name.hasSuffix("broker-store-0-remoting") }.count == 1)
        let new = try #require(keeper.socket("broker-store-0-remoting"))
        let newSocket = inode(new)
        #expect(try ListenSocket.port(of: new) == newPort)
        #expect(try isListening(newSocket))
        #expect(try !isListening(oldSocket))
        #expect(segments.isDisjoint(with: keeper.kept.map(\.name).filter { $0.contains("watermarks") }))

        // A worker that is gone for good takes its sockets along.
        resources.removeListeners(of: WorkerID(.brokerStore, 0))
        #expect(try !isListening(newSocket))
    }

    /// A broker that is taken out of the platform drains afterwards: no process would ever read its clients'
    /// connections again.
    @Test func connectionsOfAWorkerThatIsGoneEnd() throws {
        let keeper = Keeper()
        var platform = try platform()
        let resources = try Resources(&platform, activated: [], store: keeper.store)
        let broker = WorkerID(.brokerStore, 0)
        func pair() throws -> (Int32, SharedDescriptor) {
            let (ours, theirs) = try SocketPair.create(sequencedPackets: false).ends()
            return (dup(ours.raw), theirs)
        }
        func isOpen(_ fd: Int32) -> Bool {
            var polled = pollfd(fd: fd, events: Int16(POLLIN), revents: 0)
            return poll(&polled, 1, 0) == 0
        }
        let (first, kept) = try pair()
        resources.keep(connections: [kept], of: broker)
        #expect(keeper.socket("k-b0") != nil)
        resources.removeListeners(of: broker)
        #expect(keeper.socket("k-b0") == nil)
        let second = try { () throws in
            let (second, late) = try pair()
            resources.keep(connections: [late], of: broker)
            return second
        }()
        #expect(keeper.socket("k-b0") == nil)
        #expect(isOpen(first))  // `kept` is this test's, too
        #expect(!isOpen(second))
        close(first)
        close(second)
    }

    /// A socket unit may have been added since: what it brings goes first, and is not kept a second time.
    @Test func socketUnitsGoFirst() throws {
        let keeper = Keeper()
        var first = try platform()
        do { _ = try Resources(&first, activated: [], store: keeper.store) }
        let unit = try ListenSocket.tcp(address: "127.0.0.1", port: 0)
        let port = try ListenSocket.port(of: unit.raw)
        // By its port, whatever the unit is called.
        var second = try platform(["listenPort": String(port), "fastListenPort": "0", "haListenPort": "0"])
        let given = keeper.activated + [("apus.socket", unit.release())]
        let resources = try Resources(&second, activated: given, store: keeper.store)
        #expect(resources.descriptors(for: WorkerID(.brokerStore, 0)).contains { $0.name == "listener:remoting" })
        #expect(keeper.socket("broker-store-0-remoting") == nil)
    }
}
