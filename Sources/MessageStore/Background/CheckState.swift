import StoreFormat

/// Where the background check stands.
struct CheckState {
    /// The next record to look at, and where the check ends: at `recoveredFrom`, from where on the start itself has
    /// looked.
    var position = PhysicalOffset(0)
    var end = PhysicalOffset(0)
    var start = PhysicalOffset(0)
    var isRunning = false
    var check: LogCheck?
    var records = 0
    var damaged = 0
    var repaired = 0
    var notRepaired = 0
    var unindexed = 0
    /// Versions the last slice has met and the owner has not looked at yet.
    var foundEdits: ArraySlice<LogCheckFindings.Edit> = []
    /// Versions of messages that were in the log only.
    var enteredEdits = 0
    /// Records in `start ..< cleanEnd` are known to be good: their bodies are not compared again when they are read.
    var cleanEnd = PhysicalOffset(0)
    var startedAt: Int64 = 0
    var reportedAt: Int64 = 0
    var readFailed = false
}
