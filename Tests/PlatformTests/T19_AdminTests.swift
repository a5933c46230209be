import Foundation
import Testing

extension PlatformTests {
    /// RocketMQ's tools by their names, without a JVM: what an operator types, and the columns a script reads.
    @Suite("T19 mqadmin, mqnamesrv, mqbroker, mqshutdown", .serialized)
    struct T19_Admin {
        /// The names as the package has them: links to `apus`.
        private final class Names {
            let folder: TemporaryFolder

            init() throws {
                folder = try TemporaryFolder()
                for name in ["mqadmin", "mqnamesrv", "mqbroker", "mqshutdown"] {
                    try FileManager.default.createSymbolicLink(
                        atPath: folder.file(name), withDestinationPath: Binaries.apus)
                }
            }

            var environment: [String: String] { ["XDG_STATE_HOME": folder.file("state"), "HOME": folder.path] }
        }

        @Test("topics, messages, groups and offsets, as one manages them with mqadmin", .timeLimit(.minutes(2)))
        func commands() async throws {
            let platform = try await Platform.start()
            let names = try Names()
            func mqadmin(_ words: String..., status: Int32 = 0) async throws -> [String] {
                let outcome = try await Program.run(
                    names.folder.file("mqadmin"), words + ["-n", platform.nameServer], within: .seconds(20))
                #expect(outcome.status == status, "mqadmin \(words): \(outcome)")
                return status == 0 ? outcome.lines : outcome.errorText.split(separator: "\n").map(String.init)
            }
            let cluster = try await mqadmin("clusterlist")
            #expect(cluster.first?.hasPrefix("#Cluster Name     #Broker Name            #BID  #Addr") == true)
            #expect(cluster.last?.contains(platform.broker) == true && cluster.count == 2)

            #expect(
                try await mqadmin("updateTopic", "-c", "DefaultCluster", "-t", "Managed", "-r", "2", "-w", "2").first
                    == "create topic to \(platform.broker) success.")
            #expect(try await mqadmin("topicList").contains("Managed"))
            #expect(try await mqadmin("topicRoute", "-t", "Managed", "-l").last?.contains("2          2") == true)
            #expect(try await mqadmin("topicClusterList", "-t", "Managed") == ["DefaultCluster"])
            for number in 1...3 {
                let sent = try await mqadmin(
                    "sendMessage", "-t", "Managed", "-p", "body \(number)", "-k", "key\(number)", "-c", "red", "-b",
                    "broker-a", "-i", String(number % 2))
                #expect(sent.last?.contains("SEND_OK") == true, "\(sent)")
            }
            let printed = try await mqadmin("printMsg", "-t", "Managed")
            #expect(printed.count { $0.hasPrefix("MSGID: ") } == 3 && printed.joined().contains("BODY: body 2"))
            // The index and the queues follow the log at once.
            let byKey = try await mqadmin("queryMsgByKey", "-t", "Managed", "-k", "key2")
            #expect(byKey.count == 2)
            let id = byKey.last?.split(separator: " ").first.map(String.init) ?? ""
            let unique = try await mqadmin("queryMsgByUniqueKey", "-t", "Managed", "-i", id)
            #expect(unique.contains { $0.hasPrefix("Keys:") && $0.contains("[key2]") })
            let offsetID = unique.first?.split(separator: " ").last.map(String.init) ?? ""
            #expect(try await mqadmin("queryMsgById", "-i", offsetID) == unique)

            let consumed = try await platform.apus([
                "consume", "--topic", "Managed", "--group", "Readers", "--from", "first", "--count", "3", "--timeout",
                "10",
            ])
            #expect(consumed.status == 0, "\(consumed)")
            #expect(try await mqadmin("consumerProgress", "-g", "Readers").last == "Diff Total: 0")
            let reset = try await mqadmin("resetOffsetByTime", "-g", "Readers", "-t", "Managed", "-s", "0")
            #expect(reset.contains { $0.hasPrefix("#brokerName") && $0.hasSuffix("#rollbackOffset     ") }, "\(reset)")
            #expect(try await mqadmin("consumerProgress", "-g", "Readers").last == "Diff Total: 3")
            _ = try await mqadmin("cloneGroupOffset", "-s", "Readers", "-d", "Others", "-t", "Managed")
            _ = try await mqadmin("skipAccumulatedMessage", "-g", "Readers", "-t", "Managed")
            #expect(try await mqadmin("consumerProgress", "-g", "Readers").last == "Diff Total: 0")

            _ = try await mqadmin("updateSubGroup", "-c", "DefaultCluster", "-g", "Made", "-r", "3")
            let made = try await mqadmin("getConsumerConfig", "-g", "Made")
            #expect(made.contains { $0.hasPrefix("retryMaxTimes") && $0.hasSuffix("=  3") })
            #expect(
                try await mqadmin("setConsumeMode", "-b", platform.broker, "-t", "Managed", "-g", "Made", "-m", "POP")
                    == [
                        "set consume mode to \(platform.broker) success.",
                        "topic[Managed] group[Made] consume mode[POP] popShareQueueNum[0]",
                    ])
            #expect(
                try await mqadmin(
                    "setConsumeMode", "-c", "DefaultCluster", "-t", "Managed", "-g", "Absent", "-m", "PULL", status: 1
                ).joined().contains("subscription group [Absent] does not exist"))
            _ = try await mqadmin("updateBrokerConfig", "-b", platform.broker, "-k", "fileReservedTime", "-v", "48")
            let settings = try await mqadmin("getBrokerConfig", "-b", platform.broker)
            #expect(settings.contains { $0.hasPrefix("fileReservedTime") && $0.hasSuffix("=  48") })
            #expect(
                try await mqadmin("wipeWritePerm", "-b", "broker-a").first?.hasPrefix("wipe write perm of broker")
                    == true)
            _ = try await mqadmin("addWritePerm", "-b", "broker-a")
            _ = try await mqadmin("updateTopicPerm", "-c", "DefaultCluster", "-t", "Managed", "-p", "4")
            #expect(
                try await mqadmin("sendMessage", "-t", "Managed", "-p", "x", status: 1).joined().contains("Error"))
            for words in [
                ["brokerStatus", "-b", platform.broker], ["brokerConsumeStats", "-b", platform.broker], ["statsAll"],
                ["topicStatus", "-t", "Managed"], ["getNamesrvConfig"], ["cleanExpiredCQ"], ["cleanUnusedTopic"],
                ["updateKvConfig", "-s", "a", "-k", "b", "-v", "c"], ["deleteKvConfig", "-s", "a", "-k", "b"],
                ["allocateMQ", "-t", "Managed", "-i", "a,b"], ["queryCq", "-t", "Managed", "-q", "0", "-i", "0"],
                ["updateOrderConf", "-t", "Managed", "-m", "put", "-v", "broker-a:2"],
                ["updateOrderConf", "-t", "Managed", "-m", "get"], ["producer", "-b", platform.broker],
                ["consumeMessage", "-t", "Managed"], ["deleteSubGroup", "-c", "DefaultCluster", "-g", "Made"],
                ["deleteTopic", "-c", "DefaultCluster", "-t", "Managed"],
            ] {
                let outcome = try await Program.run(
                    Binaries.apus, ["admin"] + words + ["-n", platform.nameServer], within: .seconds(20))
                #expect(outcome.status == 0, "apus admin \(words): \(outcome)")
            }
            #expect(try await mqadmin("topicRoute", "-t", "Managed", status: 1).first?.contains("17") == true)
            #expect(
                try await mqadmin("queryCq", "-t", "SELF_TEST_TOPIC", "-q", "0", "-i", "7", status: 1).joined()
                    .contains(
                        "exist"))
            // Wrong words are told apart from a server's no.
            let wrong = try await Program.run(names.folder.file("mqadmin"), ["updateTopic", "-t", "X"])
            #expect(wrong.status == 64 && wrong.errorText.contains("-c NAME"), "\(wrong)")
            try await platform.stop()
        }

        @Test(
            "mqnamesrv and mqbroker in the foreground, each its own; mqshutdown stops ours only",
            .timeLimit(.minutes(1)))
        func roles() async throws {
            let names = try Names()
            let port = try FreePort.pick(), brokerPort = try FreePort.pick(neighbours: true)
            let serverFile = names.folder.file("namesrv.conf"), brokerFile = names.folder.file("broker.conf")
            try "listenPort=\(port)\nbindAddress=127.0.0.1\n".write(
                toFile: serverFile, atomically: false, encoding: .utf8)
            try """
            brokerName=lonely
            listenPort=\(brokerPort)
            bindAddress=127.0.0.1
            sendMessageThreadPoolNums=16
            """.write(toFile: brokerFile, atomically: false, encoding: .utf8)
            let server = try Program(
                names.folder.file("mqnamesrv"), ["-c", serverFile], environment: names.environment)
            _ = try await server.line(within: .seconds(20)) { $0.hasPrefix("ready ") }
            let broker = try Program(
                names.folder.file("mqbroker"), ["-n", "127.0.0.1:\(port)", "-c", brokerFile],
                environment: names.environment)
            _ = try await broker.line(within: .seconds(20)) { $0.hasPrefix("ready ") }
            let cluster = try await Program.run(
                names.folder.file("mqadmin"), ["clusterList"], environment: ["NAMESRV_ADDR": "127.0.0.1:\(port)"])
            #expect(cluster.lines.last?.contains("lonely") == true, "\(cluster)")
            // RocketMQ's default place for a store.
            #expect(FileManager.default.fileExists(atPath: names.folder.file("store/commitlog")))

            for (role, program) in [("broker", broker), ("namesrv", server)] {
                let stop = try await Program.run(
                    names.folder.file("mqshutdown"), [role], environment: names.environment)
                #expect(stop.status == 0 && stop.lines.first?.contains("\(program.pid)") == true, "\(stop)")
                #expect(try await program.finish(within: .seconds(10)) == 0)
            }
            let again = try await Program.run(
                names.folder.file("mqshutdown"), ["broker"], environment: names.environment)
            #expect(again.status == 1, "\(again)")
        }

        @Test("without HOME the store is in the home folder of the system's list of users; a user without one is told")
        func homeless() async throws {
            let names = try Names()
            let homeless = ["HOME": "", "XDG_STATE_HOME": ""]
            let home = String(cString: try #require(getpwuid(geteuid())?.pointee.pw_dir))
            let shown = try await Program.run(names.folder.file("mqbroker"), ["-p"], environment: homeless)
            #expect(shown.status == 0 && shown.lines.contains { $0.contains("\(home)/store") }, "\(shown)")
            // No user has this number, and files are as before to one that takes it in a user namespace of its own.
            let stranger = ["--user", "--map-user=4210042", names.folder.file("mqbroker")]
            let refused = try await Program.run("/usr/bin/unshare", stranger + ["-p"], environment: homeless)
            #expect(refused.status == 1, "\(refused)")
            #expect(refused.errorText.contains("no home folder") && refused.errorText.contains("storePathRootDir"))
            let file = names.folder.file("broker.conf")
            try "storePathRootDir=/data/store\n".write(toFile: file, atomically: false, encoding: .utf8)
            let named = try await Program.run(
                "/usr/bin/unshare", stranger + ["-p", "-c", file], environment: homeless)
            #expect(named.status == 0, "\(named)")
        }
    }
}

/// Ports that were free a moment ago.
private enum FreePort {
    /// - Parameter neighbours: also 2 below and 1 above, which a broker takes.
    static func pick(neighbours: Bool = false) throws -> Int {
        for _ in 0..<100 {
            guard let port = bound(0) else { continue }
            if !neighbours || (bound(port - 2) != nil && bound(port + 1) != nil) { return port }
        }
        throw ScenarioFailure("no free port")
    }

    /// The port a socket could be bound to; nil when it is taken. Closed again.
    private static func bound(_ port: Int) -> Int? {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(port).bigEndian
        address.sin_addr.s_addr = INADDR_LOOPBACK.bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isGood = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, length) == 0 && getsockname(descriptor, $0, &length) == 0
            }
        }
        return isGood ? Int(UInt16(bigEndian: address.sin_port)) : nil
    }
}
