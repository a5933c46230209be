/// A worker's executable asked whether it could use some settings, without being started: only the workers know the
/// bounds of their numbers. Its arguments are `option` and `KEY=VALUE` for each setting; it ends with 0, or with
/// `unusable` and a line on standard error.
package enum SettingsCheck {
    /// The first argument that asks a worker's program for a check.
    package static let option = "--check-settings"
    /// sysexits(3), EX_CONFIG: starting again does not help.
    package static let unusable: Int32 = 78

    /// What to call the executable with, but for the name it goes by.
    package static func arguments(_ settings: Settings) -> [String] {
        [option] + settings.sorted.map { "\($0.key)=\($0.value)" }
    }

    /// The settings in the arguments of a process; the first two are its name and `option`.
    package static func settings(_ arguments: [String]) -> Settings {
        var values: [String: String] = [:]
        for argument in arguments.dropFirst(2) {
            let parts = argument.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            values[String(parts[0])] = parts.count > 1 ? String(parts[1]) : ""
        }
        return Settings(values)
    }
}
