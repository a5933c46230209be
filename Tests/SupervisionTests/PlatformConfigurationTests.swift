import Foundation
import LinuxSystem
import SettingTable
import Systemd
import Testing
import WorkerProtocol

@testable import Supervision

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
        #expect(
            platform.workers.map(\.description) == [
                "nameserver-0", "broker-store-0", "replication-0", "filter-0", "gateway-0",
            ])
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
        #expect(platform.workers.count == 7)
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

    /// One filter worker without plugins; with plugins one for those with a record, which keeps its number, and one for
    /// each plugin.
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
        // However many are copied there: a worker's settings are one datagram.
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
