import WorkerProtocol

/// What of freshly read settings can hold for a platform that runs.
extension PlatformConfiguration {
    /// What a reload makes of the platform besides new values.
    package struct Changes: Sendable {
        /// Numbers of brokers that join and leave.
        package var added: [Int] = []
        /// Numbers of brokers that leave.
        package var removed: [Int] = []
        /// What was asked for without effect, as text.
        package var kept: [String] = []
    }

    /// Turns freshly read settings into what can hold for the running platform. Brokers whose store is new are added,
    /// those whose store is not named any more are removed. Fixed settings and the other workers stay.
    package mutating func keepRunning(_ running: PlatformConfiguration) -> Changes {
        var changes = Changes()
        for row in table.rows { row.rules.keepRunning(&self, row, running, &changes) }
        introduceNameserver()
        return changes
    }
}
