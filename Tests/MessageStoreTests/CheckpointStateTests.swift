import StoreFormat
import Testing

@testable import MessageStore

@Suite struct CheckpointStateTests {
    private let configuration = StoreConfiguration(storePathRootDir: "/none")

    /// After a minute, after 512 MiB, or when one is asked for; the first one follows the first pass.
    @Test func whenACheckpointIsDue() {
        var checkpoint = CheckpointState()
        checkpoint.open(now: 1000, dispatched: PhysicalOffset(7))
        #expect(checkpoint.isRequested && checkpoint.isDue(now: 1000, dispatched: PhysicalOffset(7), configuration))
        checkpoint.noteAttempt(now: 2000, dispatched: PhysicalOffset(100))
        #expect(!checkpoint.isRequested && checkpoint.dispatched == PhysicalOffset(100))
        let much = PhysicalOffset(100 + 512 << 20)
        #expect(!checkpoint.isDue(now: 61_999, dispatched: PhysicalOffset(200), configuration))
        #expect(checkpoint.isDue(now: 62_000, dispatched: PhysicalOffset(200), configuration))
        #expect(checkpoint.isDue(now: 2001, dispatched: much, configuration))
        checkpoint.request()
        #expect(checkpoint.isDue(now: 2001, dispatched: PhysicalOffset(100), configuration))
    }

    @Test func aPointIsDeferredOnce() {
        var checkpoint = CheckpointState()
        checkpoint.begin()
        var point = RecoveryPoint()
        point.dispatched = PhysicalOffset(5)
        checkpoint.deferPoint(point)
        let points = [checkpoint.takeDeferredPoint(), checkpoint.takeDeferredPoint()]
        #expect(points == [point, nil])
    }

    /// A checkpoint that cannot even be prepared leaves nothing that is known to be synchronized.
    @Test func whatIsUnverified() {
        var checkpoint = CheckpointState()
        checkpoint.noteUnverified([])
        #expect(!checkpoint.filesMayBeLost)
        checkpoint.begin()
        checkpoint.abandon()
        #expect(!checkpoint.isRunning && checkpoint.anyFileIsUnverified && checkpoint.filesMayBeLost)
        let ended = checkpoint.end() == nil
        #expect(ended)
    }
}
