import Foundation
import LinuxSystem
import SettingTable
import Systemd
import Testing
import WorkerProtocol

@testable import Supervision

@Suite struct PropertiesFileTests {
    @Test func rocketMQsBrokerConf() throws {
        let text = """
            # Licensed …
            brokerClusterName = DefaultCluster
            brokerName=broker-a
            brokerId:0
            deleteWhen 04
            ! another comment
            namesrvAddr = 10.0.0.1:9876;\\
                          10.0.0.2:9876
            path=C\\:\\\\store \\u00fc
            empty=
            """
        let values = try PropertiesFile.parse(text)
        #expect(
            values == [
                "brokerClusterName": "DefaultCluster", "brokerName": "broker-a", "brokerId": "0", "deleteWhen": "04",
                "namesrvAddr": "10.0.0.1:9876;10.0.0.2:9876", "path": "C:\\store ü", "empty": "",
            ])
    }

    @Test func carriageReturnsAndNoFinalNewline() throws {
        #expect(try PropertiesFile.parse("a=1\r\nb=2") == ["a": "1", "b": "2"])
    }

    @Test func mistakesNameTheirLine() {
        #expect(throws: ConfigurationError("line 2: no key before '='")) { try PropertiesFile.parse("a=1\n=2") }
        #expect(throws: ConfigurationError.self) { try PropertiesFile.parse("a=\\u12") }
    }
}

@Suite struct PlatformConfigurationTests {
    private func configuration(
        _ common: [String: String] = [:], brokers: [[String: String]] = [], nameserver: [String: String] = [:],
        withNameserver: Bool = true, properties: Bool = false
    ) throws -> PlatformConfiguration {
        var raw = RawConfiguration()
        raw.common = common
        raw.brokers = brokers
        raw.nameserver = nameserver
        raw.isProperties = properties
        var surroundings = PlatformConfiguration.Surroundings(
            dataDirectory: "/data", executables: "/usr/lib/apus", machineAddress: "192.0.2.1")
        surroundings.withNameserver = withNameserver
        return try PlatformConfiguration(raw, surroundings)
    }

    @Test func embeddedDefault() throws {
        var platform = try configuration()
        platform.introduceNameserver()
        #expect(platform.workers.map(\.description) == ["nameserver-0", "broker-store-0", "replication-0", "filter-0"])
        let broker = platform.settings(of: WorkerID(.brokerStore, 0))
        let expected = [
            "brokerName": "broker-a", "brokerClusterName": "DefaultCluster", "brokerId": "0",
            "brokerRole": "ASYNC_MASTER",
            "listenPort": "10911", "fastListenPort": "10909", "haListenPort": "10912", "bindAddress": "127.0.0.1",
            "brokerIP1": "127.0.0.1", "namesrvAddr": "127.0.0.1:9876", "storePathRootDir": "/data/store",
            "storePathCommitLog": "/data/store/commitlog", "pluginDirectory": "/usr/local/lib/apus/plugins",
        ]
        for (key, value) in expected { #expect(broker[key] == value, "\(key)") }
        #expect(platform.settings(of: WorkerID(.replication, 0)) == platform.settings(of: WorkerID(.brokerStore, 0)))
        #expect(platform.settings(of: WorkerID(.filter, 0))["storePathCommitLog#0"] == "/data/store/commitlog")
        #expect(platform.unknownKeys == [])
    }

    @Test func takenOverBrokerConfListensEverywhere() throws {
        let broker = try configuration(["brokerName": "b"], properties: true).brokers[0]
        #expect(broker["bindAddress"] == "0.0.0.0")
        #expect(broker["brokerIP1"] == "192.0.2.1")
        #expect(try configuration(["brokerIP1": "198.51.100.7"]).brokers[0]["bindAddress"] == "0.0.0.0")
        #expect(try configuration(["bindAddress": "192.0.2.9"]).brokers[0]["brokerIP1"] == "192.0.2.9")
    }

    @Test func oneBrokerPerDisk() throws {
        let platform = try configuration(brokers: [["storePathRootDir": "/disk1"], ["storePathRootDir": "/disk2"]])
        #expect(platform.brokers.map { $0["brokerName"] } == ["broker-a", "broker-b"])
        #expect(platform.brokers.map { $0["listenPort"] } == ["10911", "10921"])
        #expect(platform.brokers.map { $0["haListenPort"] } == ["10912", "10922"])
        #expect(platform.settings(of: WorkerID(.filter, 0))["storePathCommitLog#1"] == "/disk2/commitlog")
        #expect(platform.workers.count == 6)
        // Each broker with its replication worker and the filter worker, and with each other.
        #expect(WorkerTable.standard.pairs(among: platform.workers).count == 5)
        #expect(throws: ConfigurationError.self) {
            try configuration(brokers: [["storePathRootDir": "/d"], ["storePathRootDir": "/d"]])
        }
    }

    @Test func slave() throws {
        let platform = try configuration(
            ["brokerRole": "slave", "brokerId": "1", "haMasterAddress": "h:10912", "namesrvAddr": "h:9876"],
            withNameserver: false)
        #expect(platform.brokers[0]["brokerRole"] == "SLAVE")
        #expect(platform.nameserver == nil)
        #expect(platform.workers.first == WorkerID(.brokerStore, 0))
        #expect(platform.brokers[0]["namesrvAddr"] == "h:9876")
        #expect(throws: ConfigurationError.self) { try configuration(["brokerRole": "SLAVE"]) }
        #expect(throws: ConfigurationError.self) { try configuration(["brokerId": "1"]) }
        #expect(throws: ConfigurationError.self) { try configuration(withNameserver: false) }
    }

    @Test func portsForAllBrokersAreNotTheSamePort() throws {
        let platform = try configuration(["fastListenPort": "10909", "haListenPort": "10912"], brokers: [[:], [:]])
        #expect(platform.brokers.map { $0["fastListenPort"] } == ["10909", "10919"])
        #expect(platform.brokers.map { $0["haListenPort"] } == ["10912", "10922"])
    }

    /// One filter worker without plugins; with plugins one for those with a record, which keeps its number, and one for each plugin.
    @Test func filterWorkersComeWithPlugins() throws {
        var raw = RawConfiguration()
        raw.filter = ["count": "2", "pluginWorkers": "3"]
        var platform = try PlatformConfiguration(raw, .init(dataDirectory: "/data", executables: "/x"))
        func numbers() -> [Int] { platform.workers.filter { $0.kind == .filter }.map(\.index) }
        #expect(numbers() == [0, 1])
        #expect(platform.setPlugins([]) == [])
        #expect(numbers() == [0, 1])
        platform.setPlugins(["libM.so"])
        #expect(numbers() == [0, 1, 2, 3])
        #expect(platform.setPlugins(["libM.so", "libA.so", "libZ.so", "libB.so", "libC.so"]) == [])
        #expect(numbers() == [0, 1, 2, 3, 4, 5])
        func shares() -> PluginShares {
            PluginShares(platform.settings(of: WorkerID(.filter, 4)).string("filterShares", default: ""))
        }
        #expect(shares().workers == ["libM.so": 0, "libA.so": 1, "libB.so": 2, "libC.so": 0, "libZ.so": 1])
        platform.setPlugins(["libZ.so", "libM.so"])
        #expect(numbers() == [0, 1, 2, 3, 4, 5], "those that are there stay")
        #expect(shares().workers == ["libM.so": 0, "libZ.so": 1], "and so does what they have")
        platform.setPlugins(["libZ.so", "libM.so", "libA.so"])
        #expect(shares().files(of: 2) == ["libA.so"], "a new one gets the worker that has nothing")
        var reread = try PlatformConfiguration(raw, .init(dataDirectory: "/data", executables: "/x"))
        _ = reread.keepRunning(platform)
        #expect(reread.settings(of: WorkerID(.filter, 3)) == platform.settings(of: WorkerID(.filter, 3)))
        let settings = platform.settings(of: WorkerID(.filter, 4))
        #expect(settings["filterBuiltIns"] == "2")
        // However many somebody copies there: a worker's settings are one datagram.
        let many = Set((0..<1000).map { "lib\($0)\(String(repeating: "x", count: 200)).so" })
        let omitted = platform.setPlugins(many)
        #expect(omitted.count > 900 && shares().workers.count == 1000 - omitted.count)
        #expect(platform.settings(of: WorkerID(.filter, 3)).string("filterShares", default: "").utf8.count <= 16_384)
        #expect(settings["pluginDirectory"] == "/data/plugins", "an operator's folder, whatever the programs' is")
        raw.filter = ["pluginWorkers": "0"]
        #expect(throws: ConfigurationError.self) {
            try PlatformConfiguration(raw, .init(dataDirectory: "/data", executables: "/x"))
        }
    }

    @Test func rolesInTheFile() throws {
        var raw = RawConfiguration()
        raw.withoutBroker = true
        let surroundings = PlatformConfiguration.Surroundings(dataDirectory: "/data", executables: "/x")
        let nameserver = try PlatformConfiguration(raw, surroundings)
        #expect(nameserver.workers == [WorkerID(.nameserver, 0)])
        raw.withoutNameserver = true
        #expect(throws: ConfigurationError.self) { try PlatformConfiguration(raw, surroundings) }
        raw.withoutBroker = false
        #expect(throws: ConfigurationError.self) { try PlatformConfiguration(raw, surroundings) }
        raw.common["namesrvAddr"] = "h:9876"
        #expect(try PlatformConfiguration(raw, surroundings).workers.first == WorkerID(.brokerStore, 0))
    }

    @Test(arguments: [
        ["listenPort": "70000"], ["brokerRole": "KING"], ["brokerId": "x"], ["maxMessageSize": "4MB"],
        ["autoCreateTopicEnable": "maybe"],
    ]) func valuesThatCannotBe(_ common: [String: String]) {
        #expect(throws: ConfigurationError.self) { try configuration(common) }
    }

    @Test func misspeltKeysAreRecognized() {
        #expect(SettingTable.meant(by: "lisenPort") == "listenPort")
        #expect(SettingTable.meant(by: "fileReservedtime") == "fileReservedTime")
        #expect(SettingTable.meant(by: "nameserver.kvConfigPaths") == "nameserver.kvConfigPath")
        #expect(SettingTable.meant(by: "flushDisktypes") == "flushDiskType")
        #expect(SettingTable.meant(by: "useEpollNativeSelector") == nil && SettingTable.meant(by: "x") == nil)
        #expect(SettingTable.meant(by: "lsitenPort") == "listenPort")
        #expect(SettingTable.meant(by: "disk") == "disks" && SettingTable.meant(by: "") == nil)
    }

    @Test(arguments: [
        ("flushDiskType", "ASYNC", "SYNC_FLUSH"), ("flushDiskType", "sync_flush", "SYNC_FLUSH"),
        ("deleteWhen", "25", "00 to 23"), ("deleteWhen", "04;soon", "00 to 23"),
        ("messageDelayLevel", "1s 5x", "1s 5m"),
        ("messageDelayLevel", "1s 0s", "1s 5m"), ("messageDelayLevel", "", "1s 5m"),
        ("bindAddress", "localhost", "127.0.0.1"),
        ("storePathRootDir", "~/store", "a path"), ("fileReservedTime", "soon", "a whole number"),
        ("fileReservedTime", "", "a whole number"),
        ("autoCreateTopicEnable", "perhaps", "true or false"), ("logLevel", "loud", "debug"),
    ])
    func wrongValues(_ key: String, _ value: String, _ remedy: String) throws {
        let error = #expect(throws: ConfigurationError.self) { try configuration([key: value]) }
        #expect(error?.description.contains("\(key) = \(value) is not what this setting takes: ") == true)
        #expect(error?.description.contains(remedy) == true)
    }

    @Test func rightValues() throws {
        _ = try configuration([
            "flushDiskType": "SYNC_FLUSH", "deleteWhen": "04; 05;23", "messageDelayLevel": "1s  2d",
            "bindAddress": "::",
            "storePathRootDir": "/data/~x", "logLevel": "warning", "fileReservedTime": " 48 ", "storePathCommitLog": "",
        ])
    }

    @Test func nobodySetsWhatTheSupervisorTells() {
        for key in SettingTable.told {
            let error = #expect(throws: ConfigurationError.self) { try configuration(brokers: [[key: "1"]]) }
            #expect(error?.description.contains("\(key) is what the supervisor tells a broker") == true)
        }
    }

    @Test func unknownKeysAreKeptAndReported() throws {
        let platform = try configuration(
            ["useEpollNativeSelector": "true"], nameserver: ["serverWorkerThreads": "8"])
        #expect(platform.unknownKeys == ["useEpollNativeSelector", "nameserver.serverWorkerThreads"])
        #expect(platform.brokers[0]["useEpollNativeSelector"] == "true")
    }

    @Test func configuredNameserversFollowOurOwn() throws {
        var platform = try configuration(["namesrvAddr": "10.0.0.1:9876;127.0.0.1:9876"])
        platform.introduceNameserver()
        #expect(platform.brokers[0]["namesrvAddr"] == "127.0.0.1:9876;10.0.0.1:9876")
    }

    @Test func anyFreePortHasFreeNeighbours() throws {
        var platform = try configuration(["listenPort": "0"], nameserver: ["listenPort": "0"])
        let resources = try Resources(&platform, activated: [])
        let broker = platform.brokers[0]
        let port = broker.int("listenPort", default: 0)
        #expect(port > 0)
        #expect(broker.int("fastListenPort", default: 0) == port - 2)
        #expect(broker.int("haListenPort", default: 0) == port + 1)
        #expect(
            resources.descriptors(for: WorkerID(.brokerStore, 0)).map(\.name) == [
                "listener:remoting", "listener:vip", "segment:watermarks", "segment:replication", "event:watermarks",
                "event:replication",
            ])
        #expect(resources.descriptors(for: WorkerID(.replication, 0)).first?.name == "listener:ha")
        #expect(
            resources.descriptors(for: WorkerID(.filter, 0)).map(\.name) == [
                "segment:plugins", "segment:watermarks@broker-store-0", "segment:plugins@filter-0",
            ])

        // The same ports again: in use, with the port, the remedy and the option in words.
        var second = try configuration(["listenPort": String(port)], nameserver: ["listenPort": "0"])
        let error = #expect(throws: ConfigurationError.self) { try Resources(&second, activated: []) }
        #expect(error?.description.contains("port \(port) is in use") == true)
        #expect(error?.description.contains("--broker-port") == true)
    }
}

@Suite struct SocketActivationTests {
    private func platform() throws -> PlatformConfiguration {
        var raw = RawConfiguration()
        raw.common["listenPort"] = "0"
        raw.nameserver["listenPort"] = "0"
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

/// What is left with systemd comes back to the next life, if it still fits.
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
                "k-listener-broker-store-0-remoting", "k-listener-broker-store-0-vip",
                "k-listener-nameserver-0-remoting", "k-listener-replication-0-ha",
            ])
        // Nobody listens in this process any more, but a connect is not refused: the socket lives on in the store.
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

    /// Tried again when a neighbour of the port that is free happens to be somebody else's.
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

    /// A broker that is taken out of the platform drains afterwards: nobody would ever read its clients' connections again.
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

/// Every key the sources ask settings for is in the table, so that no operator is told it has no effect; and what the table says has an effect is
/// asked for somewhere.
@Suite struct KnownKeysTests {
    private static func sources() throws -> [(name: String, text: String)] {
        var root = URL(fileURLWithPath: #filePath)
        for _ in 0..<3 { root.deleteLastPathComponent() }
        let folder = root.appendingPathComponent("Sources")
        let files = try #require(FileManager.default.enumerator(at: folder, includingPropertiesForKeys: nil))
        var found: [(name: String, text: String)] = []
        for case let file as URL in files where file.pathExtension == "swift" {
            if file.path.contains("/SettingTable/") || file.path.contains("/apus/") { continue }
            found.append((file.lastPathComponent, try String(contentsOf: file, encoding: .utf8)))
        }
        return found
    }

    @Test func allKeysTheSourcesReadAreKnown() throws {
        let known = Set(SettingTable.all.map(\.name)).union(SettingTable.told)
        // Those of `WorkerProtocol.Settings`, of BrokerConfiguration (`case "key":`, `integer("key")`) and of StoreConfiguration.
        let anywhere = /[sS]ettings(?:\.(?:string|int|bool)\(|\[)"([A-Za-z0-9]+)"/
        let own = /(?:\braw\(|\bset\(|configuration\.(?:integer|flag)\()"([a-z][A-Za-z0-9]+)"(?:\)|, \\\.)/
        var missing: Set<String> = []
        for (name, text) in try Self.sources() {
            var keys = text.matches(of: anywhere).map(\.1)
            keys += text.matches(of: own).map(\.1)
            switch name {
            case "BrokerConfiguration.swift": keys += text.matches(of: /(?:case |^ +)"([A-Za-z0-9]{3,})":/).map(\.1)
            case "StoreConfiguration.swift":
                keys += text.matches(of: /(?:text|integer|flag)\("([A-Za-z0-9]+)"/).map(\.1)
            default: break
            }
            for key in keys where !known.contains(String(key)) { missing.insert("\(key) (\(name))") }
        }
        #expect(missing.isEmpty, "add to Sources/SettingTable: \(missing.sorted())")
    }

    @Test func whatHasAnEffectIsReadSomewhere() throws {
        let all = try Self.sources().map(\.text).joined()
        let unread = SettingTable.all.filter { setting in
            guard case .holds = setting.effect else { return false }
            return !all.contains("\"\(setting.name)\"")
        }
        #expect(unread.map(\.name) == [])
    }
}
