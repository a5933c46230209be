import CLinux
import Glibc

/// For a process that runs code of others: what it may still do, and what it leaves behind when it dies of it.
package enum Sandbox {
    /// From now on this process opens nothing for writing and makes no socket and no process. It has at most `memory`
    /// bytes of memory of its own (0: no limit). There is no way back. What the runtime and the loader need stays
    /// allowed.
    /// - Throws: the kernel refuses (`seccomp`).
    package static func enter(memory: UInt64) throws(SystemError) {
        try check(apus_sandbox_enter(memory), "seccomp", "sandbox of this process")
    }

    /// From now on the calling thread, and the threads it starts, open only what lies below `paths` (files or folders),
    /// and only for reading: Landlock. To be called before there are other threads. Nil: this kernel has no Landlock,
    /// and nothing changed; otherwise its version.
    /// - Throws: a path cannot be opened, the kernel refuses, or /proc does not show how much memory is in use.
    package static func restrictReading(to paths: [String]) throws(SystemError) -> Int? {
        _ = try memoryInUse()
        var copies = paths.map { UnsafePointer(strdup($0)) }
        defer { for copy in copies { free(UnsafeMutablePointer(mutating: copy)) } }
        // strdup fails only when there is no memory at all.
        let result = copies.withUnsafeMutableBufferPointer { buffer in
            buffer.withMemoryRebound(to: UnsafePointer<CChar>.self) { paths in
                paths.baseAddress.map { apus_landlock_restrict($0, paths.count) } ?? -EINVAL
            }
        }
        try check(min(result, 0), "landlock_restrict_self", "sandbox of this process")
        return result == 0 ? nil : Int(result)
    }

    /// The version of Landlock this kernel has; nil: none.
    package static var landlockVersion: Int? {
        let version = apus_landlock_version()
        return version == 0 ? nil : Int(version)
    }

    /// The folders of the libraries this process has loaded: what is loaded later may need others from there.
    package static func foldersOfLibraries() -> Set<String> {
        guard let maps = fopen("/proc/self/maps", "re") else { return [] }
        defer { fclose(maps) }
        var folders: Set<String> = []
        var line = [CChar](repeating: 0, count: 8192)
        while fgets(&line, Int32(line.count), maps) != nil {
            let text = String(
                decoding: line.prefix { $0 != 0 && $0 != 10 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
            guard let start = text.firstIndex(of: "/"), text.contains(".so"),
                let end = text.lastIndex(of: "/"), end > start
            else { continue }
            folders.insert(String(text[start..<end]))
        }
        return folders
    }

    /// What `CallGuard` finds in its second slot after its process died: a signal's number, or one of these.
    package static let timeout = UInt64(APUS_GUARD_TIMEOUT)
    /// The plugin called exit.
    package static let exit = UInt64(APUS_GUARD_EXIT)
    /// The plugin used up the memory.
    package static let memory = UInt64(APUS_GUARD_MEMORY)

    private static let statisticsPath = "/proc/self/statm"
    /// Opened once, while files can be.
    private static let statistics = Result<SharedDescriptor, SystemError> { () throws(SystemError) in
        let path = statisticsPath
        return SharedDescriptor(Descriptor(owning: try call("open", path) { open(path, O_RDONLY | O_CLOEXEC) }))
    }

    /// Bytes of memory of this process's own, as the limit of `enter` counts them.
    /// - Throws: /proc cannot be read.
    package static func memoryInUse() throws(SystemError) -> UInt64 {
        let path = statisticsPath
        let file = try statistics.get()
        return try withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 128) { buffer throws(SystemError) in
            let count = try call("pread", path) { pread(file.raw, buffer.baseAddress, 127, 0) }
            // Pages: size resident shared text library data.
            let fields = buffer[0..<count].split(separator: 0x20)
            guard fields.count > 5 else { return 0 }
            return fields[5].reduce(UInt64(0)) { $0 * 10 + UInt64($1 &- 0x30) } * UInt64(getpagesize())
        }
    }

    /// SIGSEGV, …
    package static func signalName(_ number: UInt64) -> String {
        guard number < 128, let name = apus_signal_name(Int32(number)) else { return "signal \(number)" }
        return "SIG" + String(cString: name)
    }
}

/// Memory that was needed to start only.
package enum StartupMemory {
    /// For use after a start that ran much code once (loaders, self-tests). The pages of that code leave the resident
    /// memory, and those that are needed come back from the page cache.
    package static func release() { apus_drop_code_pages() }
}

/// Marks in a shared segment what this process is in the middle of, so that the next one knows what the last one died
/// of.
package final class CallGuard {
    /// How often, at most, the memory in use is looked at after short calls.
    private static let memoryLookNanoseconds: UInt64 = 200_000_000
    /// After a call this long it is looked at always: to fill memory takes time, and there may be no next call.
    private static let longCallNanoseconds: UInt64 = 1_000_000

    private let segment: SharedSegment
    private let slot: Int
    private let memory: UInt64
    private var nextMemoryLook: UInt64 = 0

    /// - Parameters:
    ///   - segment: one this process writes; slots `slot` (mark) and `slot + 1` (cause of death) are the guard's.
    ///   - memory: bytes of its own from which on the process is given up, as `Sandbox.memoryInUse` counts; 0: no
    ///     matter.
    ///
    /// Must be called on the thread that makes the guarded calls, once in a process.
    /// - Throws: the kernel refuses the signal handlers, or /proc does not show how much memory is in use.
    package init(segment: SharedSegment, slot: Int, memory: UInt64 = 0) throws(SystemError) {
        self.segment = segment
        self.slot = slot
        self.memory = memory
        _ = try Sandbox.memoryInUse()
        // The handlers write there until the very end of the process.
        _ = Unmanaged.passRetained(segment)
        segment.atomicStore(slot: slot, 0)
        segment.atomicStore(slot: slot + 1, 0)
        try check(apus_guard_install(segment.address(slot: slot)), "sigaction", "guard of foreign calls")
    }

    /// Runs `body`, which may crash or spin: longer than `milliseconds`, and the process is killed.
    /// - Parameter start: `now()`.
    package func call<R>(mark: UInt64, milliseconds: UInt32, start: UInt64 = CallGuard.now(), _ body: () -> R) -> R {
        precondition(mark != 0, "a mark of 0 means that nothing is going on")
        segment.atomicStore(slot: slot, mark)
        apus_guard_begin(start, milliseconds)
        let result = body()
        apus_guard_end()
        if memory > 0 { lookAtMemory(since: start) }
        segment.atomicStore(slot: slot, 0)
        return result
    }

    /// Nanoseconds of the monotonic clock.
    package static func now() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    /// A process that is nearly out of memory would fail anywhere; better here, where it is known which plugin used it.
    private func lookAtMemory(since start: UInt64) {
        let now = Self.now()
        guard now >= nextMemoryLook || now - start >= Self.longCallNanoseconds else { return }
        nextMemoryLook = now + Self.memoryLookNanoseconds
        do {
            if try Sandbox.memoryInUse() > memory { apus_guard_die(UInt64(APUS_GUARD_MEMORY)) }
        } catch {
            // Not even that can be read: as good as out of memory.
            apus_guard_die(UInt64(APUS_GUARD_MEMORY))
        }
    }
}
