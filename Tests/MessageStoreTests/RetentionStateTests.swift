import StoreFormat
import Testing

@testable import MessageStore

@Suite struct RetentionStateTests {
    @Test func roundsHaveAnInterval() {
        var retention = RetentionState()
        let rounds = [Int64(100_000), 109_999].map { retention.beginRoundIfDue(now: $0, intervalMilliseconds: 10_000) }
        #expect(rounds == [true, false])
        // What an operator asks for goes on until nothing is left.
        retention.request()
        let isDue = retention.beginRoundIfDue(now: 109_999, intervalMilliseconds: 10_000)
        #expect(isDue)
        retention.endRound(isComplete: false)
        #expect(retention.isRequested)
        retention.endRound(isComplete: true)
        #expect(!retention.isRequested)
    }

    /// Each held file is reported once; what is held counts for a round.
    @Test func holdsAreReportedOnce() {
        var retention = RetentionState()
        let hold = RetentionHold("delayed messages", neededFrom: { nil })
        let first = (0..<2).map { _ in retention.noteHeld(PhysicalOffset(0), by: hold) }
        #expect(first == [true, false])
        #expect(retention.heldAt == PhysicalOffset(0) && retention.heldBy?.name == hold.name)
        retention.beginDeleting()
        #expect(retention.heldAt == nil && retention.heldBy == nil)
        let second = [
            retention.noteHeld(PhysicalOffset(0), by: hold),
            retention.noteHeld(PhysicalOffset(65_536), by: hold),
        ]
        #expect(second == [false, true])
    }
}
