import Foundation
import LinuxSystem
import Testing

@Suite struct ChildProcessTests {
    /// Runs a shell with a pipe as its descriptor 1 and returns what it wrote.
    private func shell(
        _ script: String, extra: [(Int32, Int32)] = [], environment: [String] = [], ignoringStrays: Bool = false
    ) throws -> (text: String, ending: ChildProcess.Ending?) {
        let (reader, writer) = try SocketPair.create(sequencedPackets: false).ends()
        let null = try RunDirectory.openNull()
        var child: ChildProcess? = try ChildProcess.spawn(
            path: "/bin/sh", arguments: ["sh", "-c", script], environment: environment,
            descriptors: [(null.raw, 0), (writer.raw, 1), (writer.raw, 2)] + extra.map { (source: $0.0, target: $0.1) },
            parentDeathSignal: 0, ownProcessGroup: true, ignoringStrays: ignoringStrays)
        var text = ""
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            var polled = pollfd(fd: child?.pidfd.raw ?? -1, events: Int16(POLLIN), revents: 0)
            poll(&polled, 1, 10_000)
            guard polled.revents != 0 else { break }
            let ending = try child?.reap()
            _ = fcntl(reader.raw, F_SETFL, O_NONBLOCK)
            while case let count = read(reader.raw, &buffer, buffer.count), count > 0 {
                text += String(decoding: buffer[..<count], as: UTF8.self)
            }
            child = nil
            return (text, ending)
        }
        Issue.record("the shell did not end")
        return (text, nil)
    }

    /// Exactly the named descriptors survive, at their numbers, also when numbers are exchanged.
    @Test func onlyNamedDescriptorsSurvive() throws {
        let (a, b) = try SocketPair.create(sequencedPackets: true).ends()
        let leaked = open("/dev/null", O_RDONLY)  // without close-on-exec
        defer { close(leaked) }
        // Only what needs no descriptor of the shell's own.
        let script = "n=0; while [ $n -lt 300 ]; do [ -e /proc/$$/fd/$n ] && echo $n; n=$((n + 1)); done; exit 3"
        let result = try shell(script, extra: [(a.raw, 7), (b.raw, 3)])
        let numbers = result.text.split(separator: "\n").compactMap { Int($0) }
        #expect(numbers == [0, 1, 2, 3, 7])
        #expect(result.ending == .code(3))
    }

    @Test func descriptorsMayExchangeNumbers() throws {
        let (a, b) = try SocketPair.create(sequencedPackets: false).ends()
        let low = min(a.raw, b.raw)
        let high = max(a.raw, b.raw)
        // In the child `low` is what was `high` and the other way round.
        let lowLink = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/fd/\(low)")
        let highLink = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/fd/\(high)")
        let result = try shell(
            "readlink /proc/$$/fd/\(low); readlink /proc/$$/fd/\(high)", extra: [(low, high), (high, low)],
            environment: ["PATH=/usr/bin:/bin"])
        #expect(result.text == "\(highLink)\n\(lowLink)\n")
    }

    @Test func environmentIsExactlyWhatIsGiven() throws {
        let result = try shell("/usr/bin/env", environment: ["ONE=1"])
        #expect(result.text.split(separator: "\n").contains("ONE=1"))
        #expect(!result.text.contains("HOME="))
    }

    @Test func signalsHaveTheirDefaults() throws {
        // The test process ignores SIGPIPE; the child must not.
        signal(SIGPIPE, SIG_IGN)
        let result = try shell("kill -PIPE $$; echo survived")
        #expect(result.ending == .signal(SIGPIPE))
        #expect(ChildProcess.signalName(SIGPIPE) == "SIGPIPE")
    }

    /// Those of a program of ours are ignored from its first instruction on, all but those meant to end it.
    @Test func straySignalsAreIgnored() throws {
        let strays =
            [
                SIGHUP, SIGPIPE, SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO, SIGPWR, SIGSTKFLT, SIGXFSZ,
                SIGTTIN,
            ]
            + [SIGTTOU] + Array(34...64)
        let kills = strays.map { "kill -\($0) $$" }.joined(separator: "; ")
        let result = try shell("\(kills); echo survived", ignoringStrays: true)
        #expect(result.text == "survived\n")
        #expect(result.ending == .code(0))
        for meant in [SIGTERM, SIGINT, SIGQUIT, SIGXCPU] {
            #expect(try shell("kill -\(meant) $$; echo survived", ignoringStrays: true).ending == .signal(meant))
        }
    }

    @Test func missingProgramIsAnError() {
        #expect {
            try ChildProcess.spawn(
                path: "/nonexistent/program", arguments: ["x"], environment: [], descriptors: [(2, 2)],
                parentDeathSignal: 0, ownProcessGroup: false)
        } throws: { error in
            (error as? SystemError)?.errno == ENOENT && "\(error)".contains("/nonexistent/program")
        }
    }

    @Test func statisticsOfThisProcess() throws {
        let mine = try #require(ProcessStatistics(pid: getpid()))
        #expect(mine.residentBytes > 1_000_000)
        #expect(ProcessStatistics(pid: -1) == nil)
    }
}
