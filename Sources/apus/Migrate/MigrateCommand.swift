import ArgumentParser
import BrokerService
import FastJSON
import Glibc
import LinuxSystem

/// `apus migrate`: a store moves from RocketMQ to Apus, or back.
struct MigrateCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "migrate", abstract: "Look at a store before it moves from RocketMQ to Apus, or back.",
        discussion: """
            The page about moving, with all steps, is /usr/share/doc/apus/units/MIGRATING.md.

              apus migrate check /data/rocketmq/store
              apus migrate check /var/lib/apus/store --to rocketmq5
            """, subcommands: [MigrateCheck.self])
}

struct MigrateCheck: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check", abstract: "Say what a store holds, and what would be lost, come twice or be different.",
        discussion: """
            Reads the directory of a store of RocketMQ 4.x, 5.x or Apus while no broker has it open, and changes \
            nothing. Without --to it is about Apus when RocketMQ ran on the store last, and about RocketMQ 4.x and \
            5.x when Apus did.

              apus migrate check /data/rocketmq/store --queues
              apus migrate check /var/lib/apus/store --to rocketmq4 --json

            Ends with 0 when all of it can move, 1 when something would be lost or needs a decision (each with the \
            remedy) or a broker has the store open, 66 when there is no such store.
            """)

    /// EX_NOINPUT of sysexits.h.
    static let noStore: Int32 = 66

    @Argument(
        help: ArgumentHelp("The store's folder (storePathRootDir).", valueName: "STORE"), completion: .directory)
    var store: String
    @Option(
        help: ArgumentHelp(
            "Where the commit log lies, when not in the store (storePathCommitLog).", valueName: "FOLDER"),
        completion: .directory)
    var commitLog: String?
    @Option(help: ArgumentHelp("Who is to run on the store: apus, rocketmq4 or rocketmq5.", valueName: "WHOM"))
    var to: StoreTarget?
    @Flag(help: "A line for each queue, not for each topic.") var queues = false
    @Flag(help: "As a JSON object.") var json = false

    func validate() throws {
        guard !store.isEmpty else { throw ValidationError("STORE is empty: name the store's folder") }
        guard commitLog?.isEmpty != true else { throw ValidationError("--commit-log is empty") }
        if let commitLog, commitLog.contains(",") {
            throw ValidationError(
                """
                Apus reads a commit log in one folder: bring the files of \(commitLog) together in one, with RocketMQ \
                stopped
                """
            )
        }
    }

    func run() throws {
        let report: StoreReport
        do throws(StoreSurvey.Refusal) {
            report = try StoreSurvey.read(store, commitLog: commitLog)
        } catch {
            StandardError.write("apus migrate check: \(PlainText.escaped("\(error)"))\n")
            if case .noStore = error { throw ExitCode(Self.noStore) }
            throw ExitCode(1)
        }
        let page = MigratePage(report, to.map { [$0] } ?? StoreFindings.usualTargets(report.writer))
        print(json ? page.json.text() : page.lines(byQueue: queues).joined(separator: "\n"))
        if !page.canMove { throw ExitCode(1) }
    }
}

extension StoreTarget: ExpressibleByArgument {}
