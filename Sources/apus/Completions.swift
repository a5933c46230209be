import FastJSON

/// What the shell offers: of the platform that runs, nothing when none does. Every failure is an empty list.
enum Completions {
    static func workers() -> [String] {
        guard let report = try? Status.Report(AdminClient(AdminClient.DataDirectory()).answer(to: "status")) else {
            return []
        }
        return report.workers.map { "\($0.kind)@\($0.index)" }
    }
}
