import ArgumentParser

/// The operators' tool.
@main
struct Apus: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "apus",
        abstract: "A RocketMQ-compatible message broker platform.",
        subcommands: [SendCommand.self, ConsumeCommand.self, BenchCommand.self]
    )
}
