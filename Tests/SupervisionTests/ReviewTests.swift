import Foundation
import LinuxSystem
import SettingTable
import Supervision
import Testing
import WorkerProtocol

/// All that is wrong with a configuration is told at once, each with its line.
@Suite struct ReviewTests {
    private let surroundings = PlatformConfiguration.Surroundings(
        dataDirectory: "/data", executables: "/usr/lib/apus", machineAddress: "192.0.2.1")

    private func properties(_ text: String) -> RawConfiguration {
        var raw = RawConfiguration()
        raw.read(properties: text)
        raw.sortOut()
        return raw
    }

    private func problems(_ raw: RawConfiguration) -> [ConfigurationProblem] {
        do throws(ConfigurationError) {
            _ = try PlatformConfiguration(raw, surroundings)
            return []
        } catch {
            return error.problems
        }
    }

    @Test func everyMistakeOfAFileAtOnce() {
        let found = problems(
            properties(
                """
                # A broker of ours
                brokerName = a/b
                deleteWhen = 25
                fileReservedTime = 48 # two days
                defaultTopicQueueNums = -4
                aclEnable = True

                maxMessageSize = 4MB
                brokerRole = SLAVE
                autoCreateTopicEnable = no
                storePathCommitLog = /d0/log,/d1/log
                """))
        #expect(found.map(\.line) == [2, 3, 4, 5, 6, 8, 9, 10, 11])
        let text = ConfigurationError(found).description
        for words in [
            "line 3: deleteWhen = 25 is not what this setting takes: hours from 00 to 23", "is 48 meant?",
            "line 5: defaultTopicQueueNums = -4", "line 6: aclEnable = True promises what Apus does not have",
            "is 4194304 meant?", "line 9: a slave needs a brokerId above 0", "true or false; is false meant?",
            "spreads its log over several", "startWithout=aclEnable",
        ] {
            #expect(text.contains(words), "\(words) in\n\(text)")
        }
    }

    @Test func whatPromisesProtectionStartsOnlyWhenTheOperatorSaysSo() throws {
        for key in [
            "aclEnable", "enableDLegerCommitLog", "enableControllerMode", "authenticationEnabled", "tls.server.mode",
        ] {
            var raw = RawConfiguration()
            raw.common = [key: key == "tls.server.mode" ? "enforcing" : "true"]
            #expect(problems(raw).count == 1, "\(key)")
            #expect(problems(raw).first?.text.contains("startWithout = [\"\(key)\"]") == true)
            raw.startWithout = [key]
            let platform = try PlatformConfiguration(raw, surroundings)
            #expect(platform.notes.map(\.isHarmless) == [false])
            #expect(platform.notes.first?.description.hasPrefix("ACT NOW: \(key)") == true)
            raw.common = [key: "false"]
            #expect(try PlatformConfiguration(raw, surroundings).notes.map(\.isHarmless) == [true])
        }
        var raw = RawConfiguration()
        raw.startWithout = ["aclEnabled"]
        #expect(problems(raw).first?.text.contains("startWithout names aclEnabled") == true)
        // On the command line and in properties it is a text.
        #expect(problems(properties("aclEnable=true\nuseTLS=true\nstartWithout=aclEnable,useTLS")).isEmpty)
    }

    @Test func workersGetWhatTheTableTook() throws {
        var raw = RawConfiguration()
        raw.common = [
            "traceOn": "True", "fileReservedTime": " 48 ", "deleteWhen": "4; 16", "brokerIP1": "",
            "namesrvAddr": "a:1, b:2",
        ]
        raw.nameserver = ["orderMessageEnable": "TRUE"]
        let platform = try PlatformConfiguration(raw, surroundings)
        let broker = platform.brokers[0]
        #expect(broker["traceOn"] == "true" && broker["fileReservedTime"] == "48" && broker["deleteWhen"] == "04;16")
        #expect(broker["brokerIP1"] == "127.0.0.1" && broker["namesrvAddr"] == "a:1;b:2")
        #expect(platform.nameserver?["orderMessageEnable"] == "true")
    }

    @Test func onePortTwice() {
        var raw = RawConfiguration()
        raw.common = ["listenPort": "9876"]
        #expect(
            problems(raw).map(\.text) == [
                "the name server (listenPort) and broker-a (listenPort) both listen on port 9876: give one of them another"
            ])
        raw.common = [:]
        raw.brokers = [["listenPort": "10911"], ["listenPort": "10913", "brokerName": "b"]]
        // 10911 is the VIP port of the second.
        #expect(problems(raw).map(\.text).contains { $0.contains("b (fastListenPort) both listen on port 10911") })
        raw.brokers = [
            ["listenPort": "10911", "bindAddress": "127.0.0.1"], ["listenPort": "10911", "bindAddress": "127.0.0.2"],
        ]
        #expect(problems(raw).isEmpty)
        raw.brokers = [[:], ["listenPort": "65535"]]
        #expect(problems(raw).contains { $0.text.contains("haListenPort of broker-b would be 65536") })
    }

    @Test func keysInTheWrongTable() throws {
        var raw = RawConfiguration()
        raw.brokers = [["disks": "/data0"]]
        #expect(
            problems(raw).map(\.text) == [
                "[[broker]] disks is the whole platform's: write disks = [\"/data0\", \"/data1\"] above all tables"
            ])
        raw.brokers = []
        raw.nameserver = ["fileReservedTime": "48"]
        let platform = try PlatformConfiguration(raw, surroundings)
        #expect(
            platform.notes.map(\.description) == [
                "ACT NOW: nameserver.fileReservedTime: it is a setting of a broker, and nobody reads it here"
            ])
    }

    @Test func whatListensEverywhereIsShownAtAnAddressOthersCanReach() throws {
        var raw = RawConfiguration()
        raw.common = ["bindAddress": "0.0.0.0"]
        var platform = try PlatformConfiguration(raw, surroundings)
        platform.introduceNameserver()
        #expect(platform.announcedNameserver == "192.0.2.1:9876" && platform.announcedBrokers == ["192.0.2.1:10911"])
        // Its own brokers need no network for it.
        #expect(platform.brokers[0]["namesrvAddr"] == "127.0.0.1:9876")
        raw.common = ["brokerIP1": "localhost"]
        #expect(try PlatformConfiguration(raw, surroundings).brokers[0]["bindAddress"] == "127.0.0.1")
        raw.common = ["brokerIP1": "broker.example"]
        let named = try PlatformConfiguration(raw, surroundings)
        #expect(named.brokers[0]["bindAddress"] == "0.0.0.0" && named.announcedBrokers == ["broker.example:10911"])
    }

    @Test func aNameserversPropertiesGoToTheNameserver() throws {
        var raw = properties("listenPort=19876\norderMessageEnable=true\nserverWorkerThreads=8\nfileReservedTime=1")
        raw.giveToNameserver()
        #expect(raw.nameserver["listenPort"] == "19876" && raw.nameserver["orderMessageEnable"] == "true")
        #expect(raw.common == ["fileReservedTime": "1"] && raw.line(of: "orderMessageEnable", in: .nameserver) == 2)
    }

    @Test func linesOfATOMLFile() {
        let lines = TOMLPlaces.lines(
            of: """
                # heading
                fileReservedTime = 48
                "tls.server.mode" = "enforcing"
                filter.count = 2

                [nameserver]
                listenPort = 1
                [limits.filter]
                memory = "1G"
                [[broker]]
                listenPort = 2
                [[ broker ]]
                  listenPort = 3
                """)
        #expect(
            lines == [
                "fileReservedTime": 2, "tls.server.mode": 3, "filter.count": 4, "nameserver.listenPort": 7,
                "limits.filter.memory": 9, "broker#0.listenPort": 11, "broker#1.listenPort": 13,
            ])
    }
}

/// `apus config check` starts nothing, and tries everything.
@Suite struct TrialTests {
    private final class Folder {
        let path = NSTemporaryDirectory() + "apus-trial-\(UUID().uuidString)"
        init() throws { try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true) }
        deinit { try? FileManager.default.removeItem(atPath: path) }
        func write(_ name: String, _ text: String) throws {
            try FileManager.default.createDirectory(
                atPath: ("\(path)/\(name)" as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
            try text.write(toFile: "\(path)/\(name)", atomically: true, encoding: .utf8)
        }
    }

    private func platform(_ common: [String: String], data: String) throws -> (PlatformConfiguration, RawConfiguration)
    {
        var raw = RawConfiguration()
        raw.common = common
        raw.nameserver["listenPort"] = "0"
        if raw.common["listenPort"] == nil { raw.common["listenPort"] = "0" }
        return (try PlatformConfiguration(raw, .init(dataDirectory: data, executables: "/x")), raw)
    }

    @Test func portsThatAreTakenAreAllNamedAndFreeOnesStayFree() throws {
        let folder = try Folder()
        var sockets = try (0..<3).map { _ in
            SharedDescriptor(try ListenSocket.tcp(address: "127.0.0.1", port: 0))
        }
        let ports = try sockets.map { try ListenSocket.port(of: $0.raw) }
        sockets.removeLast()
        let (configuration, raw) = try platform(
            [
                "listenPort": String(ports[0]), "fastListenPort": String(ports[1]), "haListenPort": String(ports[2]),
            ], data: folder.path)
        var trial = PlatformTrial()
        let found = trial.portProblems(configuration, raw).map(\.text)
        #expect(
            found.count == 2 && found[0].contains("port \(ports[0]) is in use") && found[1].contains("\(ports[1])"),
            "\(found)")
        let again = SharedDescriptor(try ListenSocket.tcp(address: "127.0.0.1", port: ports[2]))
        #expect(try ListenSocket.port(of: again.raw) == ports[2])
        // The platform that runs there has them.
        trial.running = 1
        #expect(trial.portProblems(configuration, raw).isEmpty && trial.portsNotTried?.contains("pid 1") == true)
        withExtendedLifetime(sockets) {}
    }

    @Test func foldersAreLookedAtAsTheirUserFindsThem() throws {
        let folder = try Folder()
        try folder.write("file", "")
        try FileManager.default.createDirectory(atPath: folder.path + "/store", withIntermediateDirectories: true)
        chmod(folder.path + "/store", 0o755)
        func refusals(_ store: String, _ account: Account = .own) throws -> [String] {
            let (configuration, raw) = try platform(["storePathRootDir": store], data: folder.path)
            return PlatformTrial(account: account).folderProblems(configuration, raw).map(\.text)
                .filter { $0.hasPrefix("storePathRootDir") }
        }
        #expect(try refusals(folder.path + "/store").isEmpty && refusals(folder.path + "/a/b/c").isEmpty)
        #expect(try refusals(folder.path + "/file").first?.contains("is no folder") == true)
        let stranger = Account(name: "apus", user: 65_000, groups: [65_000])
        #expect(try refusals(folder.path + "/store", stranger).first?.contains("apus may not write to") == true)
        #expect(try refusals(folder.path + "/new", stranger).first?.contains("install -d -o apus") == true)
        chmod(folder.path + "/store", 0o777)
        #expect(try refusals(folder.path + "/store", stranger).isEmpty)
        // Nothing was made.
        #expect(!FileManager.default.fileExists(atPath: folder.path + "/a"))
    }

    @Test func whatSystemdLetsAServiceWrite() throws {
        #expect(UnitRules.unit(of: "/etc/apus/apus.toml") == "apus.service")
        #expect(UnitRules.unit(of: "/etc/apus/broker.toml") == "apus@broker.service")
        #expect(UnitRules.unit(of: "/etc/apus/x/apus.toml") == nil && UnitRules.unit(of: "/home/u/apus.toml") == nil)
        let folder = try Folder()
        #expect(UnitRules(unit: "apus@b.service", root: folder.path) == nil)
        try folder.write(
            "usr/lib/systemd/system/apus@.service",
            "[Service]\nUser=apus\nStateDirectory=apus/instances/%i\nProtectSystem=strict\nProtectHome=yes\nPrivateTmp=yes\n"
        )
        try folder.write("etc/systemd/system/apus@b.service.d/disk.conf", "[Service]\nReadWritePaths=/data0 -/data1\n")
        try folder.write("usr/lib/systemd/system/apus@.service.d/old.conf", "[Service]\nReadWritePaths=/gone\n")
        let rules = try #require(UnitRules(unit: "apus@b.service", root: folder.path))
        #expect(rules.user == "apus" && rules.stateFolders == ["/var/lib/apus/instances/b"])
        #expect(
            rules.writable.sorted() == ["/data0", "/data1", "/gone"] && rules.required.sorted() == ["/data0", "/gone"])
        func problems(_ store: String) throws -> [String] {
            let (configuration, raw) = try platform(["storePathRootDir": store], data: "/var/lib/apus/instances/b")
            return PlatformTrial(account: .own, unit: rules).folderProblems(configuration, raw).map(\.text)
        }
        #expect(try problems("/data0/store").allSatisfy { !$0.hasPrefix("storePathRootDir") })
        #expect(
            try problems("/data0/store").contains {
                $0.contains("there is no /gone, which apus@b.service names in ReadWritePaths=")
            })
        #expect(
            try problems("/data9/store").contains {
                $0.contains("systemd does not let apus@b.service write to /data9/store: add ReadWritePaths=")
            })
        #expect(try problems("/home/u/store").contains { $0.contains("ProtectHome=yes") })
        #expect(try problems("/tmp/store").contains { $0.contains("PrivateTmp=") })
    }
}
