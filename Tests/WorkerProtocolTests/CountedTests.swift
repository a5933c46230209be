import TestTools
import Testing
import WorkerProtocol

@Suite struct CountedTests {
    @Test func oneIsNoPlural() {
        #expect([0, 1, 2].map { counted($0, "broker") } == ["0 brokers", "1 broker", "2 brokers"])
        #expect(counted(UInt64(3), "batch", plural: "batches") == "3 batches")
    }
}
