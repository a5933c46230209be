import FilterEngine
import WorkerProtocol

/// What a filter worker is there for, by its number: the first ones serve the plugins that come with Apus, the next one those plugins
/// that filter workers have died of, and expressions that need several plugins at once, the rest share the others.
enum FilterRole: Equatable {
    case builtIns
    case recorded
    /// Takes the plugin files whose place, modulo `count`, is `number`.
    case plugins(number: Int, count: Int)

    /// - Parameters:
    ///   - builtIns, plugins: how many workers there are for each, as the supervisor says.
    init(index: Int, builtIns: Int, plugins: Int) {
        if index < builtIns {
            self = .builtIns
        } else if index == builtIns {
            self = .recorded
        } else {
            self = .plugins(number: index - builtIns - 1, count: max(plugins, index - builtIns))
        }
    }

    init(index: Int, _ settings: Settings) {
        self.init(
            index: index, builtIns: max(1, settings.int("filterBuiltIns", default: 1)),
            plugins: settings.int("filterPlugins", default: 0))
    }

    /// Of several workers that serve a type, the lowest rank is asked.
    var rank: UInt8 {
        switch self {
        case .builtIns: 0
        case .plugins: 1
        case .recorded: 2
        }
    }

    var share: PluginFolders.Share {
        switch self {
        case .builtIns: .init(takesRecorded: false) { _, _ in false }
        case .recorded: .init(takesRecorded: true)
        case .plugins(let number, let count): .init(takesRecorded: false) { place, _ in place % count == number }
        }
    }

    var words: String {
        switch self {
        case .builtIns: "built-in"
        case .plugins: "plugins"
        case .recorded: "plugins with a record"
        }
    }
}
