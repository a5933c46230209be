import Glibc
import Logging
import WorkerProtocol

/// What a setting takes, where something else would be refused late, by a worker, or be taken for something else without a word. Bounds of
/// numbers are the workers' own: `SettingsCheck` asks them.
enum SettingForms {
    /// Why a configuration cannot be used; nil when every value looks like what its setting takes.
    static func refusal(of settings: Settings) -> String? {
        for (key, value) in settings.sorted {
            guard let wanted = wanted(key), !wanted.fits(value) else { continue }
            return "\(key) = \(value) is not what this setting takes: \(wanted.words)"
        }
        return nil
    }

    private struct Form {
        let words: String
        let fits: (String) -> Bool

        /// A text without letters is as if it were not set.
        static func text(_ words: String, _ fits: @escaping (String) -> Bool) -> Form {
            Form(words: words) { $0.isEmpty || fits($0) }
        }
    }

    private static let integers = Set(KnownKeys.integers)
    private static let booleans = Set(KnownKeys.booleans)

    private static func wanted(_ key: String) -> Form? {
        switch key {
        case "flushDiskType": .text("ASYNC_FLUSH or SYNC_FLUSH") { ["ASYNC_FLUSH", "SYNC_FLUSH"].contains($0) }
        case "logLevel":
            .text(Logger.Level.allCases.map(\.rawValue).joined(separator: ", ")) {
                Logger.Level(rawValue: $0) != nil
            }
        case "deleteWhen":
            .text("hours from 00 to 23, separated by ;") { text in
                text.split(separator: ";").allSatisfy { (0...23).contains(Int($0.filter { $0 != " " }) ?? -1) }
            }
        case "messageDelayLevel":
            Form(words: "at least one delay like 1s 5m 2h 1d, separated by blanks") { text in
                let delays = text.split(separator: " ")
                return !delays.isEmpty
                    && delays.allSatisfy { delay in
                        "smhd".contains(delay.last ?? "x") && (Int64(delay.dropLast()) ?? 0) > 0
                    }
            }
        case "bindAddress": .text("an address in numbers, such as 127.0.0.1 or 0.0.0.0", isAddress)
        case "storePathRootDir", "storePathCommitLog", "kvConfigPath", "pluginDirectory":
            .text("a path; ~ stands for nothing there") { $0 != "~" && !$0.hasPrefix("~/") }
        case _ where integers.contains(key): Form(words: "a whole number") { Settings.parseInt($0) != nil }
        case _ where booleans.contains(key): Form(words: "true or false") { Settings.parseBool($0) != nil }
        default: nil
        }
    }

    private static func isAddress(_ text: String) -> Bool {
        var room = in6_addr()
        return inet_pton(AF_INET, text, &room) == 1 || inet_pton(AF_INET6, text, &room) == 1
    }
}
