import ArgumentParser
import FastJSON
import RemotingProtocol
import Supervision
import Testing

@testable import apus

@Suite("apus admin: pure parts")
struct AdminToolTests {
    @Test("columns are those of Java's printf")
    func columns() {
        #expect(Columns("%-6s|%4s  %s.").line("ab", "7", "rest") == "ab    |   7  rest.")
        #expect(Columns("%-2s %2s").line("long", "longer") == "long longer")
        #expect(fixed(3.14159, 2) == "3.14" && fixed(0, 4) == "0.0000" && fixed(-1.5, 0) == "-2")
    }

    @Test("times: milliseconds, now, and RocketMQ's spelling in local time; nothing else")
    func times() throws {
        #expect(AdminTime.parse("1795283238802") == 1_795_283_238_802)
        #expect(AdminTime.parse("now") != nil)
        let time = try #require(AdminTime.parse("2026-11-21#17:47:18:802"))
        #expect(AdminTime.millis(time) == "2026-11-21 17:47:18,802")
        #expect(AdminTime.seconds(time) == "2026-11-21 17:47:18")
        for wrong in ["", "yesterday", "2026-11-21", "2026-11-21 17:47:18:802", "2026-11-21#17:47"] {
            #expect(AdminTime.parse(wrong) == nil, "\(wrong)")
        }
    }

    @Test("version numbers have RocketMQ's names")
    func versions() {
        #expect(versionName(409) == "V4_9_8" && versionName(408) == "V4_9_8_SNAPSHOT")
        #expect(versionName(213) == "V4_0_0" && versionName(611) == "V5_9_9" && versionName(100) == "V3 (100)")
    }

    @Test("object keys of RocketMQ's tables are queues")
    func queueKeys() {
        let queue = MessageQueue(key: #"{"brokerName":"a","queueId":3,"topic":"t"}"#)
        #expect(queue == MessageQueue(topic: "t", brokerName: "a", queueId: 3))
        #expect(MessageQueue(key: "{}") == nil && MessageQueue(key: "x") == nil)
    }

    @Test("what apus consume tells of itself reads as consumerStatus expects it")
    func runningInfo() throws {
        let info = ConsumerRunningInfo(
            group: "G", subscriptions: [Subscription(topic: "T", expression: "A || B")], nameServers: "ns:9876",
            properties: [])
        let queue = MessageQueue(topic: "T", brokerName: "a", queueId: 3)
        info.reached(7, of: queue)
        info.pulled(60, from: queue, in: .milliseconds(20))
        info.consumed(60, from: queue, in: .milliseconds(4))
        let answer = info.answer(RemotingCommand(.getConsumerRunningInfo, extFields: ["consumerGroup": "G"]))
        let words = ConsumerStatus.words(try answer.json())
        #expect(answer.responseCode == .success)
        #expect(words.contains("PROP_CONSUME_TYPE                       : CONSUME_PASSIVELY"))
        #expect(words.contains("001 Topic: T ") && words.contains("SubExpression: A || B"))
        #expect(words.contains("commitOffset=7"))
        // 60 messages within the last minute, one pull of 20 ms, written in 4 ms.
        let rates = words.split(separator: "\n").last?.split(separator: " ").map(String.init)
        #expect(rates == ["T", "20.00", "1.00", "4.00", "1.00", "0.00", "0"])
        info.gaveUp(queue)
        #expect(info.json["mqTable"]?.object?.isEmpty == true)
        #expect(
            info.answer(RemotingCommand(.getConsumerRunningInfo, extFields: ["consumerGroup": "H"])).responseCode
                == .systemError)
    }

    @Test("command names are taken in any case, long options after one dash")
    func spelling() {
        #expect(AdminCommands.normalized(["TOPICROUTE", "-topic", "T"]) == ["topicRoute", "--topic", "T"])
        #expect(AdminCommands.normalized(["help", "clusterlist"]) == ["help", "clusterList"])
        #expect(AdminCommands.normalized(["nosuch", "-t", "T"]) == ["nosuch", "-t", "T"])
        #expect(AdminCommands.normalized([]) == [])
    }

    @Test("every command has its own name, an abstract, and RocketMQ's -n")
    func names() throws {
        let names = AdminCommands.all.compactMap { $0.configuration.commandName }
        #expect(names.count == AdminCommands.all.count && Set(names).count == names.count)
        for command in AdminCommands.all {
            #expect(command.configuration.abstract.hasSuffix("."))
            #expect(command.helpMessage().contains("-n, --namesrvAddr"), "\(command)")
        }
    }
}

@Suite("apus config import")
struct ConfigImportTests {
    private func imported(_ text: String, path: String = "broker.conf") throws -> ImportedFile {
        try ImportedFile(text: text, path: path, home: "/home/u")
    }

    @Test("known settings are carried over, others dropped with the reason, Java's home resolved")
    func broker() throws {
        let file = try imported(
            """
            brokerName = broker-x
            storePathRootDir=${user.home}/store
            deleteWhen=04
            fileReservedTime=48
            sendMessageThreadPoolNums=16
            aclEnable=true
            brokrName=typo
            storePathCommitLog=${env:X}/log
            """)
        #expect(file.kind == .broker)
        #expect(file["storePathRootDir"] == "/home/u/store" && file["fileReservedTime"] == "48")
        let reasons = Dictionary(uniqueKeysWithValues: file.dropped.map { ($0.key, $0.reason) })
        #expect(reasons["sendMessageThreadPoolNums"]?.contains("thread pools") == true)
        #expect(reasons["aclEnable"]?.contains("access control") == true)
        #expect(reasons["brokrName"]?.contains("no such setting") == true)
        #expect(reasons["storePathCommitLog"]?.contains("${…}") == true)
        let toml = try ImportedConfiguration(files: [file], date: "today").toml
        #expect(toml.contains("\nfileReservedTime = 48\n") && toml.contains("\ndeleteWhen = \"04\"\n"))
        #expect(toml.contains("\nbindAddress = \"0.0.0.0\"\n") && !toml.contains("\nnameserver = false"))
        #expect(toml.contains("#   brokrName = typo\n"))
    }

    @Test("a file that names the home folder is refused where nobody knows it, others are not")
    func withoutHome() throws {
        for value in ["${user.home}/store", "$HOME/store", "~/store", "~"] {
            let error = #expect(throws: ConfigurationError.self) {
                try ImportedFile(text: "storePathRootDir=\(value)", path: "b.conf", home: nil)
            }
            #expect(error?.description.contains("storePathRootDir = \(value)") == true)
            #expect(error?.description.contains("set HOME") == true)
        }
        let file = try ImportedFile(text: "storePathRootDir=/data/~store", path: "b.conf", home: nil)
        #expect(file["storePathRootDir"] == "/data/~store")
    }

    @Test("a broker of other name servers gets no name server here; one of this machine's does")
    func nameServers() throws {
        let far = try ImportedConfiguration(
            files: [imported("brokerName=a\nnamesrvAddr=10.0.0.1:9876;10.0.0.2:9876")], date: ""
        ).toml
        #expect(far.contains("\nnameserver = false\n"))
        let near = try ImportedConfiguration(files: [imported("brokerName=a\nnamesrvAddr=127.0.0.1:9876")], date: "")
            .toml
        #expect(!near.contains("\nnameserver = false"))
        let both = try ImportedConfiguration(
            files: [
                imported("brokerName=a\nnamesrvAddr=10.0.0.1:9876"),
                imported("listenPort=19876\nserverWorkerThreads=8", path: "/x/namesrv.conf"),
            ], date: ""
        ).toml
        #expect(
            both.contains("[nameserver]") && both.contains("listenPort = 19876") && !both.contains("nameserver = false")
        )
    }

    @Test("several brokers become tables of one platform; two name servers are refused")
    func several() throws {
        let toml = try ImportedConfiguration(
            files: [
                imported("brokerName=a\nlistenPort=10911\nstorePathRootDir=/a"),
                imported("brokerName=b\nlistenPort=20911\nstorePathRootDir=/b", path: "b.conf"),
            ], date: ""
        ).toml
        #expect(toml.components(of: "[[broker]]") == 2)
        #expect(throws: (any Error).self) {
            let file = try imported("kvConfigPath=/x", path: "namesrv.conf")
            _ = try ImportedConfiguration(files: [file, file], date: "")
        }
    }

    @Test("texts are quoted so that TOML reads them as they were")
    func literals() {
        #expect(ImportedConfiguration.literal("brokerName", #"a"b\c"#) == #""a\"b\\c""#)
        #expect(ImportedConfiguration.literal("brokerId", "7") == "7")
        #expect(ImportedConfiguration.literal("brokerId", "seven") == "\"seven\"")
        #expect(ImportedConfiguration.literal("traceOn", "true") == "true")
        #expect(ImportedConfiguration.literal("brokerName", "tab\there\u{1}") == "\"tab\\there\\u0001\"")
    }

    /// Field names of BrokerConfig, MessageStoreConfig, NamesrvConfig and NettyServerConfig of 4.9.8 that Apus does not
    /// have: each must have a reason, or an operator would be told that RocketMQ does not know it.
    @Test(
        "settings of RocketMQ without a meaning here have a reason",
        arguments: [
            "rocketmqHome", "messageStorePlugIn", "sendMessageThreadPoolNums", "putThreadPoolQueueCapacity",
            "endTransactionPoolQueueCapacity", "filterServerNums", "highSpeedMode", "commercialBaseCount",
            "transferMsgByHeap", "maxDelayTime", "disableConsumeIfConsumerReadSlowly", "waitTimeMillsInSendQueue",
            "enableCalcFilterBitMap", "filterDataCleanTimeSpan", "compressedRegister", "forceRegister", "aclEnable",
            "enableDetailStat", "autoDeleteUnusedStats", "isolateLogEnable", "storePathDLedgerCommitLog",
            "readOnlyCommitLogStorePaths", "enableConsumeQueueExt", "commitIntervalCommitLog",
            "useReentrantLockWhenPutMessage", "flushCommitLogTimed", "deleteCommitLogFilesInterval",
            "destroyMapedFileIntervalForcibly", "putMsgIndexHightWater", "flushConsumeQueueLeastPages",
            "messageIndexSafe", "flushDelayOffsetInterval", "warmMapedFileEnable", "debugLockEnable",
            "duplicationEnable", "diskFallRecorded", "osPageCacheBusyTimeOutMills", "transientStorePoolEnable",
            "enableDLegerCommitLog", "preferredLeaderId", "isEnableBatchPush", "enableScheduleMessageStats",
            "enableLmq", "maxLmqConsumeQueueNum", "enableScheduleAsyncDeliver", "serverWorkerThreads",
            "serverSocketBacklog", "useEpollNativeSelector", "writeBufferHighWaterMark", "configStorePath",
        ])
    func foreign(key: String) {
        #expect(ForeignSettings.reason(key) != nil)
    }

    @Test("the catalogue describes settings that exist, each once")
    func catalogue() {
        let known = Set(KnownKeys.integers + KnownKeys.booleans + KnownKeys.texts)
        let described = SettingDescription.all.map(\.key)
        #expect(Set(described).count == described.count)
        #expect(described.filter { !known.contains($0) } == [])
        #expect(SettingsPage.text.contains(".TH APUS.TOML 5"))
    }
}

extension String {
    fileprivate func components(of part: String) -> Int { ranges(of: part).count }
}

@Suite("apus admin: values that begin with a dash")
struct DashValueTests {
    @Test("every option of every command takes one, as RocketMQ's tool does")
    func everyOption() throws {
        var tried = 0
        for command in AdminCommands.all {
            let help = try JSONValue(parsing: Array(command._dumpHelp().utf8))
            for argument in help["command"]?["arguments"]?.array ?? [] where argument["kind"]?.string == "option" {
                for name in argument["names"]?.array ?? [] {
                    let text = try #require(name["name"]?.string)
                    let option = name["kind"]?.string == "short" ? "-\(text)" : "--\(text)"
                    let words = AdminCommands.normalized([command._commandName, option, "-1"])
                    do { _ = try command.parseAsRoot(Array(words.dropFirst())) } catch {
                        // Others that must be given are missing; this one is not.
                        let reason = command.message(for: error)
                        #expect(!reason.contains("Missing value for '\(option)"), "\(command._commandName): \(reason)")
                    }
                    tried += 1
                }
            }
        }
        #expect(tried > 150)
    }

    @Test("the values arrive as they are")
    func values() throws {
        let update = try UpdateBrokerConfig.parse(["-b", "127.0.0.1:1", "-k", "someKey", "-v", "-5"])
        #expect(update.value == "-5")
        let send = try SendMessage.parse(["-t", "T", "-p", "--body--", "-k", "-"])
        #expect(send.body == "--body--" && send.key == "-")
        let reset = try ResetOffsetByTime.parse(["-g", "G", "-t", "T", "-s", "-1"])
        #expect(reset.time == "-1")
    }
}
