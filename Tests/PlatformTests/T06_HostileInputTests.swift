import Foundation
import RemotingProtocol
import TestTools
import Testing

extension PlatformTests {
    /// Input no client sends, on both ports: refused or served, said in the log, nothing crashes, memory stays bounded.
    @Suite("T06 hostile input", .serialized)
    struct T06_HostileInput {
        static let memoryLimit = 64 << 20

        /// The platform still serves and no worker has been replaced.
        private static func expectHealthy(_ platform: Platform, _ pids: [String: pid_t], _ situation: String)
            async throws
        {
            for (kind, pid) in pids {
                #expect(platform.pid(of: kind) == pid, "\(situation): \(kind) was restarted")
                let resident = Platform.residentBytes(of: pid)
                #expect(resident < memoryLimit, "\(situation): \(kind) has \(resident >> 20) MB resident")
            }
            let sent = try await platform.apus(["send", "--topic", "Healthy"], input: .file("/etc/hostname"))
            #expect(sent.status == 0, "\(situation): \(sent.errorText)")
        }

        private static func pids(_ platform: Platform) -> [String: pid_t] {
            Dictionary(
                uniqueKeysWithValues: Platform.workerKinds.compactMap { kind in
                    platform.pid(of: kind).map { (kind, $0) }
                })
        }

        private static func frame(header: [UInt8], body: [UInt8] = [], type: UInt8 = 0) -> [UInt8] {
            let length = UInt32(4 + header.count + body.count)
            let word = UInt32(type) << 24 | UInt32(header.count)
            return withUnsafeBytes(of: length.bigEndian, Array.init) + withUnsafeBytes(of: word.bigEndian, Array.init)
                + header + body
        }

        @Test("random bytes, impossible lengths, broken headers: closed with a logged reason", .timeLimit(.minutes(1)))
        func malformedBytes() async throws {
            let platform = try await Platform.start()
            let pids = Self.pids(platform)
            var random = SystemRandomNumberGenerator()
            let noise = (0..<200_000).map { _ in UInt8.random(in: 0...255, using: &random) }
            let cases: [(String, [UInt8])] = [
                ("random bytes", [0xFF] + noise),
                ("a length of 2 GiB", [0x7F, 0xFF, 0xFF, 0xFF, 0, 0, 0, 10]),
                ("a negative length", [0xFF, 0xFF, 0xFF, 0xF0, 0, 0, 0, 10]),
                ("a length of 17 MiB", [0x01, 0x10, 0, 0, 0, 0, 0, 10]),
                ("a length of zero", [0, 0, 0, 0, 0, 0, 0, 0]),
                (
                    "a header longer than its frame",
                    [0, 0, 0, 20, 0, 0, 0xFF, 0xFF] + Array(repeating: 0x20, count: 16)
                ),
                ("an unknown serialization", Self.frame(header: Array("{}".utf8), type: 9)),
                ("a header that is no JSON", Self.frame(header: Array("not json at all".utf8))),
                ("a JSON header cut short", Self.frame(header: Array("{\"code\":10,\"extFields\":{\"a\"".utf8))),
                ("a binary header cut short", Self.frame(header: [0, 105, 0, 1], type: 1)),
                ("an HTTP request", Array("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".utf8)),
            ]
            for address in [platform.nameServer, platform.broker] {
                for (name, bytes) in cases {
                    let socket = try RawSocket(address)
                    socket.write(bytes)
                    do {
                        try await eventually("\(name): closed by \(address)", within: .seconds(5)) {
                            socket.isClosedByPeer
                        }
                    } catch {
                        Issue.record("\(error)")
                    }
                }
            }
            try await Self.expectHealthy(platform, pids, "after malformed bytes")
            let log = platform.log
            #expect(log.contains("127.0.0.1:"), "the log names the peers it refused: \(log.suffix(1500))")
            print(
                "T06 log says: \(log.split(separator: "\n").filter { $0.contains("frame") || $0.contains("header") }.prefix(3))"
            )
            try await platform.stop()
        }

        @Test("an unknown request code is answered with 3 and the connection stays open", .timeLimit(.minutes(1)))
        func unknownCode() async throws {
            let platform = try await Platform.start()
            for address in [platform.nameServer, platform.broker] {
                let reply = try await platform.ask(address, RemotingCommand(code: 9_999))
                #expect(reply.code == 3, "\(address) answered \(reply.code)")
                // A header with values of the wrong kind is the sender's mistake, not a reason to close.
                let strange = try await platform.ask(
                    address, RemotingCommand(code: 310, extFields: ["a": "x", "e": "not a number"]))
                #expect(strange.code != 0)
            }
            try await platform.stop()
        }

        @Test("1 000 idle connections and 200 half frames on each port: others are served", .timeLimit(.minutes(2)))
        func idleAndSlow() async throws {
            let platform = try await Platform.start()
            let pids = Self.pids(platform)
            raiseDescriptorLimit()
            var idle: [RawSocket] = []
            var slow: [RawSocket] = []
            for address in [platform.nameServer, platform.broker] {
                let began = ContinuousClock.now
                for _ in 0..<1_000 { idle.append(try RawSocket(address)) }
                // A full accept queue would make connects wait for retransmissions of a second.
                let elapsed = began.duration(to: .now)
                #expect(elapsed < .seconds(5), "1 000 connects to \(address) took \(elapsed)")
                for _ in 0..<200 {
                    let socket = try RawSocket(address)
                    // Half a frame: its length says 1000 bytes, ten come.
                    socket.write([0, 0, 3, 0xE8, 0, 0, 0, 100, 0x7B, 0x22])
                    slow.append(socket)
                }
            }
            for _ in 0..<5 {
                // The loris: a byte now and then.
                for socket in slow { socket.write([0x20]) }
                try await Self.expectHealthy(platform, pids, "under idle and half connections")
                try await Task.sleep(for: .milliseconds(200))
            }
            // Bytes that trickle in do not keep a frame alive: it is given up 30 s after its first byte.
            let deadline = ContinuousClock.now + .seconds(40)
            while ContinuousClock.now < deadline, !slow.allSatisfy({ $0.isClosedByPeer }) {
                for socket in slow { socket.write([0x20]) }
                try await Task.sleep(for: .milliseconds(500))
            }
            #expect(slow.allSatisfy { $0.isClosedByPeer }, "half frames are given up")
            #expect(platform.log.contains("frame"), "and the log says why")
            let refused = idle.filter(\.isClosedByPeer).count
            print("T06 of 2000 idle connections \(refused) were refused")
            try await Self.expectHealthy(platform, pids, "after idle and half connections")
            idle.removeAll()
            slow.removeAll()
            try await Self.expectHealthy(platform, pids, "after they left")
            try await platform.stop()
        }

        @Test("a client that never reads its answers is held back, not buffered without end", .timeLimit(.minutes(1)))
        func neverReads() async throws {
            let platform = try await Platform.start()
            let pids = Self.pids(platform)
            // Bodies large enough that unread answers would fill memory fast.
            let large = platform.folder.file("large")
            try String(repeating: "x", count: 1 << 20).write(toFile: large, atomically: false, encoding: .utf8)
            for _ in 0..<4 {
                let sent = try await platform.apus([
                    "send", "--topic", "Large", "--queue", "0", "--key", "large", large,
                ])
                #expect(sent.status == 0, "\(sent.errorText)")
            }
            let header = """
                {"code":11,"extFields":{"consumerGroup":"greedy","topic":"Large","queueId":"0","queueOffset":"0",\
                "maxMsgNums":"32","sysFlag":"4","commitOffset":"0","suspendTimeoutMillis":"0","subscription":"*",\
                "subVersion":"0","expressionType":"TAG"},"flag":0,"language":"JAVA","opaque":1,"version":409}
                """
            let query = """
                {"code":12,"extFields":{"topic":"Large","key":"large","maxNum":"64","beginTimestamp":"0",\
                "endTimestamp":"9223372036854775807"},"flag":0,"language":"JAVA","opaque":2,"version":409}
                """
            let request = Self.frame(header: Array(header.utf8))
            let byKey = Self.frame(header: Array(query.utf8))
            // It is a question that is answered with all of them.
            let reader = try RawSocket(platform.broker)
            reader.write(byKey)
            #expect(reader.read(4 << 20, within: .seconds(10)) == 4 << 20)
            let sockets = try (0..<8).map { _ in try RawSocket(platform.broker) }
            for _ in 0..<50 {
                for socket in sockets { socket.write(request + byKey) }
            }
            // Time passes: it answers as much as it wants to.
            try await Task.sleep(for: .seconds(2))
            let pid = try #require(pids["broker-store"])
            let resident = Platform.residentBytes(of: pid)
            print(
                "T06 8 clients that asked for \(2 * 8 * 50 * 4) MB and read none: broker-store has \(resident >> 20) MB resident"
            )
            #expect(resident < 256 << 20, "broker-store has \(resident >> 20) MB resident")
            let sent = try await platform.apus(["send", "--topic", "Healthy"], input: .file("/etc/hostname"))
            #expect(sent.status == 0, "\(sent.errorText)")
            #expect(platform.pid(of: "broker-store") == pid)
            try await platform.stop()
        }

        /// 150 of them took 2.4 GB of the broker, 60 took 973 MB of the name server.
        @Test("frames of 16 MB without their last byte: bounded memory, others are served", .timeLimit(.minutes(2)))
        func unfinishedFrames() async throws {
            let platform = try await Platform.start()
            let pids = Self.pids(platform)
            raiseDescriptorLimit()
            let cases = [
                ("broker-store", platform.broker, 16 << 20, 150), ("nameserver", platform.nameServer, 16 << 20, 60),
            ]
            for (kind, address, length, count) in cases {
                let pid = try #require(pids[kind])
                let before = Platform.residentBytes(of: pid)
                let word = withUnsafeBytes(of: UInt32(length).bigEndian, Array.init)
                let piece = [UInt8](repeating: 0x20, count: 64 << 10)
                var peers = try (0..<count).map { _ in (socket: try RawSocket(address), left: length - 1) }
                for peer in peers { peer.socket.write(word) }
                var most = before
                let deadline = ContinuousClock.now + .seconds(6)
                while ContinuousClock.now < deadline {
                    for index in peers.indices where peers[index].left > 0 {
                        let sent = peers[index].socket.writeSome(piece.prefix(peers[index].left))
                        peers[index].left -= max(sent, 0)
                    }
                    most = max(most, Platform.residentBytes(of: pid))
                    try await Task.sleep(for: .milliseconds(1))
                }
                print(
                    "T06 \(count) unfinished frames of \(length >> 20) MB: \(kind) took \((most - before) >> 20) MB more"
                )
                #expect(most - before < 176 << 20, "\(kind): \((most - before) >> 20) MB more")
                let sent = try await platform.apus(["send", "--topic", "Healthy"], input: .file("/etc/hostname"))
                #expect(sent.status == 0, "\(sent.errorText)")
                #expect(platform.pid(of: kind) == pid)
            }
            #expect(platform.log.contains("comes too slowly while others wait for memory"))
            try await platform.stop()
        }

        @Test("the HA port takes a bounded number of peers and tells what is no slave", .timeLimit(.minutes(1)))
        func replicationPort() async throws {
            let platform = try await Platform.start()
            let settings = try await platform.ask(platform.broker, RemotingCommand(.getBrokerConfig)).body
            let lines = String(decoding: settings, as: UTF8.self).split(separator: "\n")
            let port = try #require(lines.first { $0.hasPrefix("haListenPort=") }?.split(separator: "=").last)
            let address = "127.0.0.1:\(port)"
            let pid = try #require(platform.pid(of: "replication"))
            let web = try RawSocket(address)
            web.write(Array("GET / HTTP/1.1\r\n\r\n".utf8))
            try await eventually("who asks for a page is left") { web.isClosedByPeer }
            try await eventually("its protocol is named") { platform.log.contains("looks like HTTP/1") }
            let sockets = try (0..<200).map { _ in try RawSocket(address) }
            try await eventually("all but 64 are closed") { sockets.filter { !$0.isClosedByPeer }.count == 64 }
            try await eventually("the others are logged") {
                platform.log.contains("connection to the HA port refused: too many connections: 64 are open")
            }
            // They say nothing for two seconds: a slave that comes finds a place all the same.
            try await Task.sleep(for: .milliseconds(2100))
            let slave = try RawSocket(address)
            slave.write([UInt8](repeating: 0, count: 8))
            try await eventually("the oldest has given way") { sockets.filter { !$0.isClosedByPeer }.count == 63 }
            try await eventually("it is logged why") {
                platform.log.contains("it has reported nothing, and a new connection needs its slot")
            }
            #expect(!slave.isClosedByPeer)
            #expect(platform.pid(of: "replication") == pid)
            try await platform.stop()
        }

        @Test("names with line breaks and escapes forge no line, and refusals are counted", .timeLimit(.minutes(1)))
        func forgedLines() async throws {
            let platform = try await Platform.start()
            let forged = "g\\n12:00:00.000 supervisor     the disk is gone\\u001b[31m\\u202e"
            let body = """
                {"clientID":"\(forged)","consumerDataSet":[{"consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","consumeType":\
                "CONSUME_PASSIVELY","groupName":"Forged","messageModel":"CLUSTERING","subscriptionDataSet":[],"unitMode":false}],\
                "producerDataSet":[]}
                """
            let beat = Self.frame(
                header: Array(#"{"code":34,"flag":0,"language":"JAVA","opaque":1,"version":409}"#.utf8),
                body: Array(body.utf8))
            let socket = try RawSocket(platform.broker)
            socket.write(beat)
            // 2 000 requests that a name server refuses, each with a line of its own until now.
            let lacking = Self.frame(
                header: Array(#"{"code":105,"extFields":{},"flag":0,"language":"JAVA","opaque":1,"version":409}"#.utf8))
            let flood = try RawSocket(platform.nameServer)
            for _ in 0..<2000 { flood.write(lacking) }
            try await eventually("the refusals are logged") { platform.log.contains("request refused") }
            try await eventually("the number of the others is logged", within: .seconds(20)) {
                platform.log.contains("heldBack=")
            }
            let lines = platform.log.split(separator: "\n")
            #expect(lines.filter { $0.contains("request refused") }.count < 150)
            #expect(!lines.contains { $0.hasPrefix("12:00:00.000") })
            #expect(!platform.log.contains("\u{1B}") && !platform.log.contains("\u{202E}"))
            try await platform.stop()
        }
    }
}
