import StoreFormat

/// How far blocks are reserved ahead of the log's end, so that a full disk is met before a message is.
/// Confined to the store's thread.
struct BlockReservation {
    /// Blocks are reserved up to here.
    private(set) var end = PhysicalOffset(0)
    /// The `prepare` thread reserves more.
    private(set) var isRunning = false

    mutating func begin() {
        precondition(!isRunning, "blocks are reserved by one job at a time")
        isRunning = true
    }

    mutating func end(_ reserved: PhysicalOffset) {
        isRunning = false
        end = max(end, reserved)
    }

    /// The job ended after the store was closed.
    mutating func abandon() { isRunning = false }

    /// What lies after `offset` was cut off; recovery has found the log's end there.
    mutating func cut(to offset: PhysicalOffset) { end = min(end, offset) }

    /// The log ends at `offset`; what is reserved after it is not known.
    mutating func reset(to offset: PhysicalOffset) { end = offset }
}
