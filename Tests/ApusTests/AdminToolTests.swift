import ArgumentParser
import FastJSON
import RemotingProtocol
import RocketMQClient
import SettingTable
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
        #expect(AdminTime.milliseconds(time) == "2026-11-21 17:47:18,802")
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

    @Test("what a consumer reports of itself reads as consumerStatus expects it")
    func runningInfo() throws {
        let info = ConsumerRunningInfo(
            group: "G", subscriptions: [Subscription(topic: "T", tags: "A || B")], nameServers: "ns:9876",
            clientVersion: "apus", properties: [])
        let queue = RocketMQClient.MessageQueue(topic: "T", brokerName: "a", queueID: 3)
        info.reached(7, of: queue)
        info.pulled(60, from: queue, in: .milliseconds(20))
        info.consumed(60, from: queue, in: .milliseconds(4))
        let answer = info.answer(RemotingCommand(.getConsumerRunningInfo, extFields: ["consumerGroup": "G"]))
        let text = ConsumerStatus.text(try answer.json())
        #expect(answer.responseCode == .success)
        #expect(text.contains("PROP_CONSUME_TYPE                       : CONSUME_PASSIVELY"))
        #expect(text.contains("001 Topic: T ") && text.contains("SubExpression: A || B"))
        #expect(text.contains("commitOffset=7"))
        // 60 messages within the last minute, one pull of 20 ms, written in 4 ms.
        let rates = text.split(separator: "\n").last?.split(separator: " ").map(String.init)
        #expect(rates == ["T", "20.00", "1.00", "4.00", "1.00", "0.00", "0"])
        info.released(queue)
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

    @Test("setConsumeMode: -n is name servers or, as in RocketMQ's tool, the number of shared queues")
    func consumeMode() throws {
        let words = ["SETCONSUMEMODE", "-topicName", "T", "-groupName", "G", "-m", "pop", "-c", "C"]
        func parsed(_ more: [String]) throws -> SetConsumeMode {
            try SetConsumeMode.parse(Array(AdminCommands.normalized(words + more).dropFirst()))
        }
        let plain = try parsed([])
        #expect(plain.topic == "T" && plain.group.name == "G" && plain.settings == .pop(sharedQueues: 0))
        #expect(plain.server.namesrvAddr == nil)
        let both = try parsed(["-n", "ns:9876", "-n", "3"])
        #expect(both.settings == .pop(sharedQueues: 3) && both.server.addresses == "ns:9876")
        #expect(try parsed(["-popShareQueueNum", "-1"]).settings == .pop(sharedQueues: -1))
        #expect(try parsed(["-m", "PULL"]).settings == .pull)
        for wrong in [["-m", "PUSH"], ["-b", "h:1"], ["--popShareQueueNum", "many"]] {
            #expect(throws: (any Error).self, "\(wrong)") { try parsed(wrong) }
        }
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
        // It stays in the file, so that check and start refuse it until the operator decides.
        #expect(file.promises.map(\.key) == ["aclEnable"] && file["aclEnable"] == "true")
        #expect(file.notes.contains { $0.hasPrefix("ACT NOW: aclEnable = true: Apus has no access control") })
        #expect(reasons["brokrName"]?.contains("no such setting") == true)
        #expect(reasons["storePathCommitLog"]?.contains("${…}") == true)
        let toml = try ImportedConfiguration(files: [file], date: "today").toml
        #expect(toml.contains("\nfileReservedTime = 48\n") && toml.contains("\ndeleteWhen = \"04\"\n"))
        #expect(toml.contains("\nbindAddress = \"0.0.0.0\"\n") && !toml.contains("\nnameserver = false"))
        #expect(toml.contains("#   brokrName = typo\n"))
        #expect(toml.contains("\naclEnable = \"true\"\n"))
    }

    @Test("a file that names the home folder is refused where the system does not know it, others are not")
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
    /// have: each must have a reason, or an operator would read that RocketMQ does not know it.
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
        #expect(RocketMQSettings.verdict(key, "true") != nil)
    }

    @Test("whose file it is: by its keys, its name, its port, or as asked; and it is reported")
    func kinds() throws {
        for (text, path, kind) in [
            ("brokerName=a", "x.conf", ImportedFile.Kind.broker), ("listenPort=10911", "x.conf", .broker),
            ("listenPort=9876\nserverWorkerThreads=8", "x.conf", .nameserver),
            ("listenPort=9877", "namesrv.conf", .nameserver),
            ("listenPort=9877\nkvConfigPath=/k", "broker.conf", .nameserver),
            ("deleteTopicWithBrokerRegistration=true\nlistenPort=9877", "x.conf", .nameserver),
        ] {
            let file = try imported(text, path: path)
            #expect(file.kind == kind, "\(text)")
            #expect(
                file.report.first?.contains("read as a \(kind == .broker ? "broker" : "name server")'s file") == true)
        }
        let asked = try ImportedFile(text: "listenPort=9877", path: "x", home: nil, kind: .nameserver)
        #expect(asked.kind == .nameserver && asked.report[0].contains("as asked"))
    }

    @Test("a file that is none of RocketMQ's is refused")
    func strangers() {
        let readme = """
            # Apache RocketMQ

            [![Build Status](https://x)](https://y)
            Apache RocketMQ is a distributed messaging and streaming platform.
            It offers a variety of features:
            * Messaging patterns including publish/subscribe
            """
        for text in [readme, "", "# nothing\n", "a=1\nb=2\nbrokerName=c"] {
            let error = #expect(throws: ConfigurationError.self) { try imported(text, path: "README.md") }
            #expect(error?.description.hasPrefix("README.md: this is no broker.conf or namesrv.conf") == true)
        }
    }

    @Test("everything unusable in a file is reported at once, with its lines")
    func unusable() {
        let error = #expect(throws: ConfigurationError.self) {
            try imported("brokerName=a\ndeleteWhen=25\nmaxMessageSize=4MB\nfileReservedTime=48 # two days\n")
        }
        #expect(error?.problems.map(\.line) == [2, 3, 4])
        #expect(error?.description.contains("broker.conf: line 3: maxMessageSize = 4MB") == true)
    }

    @Test("what would lose something is reported on the terminal")
    func losses() throws {
        let none = try imported("brokerName=a\nenableDLegerCommitLog=true")
        #expect(none.report.contains { $0.contains("Apus begins with an empty one") })
        #expect(none.report.contains { $0.contains("the messages in DLedger's log are not read") })
        #expect(try !imported("brokerName=a\nstorePathRootDir=/s").report.contains { $0.contains("empty one") })
        let order = try imported("kvConfigPath=/home/u/namesrv/kvConfig.json", path: "namesrv.conf")
        #expect(
            order.report.contains { $0.contains("order configuration") && $0.contains("/home/u/namesrv/kvConfig.json") }
        )
        #expect(!order.report.contains { $0.contains("empty one") })
    }

    @Test("apus.toml(5) has every setting")
    func page() {
        let page = SettingsPage.text
        #expect(page.contains(".TH APUS.TOML 5"))
        for setting in SettingTable.all { #expect(page.contains("\\fB\(setting.name)\\fR"), "\(setting.name)") }
    }
}

/// Lines as they stand in configuration files of the wild (guides, charts, container images), and what becomes of them:
/// `apus config check` of the file as it is, and `apus config import`, read by one table.
@Suite("lines of real configuration files")
struct RealLineTests {
    enum Outcome: Sendable {
        case taken
        /// Without effect, with the reason.
        case harmless(String)
        case act(String)
        case unknown(String)
        /// The value is not usable.
        case refused(String)
        /// It promises what is not there.
        case promise(String)
        /// It belongs to the other kind of file.
        case elsewhere
    }

    struct Line: Sendable {
        let text: String
        let outcome: Outcome
        let isNameserver: Bool

        init(_ text: String, _ outcome: Outcome, nameserver: Bool = false) {
            (self.text, self.outcome, isNameserver) = (text, outcome, nameserver)
        }
    }

    static let lines = [
        Line("brokerClusterName = DefaultCluster", .taken), Line("brokerName=broker-a", .taken),
        Line("brokerId = 0", .taken), Line("deleteWhen = 04", .taken), Line("deleteWhen=04;16", .taken),
        Line("fileReservedTime = 48", .taken), Line("brokerRole = ASYNC_MASTER", .taken),
        Line("brokerRole=SYNC_MASTER", .taken), Line("flushDiskType = ASYNC_FLUSH", .taken),
        Line("namesrvAddr=rocketmq-nameserver1:9876;rocketmq-nameserver2:9876", .taken),
        Line("namesrvAddr = namesrv:9876", .taken), Line("brokerIP1=192.168.0.110", .taken),
        Line("brokerIP1 = localhost", .taken), Line("brokerIP1=rmqbroker", .taken),
        Line("listenPort=10911", .taken), Line("autoCreateTopicEnable = True", .taken),
        Line("defaultTopicQueueNums=4", .taken), Line("storePathRootDir=/home/rocketmq/store", .taken),
        Line("storePathCommitLog=/home/rocketmq/store/commitlog", .taken),
        Line("mappedFileSizeCommitLog=1073741824", .taken), Line("mappedFileSizeConsumeQueue=300000", .taken),
        Line("diskMaxUsedSpaceRatio=88", .taken), Line("maxMessageSize=65536", .taken),
        Line("enablePropertyFilter=true", .taken),
        Line("messageDelayLevel=1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h 1d", .taken),
        Line("sendMessageThreadPoolNums=128", .harmless("thread pools")),
        Line("pullMessageThreadPoolNums = 32", .harmless("thread pools")),
        Line("transientStorePoolEnable=true", .harmless("memory and page cache")),
        Line("osPageCacheBusyTimeOutMills=5000", .harmless("memory and page cache")),
        Line("waitTimeMillsInSendQueue=1000", .harmless("do not wait in queues")),
        Line("useReentrantLockWhenPutMessage=true", .harmless("memory and page cache")),
        Line("brokerFastFailureEnable=true", .harmless("do not wait in queues")),
        Line("storePathConsumeQueue=/home/rocketmq/store/consumequeue", .unknown("storePathConsumeQueue")),
        Line("destroyMapedFileIntervalForcibly=120000", .harmless("memory and page cache")),
        Line("aclEnable=true", .promise("no access control")), Line("aclEnable=false", .harmless("it is off")),
        Line("enableDLegerCommitLog=true", .promise("no DLedger")),
        Line("dLegerPeers=n0-127.0.0.1:40911;n1-127.0.0.1:40912", .harmless("part of DLedger")),
        Line("enableControllerMode = true", .promise("no controller")),
        Line("controllerAddr = 127.0.0.1:9878", .promise("no controller")),
        Line("tls.server.mode=enforcing", .promise("no TLS")),
        Line("authenticationEnabled = true", .promise("no access control")),
        Line("inSyncReplicas=2", .promise("one slave at most")), Line("storeType=defaultRocksDB", .promise("RocksDB")),
        Line("enableLmq = true", .act("LMQ")), Line("metricsExporterType=PROM", .act("no metrics")),
        Line("fetchNamesrvAddrByAddressServer=false", .harmless("no address server")),
        Line("autoCreateTopicEnable=on", .refused("RocketMQ takes on for false")),
        Line("fileReservedTime=120 #hours", .refused("is 120 meant?")),
        Line("maxMessageSize=4M", .refused("is 4194304 meant?")),
        Line("deleteWhen=24", .refused("00 to 23")), Line("flushDiskType=SYNC", .refused("ASYNC_FLUSH or SYNC_FLUSH")),
        Line("storePathCommitLog=/d0/commitlog,/d1/commitlog", .refused("over several")),
        Line("brokerIP=10.0.0.1", .unknown("is brokerIP1 meant?")),
        Line("autoCreateTopicEnabled=false", .unknown("is autoCreateTopicEnable meant?")),
        Line("listenPort=9876", .taken, nameserver: true),
        Line("kvConfigPath=/home/rocketmq/namesrv/kvConfig.json", .taken, nameserver: true),
        Line("orderMessageEnable=true", .taken, nameserver: true),
        Line("serverWorkerThreads=8", .harmless("Netty"), nameserver: true),
        Line("rocketmqHome=/opt/rocketmq", .harmless("Java"), nameserver: true),
        Line("clusterTest=false", .harmless("its own tables"), nameserver: true),
        Line("enableControllerInNamesrv=true", .promise("no controller"), nameserver: true),
        Line("waitSecondsForService=45", .harmless("name server's threads"), nameserver: true),
        Line("orderMessageEnable=1", .refused("true or false"), nameserver: true),
        Line("deleteWhen=04", .elsewhere, nameserver: true),
    ]

    @Test("check", arguments: lines) func check(_ line: Line) throws {
        var raw = RawConfiguration()
        raw.read(properties: "# a file\n\(line.text)\n")
        raw.sortOut()
        if line.isNameserver { raw.giveToNameserver() }
        let surroundings = PlatformConfiguration.Surroundings(dataDirectory: "/data", executables: "/x")
        let (draft, found) = PlatformConfiguration.draft(raw, surroundings)
        let problems = found.filter { !$0.text.contains("brokerId") }
        let notes = draft.notes
        switch line.outcome {
        case .taken: #expect(problems.isEmpty && notes.isEmpty, "\(problems) \(notes)")
        case .harmless(let words):
            #expect(problems.isEmpty && notes.count == 1 && notes[0].isHarmless, "\(problems) \(notes)")
            #expect(notes.first?.description.contains(words) == true && notes.first?.line == 2, "\(notes)")
        case .act(let words):
            #expect(problems.isEmpty && notes.first?.description.contains("ACT NOW") == true, "\(problems) \(notes)")
            #expect(notes.first?.description.contains(words) == true, "\(notes)")
        case .unknown(let words):
            #expect(problems.isEmpty && notes.first?.description.contains(words) == true, "\(problems) \(notes)")
        case .refused(let words), .promise(let words):
            #expect(problems.count == 1 && problems[0].text.contains(words) && problems[0].line == 2, "\(problems)")
        case .elsewhere: break
        }
    }

    @Test("import", arguments: lines) func importing(_ line: Line) throws {
        let key = String(line.text.prefix { $0 != "=" && $0 != " " })
        let around = line.isNameserver ? "bindAddress=0.0.0.0\n" : "regionId=r\n"
        let file: ImportedFile
        do throws(ConfigurationError) {
            file = try ImportedFile(
                text: "\(around)\(line.text)\n", path: "x.conf", home: "/h",
                kind: line.isNameserver ? .nameserver : .broker)
        } catch {
            guard case .refused(let words) = line.outcome else { throw error }
            #expect(error.description.hasPrefix("x.conf: line 2: ") && error.description.contains(words), "\(error)")
            return
        }
        let dropped = file.dropped.first { $0.key == key }
        switch line.outcome {
        case .taken: #expect(file[key] != nil && file.promises.isEmpty)
        case .harmless(let words): #expect(dropped?.reason.contains(words) == true, "\(file.report)")
        case .act(let words):
            #expect(
                dropped?.reason.contains(words) == true && file.notes.contains { $0.hasPrefix("ACT NOW: \(key) = ") })
        case .unknown: #expect(dropped?.reason.hasPrefix("RocketMQ has no such setting") == true)
        case .promise(let words): #expect(file.promises.first?.reason.contains(words) == true && file[key] != nil)
        case .refused: Issue.record("\(line.text) was taken over")
        case .elsewhere: #expect(dropped?.reason.contains("a broker's file") == true, "\(file.report)")
        }
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
