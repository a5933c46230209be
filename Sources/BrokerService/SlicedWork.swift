import NIOCore
import RemotingTransport

/// Long work of the event loop, cut into slices: one slice a turn, so that reads, answers and timers of others come in
/// between. Jobs take turns. Confined to its event loop.
///
/// A slice is scheduled a moment ahead, not handed to `execute`: what is handed over during a turn runs in the same
/// turn.
final class SlicedWork {
    /// Between two slices: long enough for the loop to look at its connections first.
    static let pause = TimeAmount.microseconds(30)

    private let eventLoop: any EventLoop
    private var jobs: [() -> Bool] = []
    private var next = 0
    private var isArmed = false
    private var due = NIODeadline.uptimeNanoseconds(0)
    private var isPostponed = false
    /// Slices run since the start; for tests and figures.
    private(set) var slices = 0

    private let meter: WorkMeter
    /// Called around each slice, which it runs; for tests.
    var around: ((_ slice: () -> Bool) -> Bool)?

    init(eventLoop: any EventLoop, meter: WorkMeter = WorkMeter()) {
        self.eventLoop = eventLoop
        self.meter = meter
    }

    /// Jobs that are not done.
    var count: Int { jobs.count }

    /// - Parameter slice: does a bounded part of the work; `true` when there is more.
    func add(_ slice: @escaping () -> Bool) {
        jobs.append(slice)
        arm()
    }

    private func arm() {
        guard !isArmed, !jobs.isEmpty else { return }
        isArmed = true
        due = eventLoop.now + Self.pause
        let this = NIOLoopBound(self, eventLoop: eventLoop)
        eventLoop.scheduleTask(in: Self.pause) {
            this.value.isArmed = false
            this.value.step()
        }
    }

    private func step() {
        guard !jobs.isEmpty else { return }
        // Late: the turn that asked for it may still be going on (with the answers of the last slice). Once more, and
        // the loop has looked at its connections in between.
        if !isPostponed, eventLoop.now - due > Self.pause {
            isPostponed = true
            return arm()
        }
        isPostponed = false
        if next >= jobs.count { next = 0 }
        slices += 1
        let place = next
        let slice = jobs[place]
        let hasMore = meter.measured("a slice of long work") { around.map { $0(slice) } ?? slice() }
        if hasMore {
            next += 1
        } else {
            jobs.remove(at: place)
        }
        arm()
    }
}

/// Work of which more may be due than one slice does: the first slice runs now, the rest in later turns. Confined to
/// its event loop.
final class CatchUp {
    private var isUnderWay = false

    /// Does nothing while it is under way: the slices that follow see to what has come meanwhile.
    /// - Parameters:
    ///   - slice: does a bounded part; `true` when there is more.
    ///   - then: called when nothing more is due.
    func run(in slices: SlicedWork, _ slice: @escaping () -> Bool, then: @escaping () -> Void) {
        guard !isUnderWay else { return }
        isUnderWay = slice()
        guard isUnderWay else { return then() }
        slices.add { [self] in
            isUnderWay = slice()
            if !isUnderWay { then() }
            return isUnderWay
        }
    }
}
