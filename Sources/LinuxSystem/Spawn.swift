import CLinux
import Glibc

/// A child process: its pid, and a pidfd that cannot come to mean another process and is readable once it has ended.
package struct ChildProcess: Sendable {
    /// Valid until the process is reaped.
    package let pid: Int32
    /// Readable when the process has ended.
    package let pidfd: SharedDescriptor

    /// How a process ended.
    package enum Ending: Hashable, Sendable {
        case code(Int32)
        case signal(Int32)
    }

    /// Launches `path`. In the child exactly `descriptors` are open, each at its target number, and it gets
    /// `parentDeathSignal` when the *thread* that called this ends. `ignoringStrays`: signals that would end it by
    /// accident (SIGHUP, SIGUSR1, …) are ignored from its first instruction on; for programs of our own.
    /// - Throws: `path` cannot be executed, or there is no memory, process or descriptor left.
    package static func spawn(
        path: String, arguments: [String], environment: [String], descriptors: [(source: Int32, target: Int32)],
        parentDeathSignal: Int32, ownProcessGroup: Bool, ignoringStrays: Bool = false
    ) throws(SystemError) -> ChildProcess {
        var pidfd: Int32 = -1
        let map = descriptors.map { apus_descriptor_map(source: $0.source, target: $0.target) }
        let pid = withCStrings(arguments) { argumentPointers in
            withCStrings(environment) { environmentPointers in
                path.withCString { path in
                    map.withUnsafeBufferPointer { map -> Int32 in
                        guard let first = map.baseAddress else { preconditionFailure("a child without descriptors") }
                        var request = apus_spawn_request(
                            path: path, arguments: argumentPointers, environment: environmentPointers,
                            descriptors: first, descriptor_count: map.count, parent_death_signal: parentDeathSignal,
                            own_process_group: ownProcessGroup, ignore_strays: ignoringStrays)
                        return apus_spawn(&request, &pidfd)
                    }
                }
            }
        }
        try check(pid, "exec", path)
        return ChildProcess(pid: pid, pidfd: SharedDescriptor(Descriptor(owning: pidfd)))
    }

    /// No error when it has ended already.
    /// - Throws: the caller may not signal the process.
    package func send(signal: Int32) throws(SystemError) {
        let result = apus_pidfd_signal(pidfd.raw, signal)
        if result == -ESRCH { return }
        try check(result, "kill", "process \(pid)")
    }

    /// How it ended, nil while it runs. Ask once: then it is reaped.
    /// - Throws: waitid(2) failed.
    package func reap() throws(SystemError) -> Ending? {
        var status: Int32 = 0
        var signalled = false
        guard try check(apus_pidfd_reap(pidfd.raw, &status, &signalled), "waitid", "process \(pid)") == 1 else {
            return nil
        }
        return signalled ? .signal(status) : .code(status)
    }

    /// Blocks until it has ended, and reaps it.
    /// - Throws: waitid(2) failed.
    package func wait() throws(SystemError) -> Ending {
        while true {
            var polled = pollfd(fd: pidfd.raw, events: Int16(POLLIN), revents: 0)
            try call("poll", "process \(pid)") { poll(&polled, 1, -1) }
            if let ending = try reap() { return ending }
        }
    }

    /// The environment of this process, `NAME=VALUE` each, but for the variables named.
    package static func environment(without names: [String]) -> [String] {
        var all: [String] = []
        var next = environ
        while let entry = next.pointee {
            let text = String(cString: entry)
            if !names.contains(where: { text.hasPrefix("\($0)=") }) { all.append(text) }
            next += 1
        }
        return all
    }

    /// SIGKILL, SIGSEGV, …
    package static func signalName(_ signal: Int32) -> String {
        guard let name = apus_signal_name(signal) else { return "signal \(signal)" }
        return "SIG" + String(cString: name)
    }

    private static func withCStrings<Result>(
        _ strings: [String], _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) -> Result
    ) -> Result {
        var pointers = strings.map { strdup($0) }
        defer { for pointer in pointers { free(pointer) } }
        pointers.append(nil)
        return pointers.withUnsafeBufferPointer {
            guard let base = $0.baseAddress else { preconditionFailure("an array with an element has an address") }
            return body(base)
        }
    }
}
