import Foundation
import TestTools
import Testing

extension PlatformTests {
    /// What a person meets in the first minutes: good words instead of riddles.
    @Suite("T07 first run and misuse", .serialized)
    struct T07_FirstRun {
        @Test("up, send, consume, status, down; a second down says that nothing runs", .timeLimit(.minutes(1)))
        func firstMinute() async throws {
            let platform = try await Platform.start()
            print("T07 ready after \(platform.startTime)")
            let lines = platform.folder.file("lines")
            try "hello\nworld\n".write(toFile: lines, atomically: false, encoding: .utf8)
            let sent = try await platform.apus(["send", "--topic", "Greetings", lines])
            #expect(sent.status == 0 && sent.errorText.contains("sent 2 messages"), "\(sent.errorText)")
            let consumed = try await platform.apus([
                "consume", "--topic", "Greetings", "--count", "2", "--timeout", "10",
            ])
            #expect(consumed.status == 0 && consumed.lines.sorted() == ["hello", "world"], "\(consumed)")
            // The offsets are kept: a second consumer of the group gets nothing.
            let again = try await platform.apus(["consume", "--topic", "Greetings", "--timeout", "1"])
            #expect(again.lines.isEmpty, "\(again.lines)")

            let status = try await Program.run(Binaries.apus, ["status", "--data-dir", platform.data])
            #expect(status.status == 0)
            for kind in Platform.workerKinds {
                #expect(status.lines.contains { $0.contains(kind) }, "status lists \(kind): \(status.lines)")
            }
            let down = try await Program.run(Binaries.apus, ["down", "--data-dir", platform.data])
            #expect(down.status == 0, "\(down)")
            #expect(try await platform.program.finish() == 0)
            let second = try await Program.run(Binaries.apus, ["down", "--data-dir", platform.data])
            #expect((second.lines.joined() + second.errorText).contains("nothing runs"), "\(second)")
        }

        @Test("what a consumer has written is committed when it ends, each time", .timeLimit(.minutes(1)))
        func committedAtTheEnd() async throws {
            let platform = try await Platform.start()
            let lines = platform.folder.file("lines")
            try "a\nb\nc\n".write(toFile: lines, atomically: false, encoding: .utf8)
            #expect(try await platform.apus(["send", "--topic", "Ends", lines]).status == 0)
            // A pull on its way when the consumer ends brings an older offset along: one run in twenty lost a commit.
            for round in 1...40 {
                let group = "ends-\(round)"
                let consumed = try await platform.apus([
                    "consume", "--topic", "Ends", "--group", group, "--from", "first", "--count", "3", "--timeout",
                    "10",
                ])
                #expect(consumed.status == 0, "\(consumed)")
                let progress = try await Program.run(
                    Binaries.apus, ["admin", "consumerProgress", "-n", platform.nameServer, "-g", group])
                #expect(progress.lines.last == "Diff Total: 0", "round \(round): \(progress.lines)")
            }
            try await platform.stop()
        }

        @Test(
            "apus status ends with 0 when all serve, 1 when a worker does not, 3 when nothing runs",
            .timeLimit(.minutes(1)))
        func statusCodes() async throws {
            let platform = try await Platform.start()
            func status(_ options: String...) async throws -> Int32 {
                try await Program.run(Binaries.apus, ["status", "--data-dir", platform.data] + options).status
            }
            #expect(try await status() == 0)
            #expect(try await status("--json") == 0)
            // Killed again and again it is waited with: a crash loop.
            var codes: [Int32] = []
            for _ in 0..<40 where codes.last != 1 {
                if let pid = platform.pid(of: "filter") { kill(pid, SIGKILL) }
                try await Task.sleep(for: .milliseconds(100))
                codes.append(try await status("--json"))
            }
            #expect(codes.last == 1, "\(codes)")
            try await eventually("all serve again", within: .seconds(30)) { try await status() == 0 }
            try await platform.stop()
            #expect(try await status() == 3)
            #expect(try await status("--json") == 3)
        }

        @Test("Ctrl-C stops the platform cleanly and in order", .timeLimit(.minutes(1)))
        func controlC() async throws {
            let platform = try await Platform.start()
            platform.program.send(signal: SIGINT)
            let status = try await platform.program.finish(within: .seconds(10))
            #expect(status == 0, "\(status): \(platform.log.suffix(1000))")
            // And what was stopped so starts again.
            let next = try await Platform.start(in: platform.folder)
            try await next.stop()
        }

        @Test("a send ends early, with the reason, while no broker takes messages", .timeLimit(.minutes(1)))
        func fullDisk() async throws {
            // More than any disk has: nothing may be stored.
            let platform = try await Platform.start(["--set", "diskReservedBytes=4000000000000000000"])
            let lines = platform.folder.file("lines")
            try (1...2000).map { "line \($0)\n" }.joined().write(toFile: lines, atomically: false, encoding: .utf8)
            let began = ContinuousClock.now
            let sent = try await platform.apus(
                ["send", "--topic", "Full", "--timeout", "1", "--in-flight", "16", lines], within: .seconds(30))
            let elapsed = began.duration(to: .now)
            #expect(sent.status == 1 && sent.errorText.contains("no broker takes messages"), "\(sent)")
            // Line after line, 16 at a time, each would have had its second: more than two minutes.
            #expect(elapsed < .seconds(15), "\(elapsed)")
            try await platform.stop()
        }

        @Test("a second start on the same folder is refused in words; the first goes on", .timeLimit(.minutes(1)))
        func secondStart() async throws {
            let platform = try await Platform.start()
            let second = try await Program.run(
                Binaries.apus,
                ["up", "--data-dir", platform.data, "--nameserver-port", "0", "--broker-port", "0"],
                within: .seconds(15))
            #expect(second.status != 0)
            #expect(second.errorText.contains(platform.data), "it names the folder: \(second.errorText)")
            #expect(second.errorText.contains("\(platform.supervisorPid)"), "it names the process: \(second.errorText)")
            let sent = try await platform.apus(["send", "--topic", "Still"], input: .file("/etc/hostname"))
            #expect(sent.status == 0)
            try await platform.stop()
        }

        @Test("a port in use is named, and nothing is left running", .timeLimit(.minutes(1)))
        func portInUse() async throws {
            let platform = try await Platform.start()
            let port = try #require(platform.nameServer.split(separator: ":").last)
            let folder = try TemporaryFolder()
            let second = try await Program.run(
                Binaries.apus,
                ["up", "--data-dir", folder.file("data"), "--nameserver-port", String(port), "--broker-port", "0"],
                within: .seconds(15))
            #expect(second.status != 0)
            #expect(second.errorText.contains(String(port)), "it names the port: \(second.errorText)")
            try await platform.stop()
        }

        @Test(
            "wrong options are explained", .timeLimit(.minutes(1)),
            arguments: [
                ["up", "--no-such-option"], ["up", "--broker-port", "many"],
                ["up", "--config", "/nonexistent/apus.toml"],
                ["send"], ["send", "--topic", "T", "--in-flight", "0"], ["send", "--topic", "T", "/nonexistent/lines"],
                ["consume"], ["consume", "--topic", "T", "--from", "yesterday"], ["bench", "--size", "none"],
                ["no-such-command"],
            ])
        func wrongOptions(arguments: [String]) async throws {
            let folder = try TemporaryFolder()
            let more = arguments.first == "up" ? ["--data-dir", folder.file("data")] : []
            let result = try await Program.run(Binaries.apus, arguments + more, within: .seconds(10))
            #expect(result.status != 0, "\(arguments)")
            let words = result.errorText + result.lines.joined(separator: "\n")
            #expect(!words.isEmpty && !words.contains("Fatal error"), "\(arguments): \(words)")
        }

        @Test(
            "a number only the broker knows the bounds of: refused by config check, and by a start, with 78",
            .timeLimit(.minutes(1)))
        func numberOutOfBounds() async throws {
            let folder = try TemporaryFolder()
            let file = folder.file("apus.toml")
            let words = "mappedFileSizeCommitLog = 1000 is not what this setting takes: a whole number from 4096"
            let free = "listenPort = 0\nnameserver.listenPort = 0\n"
            try "mappedFileSizeCommitLog = 1000\n\(free)".write(toFile: file, atomically: true, encoding: .utf8)
            let checked = try await Program.run(Binaries.apus, ["config", "check", file], within: .seconds(10))
            #expect(checked.status == 78)
            #expect(
                checked.errorText.contains("apus config check: \(file): line 1: \(words)"), "\(checked.errorText)")
            let ports = ["--nameserver-port", "0", "--broker-port", "0", "--data-dir", folder.file("data")]
            let started = try await Program.run(
                Binaries.apus, ["up", "--config", file] + ports, within: .seconds(10))
            #expect(started.status == 78)
            #expect(started.errorText.contains(words), "\(started.errorText)")
            try "mappedFileSizeCommitLog = 4096\n\(free)".write(toFile: file, atomically: true, encoding: .utf8)
            let usable = try await Program.run(Binaries.apus, ["config", "check", file], within: .seconds(10))
            #expect(usable.status == 0, "\(usable.errorText)")
        }

        @Test(
            "no platform there: send, consume and bench say so and name `apus up`", .timeLimit(.minutes(1)),
            arguments: [["send", "--topic", "T"], ["consume", "--topic", "T"], ["bench"]])
        func nothingThere(arguments: [String]) async throws {
            let result = try await Program.run(
                Binaries.apus, arguments + ["--name-server", "127.0.0.1:1"], within: .seconds(15))
            #expect(result.status != 0)
            #expect(
                result.errorText.contains("127.0.0.1:1") && result.errorText.contains("apus up"), "\(result.errorText)")
        }

        @Test("a topic that does not exist is named when consuming", .timeLimit(.minutes(1)))
        func unknownTopic() async throws {
            let platform = try await Platform.start()
            let result = try await platform.apus(["consume", "--topic", "NoSuchTopic", "--timeout", "1"])
            #expect(result.status != 0 && result.errorText.contains("NoSuchTopic"), "\(result.errorText)")
            try await platform.stop()
        }
    }
}
