/// Where filter plugins lie, and what their files are called: what supervisor, filter workers and tools agree on.
package enum PluginPlaces {
    /// The files of the plugins that come with Apus, which are always loaded. They lie together.
    package static let builtIns = ["libApusTagFilter.so", "libApusSQL92Filter.so"]

    /// `lib….so`, the form of every plugin file.
    package static func isPluginName(_ name: String) -> Bool { name.hasPrefix("lib") && name.hasSuffix(".so") }

    /// The same for those of an operator.
    package static func isOperators(_ name: String) -> Bool { isPluginName(name) && !builtIns.contains(name) }

    /// Where the built-in plugins are looked for, in this order.
    /// - Parameter executables: the folder of the programs.
    package static func ofBuiltIns(beside executables: String) -> [String] {
        ["\(executables)/plugins", executables, "/usr/lib/apus/plugins"]
    }

    /// The paths of the built-in plugins, and the names of those that lie nowhere.
    /// - Parameter isThere: whether a file is.
    package static func findBuiltIns(
        beside executables: String, isThere: (String) -> Bool
    ) -> (paths: [String], missing: [String]) {
        var paths: [String] = []
        var missing: [String] = []
        for file in builtIns {
            if let found = ofBuiltIns(beside: executables).map({ "\($0)/\(file)" }).first(where: isThere) {
                paths.append(found)
            } else {
                missing.append(file)
            }
        }
        return (paths, missing)
    }

    /// What follows when built-in plugins are missing, where they were looked for, and what to do about it.
    package static func complaint(missing: [String], beside executables: String) -> String {
        "without \(missing.joined(separator: " and ")) there are no subscriptions by tag or by SQL92: looked for in "
            + "\(ofBuiltIns(beside: executables).joined(separator: ", ")). Install Apus again."
    }

    /// The folders of operators' plugins: the one that is set, and the one beside the programs, where they lay up to
    /// 0.6.
    package static func ofOperators(_ settings: Settings, beside executables: String) -> [String] {
        let given = settings.string("pluginDirectory", default: "")
        let beside = "\(executables)/plugins"
        return ([given].filter { !$0.isEmpty } + [beside]).reduce(into: []) { if !$0.contains($1) { $0.append($1) } }
    }

    /// The operators' folder unless a setting names one: of the package's own, or of the platform's data directory.
    package static func standard(executables: String, dataDirectory: String) -> String {
        executables == "/usr/lib/apus" ? "/usr/local/lib/apus/plugins" : "\(dataDirectory)/plugins"
    }
}
