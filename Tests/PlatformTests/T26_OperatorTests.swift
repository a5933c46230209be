import Foundation
import Testing

extension PlatformTests {
    /// What an operator types when something is not as it should be.
    @Suite("T26 operators", .serialized)
    struct T26_Operators {
        private func apus(_ words: [String], status: Int32) async throws -> (lines: [String], errors: String) {
            let outcome = try await Program.run(Binaries.apus, words, within: .seconds(30))
            #expect(outcome.status == status, "apus \(words): \(outcome)")
            return (outcome.lines, outcome.errorText)
        }

        @Test(
            "logs, reload, down, settings changed online: each says what is so and what to type",
            .timeLimit(.minutes(2)))
        func dayOfAnOperator() async throws {
            let folder = try TemporaryFolder()
            let file = folder.file("apus.toml")
            func write(_ region: String) throws {
                try "regionId = \"\(region)\"\nfileReservedTime = 24\n".write(
                    toFile: file, atomically: true, encoding: .utf8)
            }
            try write("north")
            let platform = try await Platform.start(
                in: folder, launcher: ["/bin/sh", "-c", "exec \"$0\" \"$@\" 2>>\(folder.file("log"))"],
                ["--config", file])
            let place = ["--data-dir", platform.data]

            // A platform in the foreground: its standard error is a file.
            let log = try await apus(["logs"] + place, status: 0).lines
            #expect(log.contains { $0.contains("supervisor") && $0.contains("ready in") }, "\(log)")
            #expect(log.allSatisfy { $0.wholeMatch(of: /\d{4}-\d\d-\d\d \d\d:.*/) != nil }, "dates: \(log)")
            let ofBroker = try await apus(["logs", "broker-store@0"] + place, status: 0).lines
            #expect(ofBroker.allSatisfy { $0.contains(" broker-store-0 ") })

            // What needs a restart is said, with the command, and is no success.
            #expect(try await apus(["reload"] + place, status: 0).lines.count == 1)
            try write("south")
            let reloaded = try await apus(["reload"] + place, status: 1).lines
            #expect(reloaded.contains { $0.contains("broker-a.regionId: apus restart broker-store@0") }, "\(reloaded)")

            // Where nothing runs it is not said that all is well; and what runs elsewhere is named.
            for command in ["down", "logs"] {
                let nothing = try await apus([command, "--data-dir", folder.file("elsewhere")], status: 3)
                #expect(nothing.errors.contains("nothing runs on \(folder.file("elsewhere"))"), "\(nothing)")
                #expect(nothing.errors.contains("\(platform.data) (pid \(platform.supervisorPid)"), "\(nothing)")
            }

            // Who set what, and back.
            _ = try await apus(
                ["admin", "updateBrokerConfig", "-b", platform.broker, "-k", "fileReservedTime", "-v", "48"], status: 0)
            let broker = ["-b", platform.broker]
            let changed = try await apus(["config", "diff", "--running"] + broker, status: 0).lines
            #expect(
                changed.contains {
                    $0.contains("fileReservedTime") && $0.contains("online") && $0.contains("file: 24")
                },
                "\(changed)")
            #expect(changed.contains { $0.contains("regionId") && $0.contains("file ") }, "\(changed)")
            let back = try await apus(["config", "revert", "fileReservedTime"] + broker, status: 0).lines
            #expect(back.contains { $0.contains("fileReservedTime is 24 again") }, "\(back)")
            let after = try await apus(["config", "diff", "--running"] + broker, status: 0).lines
            #expect(!after.contains { $0.contains("online") }, "\(after)")
            _ = try await apus(["config", "revert", "fileReservedTime"] + broker, status: 1)

            // No message with this key is a failure that says so.
            _ = try await apus(
                ["admin", "updateTopic", "-b", platform.broker, "-t", "Keys", "-n", platform.nameServer], status: 0)
            let missing = try await apus(
                ["admin", "queryMsgByKey", "-t", "Keys", "-k", "-1", "-n", platform.nameServer], status: 1)
            #expect(missing.errors.contains("no message with the key '-1' in topic 'Keys'"), "\(missing)")
            let partly = try await apus(
                [
                    "admin", "updateKvConfig", "-s", "S", "-k", "K", "-v", "-", "-n",
                    "\(platform.nameServer);127.0.0.1:1",
                ], status: 1)
            #expect(partly.errors.contains("done at \(platform.nameServer), not everywhere"), "\(partly)")
            #expect(partly.errors.contains("-n '127.0.0.1:1'"), "\(partly)")
            try await platform.stop()
        }

        @Test("a start that fails is STATUS= with the reason: port taken, folder missing", .timeLimit(.minutes(1)))
        func failedStarts() async throws {
            let platform = try await Platform.start()
            let folder = try TemporaryFolder()
            let path = folder.file("notify")
            let socket = Foundation.socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
            defer { close(socket) }
            var address = sockaddr_un()
            address.sun_family = sa_family_t(AF_UNIX)
            withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
            let bound = withUnsafePointer(to: address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    bind(socket, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
                }
            }
            #expect(bound == 0)
            func status() -> String {
                var last = ""
                var buffer = [UInt8](repeating: 0, count: 4096)
                while case let count = recv(socket, &buffer, buffer.count, Int32(MSG_DONTWAIT)), count > 0 {
                    for line in String(decoding: buffer[..<count], as: UTF8.self).split(separator: "\n")
                    where line.hasPrefix("STATUS=") { last = String(line.dropFirst(7)) }
                }
                return last
            }
            let port = String(platform.broker.split(separator: ":").last ?? "")
            for (arguments, reason) in [
                (["--broker-port", port, "--nameserver-port", "0"], port),
                (
                    ["--broker-port", "0", "--nameserver-port", "0", "--set", "storePathRootDir=/proc/none"],
                    "/proc/none"
                ),
            ] {
                let program = try Program(
                    Binaries.apus, ["up", "--data-dir", folder.file("data")] + arguments,
                    environment: ["NOTIFY_SOCKET": path])
                // Read all the while: with a full queue the program would wait for its reader.
                var text = ""
                try await eventually("the start is given up", within: .seconds(30)) {
                    let news = status()
                    if !news.isEmpty { text = news }
                    return program.status != nil
                }
                let news = status()
                if !news.isEmpty { text = news }
                #expect(try await program.finish() != 0)
                #expect(text.hasPrefix("Failed: ") && text.contains(reason), "\(text)")
            }
            try await platform.stop()
        }
    }
}
