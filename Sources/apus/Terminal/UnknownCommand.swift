import ArgumentParser
import SettingTable
import Supervision

/// A command that is not there, and the one that is meant perhaps.
struct UnknownCommand: CustomStringConvertible {
    let description: String

    /// nil when the arguments begin with a command of the program, or with none at all.
    ///
    /// - Parameter arguments: after the program's name.
    init?(_ arguments: [String], of program: any ParsableCommand.Type) {
        var command = program
        var path = program._commandName
        for argument in arguments {
            let parts = command.configuration.subcommands
            guard !parts.isEmpty, !argument.hasPrefix("-"), argument != "help" else { return nil }
            if let part = parts.first(where: {
                $0._commandName == argument || $0.configuration.aliases.contains(argument)
            }) {
                command = part
                path += " \(argument)"
                continue
            }
            let names = parts.filter { $0.configuration.shouldDisplay }.map { $0._commandName }
            let meant = Spelling.nearest(to: argument, among: names).map { "; is \($0) meant?" } ?? ""
            description =
                "there is no command '\(path) \(argument)'\(meant)\n  See '\(path) --help' for those there are."
            return
        }
        return nil
    }
}
