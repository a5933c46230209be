import Glibc

/// The kernel's readiness list (epoll), waited on with nanosecond precision.
final class Poller {
    struct Events: OptionSet {
        let rawValue: UInt32
        static let readable = Events(rawValue: 1)
        static let writable = Events(rawValue: 2)
        static let failed = Events(rawValue: 4)
    }

    private let descriptor: Int32
    private var ready: [epoll_event]

    init() throws(BenchError) {
        descriptor = epoll_create1(Int32(EPOLL_CLOEXEC.rawValue))
        guard descriptor >= 0 else { throw BenchError("cannot make an epoll descriptor: \(errnoText())") }
        ready = Array(repeating: epoll_event(), count: 256)
    }

    deinit {
        close(descriptor)
    }

    /// Watches a connecting socket: its first writability says that it is connected.
    func add(_ socket: Int32, tag: Int) throws(BenchError) {
        var event = Self.event(tag, writes: true)
        guard epoll_ctl(descriptor, EPOLL_CTL_ADD, socket, &event) == 0 else {
            throw BenchError("cannot watch a socket: \(errnoText())")
        }
    }

    func watch(_ socket: Int32, tag: Int, writes: Bool) {
        var event = Self.event(tag, writes: writes)
        let outcome = epoll_ctl(descriptor, EPOLL_CTL_MOD, socket, &event)
        precondition(outcome == 0, "a watched socket is no longer in the list: \(errnoText())")
    }

    func wait(untilNanos wake: UInt64, now: UInt64, serve: (Int, Events) -> Void) {
        let nanos = wake > now ? wake - now : 0
        var timeout = timespec(tv_sec: Int(nanos / 1_000_000_000), tv_nsec: Int(nanos % 1_000_000_000))
        let count = epoll_pwait2(descriptor, &ready, Int32(ready.count), &timeout, nil)
        for index in 0..<max(0, Int(count)) {
            let bits = ready[index].events
            var events: Events = []
            if bits & EPOLLIN.rawValue != 0 { events.insert(.readable) }
            if bits & EPOLLOUT.rawValue != 0 { events.insert(.writable) }
            if bits & (EPOLLERR.rawValue | EPOLLHUP.rawValue) != 0 { events.formUnion([.readable, .failed]) }
            serve(Int(ready[index].data.u64), events)
        }
    }

    private static func event(_ tag: Int, writes: Bool) -> epoll_event {
        var event = epoll_event()
        event.events = EPOLLIN.rawValue | (writes ? EPOLLOUT.rawValue : 0)
        event.data.u64 = UInt64(tag)
        return event
    }
}
