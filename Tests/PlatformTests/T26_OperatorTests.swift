import Foundation
import TestTools
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

        /// The script as the package installs it, run by bash the way it is run for the tabulator key; `apus` is found
        /// by its name.
        @Test("bash completes workers, topics, groups, settings, plugins, files and commands", .timeLimit(.minutes(1)))
        func completion() async throws {
            let folder = try TemporaryFolder()
            let platform = try await Platform.start(in: folder)
            for topic in ["CompleteMe", "CompleteOther"] {
                let sent = try await platform.apus(["send", "--topic", topic], input: .file("/etc/hostname"))
                #expect(sent.status == 0, "\(sent)")
            }
            let consumed = try await platform.apus([
                "consume", "--topic", "CompleteMe", "--group", "CompletedGroup", "--from", "first", "--count", "1",
            ])
            #expect(consumed.status == 0, "\(consumed)")
            try await T18_Plugins.range("1.0", folder.file("libRange.so"))
            _ = try await apus(["plugin", "add", folder.file("libRange.so"), "--data-dir", platform.data], status: 0)
            let script = try await apus(["--generate-completion-script", "bash"], status: 0).lines
            try script.joined(separator: "\n").write(toFile: folder.file("apus"), atomically: true, encoding: .utf8)
            try "".write(toFile: folder.file("settings.toml"), atomically: true, encoding: .utf8)
            try FileManager.default.createDirectory(atPath: folder.file("state"), withIntermediateDirectories: true)
            try FileManager.default.createSymbolicLink(
                atPath: folder.file("state/apus"), withDestinationPath: platform.data)
            let asked = """
                source ./apus
                COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_TYPE=9 COMP_KEY=9 COMPREPLY=()
                COMP_POINT=${#COMP_LINE}
                _apus apus "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}" || echo "ended with $?"
                printf '%s\\n' "${COMPREPLY[@]}"
                """
            try asked.write(toFile: folder.file("ask"), atomically: true, encoding: .utf8)
            func offered(_ line: String, server: String? = nil) async throws -> [String] {
                // A line that ends with a space asks for the next word.
                let words = line.split(separator: " ", omittingEmptySubsequences: false).map(String.init)
                let outcome = try await Program.run(
                    "/bin/sh",
                    [
                        "-c",
                        "cd \(folder.path) && PATH=\(Binaries.folder):$PATH XDG_STATE_HOME=\(folder.file("state")) "
                            + "NAMESRV_ADDR=\(server ?? platform.nameServer) exec bash ./ask \"$@\"", "sh",
                    ] + words)
                #expect(outcome.status == 0 && outcome.errorText.isEmpty, "\(line): \(outcome)")
                return outcome.lines.filter { !$0.isEmpty }
            }
            let workers = ["nameserver@0", "broker-store@0", "replication@0", "filter@0", "filter@1", "filter@2"]
            let lines: [(String, [String])] = [
                ("apus restart ", workers), ("apus restart bro", ["broker-store@0"]),
                ("apus logs filter@1", ["filter@1"]), ("apus send --topic Complete", ["CompleteMe", "CompleteOther"]),
                ("apus consume --group Compl", ["CompletedGroup"]),
                ("apus why --group Compl", ["CompletedGroup"]),
                ("apus admin topicRoute -t CompleteO", ["CompleteOther"]),
                ("apus admin updateBrokerConfig -k fileRes", ["fileReservedTime"]),
                ("apus config revert fileRes", ["fileReservedTime"]), ("apus config check set", ["settings.toml"]),
                ("apus plugin add libR", ["libRange.so", "libRange.so.c"]), ("apus plugin remove ", ["libRange.so"]),
                ("apus up --config set", ["settings.toml"]), ("apus sta", ["status"]),
                ("apus admin consumerPro", ["consumerProgress"]),
            ]
            for (line, wanted) in lines {
                let found = try await offered(line)
                #expect(found.sorted() == wanted.sorted(), "\(line): \(found)")
            }
            // What the line itself says comes before the surroundings.
            let elsewhere = try await offered(
                "apus consume --name-server \(platform.nameServer) --topic CompleteM", server: "127.0.0.1:1")
            #expect(elsewhere == ["CompleteMe"])
            // Nothing runs there: nothing is offered, and nothing printed into the line.
            #expect(try await offered("apus consume --topic Complete", server: "127.0.0.1:1") == [])
            #expect(try await offered("apus restart --data-dir \(folder.file("nowhere")) ") == [])
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
