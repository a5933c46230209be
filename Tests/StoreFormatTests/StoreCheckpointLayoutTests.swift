import StoreFormat
import Testing

@Suite struct StoreCheckpointLayoutTests {
    /// Found by fuzzing: a damaged checkpoint ended the broker at its start.
    @Test func anyCheckpointIsRead() {
        var layout = StoreCheckpointLayout()
        layout.physicMsgTimestamp = .min
        #expect(layout.minTimestamp == 0)
        layout.physicMsgTimestamp = 10_000
        layout.logicsMsgTimestamp = 5000
        #expect(layout.minTimestamp == 2000)
    }
}
