import Foundation
import LinuxSystem
import SettingTable
import Supervision
import Testing
import WorkerProtocol

/// All that is wrong with a configuration is told at once, each with its line.
@Suite struct SettingReviewTests {
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
                "ACT NOW: nameserver.fileReservedTime: it is a setting of a broker, and no worker reads it here"
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
        let lines = TOMLLines.lines(
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
