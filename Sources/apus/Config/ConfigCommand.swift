import ArgumentParser
import Glibc
import LinuxSystem
import Supervision
import WorkerProtocol

/// `apus config`: the configuration file as a thing of its own.
struct ConfigCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "config", abstract: "Check the configuration, or take RocketMQ's files over.",
        discussion: """
            The service reads /etc/apus/apus.toml, instances of it /etc/apus/INSTANCE.toml; `apus up` reads the file it is \
            given with --config. A running service takes changes over with: systemctl reload apus.
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
                Settings that mean something here are carried over; the others stand in the file as comments, each with the \
                reason. Several broker.conf become several brokers of one platform.

                  apus config import conf/broker.conf
                  apus config import broker-a.conf broker-b.conf namesrv.conf -o - | less
                """)

        @Argument(help: ArgumentHelp("RocketMQ's files.", valueName: "FILE"), completion: .file())
        var files: [String]

        @Option(
            name: .shortAndLong, help: ArgumentHelp("Where to write; - is standard output.", valueName: "FILE"),
            completion: .file())
        var output = ConfigCommand.standardFile

        @Flag(name: .shortAndLong, help: "Replace the file; the old one is kept as FILE.old.")
        var force = false

        func run() throws {
            let home = Self.home
            let imported = try files.map { path in
                try ImportedFile(text: try TextFile.read(path), path: path, home: home)
            }
            let text = try ImportedConfiguration(
                files: imported, date: String(AdminTime.seconds(Clock.milliseconds).prefix(10))
            ).toml
            if output == "-" { return print(text, terminator: "") }
            try write(text)
            for file in imported {
                print("\(file.path): \(counted(file.carried.count, "setting")) taken over, \(file.dropped.count) not")
                for (key, _, reason) in file.dropped { print("  \(key): \(reason)") }
            }
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

        /// Of the person at the terminal, also behind sudo: there RocketMQ's store is.
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
            let columns = Columns("%-36s %-28s %s")
            for table in SettingDescription.Table.allCases {
                print("# \(table.rawValue)")
                for setting in SettingDescription.all where setting.table == table {
                    columns.show(setting.key, setting.standard.isEmpty ? "-" : setting.standard, setting.meaning)
                }
                print("")
            }
        }
    }
}
