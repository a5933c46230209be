import ArgumentParser
import FastJSON
import LinuxSystem
import MessageModel
import SettingTable

/// What the shell offers: of the platform or the name server that runs, nothing when none does. Every failure is an
/// empty list: a completion has nowhere to print why.
enum Completions {
    static let worker = CompletionKind.custom { arguments, _, _ in workers(arguments) }
    static let topic = CompletionKind.custom { arguments, _, _ in topics(arguments).filter { !$0.hasPrefix("%") } }
    static let group = CompletionKind.custom { arguments, _, _ in
        topics(arguments).filter { $0.hasPrefix(retryPrefix) }.map { String($0.dropFirst(retryPrefix.count)) }
    }
    /// By the names of their files.
    static let plugin = CompletionKind.custom { arguments, _, _ in
        let report = PluginReport.running(.init(value(of: ["--data-dir"], in: arguments)))
        return Set(report?.rows.filter { !$0.isBuiltIn }.map(\.file) ?? []).sorted()
    }
    static let setting = CompletionKind.list(SettingTable.all.map(\.name))

    /// Groups are known by their retry topics.
    private static let retryPrefix = TopicName.retryPrefix

    /// What follows an option that was typed already.
    static func value(of names: [String], in arguments: [String]) -> String? {
        for (index, argument) in arguments.enumerated() {
            if names.contains(argument), index + 1 < arguments.count { return arguments[index + 1] }
            if let name = names.first(where: { argument.hasPrefix("\($0)=") }) {
                return String(argument.dropFirst(name.count + 1))
            }
        }
        return nil
    }

    private static func workers(_ arguments: [String]) -> [String] {
        let directory = ControlClient.DataDirectory(value(of: ["--data-dir"], in: arguments))
        guard let report = try? Status.Report(ControlClient(directory).answer(to: "status")) else { return [] }
        return report.workers.map { "\($0.kind)@\($0.index)" }
    }

    /// Of the name servers the line names, else of `$NAMESRV_ADDR`, else of this machine's. Asked by a process of its
    /// own: the parser's asynchronous completions cannot be had where a command is parsed synchronously.
    private static func topics(_ arguments: [String]) -> [String] {
        let server = value(of: ["-n", "--name-server", "--namesrvAddr"], in: arguments).map { ["-n", $0] } ?? []
        guard let (ending, text) = try? WaitedProgram.output(of: OwnProgram.itself, ["admin", "topicList"] + server),
            ending == .code(0)
        else { return [] }
        return text.split(separator: "\n").map(String.init)
    }
}
