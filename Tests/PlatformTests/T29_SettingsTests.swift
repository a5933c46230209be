import Foundation
import Testing

extension PlatformTests {
    /// What a setting says is what the platform does, or the platform does not start and says why.
    @Suite("T29 settings that hold", .serialized)
    struct T29_Settings {
        private func lines(_ text: String) -> [String] { text.split(separator: "\n").map(String.init) }

        private func write(_ text: String, _ folder: TemporaryFolder, _ name: String = "apus.toml") throws -> String {
            try text.write(toFile: folder.file(name), atomically: true, encoding: .utf8)
            return folder.file(name)
        }

        private func admin(
            _ platform: Platform, _ command: [String]
        ) async throws -> (status: Int32, lines: [String], errorText: String) {
            try await Program.run(
                Binaries.apus, ["admin"] + command + ["-n", platform.nameServer], within: .seconds(20))
        }

        @Test(
            "config check finds everything at once, with lines; up refuses with the same list", .timeLimit(.minutes(1)))
        func everythingAtOnce() async throws {
            let folder = try TemporaryFolder()
            _ = try write("", folder, "no-folder")
            let file = try write(
                """
                aclEnable = true
                defaultTopicQueueNums = -4
                deleteWhen = "25"
                maxMessageSize = "4MB"
                listenPort = 19876
                storePathRootDir = "\(folder.file("no-folder"))"
                tls.server.mode = "enforcing"
                [nameserver]
                listenPort = 19876

                [broker]
                disks = "/data0"
                brokerPermission = 9
                flushDiskTyp = "SYNC_FLUSH"
                """, folder)
            let checked = try await Program.run(Binaries.apus, ["config", "check", file], within: .seconds(10))
            #expect(checked.status == 78)
            let found = lines(checked.errorText)
            for words in [
                "line 1: aclEnable = true promises", "line 2: defaultTopicQueueNums = -4", "line 3: deleteWhen = 25",
                "line 4: maxMessageSize = 4MB", "both listen on port 19876", "line 6: storePathRootDir: ",
                "line 7: tls.server.mode = enforcing promises",
                "line 12: [[broker]] disks is the whole platform's", "line 13: [[broker]] brokerPermission = 9",
            ] {
                #expect(
                    found.contains { $0.hasPrefix("apus config check: \(file): ") && $0.contains(words) },
                    "\(words) in \(found)")
            }
            // What only has no effect is told beside what is wrong.
            #expect(checked.lines.contains { $0.contains("is flushDiskType meant?") }, "\(checked.lines)")
            let started = try await Program.run(
                Binaries.apus, ["up", "--config", file, "--data-dir", folder.file("data")], within: .seconds(10))
            #expect(started.status == 78)
            func bare(_ lines: [String], _ name: String) -> [String] {
                // Whether another process has a port is no mistake of the file's.
                lines.map { String($0.dropFirst(name.count + 2)) }.filter { !$0.contains("is in use") }
            }
            #expect(bare(lines(started.errorText), "apus up") == bare(found, "apus config check"))
            #expect(!FileManager.default.fileExists(atPath: folder.file("data")))
        }

        @Test("what promises protection stops the start, unless the operator says otherwise", .timeLimit(.minutes(1)))
        func promises() async throws {
            let folder = try TemporaryFolder()
            let arguments = [
                "up", "--nameserver-port", "0", "--broker-port", "0", "--data-dir", folder.file("data"), "--set",
                "aclEnable=true", "--set", "enableDLegerCommitLog=TRUE",
            ]
            let refused = try await Program.run(Binaries.apus, arguments, within: .seconds(10))
            #expect(refused.status == 78 && lines(refused.errorText).count == 2, "\(refused.errorText)")
            #expect(refused.errorText.contains("startWithout = [\"aclEnable\"]"))
            let platform = try await Platform.start([
                "--set", "aclEnable=true", "--set", "enableDLegerCommitLog=TRUE", "--set",
                "startWithout=aclEnable,enableDLegerCommitLog",
            ])
            #expect(platform.log.contains("ACT NOW: aclEnable: Apus has no access control"))
            try await platform.stop()
        }

        @Test("Java's spelling of true and false reaches the worker; a name is an address", .timeLimit(.minutes(1)))
        func spelling() async throws {
            let platform = try await Platform.start([
                "--set", "autoCreateTopicEnable=False", "--set", "fileReservedTime= 48 ", "--set",
                "brokerIP1=localhost",
            ])
            let refused = try await platform.apus(["send", "--topic", "NoSuch"], input: .file("/etc/hostname"))
            #expect(refused.status != 0)
            let made = try await admin(
                platform,
                [
                    "updateTopic", "-c", "DefaultCluster", "-t", "Made",
                ])
            #expect(made.status == 0, "\(made)")
            let sent = try await platform.apus(["send", "--topic", "Made"], input: .file("/etc/hostname"))
            #expect(sent.status == 0, "\(sent.errorText)")
            func permit(_ perm: String) async throws -> (status: Int32, lines: [String], errorText: String) {
                try await admin(platform, ["updateTopic", "-c", "DefaultCluster", "-t", "Made", "-p", perm])
            }
            let nonsense = try await permit("9")
            #expect(
                (nonsense.lines.joined() + nonsense.errorText).contains("no permission: 2 writes, 4 reads"),
                "\(nonsense)")
            #expect(try await permit("2").status == 0)
            // A topic that is only written to is there.
            let reader = try await platform.apus(["consume", "--topic", "Made", "--timeout", "1"])
            #expect(reader.errorText.contains("'Made' exists, and none of its queues may be read"), "\(reader)")
            #expect(try await platform.apus(["send", "--topic", "Made"], input: .file("/etc/hostname")).status == 0)
            let shown = try await admin(
                platform,
                [
                    "getBrokerConfig", "-b", platform.broker,
                ])
            let text = shown.lines.joined(separator: "\n")
            #expect(text.contains(/fileReservedTime\s*=\s*48/) && text.contains(/brokerIP1\s*=\s*localhost/), "\(text)")
            try await platform.stop()
        }

        @Test(
            "a log whose disk is not mounted: the start is refused, nothing is deleted, and with it all is there",
            .timeLimit(.minutes(1)))
        func emptyLog() async throws {
            let first = try await Platform.start()
            let text = first.folder.file("lines")
            try "one\ntwo\nthree\n".write(toFile: text, atomically: true, encoding: .utf8)
            #expect(try await first.apus(["send", "--topic", "Kept", text]).status == 0)
            try await first.stop()
            let store = first.data + "/store"
            try FileManager.default.moveItem(atPath: store + "/commitlog", toPath: store + "/elsewhere")
            let refused = try await Program.run(
                Binaries.apus, ["up", "--nameserver-port", "0", "--broker-port", "0", "--data-dir", first.data],
                within: .seconds(20))
            #expect(refused.status != 0)
            #expect(
                refused.errorText.contains("is its disk mounted") && refused.errorText.contains("begin-anew"),
                "\(refused.errorText)")
            #expect(FileManager.default.fileExists(atPath: store + "/consumequeue/Kept"))
            #expect(!FileManager.default.fileExists(atPath: store + "/abort"))
            try? FileManager.default.removeItem(atPath: store + "/commitlog")
            try FileManager.default.moveItem(atPath: store + "/elsewhere", toPath: store + "/commitlog")
            let next = try await Platform.start(in: first.folder)
            let got = try await next.apus([
                "consume", "--topic", "Kept", "--from", "first", "--count", "3", "--timeout", "10",
            ])
            #expect(got.lines.sorted() == ["one", "three", "two"], "\(got)")
            try await next.stop()
        }

        @Test(
            "settings changed online hold over a restart, the name server's too; nonsense is refused",
            .timeLimit(.minutes(1)))
        func changedOnline() async throws {
            let first = try await Platform.start()
            func set(_ platform: Platform, _ key: String, _ value: String, ofNameServer: Bool) async throws -> String {
                let command = ofNameServer ? ["updateNamesrvConfig"] : ["updateBrokerConfig", "-b", platform.broker]
                let done = try await admin(platform, command + ["-k", key, "-v", value])
                return done.lines.joined(separator: "\n") + done.errorText
            }
            #expect(try await set(first, "orderMessageEnable", "True", ofNameServer: true).contains("success"))
            #expect(try await set(first, "fileReservedTime", "48", ofNameServer: false).contains("success"))
            for (key, value, ofNameServer) in [
                ("brokerPermission", "9", false), ("deleteWhen", "x", false), ("nothingLikeIt", "1", false),
                ("orderMessageEnable", "yes", true), ("productEnvName", "x", true),
            ] {
                let said = try await set(first, key, value, ofNameServer: ofNameServer)
                #expect(said.contains("nothing was changed") && !said.contains("success"), "\(key): \(said)")
            }
            try await first.stop()
            let next = try await Platform.start(in: first.folder)
            let names = try await admin(next, ["getNamesrvConfig"])
            #expect(names.lines.joined(separator: "\n").contains(/orderMessageEnable\s*=\s*true/), "\(names)")
            let broker = try await admin(next, ["getBrokerConfig", "-b", next.broker])
            #expect(broker.lines.joined(separator: "\n").contains(/fileReservedTime\s*=\s*48/), "\(broker)")
            try await next.stop()
        }

        @Test("config import refuses what it cannot take over, and writes nothing", .timeLimit(.minutes(1)))
        func imports() async throws {
            let folder = try TemporaryFolder()
            let output = folder.file("apus.toml")
            let readme = try write(
                "# RocketMQ\nIt is a distributed messaging platform.\nFeatures:\n", folder, "README.md")
            let wrong = try write("brokerName=a\ndeleteWhen=25\nmaxMessageSize=4MB\n", folder, "broker.conf")
            let refused = try await Program.run(
                Binaries.apus, ["config", "import", readme, wrong, "-o", output], within: .seconds(10))
            #expect(refused.status == 78 && lines(refused.errorText).count == 3, "\(refused.errorText)")
            #expect(
                refused.errorText.contains("README.md: this is no broker.conf")
                    && refused.errorText.contains("line 3: maxMessageSize"))
            #expect(!FileManager.default.fileExists(atPath: output))

            let broker = try write("brokerName=a\naclEnable=true\nlistenPort=0\n", folder, "broker.conf")
            let names = try write("listenPort=0\nkvConfigPath=\(folder.file("kv.json"))\n", folder, "names.txt")
            let taken = try await Program.run(
                Binaries.apus, ["config", "import", broker, "--namesrv", names, "-o", output], within: .seconds(10))
            let said = taken.lines.joined(separator: "\n")
            #expect(taken.status == 78 && taken.errorText.contains("aclEnable = true promises"), "\(taken)")
            #expect(
                said.contains("read as a broker's file") && said.contains("read as a name server's file (as asked)"),
                "\(said)")
            #expect(said.contains("begins with an empty one") && said.contains("order configuration"), "\(said)")
            // The operator decides.
            let text = try String(contentsOfFile: output, encoding: .utf8)
            _ = try write("startWithout = [\"aclEnable\"]\n" + text, folder)
            let checked = try await Program.run(Binaries.apus, ["config", "check", output], within: .seconds(10))
            #expect(checked.status == 0, "\(checked)")
        }
    }
}
