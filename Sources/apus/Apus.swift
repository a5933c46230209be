import ArgumentParser
import Supervision

/// The operators' tool, by whatever name it is called: RocketMQ's users find theirs.
@main
enum EntryPoint {
    static func main() async {
        let arguments = Array(CommandLine.arguments.dropFirst())
        switch CommandLine.arguments.first?.split(separator: "/").last {
        case "mqadmin": await MQAdmin.main(AdminCommands.normalized(arguments))
        case "mqnamesrv": MQNamesrv.main(arguments)
        case "mqbroker": MQBroker.main(arguments)
        case "mqshutdown": MQShutdown.main(arguments)
        default:
            let isAdmin = arguments.first == "admin"
            await Apus.main(isAdmin ? ["admin"] + AdminCommands.normalized(Array(arguments.dropFirst())) : arguments)
        }
    }
}

struct Apus: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "apus",
        abstract: "A RocketMQ-compatible message broker platform.",
        version: ApusRelease.version,
        groupedSubcommands: [
            CommandGroup(name: "Platform", subcommands: [Up.self, Down.self, Reload.self, Restart.self, Status.self]),
            CommandGroup(
                name: "Messages", subcommands: [SendCommand.self, ConsumeCommand.self, BenchCommand.self]),
            CommandGroup(
                name: "Management",
                subcommands: [AdminCommandGroup.self, ConfigCommand.self, PluginCommand.self]),
        ]
    )
}
