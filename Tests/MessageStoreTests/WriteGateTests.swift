import Testing

@testable import MessageStore

@Suite struct WriteGateTests {
    private let full = AppendRefusal.diskFull(remark: "full")

    /// Behind a threshold waiting messages are taken, behind a full disk nothing is.
    @Test func waitingMessagesUseTheReserve() {
        var gate = WriteGate()
        #expect(gate.isOpen && gate.refusal(mayUseReserve: false) == nil)
        gate.closeAtThreshold(remark: "full")
        #expect(gate.refusal(mayUseReserve: false) == full && gate.refusal(mayUseReserve: true) == nil)
        gate.close(full)
        #expect(gate.refusal(mayUseReserve: true) == full)
        gate.open()
        #expect(gate.isOpen && gate.refusal(mayUseReserve: true) == nil)
    }

    /// The reserve ends where a failed write has left something.
    @Test func nothingIsTakenBehindADirtyTail() {
        var gate = WriteGate()
        gate.closeAtThreshold(remark: "full")
        gate.noteDirtyTail()
        #expect(gate.tailIsDirty && gate.refusal(mayUseReserve: true) == full)
        gate.noteCleanTail()
        gate.open()
        #expect(!gate.tailIsDirty && gate.isOpen)
    }

    @Test func reopeningIsTriedEachSecond() {
        var gate = WriteGate()
        gate.begin(now: 10_000)
        let due = [10_999, 11_000, 11_500, 12_000].map { (now: Int64) in gate.isRetryDue(now: now) }
        #expect(due == [false, true, false, true])
    }
}
