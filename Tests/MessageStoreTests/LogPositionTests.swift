import StoreFormat
import Testing

@testable import MessageStore

@Suite struct LogPositionTests {
    /// Two messages and the end of a file, written, dispatched and flushed.
    @Test func theEndsFollowEachOther() {
        var log = LogPosition()
        #expect(log.end == log.fileEnd)
        log.beginFile(1000)
        log.append(300)
        log.append(200)
        #expect(log.end == PhysicalOffset(500) && log.written == PhysicalOffset(0))
        log.commit()
        log.dispatch(to: PhysicalOffset(500))
        log.flush(to: PhysicalOffset(300))
        #expect(log.written == PhysicalOffset(500) && log.flushed == PhysicalOffset(300))
        log.fillFile()
        log.beginFile(1000)
        log.append(100)
        log.commit()
        #expect(log.written == PhysicalOffset(1100) && log.fileEnd == PhysicalOffset(2000))
        #expect(log.dispatched == PhysicalOffset(500))
    }

    /// A failed write takes the file that was begun with it, too.
    @Test func aTickIsTakenBack() {
        var log = LogPosition()
        log.beginFile(1000)
        log.append(900)
        log.commit()
        log.fillFile()
        log.beginFile(1000)
        log.append(700)
        log.rollBack()
        #expect(log.end == PhysicalOffset(900) && log.fileEnd == PhysicalOffset(1000))
        #expect(log.written == PhysicalOffset(900))
    }

    @Test func recoveryFindsTheEnd() {
        var log = LogPosition()
        log.beginRecovery(from: PhysicalOffset(1000), filesEnd: PhysicalOffset(3000))
        log.dispatch(to: PhysicalOffset(2500))
        log.dispatchAgain(from: PhysicalOffset(2000))
        log.dispatch(to: PhysicalOffset(2500))
        log.endRecovery(at: PhysicalOffset(2500), fileEnd: PhysicalOffset(3000), flushed: PhysicalOffset(1500))
        #expect(log.end == PhysicalOffset(2500) && log.fileEnd == PhysicalOffset(3000))
        #expect(log.dispatched == log.written && log.flushed == PhysicalOffset(1500))
    }
}
