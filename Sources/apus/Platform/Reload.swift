import ArgumentParser
import FastJSON
import LinuxSystem

/// What `systemctl reload` runs (ExecReload=): it fails when the settings are refused, and prints why.
struct Reload: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Have a running platform read its settings again.",
        discussion: """
            Fails, with the reason, when they cannot be used; then the former ones stay in force. What takes effect \
            only by a restart is listed with the command to type; then it ends with 1, too, although everything else \
            holds.
            """)

    @OptionGroup var directory: ControlClient.DataDirectory

    func run() throws {
        guard directory.runningPid != nil else {
            StandardError.write("apus reload: nothing runs on \(directory.path)\n")
            throw ExitCode(1)
        }
        let answer: JSONValue
        do {
            answer = try ControlClient(directory).answer(to: "reload")
        } catch {
            StandardError.write("apus reload: the platform on \(directory.path) does not answer: \(error)\n")
            throw ExitCode(1)
        }
        if let reason = answer["error"]?.string {
            StandardError.write("apus reload: refused, the former settings stay in force: \(reason)\n")
            throw ExitCode(1)
        }
        let pending = answer["pending"]?.array?.compactMap(\.string) ?? []
        print("settings of \(directory.path) read again" + (pending.isEmpty ? "" : "; without effect until a restart:"))
        for text in pending { print("  \(text)") }
        guard pending.isEmpty else { throw ExitCode(1) }
    }
}
