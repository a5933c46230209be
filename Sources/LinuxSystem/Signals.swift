import CLinux
import Glibc

/// Signals taken as data (signalfd(2)) instead of handlers.
package struct Signals: ~Copyable, Sendable {
    /// Readable while a signal waits: for poll(2) or epoll(7).
    package let descriptor: Descriptor

    /// Blocks `signals` in this thread; call before other threads start, which inherit it. All others that would end
    /// the process by accident become ignored: SIGPIPE (a closed connection is an EPIPE where it is written to),
    /// SIGXFSZ (an EFBIG), SIGUSR1 and the like. What is left is meant: SIGTERM, SIGINT, SIGQUIT, SIGABRT, SIGXCPU,
    /// crashes.
    /// - Throws: there is no free descriptor.
    package init(_ signals: [Int32]) throws(SystemError) {
        apus_ignore_strays()
        descriptor = Descriptor(owning: try check(apus_signalfd(signals, signals.count), "signalfd", "\(signals)"))
    }

    /// The next waiting signal, nil when there is none.
    /// - Throws: reading the signal descriptor failed.
    package func take() throws(SystemError) -> Int32? {
        let signal = try check(apus_signalfd_take(descriptor.raw), "read", "signalfd")
        return signal == 0 ? nil : signal
    }

    /// What ended a wait.
    package enum Wakening: Sendable {
        case readable
        case signal(Int32)
    }

    /// Blocks until `other` can be read (or is closed) or a signal has come; `other` goes first.
    /// - Throws: poll(2) or reading the signal descriptor failed.
    package func wait(orReadable other: Int32) throws(SystemError) -> Wakening {
        while true {
            var polled = [
                pollfd(fd: other, events: Int16(POLLIN), revents: 0),
                pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0),
            ]
            try call("poll", "signals") { poll(&polled, 2, -1) }
            if polled[0].revents != 0 { return .readable }
            if let signal = try take() { return .signal(signal) }
        }
    }
}
