import LinuxSystem
import StoreFormat
import Testing

@testable import MessageStore

@Suite struct FlushStateTests {
    @Test func aFlushEndsWithItsOutcome() {
        var flush = FlushState()
        let outcome = FlushOutcome<SystemError>()
        flush.begin(outcome)
        #expect(flush.isRunning)
        outcome.failure = SystemError(errno: 5, call: "fdatasync", subject: "commitlog")
        let failure = flush.end()
        #expect(failure?.errno == 5 && !flush.isRunning)
        flush.fail()
        flush.markUnverified(upTo: PhysicalOffset(700))
        // A verification says by itself how it ended.
        flush.begin(nil)
        let verification = flush.end()
        #expect(verification == nil && flush.isBroken && flush.unverifiedEnd == PhysicalOffset(700))
        flush.noteVerified()
        #expect(!flush.isBroken)
    }

    /// RocketMQ's rules: an interval and enough pages, or the thorough interval.
    @Test func whenAFlushIsDue() {
        var flush = FlushState()
        flush.begin(now: 1000)
        let configuration = StoreConfiguration(storePathRootDir: "/none")
        #expect(!flush.isDue(now: 1499, bytes: 1 << 20, configuration))
        #expect(flush.isDue(now: 1500, bytes: 4 * 4096, configuration))
        #expect(!flush.isDue(now: 10_999, bytes: 4 * 4096 - 1, configuration))
        #expect(flush.isDue(now: 11_000, bytes: 1, configuration))
    }

    @Test func writebackGoesOnWhereItEnded() {
        var flush = FlushState()
        let (small, large) = (PhysicalOffset((8 << 20) - 1), PhysicalOffset(8 << 20))
        let later = large + Int64(8 << 20)
        func begin(_ written: PhysicalOffset) -> Range<PhysicalOffset>? {
            flush.beginWriteback(flushed: PhysicalOffset(0), written: written)
        }
        let ranges = [begin(small), begin(large), begin(later)]
        flush.endWriteback()
        let next = begin(later)
        #expect(ranges == [nil, PhysicalOffset(0)..<large, nil] && next == large..<later)
    }
}
