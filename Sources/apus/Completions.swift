import ArgumentParser
import FastJSON
import LinuxSystem
import SettingTable

/// What the shell offers: of the platform or the name server that runs, nothing when none does. Every failure is an empty list: a
/// completion has nowhere to say why.
enum Completions {
    static let worker = CompletionKind.custom { _, _, _ in workers() }
    static let topic = CompletionKind.custom { _, _, _ in topics().filter { !$0.hasPrefix("%") } }
    static let group = CompletionKind.custom { _, _, _ in
        topics().filter { $0.hasPrefix(retryPrefix) }.map { String($0.dropFirst(retryPrefix.count)) }
    }
    static let setting = CompletionKind.list(SettingTable.all.map(\.name))

    /// Groups are known by their retry topics.
    private static let retryPrefix = "%RETRY%"

    private static func workers() -> [String] {
        guard let report = try? Status.Report(AdminClient(AdminClient.DataDirectory()).answer(to: "status")) else {
            return []
        }
        return report.workers.map { "\($0.kind)@\($0.index)" }
    }

    /// Of the name servers of `$NAMESRV_ADDR`, else of this machine's. Asked by a process of its own: the parser's asynchronous
    /// completions cannot be had where a command is parsed synchronously.
    private static func topics() -> [String] {
        guard let (ending, text) = try? WaitedProgram.output(of: OwnProgram.itself, ["admin", "topicList"]),
            ending == .code(0)
        else { return [] }
        return text.split(separator: "\n").map(String.init)
    }
}
