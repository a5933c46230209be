import Foundation
import LinuxSystem
import TestTools
import Testing

@testable import FilterEngine

/// A clock that a test sets.
final class TestClock: @unchecked Sendable {
    var now: Int64 = 1_000_000_000_000
}

@Suite("foreign code is shut in, and its deeds are remembered")
struct IsolationTests {
    static func conduct(_ segment: SharedSegment, _ clock: TestClock) throws -> PluginConduct {
        try PluginConduct(segment: segment, logger: LogBook().logger) { clock.now }
    }

    /// As if a filter worker had died inside the plugin of `file`.
    static func die(
        _ segment: SharedSegment, _ file: PluginFile, _ phase: PluginPhase, cause: UInt64, after nanoseconds: UInt64 = 0
    ) {
        segment.atomicStore(slot: 1, file.hash | phase.rawValue)
        segment.atomicStore(slot: 4, CallGuard.now() - nanoseconds)
        segment.atomicStore(slot: 2, cause)
    }

    @Test("three crashes and a plugin pauses, each time for longer; kills from outside weigh less; peace heals")
    func points() async {
        // In a process of its own: a guard changes the process's signal handlers.
        await #expect(processExitsWith: .success) {
            let segment = try SharedSegment.create(name: "plugins", bytes: 4096)
            let clock = TestClock()
            let guilty = PluginFile(path: "/some/where/libGuilty.so")
            let other = PluginFile(path: "libOther.so")
            var conduct = try Self.conduct(segment, clock)
            #expect(conduct.history(guilty) == nil)
            for crash in 1...3 {
                #expect(conduct.refusal(guilty) == nil, "refused before crash \(crash)")
                Self.die(segment, guilty, .match, cause: UInt64(SIGSEGV))
                conduct = try Self.conduct(segment, clock)
                #expect(conduct.history(guilty)?.contains("crashed in match_batch or after (SIGSEGV)") == true)
            }
            #expect(conduct.refusal(guilty)?.hasPrefix("not used for 30 s: a filter worker crashed") == true)
            #expect(conduct.refusal(other) == nil)
            // A worker that dies in peace blames no plugin.
            conduct = try Self.conduct(segment, clock)
            #expect(conduct.refusal(guilty)?.hasPrefix("not used for 30 s") == true)
            clock.now += 30_000
            #expect(conduct.refusal(guilty) == nil)
            Self.die(segment, guilty, .compile, cause: Sandbox.timeout)
            conduct = try Self.conduct(segment, clock)
            #expect(
                conduct.refusal(guilty)?.hasPrefix("not used for 60 s: a call took longer than 1000 ms in compile")
                    == true)
            clock.now += 700_000
            Self.die(segment, guilty, .match, cause: 0)
            conduct = try Self.conduct(segment, clock)
            #expect(conduct.refusal(guilty) == nil)
            #expect(conduct.history(guilty)?.contains("1 of 12 points") == true)
            // One that kept the guard's signal away and was ended by the supervisor is as guilty as one that was
            // caught.
            let deaf = PluginFile(path: "libDeaf.so")
            Self.die(segment, deaf, .match, cause: 0, after: 3_000_000_000)
            conduct = try Self.conduct(segment, clock)
            #expect(conduct.history(deaf)?.contains("a filter worker was killed in match_batch, 1 of 12") == true)
            Self.die(segment, deaf, .match, cause: 0, after: 4_100_000_000)
            conduct = try Self.conduct(segment, clock)
            #expect(
                conduct.history(deaf)?.contains("a call took longer than 1000 ms in match_batch, 5 of 12 points")
                    == true)
            // Deadly to load: known before it is loaded again.
            #expect(!conduct.diesWhenLoaded(other))
            for _ in 0..<3 {
                Self.die(segment, other, .load, cause: UInt64(SIGABRT))
                conduct = try Self.conduct(segment, clock)
            }
            #expect(conduct.diesWhenLoaded(other))
            #expect(conduct.refusal(other) != nil)
            // More guilty ones than there is room for: the oldest is forgotten.
            for number in 0..<100 {
                clock.now += 10
                Self.die(segment, PluginFile(path: "lib\(number).so"), .match, cause: UInt64(SIGBUS))
                conduct = try Self.conduct(segment, clock)
            }
            #expect(conduct.history(PluginFile(path: "lib99.so")) != nil)
            #expect(conduct.history(guilty) == nil)
            // Scribbled memory is survived.
            for slot in 0..<segment.slots {
                segment.atomicStore(slot: slot, slot == 0 ? segment.atomicLoad(slot: 0) : .max)
            }
            conduct = try Self.conduct(segment, clock)
            #expect(conduct.refusal(guilty) == nil)
        }
    }

    private static func spin(milliseconds: UInt64) {
        let start = CallGuard.now()
        while CallGuard.now() - start < milliseconds * 1_000_000 {}
    }

    @Test("a call that spins is killed when its budget is over; one that crashes dies of its signal")
    func guards() async throws {
        await #expect(processExitsWith: .signal(SIGKILL)) {
            let guarded = try CallGuard(segment: SharedSegment.create(name: "g", bytes: 4096), slot: 1)
            guarded.call(mark: 4, milliseconds: 50) { while true {} }
        }
        // One that only waits has four times as long, and no longer.
        await #expect(processExitsWith: .signal(SIGKILL)) {
            let guarded = try CallGuard(segment: SharedSegment.create(name: "g", bytes: 4096), slot: 1)
            _ = guarded.call(mark: 4, milliseconds: 100) { usleep(200_000) }
            guarded.call(mark: 4, milliseconds: 100) { while true { pause() } }
        }
        await #expect(processExitsWith: .signal(SIGABRT)) {
            let guarded = try CallGuard(segment: SharedSegment.create(name: "g", bytes: 4096), slot: 1)
            guarded.call(mark: 4, milliseconds: 5000) { abort() }
        }
        // The timer serves calls that begin soon after it was started: each has its whole budget, and no more.
        await #expect(processExitsWith: .success) {
            let guarded = try CallGuard(segment: SharedSegment.create(name: "g", bytes: 4096), slot: 1)
            for _ in 0..<3 {
                guarded.call(mark: 4, milliseconds: 400) {}
                // Time passes: the timer of this call runs on into the next one,
                usleep(40_000)
                guarded.call(mark: 4, milliseconds: 400) { Self.spin(milliseconds: 380) }
                // and must be over before the next round.
                usleep(450_000)
            }
        }
        await #expect(processExitsWith: .signal(SIGKILL)) {
            let guarded = try CallGuard(segment: SharedSegment.create(name: "g", bytes: 4096), slot: 1)
            guarded.call(mark: 4, milliseconds: 400) {}
            // Time passes: the timer of this call runs on into the next one.
            usleep(40_000)
            // Its budget is processor time, of which a busy machine gives it little.
            guarded.call(mark: 4, milliseconds: 400) { Self.spin(milliseconds: 4000) }
        }
        await #expect(processExitsWith: .success) {
            let segment = try SharedSegment.create(name: "g", bytes: 4096)
            let guarded = try CallGuard(segment: segment, slot: 1)
            for _ in 0..<100 { #expect(guarded.call(mark: 4, milliseconds: 100) { 7 } == 7) }
            // Time passes, in which a timer that was left could kill the process.
            usleep(200_000)
            #expect(segment.atomicLoad(slot: 1) == 0)
        }
    }

    @Test(
        "with Landlock only the named folders are read, by threads that start later, too",
        .enabled(if: Sandbox.landlockVersion != nil, "this kernel has no Landlock"))
    func reading() async throws {
        // Made and removed out here: in there nothing can be.
        let workshop = try PluginWorkshop()
        let other = try PluginWorkshop()
        let plugin = try workshop.plugin("inside", type: "INSIDE")
        let folder = workshop.folder.path
        let secret = other.folder.path + "/secret"
        try Data("s".utf8).write(to: URL(fileURLWithPath: secret))
        await #expect(processExitsWith: .success) {
            [plugin = plugin as String, folder = folder as String, secret = secret as String] in
            let before = open(secret, O_RDONLY)
            let libraries = Sandbox.foldersOfLibraries()
            #expect(libraries.contains { $0.hasPrefix("/lib") || $0.hasPrefix("/usr/lib") })
            #expect(try Sandbox.restrictReading(to: libraries.sorted() + [folder, "/no/such/folder"]) != nil)
            @Sendable func refused(_ path: String, _ flags: Int32) -> Bool {
                open(path, flags) == -1 && errno == EACCES
            }
            #expect(refused(secret, O_RDONLY))
            #expect(refused("/etc/passwd", O_RDONLY))
            #expect(refused("/etc", O_RDONLY | O_DIRECTORY))
            #expect(refused(plugin, O_RDWR))
            #expect(refused(folder + "/new", O_WRONLY | O_CREAT))
            #expect(unlink(plugin) == -1)
            var byte: UInt8 = 0
            #expect(pread(before, &byte, 1, 0) == 1, "what is open stays usable")
            let done = DispatchSemaphore(value: 0)
            let thread = Thread {
                #expect(refused(secret, O_RDONLY))
                done.signal()
            }
            thread.start()
            done.wait()
            let catalogue = FilterCatalogue(logger: LogBook().logger)
            try catalogue.load(path: plugin)
            #expect(try Sandbox.memoryInUse() > 0)
        }
    }

    @Test("in the sandbox nothing is written, connected, started or killed, and reading and dlopen go on")
    func sandbox() async throws {
        let workshop = try PluginWorkshop()
        let plugin = try workshop.plugin("inside", type: "INSIDE")
        let folder = workshop.folder.path
        await #expect(processExitsWith: .success) { [plugin = plugin as String, folder = folder as String] in
            // The parent of this process: not one of ours to signal.
            let other = getppid()
            try Sandbox.enter(memory: 1 << 30)
            func refused(_ result: Int, _ errors: [Int32] = [EPERM, EACCES]) -> Bool {
                result == -1 && errors.contains(errno)
            }
            #expect(refused(Int(open(folder + "/new", O_WRONLY | O_CREAT, 0o600))))
            #expect(refused(Int(open(plugin, O_RDWR))))
            #expect(refused(Int(open(plugin, O_WRONLY | O_TRUNC))))
            #expect(refused(Int(creat(folder + "/new", 0o600))))
            #expect(refused(Int(unlink(plugin))))
            #expect(refused(Int(rename(plugin, folder + "/x"))))
            #expect(refused(Int(mkdir(folder + "/d", 0o700))))
            #expect(refused(Int(chmod(plugin, 0o777))))
            #expect(refused(Int(truncate(plugin, 0))))
            #expect(refused(Int(symlink(plugin, folder + "/l"))))
            for family in [AF_INET, AF_INET6, AF_UNIX, AF_NETLINK] {
                #expect(refused(Int(socket(family, Int32(SOCK_STREAM.rawValue), 0))))
            }
            #expect(refused(Int(kill(other, 0))))
            #expect(refused(Int(kill(1, 0))))
            var child = pid_t()
            let arguments: [UnsafeMutablePointer<CChar>?] = [strdup("/bin/true"), nil]
            #expect(posix_spawn(&child, "/bin/true", nil, nil, arguments, nil) != 0)
            #expect(refused(Int(execv("/bin/true", arguments))))
            var limit = rlimit(rlim_cur: 1 << 40, rlim_max: 1 << 40)
            #expect(refused(Int(setrlimit(__rlimit_resource_t(UInt32(RLIMIT_DATA.rawValue)), &limit))))
            #expect(
                getrlimit(__rlimit_resource_t(UInt32(RLIMIT_DATA.rawValue)), &limit) == 0 && limit.rlim_max == 1 << 30)
            #expect(malloc(2 << 30) == nil)
            // What a filter worker does all day.
            let catalogue = FilterCatalogue(logger: LogBook().logger)
            try catalogue.load(path: plugin)
            try catalogue.load(path: PluginWorkshop.tagPlugin)
            #expect(FilterPrograms(catalogue: catalogue).compile(type: "TAG", expression: "Aa") == .tagsCodes([2112]))
            let thread = Thread { usleep(1) }
            thread.start()
            let descriptor = open(plugin, O_RDONLY)
            #expect(descriptor >= 0)
            close(descriptor)
        }
    }
}
