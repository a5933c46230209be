import ArgumentParser
import SettingTable
import Supervision

/// A command that is not there, and the one that is meant perhaps.
struct UnknownCommand: CustomStringConvertible {
    let description: String

    /// nil when the words begin with a command of the program, or with none at all.
    ///
    /// - Parameter words: behind the program's name.
    init?(_ words: [String], of program: any ParsableCommand.Type) {
        var command = program
        var path = program._commandName
        for word in words {
            let parts = command.configuration.subcommands
            guard !parts.isEmpty, !word.hasPrefix("-"), word != "help" else { return nil }
            if let part = parts.first(where: { $0._commandName == word || $0.configuration.aliases.contains(word) }) {
                command = part
                path += " \(word)"
                continue
            }
            let names = parts.filter { $0.configuration.shouldDisplay }.map { $0._commandName }
            let meant = Spelling.nearest(to: word, among: names).map { "; is \($0) meant?" } ?? ""
            description = "there is no command '\(path) \(word)'\(meant)\n  See '\(path) --help' for those there are."
            return
        }
        return nil
    }
}
