import FilterEngine
import WorkerProtocol

/// What a filter worker is there for, by its number: the first ones serve the plugins that come with Apus. The next one
/// serves plugins that filter workers have died of, and expressions that need several plugins at once. The rest share
/// the others.
enum FilterRole: Equatable {
    case builtIns
    case recorded
    /// Takes the plugin files of these names.
    case plugins(files: Set<String>)

    /// - Parameters:
    ///   - builtIns: how many workers there are for the plugins that come with Apus, by the supervisor's settings.
    ///   - shares: which worker has which of the others.
    init(index: Int, builtIns: Int, shares: PluginShares) {
        if index < builtIns {
            self = .builtIns
        } else if index == builtIns {
            self = .recorded
        } else {
            self = .plugins(files: shares.files(of: index - builtIns - 1))
        }
    }

    init(index: Int, _ settings: Settings) {
        self.init(
            index: index, builtIns: max(1, settings.int("filterBuiltIns", default: 1)),
            shares: PluginShares(settings.string(PluginShares.setting, default: "")))
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
        case .builtIns: .init(takesRecorded: false) { _ in false }
        case .recorded: .init(takesRecorded: true)
        case .plugins(let files): .init(takesRecorded: false) { files.contains($0) }
        }
    }

    var title: String {
        switch self {
        case .builtIns: "built-in"
        case .plugins: "plugins"
        case .recorded: "plugins with a record"
        }
    }
}
