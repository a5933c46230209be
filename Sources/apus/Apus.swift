import ArgumentParser

/// The operators' tool.
@main
struct Apus: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "apus",
        abstract: "A RocketMQ-compatible message broker platform.",
        subcommands: [
            Up.self, Down.self, Reload.self, Status.self, SendCommand.self, ConsumeCommand.self, BenchCommand.self,
            PluginCommand.self,
        ]
    )
}
