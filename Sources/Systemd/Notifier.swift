import CSystemd
import Glibc
import LinuxSystem

/// What a service reports to systemd, and what it was given by it. All of it is harmless without systemd.
package enum Notifier {
    /// What a service reports to its manager (sd_notify(3)).
    package enum Notification: Sendable {
        case ready
        case stopping
        /// CLOCK_MONOTONIC, as Type=notify-reload wants it.
        case reloading(monotonicMicroseconds: Int64)
        case watchdog
        case status(String)

        var text: String {
            switch self {
            case .ready: "READY=1"
            case .stopping: "STOPPING=1"
            case .reloading(let microseconds): "RELOADING=1\nMONOTONIC_USEC=\(microseconds)"
            case .watchdog: "WATCHDOG=1"
            // A line break would begin another assignment.
            case .status(let text):
                "STATUS=" + PlainText.escaped(text.map { $0.isNewline ? " " : String($0) }.joined())
            }
        }
    }

    /// False when systemd does not listen or the message could not be sent.
    @discardableResult
    package static func send(_ notifications: [Notification]) -> Bool {
        sd_notify(0, notifications.map(\.text).joined(separator: "\n")) > 0
    }

    /// Microseconds within which systemd wants to hear WATCHDOG=1; nil when it does not watch this process.
    package static var watchdogMicroseconds: UInt64? {
        var interval: UInt64 = 0
        return sd_watchdog_enabled(0, &interval) > 0 && interval > 0 ? interval : nil
    }

    /// Environment variables that are meant for this process and not for its children.
    package static let environmentNames = [
        "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES",
    ]
}

/// Sockets that systemd bound before it started us (socket activation).
package enum SocketActivation {
    /// Their names (FileDescriptorName=) and descriptors, close-on-exec; the caller owns them. Empty without systemd.
    package static func take() -> [(name: String, fd: Int32)] {
        var names: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?
        let count = sd_listen_fds_with_names(0, &names)
        guard count > 0, let names else { return [] }
        defer { free(names) }
        return (0..<Int(count)).map { index in
            defer { free(names[index]) }
            return (names[index].map { String(cString: $0) } ?? "", 3 + Int32(index))
        }
    }
}
