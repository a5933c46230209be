import ArgumentParser
import Foundation
import LinuxSystem

/// What `systemctl reload` runs (ExecReload=): it fails when the settings are refused, and says why.
struct Reload: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Have a running platform read its settings again.",
        discussion: "Fails, with the reason, when they cannot be used; then the former ones stay in force.")

    @OptionGroup var directory: AdminClient.DataDirectory

    private struct Answer: Decodable {
        var error: String?
    }

    func run() throws {
        guard directory.runningPid != nil else {
            StandardError.write("apus reload: nothing runs on \(directory.path)\n")
            throw ExitCode(1)
        }
        let answer: Answer
        do {
            answer = try JSONDecoder().decode(Answer.self, from: Data(AdminClient(directory).ask("reload").utf8))
        } catch {
            StandardError.write("apus reload: the platform on \(directory.path) does not answer: \(error)\n")
            throw ExitCode(1)
        }
        if let reason = answer.error {
            StandardError.write("apus reload: refused, the former settings stay in force: \(reason)\n")
            throw ExitCode(1)
        }
        print("settings of \(directory.path) read again")
    }
}
