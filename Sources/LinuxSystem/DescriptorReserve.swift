import CLinux
import Glibc
import Synchronization

/// Descriptors held back for files, so that connections cannot take the last ones. One for the process; any thread.
///
/// A file that finds no free descriptor takes one of these (`lend`). Servers take no new connection until the reserve
/// is whole again (`refill`).
package final class DescriptorReserve: Sendable {
    /// The one all disks and servers of this process share. Empty until `hold` is called.
    package static let shared = DescriptorReserve()

    private struct State {
        var wanted = 0
        var held: [Int32] = []
    }

    private let state = Mutex(State())

    /// A reserve of its own, for tests.
    package init() {}

    deinit {
        for descriptor in state.withLock({ $0.held }) { close(descriptor) }
    }

    /// From now on the reserve is `count` descriptors; takes as many as there are free ones.
    package func hold(_ count: Int) {
        state.withLock { state in
            state.wanted = max(0, count)
            while state.held.count > state.wanted, let surplus = state.held.popLast() { close(surplus) }
            _ = Self.fill(&state)
        }
    }

    /// How many are held now, and how many should be.
    package var count: (held: Int, wanted: Int) { state.withLock { ($0.held.count, $0.wanted) } }

    /// Frees one descriptor for a file. False when the reserve is used up.
    package func lend() -> Bool {
        state.withLock { state in
            guard let descriptor = state.held.popLast() else { return false }
            close(descriptor)
            return true
        }
    }

    /// Takes back what was lent. False while there are not enough free descriptors.
    package func refill() -> Bool { state.withLock { Self.fill(&$0) } }

    private static func fill(_ state: inout State) -> Bool {
        while state.held.count < state.wanted {
            // An eventfd costs less than an open file, and copies of one share it.
            let next = state.held.last.map { fcntl($0, F_DUPFD_CLOEXEC, 0) } ?? apus_eventfd()
            guard next >= 0 else { return false }
            state.held.append(next)
        }
        return true
    }
}

/// The number of descriptors this process may have and has.
package enum OpenFiles {
    /// Raises the soft limit of this process to the hard one, at most 2^20. The soft limit is often 1024, for programs
    /// that use select(2); none here does.
    package static func raiseLimit() {
        let most: rlim_t = 1 << 20
        var now = rlimit()
        let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        guard getrlimit(resource, &now) == 0, now.rlim_cur < min(now.rlim_max, most) else { return }
        now.rlim_cur = min(now.rlim_max, most)
        _ = setrlimit(resource, &now)
    }

    /// The soft limit; `Int.max` when there is none.
    package static var limit: Int { Int(clamping: apus_files_limit()) }

    /// Open now; nil when /proc cannot be read.
    package static var count: Int? {
        guard let folder = opendir("/proc/self/fd") else { return nil }
        defer { closedir(folder) }
        var count = 0
        while readdir(folder) != nil { count += 1 }
        // Without `.`, `..` and the folder itself.
        return count - 3
    }
}

/// How many connections fit beside the files of a worker.
package struct DescriptorPlan: Equatable, Sendable {
    /// Descriptors to hold back in `DescriptorReserve`.
    package var reserve: Int
    /// Connections that may be open at a time: what was wanted, or less.
    package var connections: Int

    /// - Parameters:
    ///   - limit: descriptors the process may have.
    ///   - inUse: those that are open and are no connections.
    ///   - growth: those the worker is going to open for files, at most.
    ///   - wanted: connections the settings ask for.
    package init(limit: Int, inUse: Int, growth: Int, wanted: Int) {
        let free = max(0, limit - inUse)
        // Of a small limit at least a half is for connections: growth is the most that may be, not what must be.
        reserve = min(max(limit / 16, 16), 256, free / 4)
        connections = max(1, min(wanted, free - reserve - min(growth, (free - reserve) / 2)))
    }
}
