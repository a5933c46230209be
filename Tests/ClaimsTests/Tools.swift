import Claims
import LinuxSystem
import Logging
import MessageModel

/// Keeps what it was told.
final class Observer: ClaimObserver {
    var due: [ObjectIdentifier] = []
    var floors: [Int64] = []

    func messagesDue(in table: ClaimTable) { due.append(ObjectIdentifier(table)) }
    func floorMoved(of table: ClaimTable) { floors.append(table.floor) }
}

/// Simulated clocks, milliseconds.
struct Clock {
    var wall: Int64 = 1_700_000_000_000
    var steady: Int64 = 5_000

    var now: ClaimTime { ClaimTime(wall: wall, steady: steady) }

    mutating func advance(_ milliseconds: Int64) {
        wall += milliseconds
        steady += milliseconds
    }
}

let group = GroupName(constant: "group")
let topic = TopicName(constant: "topic")
/// Bounds of queues that have everything.
let anyBounds: @Sendable (ClaimTable) -> (min: Int64, max: Int64)? = { _ in (0, .max) }

extension ClaimStore {
    /// A pop of one queue as the broker makes it: due messages first, then new ones.
    func pop(
        _ table: ClaimTable, due: Int = 0, new offsets: [Int64] = [], next: Int64? = nil, _ clock: Clock,
        invisible: Int64 = 60_000, client: String = "client", attemptID: [UInt8]? = nil
    ) -> [Int64: Int64] {
        let popTime = max(clock.wall, table.popTimeMin)
        let number = self.client(client)
        var handles: [Int64: Int64] = [:]
        for (offset, _) in table.due(limit: due) {
            table.reclaim(
                offset, at: clock.now, popTime: popTime, invisible: invisible, client: number, attemptID: attemptID)
            handles[offset] = popTime
        }
        if !offsets.isEmpty || next != nil {
            table.claim(
                offsets, next: next ?? (offsets.last ?? 0) + 1, at: clock.now, popTime: popTime, invisible: invisible,
                client: number, attemptID: attemptID)
            for offset in offsets { handles[offset] = popTime }
        }
        return handles
    }
}
