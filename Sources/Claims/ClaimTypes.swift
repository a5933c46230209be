package import LinuxSystem

/// The time of a call, as its caller sees it: this module reads no clock.
package struct ClaimTime: Hashable, Sendable {
    /// Milliseconds since 1970, for handles and for the journal. May step.
    package var wall: Int64
    /// Milliseconds of a clock that never steps (boot clock), for deadlines: a stepped wall clock neither hastens nor
    /// delays a redelivery.
    package var steady: Int64

    /// Both in milliseconds.
    package init(wall: Int64, steady: Int64) {
        self.wall = wall
        self.steady = steady
    }
}

/// Index of a client's name in a `ClaimStore`; numbers are not given twice.
package struct ClaimClient: Hashable, Sendable {
    /// 0: unknown.
    package let number: UInt32
    /// It is not known which.
    package static let unknown = Self(number: 0)
}

/// Is notified of what calls on a store and its tables have brought about. Called on the store's thread, inside the
/// call, when the table is consistent again. It may call `due`, `claim`, `reclaim` and the like at once, but not
/// `expire`.
package protocol ClaimObserver: AnyObject {
    /// Messages of this table have become due: one waiting reader may be woken. Called inside `expire`, `change` and
    /// `abandon`, once for all messages that one call made due in a row.
    func messagesDue(in table: ClaimTable)
    /// The table's floor moved (to be committed as the group's consumer offset).
    func floorMoved(of table: ClaimTable)
}

/// What the world can do to the claims. The text names the cause and the remedy.
package enum ClaimError: Error, CustomStringConvertible {
    /// A file operation failed.
    case disk(SystemError)

    /// For operators: cause and remedy.
    package var description: String {
        switch self {
        case .disk(let error): "the journal of claims: \(error)"
        }
    }
}

/// Runs file work and turns its error into one of claims.
func onDisk<T>(_ body: () throws(SystemError) -> T) throws(ClaimError) -> T {
    do {
        return try body()
    } catch {
        throw .disk(error)
    }
}

/// What a store of claims reports of itself.
package struct ClaimStatistics: Equatable, Sendable {
    /// Claim tables: a group on a queue each.
    package var tables = 0
    /// Messages in the hands of a client.
    package var claimed = 0
    /// Messages whose deadline has passed, to be handed out again.
    package var due = 0
    /// Deadlines that have passed, since the store was opened.
    package var expired = 0
    /// Claims and due messages dropped because their message or queue was deleted, since the store was opened.
    package var dropped = 0
    /// Handles that changed nothing, since the store was opened.
    package var stale = 0
    /// Bytes in the journals on disk that no snapshot holds yet.
    package var journalBytes: Int64 = 0
    /// Bytes written to journals since the store was opened.
    package var writtenBytes: Int64 = 0
    /// Bytes of the last snapshot.
    package var snapshotBytes: Int64 = 0

    /// All 0.
    package init() {}
}

extension Int64 {
    /// Milliseconds a claim may be invisible at most: three days. A longer time, also one from a journal, is cut.
    package static var claimInvisibleMax: Int64 { 3 * 24 * 3_600_000 }
}
