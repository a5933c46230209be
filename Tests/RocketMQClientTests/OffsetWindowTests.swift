import RocketMQClient
import TestTools
import Testing

@Suite("RocketMQClient: what may be committed, and how long to wait")
struct OffsetWindowTests {
    @Test("the committed offset never passes an outstanding message")
    func outOfOrder() {
        var window = OffsetWindow(start: 10)
        #expect(window.committable == 10 && window.outstanding == 0)
        // 12 was filtered out.
        window.pulled([10, 11, 13], next: 14)
        #expect(window.nextPull == 14 && window.committable == 10 && window.outstanding == 3)
        window.finish(11)
        #expect(window.committable == 10)
        window.finish(10)
        #expect(window.committable == 13)
        window.finish(10)
        window.finish(99)
        #expect(window.committable == 13 && window.outstanding == 1)
        window.finish(13)
        #expect(window.committable == 14 && window.outstanding == 0)
    }

    @Test("any order of finishing commits the same as a plain set of outstanding offsets")
    func model() {
        var random = SplitMix(state: 7)
        var window = OffsetWindow(start: 0)
        var outstanding: Set<Int64> = []
        var next: Int64 = 0
        for _ in 0..<20_000 {
            if random.next() % 3 == 0 {
                let new = (next..<(next + Int64(random.next() % 9))).filter { _ in random.next() % 4 != 0 }
                next = (new.last ?? next) + 1
                window.pulled(new, next: next)
                outstanding.formUnion(new)
            } else if let one = outstanding.randomElement(using: &random) {
                outstanding.remove(one)
                window.finish(one)
            }
            #expect(window.committable == outstanding.min() ?? next && window.outstanding == outstanding.count)
        }
    }

    @Test("pauses double up to their bound and begin anew after a success")
    func backOff() {
        var backOff = BackOff(first: .milliseconds(20), longest: .milliseconds(100))
        #expect((0..<5).map { _ in backOff.next() } == [20, 40, 80, 100, 100].map { .milliseconds($0) })
        backOff.reset()
        #expect(backOff.next() == .milliseconds(20))
    }
}
