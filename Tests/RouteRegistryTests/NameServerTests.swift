import FastJSON
import Foundation
import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import RemotingProtocol
import RemotingTransport
import RouteRegistry
import TestTools
import Testing

/// A name server on a free port of the loopback, with its own event loop and a clock the test sets.
final class RunningNameServer: Sendable {
    let group: MultiThreadedEventLoopGroup
    let port: Int
    private let parts: NIOLoopBound<(NameServer, RemotingServer)>
    private let clock: Clock

    final class Clock: @unchecked Sendable {
        /// Touched on the event loop only.
        var milliseconds: Int64 = 0
    }

    init(
        configuration: NameServerConfiguration = NameServerConfiguration(), storage: MemoryStorage? = nil
    ) async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let eventLoop = group.next()
        let clock = Clock()
        let parts = try await eventLoop.submit {
            var logger = Logger(label: "nameserver")
            logger.logLevel = .critical
            let nameServer = try NameServer(
                configuration: configuration, storage: storage, logger: logger, milliseconds: { clock.milliseconds })
            let server = RemotingServer(eventLoop: eventLoop, service: nameServer, logger: logger)
            return NIOLoopBound((nameServer, server), eventLoop: eventLoop)
        }.get()
        try await eventLoop.flatSubmit { parts.value.1.bind(host: "127.0.0.1", port: 0) }.get()
        self.port = try await eventLoop.submit { parts.value.1.localAddresses.first?.port ?? 0 }.get()
        self.group = group
        self.parts = parts
        self.clock = clock
    }

    /// As the worker does: with timers, and another thread for large bodies.
    func serveLargeBodies(_ elsewhere: @escaping @Sendable (@escaping @Sendable () -> Void) -> Void) async throws {
        let (parts, eventLoop) = (self.parts, self.group.next())
        try await eventLoop.submit {
            parts.value.0.elsewhere = elsewhere
            parts.value.0.start(on: eventLoop)
        }.get()
    }

    func connect() async throws -> RemotingClient {
        try await RemotingClient.connect(host: "127.0.0.1", port: self.port, group: self.group)
    }

    /// Returns when all but one of its connections have closed.
    func settle() async throws {
        let parts = self.parts
        try await eventually("all but one of its connections have closed") {
            try await self.group.next().submit({ parts.value.1.connectionCount }).get() == 1
        }
    }

    /// How many topics are known in the turns of its loop, each number once, until `isDone` is true.
    func topicCounts(until isDone: NIOLockedValueBox<Bool>) async throws -> NIOLockedValueBox<[Int]> {
        let counts = NIOLockedValueBox<[Int]>([])
        let (parts, eventLoop) = (self.parts, self.group.next())
        @Sendable func look() {
            let count = parts.value.0.tables.topicCount
            counts.withLockedValue { if $0.last != count { $0.append(count) } }
            // A moment ahead: what is handed to `execute` runs in the same turn.
            if !isDone.withLockedValue({ $0 }) { eventLoop.scheduleTask(in: .microseconds(20), look) }
        }
        try await eventLoop.submit(look).get()
        return counts
    }

    /// Lets time pass and looks for silent brokers, as the timer does.
    func advance(milliseconds: Int64) async throws {
        let (parts, clock) = (self.parts, self.clock)
        try await self.group.next().submit {
            clock.milliseconds += milliseconds
            parts.value.0.expireBrokers()
        }.get()
    }

    /// As its timer does 2 s after the start.
    func endStartHold() async throws {
        let parts = self.parts
        try await self.group.next().submit { parts.value.0.endStartHold() }.get()
    }

    func stop() async throws {
        let parts = self.parts
        try await self.group.next().flatSubmit { parts.value.1.close() }.get()
        try await self.group.shutdownGracefully()
    }
}

final class MemoryStorage: NameServerStorage, @unchecked Sendable {
    /// Touched on the event loop, and by the test while none runs.
    var bytes: [UInt8]?

    func loadKVConfig() throws -> [UInt8]? { self.bytes }
    /// How often it was saved.
    var saves = 0
    func saveKVConfig(_ bytes: [UInt8]) throws {
        self.bytes = bytes
        self.saves += 1
    }

    var changedSettings: [UInt8]?

    func loadChangedSettings() throws -> [UInt8]? { self.changedSettings }
    func saveChangedSettings(_ bytes: [UInt8]) throws { self.changedSettings = bytes }

    var brokers: [String] = []

    func loadBrokers() throws -> [String] { self.brokers }
    func saveBrokers(_ brokers: [String]) throws { self.brokers = brokers }
}

@Suite("the name server over TCP", .timeLimit(.minutes(2)))
struct NameServerTests {
    static func register(
        _ name: String, topics: [TopicConfig], version: Int64 = 1, compressed: Bool = false
    ) -> RemotingCommand {
        let body = RegisterBrokerBody(
            topicConfigSerializeWrapper: TopicConfigSerializeWrapper(
                topicConfigTable: topics, dataVersion: DataVersion(timestamp: 9, counter: version)))
        let bytes = compressed ? body.compressed() : body.encoded()
        return RemotingCommand(
            .registerBroker,
            extFields: [
                "brokerName": name, "brokerAddr": "\(name):10911", "clusterName": "C", "brokerId": "0",
                "haServerAddr": "\(name):10912", "compressed": String(compressed),
                "bodyCrc32": String(bytes.withUnsafeBytes { Zlib.crc32($0) }),
            ], body: bytes)
    }

    static func route(_ topic: String) -> RemotingCommand {
        RemotingCommand(.getRouteInfoByTopic, extFields: ["topic": topic])
    }

    @Test("a header no request needs, and a broker's name no broker has, are refused in words")
    func largeHeaders() async throws {
        let server = try await RunningNameServer()
        let client = try await server.connect()
        let large = try await client.invoke(
            Self.route(String(repeating: "t", count: ControlBody.headerBytesMax)))
        #expect(large.code == ResponseCode.systemError.rawValue && large.remark?.contains("header") == true)
        let broker = try await client.invoke(Self.register(String(repeating: "b", count: 256), topics: []))
        #expect(broker.code == ResponseCode.systemError.rawValue)
        #expect(broker.remark == "brokerName has 256 bytes, and may have 255: nothing was registered")
        try await server.stop()
    }

    @Test("Apache's brokers register, and Apache's clients get the answers Apache gave")
    func golden() async throws {
        for (name, frames) in try Self.goldenCases() {
            let server = try await RunningNameServer()
            let client = try await server.connect()
            for (kind, bytes) in frames where kind == "broker" {
                let command = try bytes.withUnsafeBytes { try RemotingCommand(decoding: $0) }
                let answer = try await client.invoke(command)
                #expect(answer.code == 0, "\(name): \(answer.remark ?? "")")
            }
            let question = try #require(frames.first { $0.0 == "question" }).1
            let golden = try #require(frames.first { $0.0 == "answer" }).1
            let expected = try golden.withUnsafeBytes { try RemotingCommand(decoding: $0) }
            // As the bytes came: the header's serialization must come back.
            let answer = try await Self.exchange(question, port: server.port, group: server.group)
            #expect(answer[4] == golden[4], "\(name)")
            let ours = try answer.withUnsafeBytes { try RemotingCommand(decoding: $0) }
            #expect(ours.code == expected.code, "\(name)")
            #expect(ours.opaque == expected.opaque && ours.flag == expected.flag, "\(name)")
            if expected.code == 0 {
                #expect(Self.normal(try ours.json()) == Self.normal(try expected.json()), "\(name)")
                // Number keys stand in quotes exactly where Apache puts them.
                for key in ["{0:", "{\"0\":"] {
                    #expect(
                        String(decoding: ours.body, as: UTF8.self).contains(key)
                            == String(decoding: expected.body, as: UTF8.self).contains(key), "\(name)")
                }
            } else {
                #expect(
                    ours.remark?.hasPrefix("No topic route info in name server for the topic: ") == true, "\(name)")
            }
            await client.close()
            try await server.stop()
        }
    }

    /// Lists in one order, since Java's sets have none, and without what only 5.x writes.
    static func normal(_ value: JSONValue) -> JSONValue {
        switch value {
        case .array(let elements):
            .array(elements.map { Self.normal($0) }.sorted { $0.text([.sorted]) < $1.text([.sorted]) })
        case .object(let object):
            .object(
                JSONObject(
                    members: object.members.filter { $0.key != "enableActingMaster" }.map {
                        JSONObject.Member(key: $0.key, isRaw: $0.isRaw, value: Self.normal($0.value))
                    }))
        default: value
        }
    }

    /// Lines of `case ⇥ broker|question|answer ⇥ base64`, a case's lines one after the other.
    static func goldenCases() throws -> [(String, [(String, [UInt8])])] {
        let url = try #require(
            Bundle.module.url(forResource: "nameserver", withExtension: "tsv", subdirectory: "Fixtures"))
        var cases: [(String, [(String, [UInt8])])] = []
        for line in try String(contentsOf: url, encoding: .utf8).split(separator: "\n") {
            let words = line.split(separator: "\t").map(String.init)
            let bytes = [UInt8](try #require(Data(base64Encoded: words[2])))
            if cases.last?.0 != words[0] || cases.last?.1.last?.0 == "answer" {
                cases.append((words[0], []))
            }
            cases[cases.count - 1].1.append((words[1], bytes))
        }
        #expect(cases.count > 20)
        return cases
    }

    /// Sends bytes on a connection of its own and gives the first whole frame that comes back.
    static func exchange(
        _ bytes: [UInt8], port: Int, group: MultiThreadedEventLoopGroup
    ) async throws -> [UInt8] {
        let channel = try await ClientBootstrap(group: group).connect(host: "127.0.0.1", port: port) { channel in
            channel.eventLoop.makeCompletedFuture {
                try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel)
            }
        }
        return try await channel.executeThenClose { inbound, outbound in
            try await outbound.write(ByteBuffer(bytes: bytes))
            var all: [UInt8] = []
            for try await part in inbound {
                all += Array(buffer: part)
                if all.count >= 4, all.count >= 4 + all[0..<4].reduce(0, { $0 << 8 | Int($1) }) { break }
            }
            return all
        }
    }

    @Test("a broker's life: register, ask for changes, close, and it is gone")
    func life() async throws {
        let server = try await RunningNameServer()
        let broker = try await server.connect()
        let client = try await server.connect()
        let topics = [TopicConfig(topicName: "T"), TopicConfig(topicName: "%RETRY%G", readQueueNums: 1)]
        let registered = try await broker.invokeSuccessfully(Self.register("a", topics: topics))
        #expect(registered.extFields["masterAddr"] == nil)
        #expect(registered.body.isEmpty)

        let route = try TopicRouteData(body: try await client.invokeSuccessfully(Self.route("%RETRY%G")).body)
        #expect(route.queueDatas.first?.readQueueNums == 1)
        #expect(route.brokerDatas.first?.brokerAddrs == [0: "a:10911"])

        func changed(_ counter: Int64) async throws -> String? {
            let answer = try await broker.invokeSuccessfully(
                RemotingCommand(
                    .queryDataVersion,
                    extFields: [
                        "brokerName": "a", "brokerAddr": "a:10911", "clusterName": "C", "brokerId": "0",
                    ], body: DataVersion(timestamp: 9, counter: counter).encoded()))
            #expect(try DataVersion(body: answer.body) == DataVersion(timestamp: 9, counter: 1))
            return answer.extFields["changed"]
        }
        #expect(try await changed(1) == "false")
        #expect(try await changed(2) == "true")

        await broker.close()
        // Not before its time to come back is over.
        try await server.settle()
        try await server.advance(milliseconds: RouteTables.graceMilliseconds - 1)
        #expect(try await client.invoke(Self.route("T")).code == 0)
        try await server.advance(milliseconds: 1)
        #expect(try await client.invoke(Self.route("T")).code == 17)
        let missing = try await client.invoke(Self.route("T"))
        #expect(missing.remark?.hasPrefix("No topic route info in name server for the topic: T") == true)
        await client.close()
        try await server.stop()
    }

    @Test("numbers no broker means: the scans, the questions and the routes go on", .timeLimit(.minutes(1)))
    func extremeNumbers() async throws {
        let server = try await RunningNameServer()
        let extremes = [Int64.min, .max, -1, 0, .max - 1, Int64(Int32.max), Int64(Int32.min)]
        for (number, extreme) in extremes.enumerated() {
            let topic = TopicConfig(
                topicName: "T\(number)", readQueueNums: Int32(clamping: extreme),
                writeQueueNums: Int32(clamping: extreme),
                perm: Int32(clamping: extreme), topicSysFlag: Int32(clamping: extreme))
            for field in ["heartbeatTimeoutMillis", "brokerId", "none"] {
                // Of its own: it closes when its broker expires.
                let client = try await server.connect()
                var command = Self.register("b\(number)\(field)", topics: [topic], version: extreme)
                command.extFields[field] = String(extreme)
                #expect(try await client.invoke(command).code == 0)
                // And again: what is stored is compared and counted on.
                _ = try await client.invoke(command)
                for time: Int64 in [0, 1, 10_000] { try await server.advance(milliseconds: time) }
                for question in [RequestCode.getBrokerClusterInfo, .getAllTopicListFromNameServer, .getUnitTopicList] {
                    #expect(try await client.invoke(RemotingCommand(question)).code == 0)
                }
                _ = try await client.invoke(Self.route("T\(number)"))
                for change in [RequestCode.wipeWritePermOfBroker, .addWritePermOfBroker] {
                    let fields = ["brokerName": "b\(number)\(field)"]
                    #expect(try await client.invoke(RemotingCommand(change, extFields: fields)).code == 0)
                }
                await client.close()
            }
        }
        // A broker that asked to live for ever is gone a week after it was heard of last.
        try await server.advance(milliseconds: 7 * 86_400_000 + 1)
        let next = try await server.connect()
        #expect(try await next.invoke(Self.route("T1")).code == 17)
        await next.close()
        try await server.stop()
    }

    @Test("a silent broker expires and its connection is closed")
    func silence() async throws {
        let server = try await RunningNameServer()
        let broker = try await server.connect()
        let client = try await server.connect()
        _ = try await broker.invokeSuccessfully(
            Self.register("a", topics: [TopicConfig(topicName: "T")], compressed: true))
        try await server.advance(milliseconds: 120_000)
        #expect(try await client.invoke(Self.route("T")).code == 0)
        try await server.advance(milliseconds: 1)
        #expect(try await client.invoke(Self.route("T")).code == 17)
        try await broker.closeFuture.get()
        await client.close()
        try await server.stop()
    }

    @Test("a wrong checksum, a body that is none, a missing field: refused with a remark, connection kept")
    func refusals() async throws {
        let server = try await RunningNameServer()
        let client = try await server.connect()
        var command = Self.register("a", topics: [])
        command.extFields["bodyCrc32"] = "1"
        let wrong = try await client.invoke(command)
        #expect(wrong.code == 1 && wrong.remark == "crc32 not match")
        command.extFields["bodyCrc32"] = nil
        command.body = [0x7b]
        #expect(try await client.invoke(command).remark?.hasPrefix("the body cannot be read") == true)
        command.extFields["brokerName"] = nil
        #expect(try await client.invoke(command).remark == "the custom field <brokerName> is null")
        let unknown = try await client.invoke(RemotingCommand(code: 4711))
        #expect(unknown.code == 3 && unknown.remark == " request type 4711 not supported")
        #expect(try await client.invoke(RemotingCommand(.sendMessageV2)).code == 3)
        await client.close()
        try await server.stop()
    }

    @Test("KV configuration, order topics, and both kept for the next start")
    func kvConfig() async throws {
        let storage = MemoryStorage()
        let server = try await RunningNameServer(storage: storage)
        let client = try await server.connect()
        let order = "ORDER_TOPIC_CONFIG"
        func kv(_ code: RequestCode, _ fields: [String: String]) async throws -> RemotingCommand {
            try await client.invoke(RemotingCommand(code, extFields: fields))
        }
        _ = try await client.invokeSuccessfully(Self.register("a", topics: [TopicConfig(topicName: "T")]))
        #expect(try await kv(.getKVConfig, ["namespace": order, "key": "T"]).code == 22)
        #expect(try await kv(.getKVListByNamespace, ["namespace": order]).code == 22)
        #expect(try await kv(.putKVConfig, ["namespace": order, "key": "T", "value": "a:4"]).code == 0)
        #expect(try await kv(.getKVConfig, ["namespace": order, "key": "T"]).extFields["value"] == "a:4")
        #expect(
            try KVTable(body: try await kv(.getKVListByNamespace, ["namespace": order]).body).table == ["T": "a:4"])
        // Brokers are told with each registration; clients in the route once orderMessageEnable is set.
        let registered = try await client.invokeSuccessfully(
            Self.register("a", topics: [TopicConfig(topicName: "T")]))
        #expect(try KVTable(body: registered.body).table == ["T": "a:4"])
        #expect(try TopicRouteData(body: try await client.invoke(Self.route("T")).body).orderTopicConf == nil)
        let update = RemotingCommand(.updateNamesrvConfig, body: Array("orderMessageEnable=true\n".utf8))
        #expect(try await client.invoke(update).code == 0)
        #expect(try TopicRouteData(body: try await client.invoke(Self.route("T")).body).orderTopicConf == "a:4")
        let evil = RemotingCommand(.updateNamesrvConfig, body: Array("kvConfigPath=/etc/passwd\n".utf8))
        let refused = try await client.invoke(evil)
        #expect(refused.code == 16 && refused.remark == "Can not update config in black list.")
        let shown = try await client.invoke(RemotingCommand(.getNamesrvConfig))
        #expect(String(decoding: shown.body, as: UTF8.self).contains("orderMessageEnable=true"))
        await client.close()
        try await server.stop()

        let second = try await RunningNameServer(storage: storage)
        let again = try await second.connect()
        let kept = try await again.invoke(
            RemotingCommand(.getKVConfig, extFields: ["namespace": order, "key": "T"]))
        #expect(kept.extFields["value"] == "a:4")
        #expect(
            try await again.invoke(RemotingCommand(.deleteKVConfig, extFields: ["namespace": order, "key": "T"])).code
                == 0)
        await again.close()
        try await second.stop()
        #expect(
            storage.bytes.map { String(decoding: $0, as: UTF8.self) } == #"{"configTable":{"ORDER_TOPIC_CONFIG":{}}}"#)
    }

    @Test("settings changed with 318 hold over a restart, until the file says something else; nonsense is refused")
    func changedSettings() async throws {
        let storage = MemoryStorage()
        func shown(_ configuration: NameServerConfiguration, change text: String? = nil) async throws -> Bool {
            let server = try await RunningNameServer(configuration: configuration, storage: storage)
            let client = try await server.connect()
            if let text {
                let body = Array(text.utf8)
                #expect(try await client.invoke(RemotingCommand(.updateNamesrvConfig, body: body)).code == 0)
                let long = String(repeating: "k", count: 25_000)
                for (nonsense, words) in [
                    ("orderMessageEnable=perhaps", "true or false"), ("x=1", "no setting x"), ("a=\\u1", "line 1"),
                    (long + "=1", "its name has 25000 bytes"), ("orderMessageEnable=" + long, "has 25000 bytes"),
                ] {
                    let refused = try await client.invoke(
                        RemotingCommand(.updateNamesrvConfig, body: Array(nonsense.utf8)))
                    #expect(refused.code == 1 && refused.remark?.contains(words) == true, "\(refused.remark ?? "")")
                    #expect((refused.remark?.count ?? 1000) < 300)
                }
            }
            let body = try await client.invoke(RemotingCommand(.getNamesrvConfig)).body
            await client.close()
            try await server.stop()
            return String(decoding: body, as: UTF8.self).contains("orderMessageEnable=true\n")
        }
        #expect(try await shown(NameServerConfiguration(), change: "orderMessageEnable=True"))
        #expect(try await shown(NameServerConfiguration()))
        // The file speaks later: it holds, now and from then on.
        #expect(try await !shown(NameServerConfiguration(["orderMessageEnable": "FALSE"])))
        #expect(try await !shown(NameServerConfiguration()))
        // What cannot be read costs what was changed, not the start.
        storage.changedSettings = Array("{".utf8)
        #expect(try await !shown(NameServerConfiguration()))
    }

    @Test("old clients get number keys without quotes, who asks for standard JSON gets it")
    func standardJSON() async throws {
        let server = try await RunningNameServer()
        let client = try await server.connect()
        _ = try await client.invokeSuccessfully(Self.register("a", topics: [TopicConfig(topicName: "T")]))
        var question = Self.route("T")
        question.version = 79
        let old = try await client.invokeSuccessfully(question)
        #expect(String(decoding: old.body, as: UTF8.self).contains(#""brokerAddrs":{0:"a:10911"}"#))
        question.extFields["acceptStandardJsonOnly"] = "true"
        let standard = try await client.invokeSuccessfully(question)
        #expect(String(decoding: standard.body, as: UTF8.self).contains(#""brokerAddrs":{"0":"a:10911"}"#))
        await client.close()
        try await server.stop()
    }

    @Test("tools' questions and commands")
    func tools() async throws {
        let server = try await RunningNameServer()
        let client = try await server.connect()
        _ = try await client.invokeSuccessfully(
            Self.register("a", topics: [TopicConfig(topicName: "T"), TopicConfig(topicName: "U", topicSysFlag: 3)]))
        func ask(_ code: RequestCode, _ fields: [String: String] = [:]) async throws -> RemotingCommand {
            try await client.invokeSuccessfully(RemotingCommand(code, extFields: fields))
        }
        func topics(_ code: RequestCode, _ fields: [String: String] = [:]) async throws -> [String] {
            try TopicList(body: try await ask(code, fields).body).topicList
        }
        #expect(try await topics(.getAllTopicListFromNameServer) == ["T", "U"])
        #expect(try await topics(.getTopicsByCluster, ["cluster": "C"]) == ["T", "U"])
        #expect(try await topics(.getSystemTopicListFromNameServer) == ["C", "a"])
        #expect(try await topics(.getUnitTopicList) == ["U"])
        #expect(try await topics(.getHasUnitSubTopicList) == ["U"])
        #expect(try await topics(.getHasUnitSubUnUnitTopicList) == [])
        #expect(try await ask(.wipeWritePermOfBroker, ["brokerName": "a"]).extFields["wipeTopicCount"] == "2")
        #expect(try await ask(.addWritePermOfBroker, ["brokerName": "a"]).extFields["addTopicCount"] == "2")
        let info = try ClusterInfo(body: try await ask(.getBrokerClusterInfo).body)
        #expect(info.brokerAddrTable["a"]?.brokerAddrs == [0: "a:10911"])
        let group = try await ask(.getBrokerMemberGroup, ["brokerName": "a", "clusterName": "C"]).json()
        #expect(group["brokerMemberGroup"]?["brokerName"]?.string == "a")
        _ = try await ask(.deleteTopicInNamesrv, ["topic": "T"])
        _ = try await ask(.deleteTopicInNamesrv, ["topic": "U", "clusterName": "C"])
        #expect(try await topics(.getAllTopicListFromNameServer) == [])
        await client.close()
        try await server.stop()
    }

    @Test("a broker older than 3.0.11 sends its topics alone")
    func oldBroker() async throws {
        let server = try await RunningNameServer()
        let client = try await server.connect()
        var command = Self.register("a", topics: [])
        command.version = 36
        command.extFields["bodyCrc32"] = nil
        command.body = TopicConfigSerializeWrapper(topicConfigTable: [TopicConfig(topicName: "Old")]).encoded()
        _ = try await client.invokeSuccessfully(command)
        #expect(try await client.invoke(Self.route("Old")).code == 0)
        await client.close()
        try await server.stop()
    }
}

@Suite("large bodies of a name server are read and made on another thread")
struct LargeBodyTests {
    private static func registration(_ name: String, topics: Int, prefix: String) -> RemotingCommand {
        let table = TopicConfigSerializeWrapper(
            topicConfigTable: (0..<topics).map { TopicConfig(topicName: "\(prefix)\($0)") },
            dataVersion: DataVersion(timestamp: 1, counter: Int64(topics)))
        return RemotingCommand(
            .registerBroker,
            extFields: [
                "brokerName": name, "brokerAddr": "127.0.0.1:1", "clusterName": "C", "brokerId": "0",
                "haServerAddr": "", "compressed": "false", "bodyCrc32": "0",
            ], body: RegisterBrokerBody(topicConfigSerializeWrapper: table).encoded())
    }

    @Test("a registration with thousands of topics, a damaged one, and the lists of all topics, in order")
    func large() async throws {
        let server = try await RunningNameServer()
        let used = NIOLockedValueBox(0)
        try await server.serveLargeBodies { work in
            used.withLockedValue { $0 += 1 }
            NIOThreadPool.singleton.submit { _ in work() }
        }
        let client = try await server.connect()
        let large = Self.registration("a", topics: 3000, prefix: "Large")
        // Without waiting: the list is asked for behind the registration, on the same connection.
        let registered = client.invoking(large)
        let listed = client.invoking(RemotingCommand(.getAllTopicListFromNameServer))
        #expect(try await registered.get().code == 0)
        let topics = try TopicList(body: try await listed.get().body).topicList
        #expect(topics == (0..<3000).map { "Large\($0)" }.sorted())
        #expect(used.withLockedValue { $0 } == 2)
        let cluster = try await client.invoke(RemotingCommand(.getTopicsByCluster, extFields: ["cluster": "C"]))
        #expect(try TopicList(body: cluster.body).topicList.count == 3000)
        #expect(used.withLockedValue { $0 } == 3)
        // Small ones are answered where they are.
        #expect(try await client.invoke(Self.registration("b", topics: 2, prefix: "Small")).code == 0)
        #expect(used.withLockedValue { $0 } == 3)

        var damaged = Self.registration("a", topics: 3001, prefix: "Other")
        damaged.extFields["bodyCrc32"] = "77"
        let refused = try await client.invoke(damaged)
        #expect(refused.code == ResponseCode.systemError.rawValue)
        #expect(refused.remark == "crc32 not match")
        damaged.extFields["bodyCrc32"] = "0"
        damaged.body[damaged.body.count / 2] = 0
        #expect(try await client.invoke(damaged).code == ResponseCode.systemError.rawValue)
        let route = try await client.invoke(
            RemotingCommand(.getRouteInfoByTopic, extFields: ["topic": "Other1"]))
        #expect(route.code == ResponseCode.topicNotExist.rawValue)
        await client.close()
        try await server.stop()
    }

    @Test("topics of large registrations are entered 500 in a turn, however many brokers register at once")
    func entering() async throws {
        let server = try await RunningNameServer()
        try await server.serveLargeBodies { work in NIOThreadPool.singleton.submit { _ in work() } }
        let isDone = NIOLockedValueBox(false)
        let counts = try await server.topicCounts(until: isDone)
        let clients = [try await server.connect(), try await server.connect()]
        let answers = zip(clients, ["a", "b"]).map { client, name in
            client.invoking(Self.registration(name, topics: 3000, prefix: name), timeout: .seconds(30))
        }
        for answer in answers { #expect(try await answer.get().code == 0) }
        isDone.withLockedValue { $0 = true }
        let steps = counts.withLockedValue { $0 }
        #expect(steps.first == 0 && steps.last == 6000, "\(steps)")
        for (before, after) in zip(steps, steps.dropFirst()) { #expect(after - before <= 500, "\(steps)") }
        for client in clients { await client.close() }
        try await server.stop()
    }

    @Test("entries of the KV configuration that are none are left out and counted, the others serve")
    func badKV() throws {
        var refused = 0
        let text = #"{"configTable":{"N":{"a":"1","b":7,"c":null,"d":["x"]},"M":[],"O":{"e":"5"}}}"#
        let table = KVConfigTable(json: try JSONValue(parsing: Array(text.utf8)), refused: &refused)
        // A number is taken by its digits.
        #expect(refused == 3)
        #expect(table.table == ["N": ["a": "1", "b": "7"], "O": ["e": "5"]])
    }

    @Test("a hundred brokers that expire together go one in a turn, and all go")
    func expiring() async throws {
        let server = try await RunningNameServer()
        try await server.serveLargeBodies { work in NIOThreadPool.singleton.submit { _ in work() } }
        let client = try await server.connect()
        for number in 0..<100 {
            var request = Self.registration("b\(number)", topics: 5, prefix: "T")
            request.extFields["brokerAddr"] = "127.0.0.1:\(number + 1)"
            #expect(try await client.invoke(request).code == 0)
        }
        try await server.advance(milliseconds: 200_000)
        // The first to go closes the connection, which is that of all of them here: the others had time to come back by
        // another.
        try await server.advance(milliseconds: RouteTables.graceMilliseconds)
        let watcher = try await server.connect()
        try await eventually("no topics are left") {
            let all = try await watcher.invoke(RemotingCommand(.getAllTopicListFromNameServer))
            if try TopicList(body: all.body).topicList.isEmpty { return true }
            try await server.advance(milliseconds: RouteTables.graceMilliseconds)
            return false
        }
        await watcher.close()
        await client.close()
        try await server.stop()
    }

    @Test("a request with a large body is refused in words, and a compressed registration is read on the other thread")
    func largeBodies() async throws {
        let server = try await RunningNameServer()
        let used = NIOLockedValueBox(0)
        try await server.serveLargeBodies { work in
            used.withLockedValue { $0 += 1 }
            NIOThreadPool.singleton.submit { _ in work() }
        }
        let client = try await server.connect()
        let body = [UInt8](repeating: UInt8(ascii: " "), count: 300_000)
        for code in [RequestCode.queryDataVersion, .registerTopicInNamesrv, .updateNamesrvConfig] {
            let fields = ["topic": "T", "brokerAddr": "a:1"]
            let answer = try await client.invoke(RemotingCommand(code, extFields: fields, body: body))
            #expect(answer.code == ResponseCode.systemError.rawValue)
            #expect(answer.remark?.contains("body of 300000 bytes") == true, "\(code): \(answer.remark ?? "")")
        }
        #expect(used.withLockedValue { $0 } == 0)
        let small = NameServerTests.register("a", topics: [TopicConfig(topicName: "T")], compressed: true)
        #expect(try await client.invoke(small).code == 0)
        #expect(used.withLockedValue { $0 } == 1)
        #expect(try await client.invoke(NameServerTests.route("T")).code == 0)
        await client.close()
        try await server.stop()
    }

    @Test("questions held after a start are all answered when the brokers are back, whatever their number")
    func manyHeld() async throws {
        let storage = MemoryStorage()
        storage.brokers = ["a/0"]
        let server = try await RunningNameServer(storage: storage)
        let client = try await server.connect()
        let answers = (0..<500).map { _ in client.invoking(NameServerTests.route("T"), timeout: .seconds(60)) }
        // Answered at once, behind all of them: they are held. Only now the time begins in which the broker must come.
        #expect(try await client.invoke(RemotingCommand(.getNamesrvConfig)).code == 0)
        let broker = try await server.connect()
        try await server.serveLargeBodies { work in NIOThreadPool.singleton.submit { _ in work() } }
        #expect(try await broker.invoke(NameServerTests.register("a", topics: [TopicConfig(topicName: "T")])).code == 0)
        for answer in answers { #expect(try await answer.get().code == 0) }
        await client.close()
        await broker.close()
        try await server.stop()
    }

    private static func put(_ key: String, _ value: String) -> RemotingCommand {
        RemotingCommand(.putKVConfig, extFields: ["namespace": "N", "key": key, "value": value])
    }

    @Test("the KV configuration has a bound: what strangers put there never keeps a name server from starting")
    func kvBound() async throws {
        let storage = MemoryStorage()
        let server = try await RunningNameServer(storage: storage)
        let client = try await server.connect()
        try await server.serveLargeBodies { work in NIOThreadPool.singleton.submit { _ in work() } }
        let value = String(repeating: "v", count: 900_000)
        var answers: [RemotingCommand] = []
        for number in 0..<12 {
            answers.append(try await client.invoke(Self.put("k\(number)", value), timeout: .seconds(30)))
        }
        let taken = answers.prefix { $0.code == 0 }.count
        #expect(taken == KVConfigTable.bytesMax / 900_000)
        #expect(answers.dropFirst(taken).allSatisfy { $0.code == ResponseCode.systemError.rawValue })
        #expect(answers.last?.remark?.contains("deleteKvConfig") == true, "\(answers.last?.remark ?? "")")
        let delete = RemotingCommand(.deleteKVConfig, extFields: ["namespace": "N", "key": "k0"])
        #expect(try await client.invoke(delete, timeout: .seconds(30)).code == 0)
        #expect(try await client.invoke(Self.put("another", value), timeout: .seconds(30)).code == 0)
        await client.close()
        try await server.stop()
        var refused = 0
        let again = KVConfigTable(json: try JSONValue(parsing: storage.bytes ?? []), refused: &refused)
        #expect(refused == 0 && again.entries(namespace: "N")?.count == taken && again.bytes <= KVConfigTable.bytesMax)
        // What JSON makes of the worst of them is still a file a start reads (64 MiB).
        var worst = KVConfigTable()
        let isTaken = worst.put(namespace: "N", key: "k", value: String(repeating: "\u{1}", count: 10_000))
        #expect(isTaken)
        // The answer to a broker's registration contains it, and must fit a frame of 16 MiB.
        #expect((60_000..<61_000).contains(worst.bytes) && worst.json.bytes().count < worst.bytes + 100)
    }

    @Test("a KV configuration that is above its bound takes what makes it no larger")
    func kvAboveTheBound() throws {
        let value = String(repeating: "v", count: KVConfigTable.bytesMax)
        let json = JSONValue.fields([("configTable", .fields([("N", .fields([("k", .string(value))]))]))])
        var refused = 0
        var table = KVConfigTable(json: json, refused: &refused)
        #expect(refused == 0 && table.bytes > KVConfigTable.bytesMax)
        let (larger, other) = (value + "v", table.put(namespace: "N", key: "more", value: "v"))
        let grows = table.put(namespace: "N", key: "k", value: larger)
        let shrinks = table.put(namespace: "N", key: "k", value: String(value.dropLast()))
        #expect(!other && !grows && shrinks)
    }

    @Test("namespaces whose keys are deleted take room, and give way to what is put; long names are refused")
    func emptiedNamespaces() async throws {
        var table = KVConfigTable()
        for number in 0..<20 {
            let namespace = "\(number)" + String(repeating: "n", count: 1 << 20)
            let isTaken = table.put(namespace: namespace, key: "k", value: "v")
            #expect(isTaken)
            table.delete(namespace: namespace, key: "k")
            // An emptied namespace is one: RocketMQ answers an empty list.
            #expect(table.entries(namespace: namespace) == [:])
            #expect(table.json.bytes().count < KVConfigTable.bytesMax + 1000)
        }
        let former = table.bytes
        let small = table.put(namespace: "N", key: "k", value: "v")
        #expect(small && table.bytes == former + 16)
        table.delete(namespace: "N", key: "k")
        #expect(table.bytes == former + 4)
        let large = table.put(namespace: "N", key: "k", value: String(repeating: "v", count: 8_000_000))
        #expect(large)
        #expect(table.table.keys.sorted() == ["N"] && table.bytes == 8_000_015)
        let server = try await RunningNameServer()
        let client = try await server.connect()
        for (namespace, key, isTaken) in [(255, 1, true), (256, 1, false), (1, 32_768, true), (1, 32_769, false)] {
            let fields = [
                "namespace": String(repeating: "n", count: namespace), "key": String(repeating: "k", count: key),
                "value": "v",
            ]
            let answer = try await client.invoke(RemotingCommand(.putKVConfig, extFields: fields))
            #expect((answer.code == 0) == isTaken, "\(answer.remark ?? "")")
        }
        await client.close()
        try await server.stop()
    }

    @Test("changes of the KV configuration are written by another thread, together, and answered when they are")
    func kvTogether() async throws {
        let storage = MemoryStorage()
        let server = try await RunningNameServer(storage: storage)
        try await server.serveLargeBodies { work in
            NIOThreadPool.singleton.submit { _ in
                usleep(20_000)
                work()
            }
        }
        var clients: [RemotingClient] = []
        for _ in 0..<40 { clients.append(try await server.connect()) }
        let answers = clients.enumerated().map { number, client in
            client.invoking(Self.put("k\(number)", "v"), timeout: .seconds(30))
        }
        for answer in answers { #expect(try await answer.get().code == 0) }
        let watcher = try await server.connect()
        let list = try await watcher.invoke(
            RemotingCommand(.getKVListByNamespace, extFields: ["namespace": "N"]))
        #expect(try KVTable(body: list.body).table.count == 40)
        for client in clients + [watcher] { await client.close() }
        try await server.stop()
        #expect(storage.saves < 40)
        let kept = try JSONValue(parsing: storage.bytes ?? [])["configTable"]?["N"]?.object
        #expect(kept?.count == 40)
    }
}
