import ArgumentParser
import FastJSON
import LinuxSystem
import SettingTable

/// What the shell offers: of the platform or the name server that runs, nothing when none does. Every failure is an empty list: a
/// completion has nowhere to say why.
enum Completions {
    static let worker = CompletionKind.custom { words, _, _ in workers(words) }
    static let topic = CompletionKind.custom { words, _, _ in topics(words).filter { !$0.hasPrefix("%") } }
    static let group = CompletionKind.custom { words, _, _ in
        topics(words).filter { $0.hasPrefix(retryPrefix) }.map { String($0.dropFirst(retryPrefix.count)) }
    }
    /// By the names of their files.
    static let plugin = CompletionKind.custom { words, _, _ in
        let report = PluginReport.running(.init(value(of: ["--data-dir"], in: words)))
        return Set(report?.rows.filter { !$0.isBuiltIn }.map(\.file) ?? []).sorted()
    }
    static let setting = CompletionKind.list(SettingTable.all.map(\.name))

    /// Groups are known by their retry topics.
    private static let retryPrefix = "%RETRY%"

    /// What stands behind an option that was typed already.
    static func value(of names: [String], in words: [String]) -> String? {
        for (index, word) in words.enumerated() {
            if names.contains(word), index + 1 < words.count { return words[index + 1] }
            if let name = names.first(where: { word.hasPrefix("\($0)=") }) {
                return String(word.dropFirst(name.count + 1))
            }
        }
        return nil
    }

    private static func workers(_ words: [String]) -> [String] {
        let directory = ControlClient.DataDirectory(value(of: ["--data-dir"], in: words))
        guard let report = try? Status.Report(ControlClient(directory).answer(to: "status")) else { return [] }
        return report.workers.map { "\($0.kind)@\($0.index)" }
    }

    /// Of the name servers the line names, else of `$NAMESRV_ADDR`, else of this machine's. Asked by a process of its own: the parser's asynchronous
    /// completions cannot be had where a command is parsed synchronously.
    private static func topics(_ words: [String]) -> [String] {
        let server = value(of: ["-n", "--name-server", "--namesrvAddr"], in: words).map { ["-n", $0] } ?? []
        guard let (ending, text) = try? WaitedProgram.output(of: OwnProgram.itself, ["admin", "topicList"] + server),
            ending == .code(0)
        else { return [] }
        return text.split(separator: "\n").map(String.init)
    }
}
