import ArgumentParser
import Glibc
import LinuxSystem
import Supervision

/// The operators' tool, by whatever name it is called: RocketMQ's users find theirs.
@main
enum EntryPoint {
    static func main() async {
        let arguments = Array(CommandLine.arguments.dropFirst())
        switch CommandLine.arguments.first?.split(separator: "/").last {
        case "mqadmin":
            let normalized = AdminCommands.normalized(arguments)
            refuseUnknown(normalized, of: MQAdmin.self)
            await run(MQAdmin.self, normalized)
        case "mqnamesrv": MQNamesrv.main(arguments)
        case "mqbroker": MQBroker.main(arguments)
        case "mqshutdown": MQShutdown.main(arguments)
        default:
            let isAdmin = arguments.first == "admin"
            let normalized =
                isAdmin ? ["admin"] + AdminCommands.normalized(Array(arguments.dropFirst())) : arguments
            refuseUnknown(normalized, of: Apus.self)
            await run(Apus.self, normalized)
        }
    }

    /// As `main` of the parser, but an error's text is escaped: brokers write part of it.
    private static func run(_ program: any AsyncParsableCommand.Type, _ arguments: [String]) async {
        do {
            var command = try program.parseAsRoot(arguments)
            if var asynchronous = command as? any AsyncParsableCommand {
                try await asynchronous.run()
            } else {
                try command.run()
            }
        } catch {
            let status = program.exitCode(for: error)
            let text = program.fullMessage(for: error)
            // Help and completion scripts are the parser's own.
            if status.isSuccess, !text.isEmpty { Swift.print(text) }
            if !status.isSuccess, !text.isEmpty {
                StandardError.write(PlainText.escaped(text, keepsLines: true) + "\n")
            }
            exit(status.rawValue)
        }
    }

    /// The parser would take a misspelt command for an argument of the command above it, and complain of its first
    /// option.
    private static func refuseUnknown(_ arguments: [String], of program: any ParsableCommand.Type) {
        guard let refusal = UnknownCommand(arguments, of: program) else { return }
        StandardError.write("Error: \(refusal)\n")
        exit(64)
    }
}

struct Apus: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "apus",
        abstract: "A RocketMQ-compatible message broker platform.",
        version: ApusRelease.version,
        groupedSubcommands: [
            CommandGroup(
                name: "Platform",
                subcommands: [Up.self, Down.self, Reload.self, Restart.self, Status.self, LogsCommand.self]),
            CommandGroup(
                name: "Messages",
                subcommands: [
                    SendCommand.self, ConsumeCommand.self, MessageCommand.self, WhyCommand.self, BenchCommand.self,
                ]),
            CommandGroup(
                name: "Management",
                subcommands: [AdminCommandGroup.self, ConfigCommand.self, MigrateCommand.self, PluginCommand.self]),
        ]
    )
}
