import CLinux
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
    private var ready = Array(repeating: apus_readiness(), count: 256)

    init() throws(BenchError) {
        descriptor = apus_epoll()
        guard descriptor >= 0 else {
            throw BenchError("cannot make an epoll descriptor: \(String(cString: strerror(-descriptor)))")
        }
    }

    deinit {
        close(descriptor)
    }

    /// Watches a connecting socket: once it is writable, it is connected.
    func add(_ socket: Int32, tag: Int) throws(BenchError) {
        let outcome = apus_epoll_watch(descriptor, socket, UInt32(tag), true, false)
        guard outcome == 0 else { throw BenchError("cannot watch a socket: \(String(cString: strerror(-outcome)))") }
    }

    func watch(_ socket: Int32, tag: Int, writes: Bool) {
        let outcome = apus_epoll_watch(descriptor, socket, UInt32(tag), writes, true)
        precondition(outcome == 0, "a watched socket is no longer in the list: \(String(cString: strerror(-outcome)))")
    }

    /// Waits until something is ready or the clock shows `wake`; then serves each ready descriptor by its tag.
    func wait(untilNanoseconds wake: UInt64, now: UInt64, serve: (Int, Events) -> Void) {
        let count = apus_epoll_wait(descriptor, &ready, Int32(ready.count), wake > now ? wake - now : 0)
        for index in 0..<max(0, Int(count)) {
            serve(Int(ready[index].tag), Events(rawValue: ready[index].events))
        }
    }
}
