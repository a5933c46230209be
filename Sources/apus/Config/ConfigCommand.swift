import ArgumentParser
import Glibc
import LinuxSystem
import RocketMQClient
import SettingTable
import Supervision
import WorkerProtocol

/// `apus config`: the configuration file as a thing of its own.
struct ConfigCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "config", abstract: "Check the configuration, or take RocketMQ's files over.",
        discussion: """
            The service reads /etc/apus/apus.toml, instances of it /etc/apus/INSTANCE.toml; `apus up` reads the file \
            it is given with --config. A running service takes changes over with: systemctl reload apus.
            """,
        subcommands: [Import.self, Check.self, Show.self, Keys.self, ConfigDiff.self, ConfigRevert.self])

    static let standardFile = "/etc/apus/apus.toml"

    /// Becomes apusd, which reads the file the way it will when it starts: one in /etc/apus as its service does.
    private static func look(at file: String, _ option: String, as name: String) throws {
        var arguments = [option, "--config", file]
        let parts = file.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        if parts.dropLast() == ["", "etc", "apus"], let name = parts.last, name.hasSuffix(".toml") {
            let instance = String(name.dropLast(5))
            arguments += ["--data-dir", StateFolder.ofService + (instance == "apus" ? "" : "/instances/\(instance)")]
        }
        try Beside.become("apusd", arguments, as: name)
    }

    struct Import: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Make an apus.toml of RocketMQ's broker.conf and namesrv.conf.",
            discussion: """
                Settings that mean something here are carried over; the others stand in the file as comments, each \
                with the reason. Several broker.conf become several brokers of one platform. A value that is not \
                usable, or a file that is none of RocketMQ's, ends it with 78, and nothing is written.

                  apus config import conf/broker.conf
                  apus config import broker-a.conf broker-b.conf --namesrv namesrv.conf -o - | less
                """)

        @Argument(
            help: ArgumentHelp("RocketMQ's files; whose each is shows in its keys.", valueName: "FILE"),
            completion: .file())
        var files: [String] = []

        @Option(
            name: .long, help: ArgumentHelp("A name server's file, whatever its keys.", valueName: "FILE"),
            completion: .file())
        var namesrv: String?

        @Option(
            name: .shortAndLong, help: ArgumentHelp("Where to write; - is standard output.", valueName: "FILE"),
            completion: .file())
        var output = ConfigCommand.standardFile

        @Flag(name: .shortAndLong, help: "Replace the file; the old one is kept as FILE.old.")
        var force = false

        func validate() throws {
            guard !files.isEmpty || namesrv != nil else {
                throw ValidationError(
                    "name RocketMQ's files: apus config import conf/broker.conf --namesrv conf/namesrv.conf")
            }
        }

        func run() throws {
            let home = Self.home
            var imported: [ImportedFile] = []
            var problems: [ConfigurationProblem] = []
            let all = files.map { ($0, ImportedFile.Kind?.none) } + (namesrv.map { [($0, .nameserver)] } ?? [])
            for (path, kind) in all {
                do throws(ConfigurationError) {
                    imported.append(try ImportedFile(text: try TextFile.read(path), path: path, home: home, kind: kind))
                } catch {
                    problems += error.problems
                }
            }
            guard problems.isEmpty else {
                for problem in problems { StandardError.write("apus config import: \(problem)\n") }
                throw ExitCode(SettingsCheck.unusable)
            }
            let text = try ImportedConfiguration(
                files: imported, date: String(AdminTime.seconds(WallClock.milliseconds).prefix(10))
            ).toml
            if output == "-" {
                print(text, terminator: "")
                for file in imported { StandardError.write(file.report.map { $0 + "\n" }.joined()) }
                return
            }
            try write(text)
            for file in imported { print(file.report.joined(separator: "\n")) }
            print("wrote \(output)")
            try Check.run(output)
        }

        private func write(_ text: String) throws {
            let isThere = access(output, F_OK) == 0
            guard force || !isThere else {
                throw CommandFailure(
                    "\(output) exists: look at the result with -o -, then replace it with --force "
                        + "(the old file is kept as \(output).old)")
            }
            // Complete before it has the name.
            let temporary = "\(output).new"
            let descriptor = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
            guard descriptor >= 0 else {
                throw CommandFailure("cannot write \(temporary): \(String(cString: strerror(errno)))")
            }
            let isWritten = writeAll(Array(text.utf8), to: descriptor) && fsync(descriptor) == 0
            let reason = errno
            close(descriptor)
            guard isWritten else {
                unlink(temporary)
                throw CommandFailure("cannot write \(temporary): \(String(cString: strerror(reason)))")
            }
            if isThere {
                unlink("\(output).old")
                guard link(output, "\(output).old") == 0 else {
                    let reason = errno
                    unlink(temporary)
                    throw CommandFailure("cannot keep \(output).old: \(String(cString: strerror(reason)))")
                }
            }
            guard rename(temporary, output) == 0 else {
                throw CommandFailure("cannot write \(output): \(String(cString: strerror(errno)))")
            }
        }

        /// Of the person at the terminal, also under sudo: there RocketMQ's store is.
        private static var home: String? {
            StateFolder.variable("SUDO_USER").flatMap { StateFolder.home(of: $0) } ?? StateFolder.home()
        }
    }

    struct Check: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Say what is wrong with a configuration file.",
            discussion: "Ends with 0 when the platform could start with it, 78 when not.")

        @Argument(help: ArgumentHelp("The file.", valueName: "FILE"), completion: .file())
        var file = ConfigCommand.standardFile

        func run() throws { try Self.run(file) }

        static func run(_ file: String) throws { try ConfigCommand.look(at: file, "--check", as: "apus config check") }
    }

    struct Show: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show every setting a platform would have, defaults included.")

        @Argument(help: ArgumentHelp("The file.", valueName: "FILE"), completion: .file())
        var file = ConfigCommand.standardFile

        func run() throws { try ConfigCommand.look(at: file, "--print-configuration", as: "apus config show") }
    }

    struct Keys: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List all settings with their defaults and meanings.")

        @Flag(help: "As the page apus.toml(5).") var man = false

        func run() throws {
            if man { return print(SettingsPage.text, terminator: "") }
            let columns = Columns("%-36s %-28s %-8s %s")
            columns.show("# key", "default", "changes", "meaning")
            for section in Setting.Section.allCases {
                print("# \(section.rawValue)")
                for setting in SettingTable.all where setting.section == section {
                    columns.show(
                        setting.name, setting.standard.isEmpty ? "-" : setting.standard, Self.change(setting),
                        "\(setting.meaning); \(setting.type.expectation)")
                }
                print("")
            }
        }

        /// When a new value takes effect.
        private static func change(_ setting: Setting) -> String {
            if case .none = setting.effect { return "never" }
            return setting.change == .running ? "running" : "start"
        }
    }
}
