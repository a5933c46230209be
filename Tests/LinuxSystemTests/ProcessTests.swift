import Foundation
import LinuxSystem
import Testing

@Suite struct ProcessTests {
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

    /// Those of a program of ours are ignored from its first instruction on, all that nobody means to end it by.
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

@Suite struct SharedThingsTests {
    @Test func segmentIsSharedSealedAndReadOnlyForReaders() throws {
        let descriptor = try SharedSegment.createDescriptor(name: "test", bytes: 4096)
        let readOnly = try SharedSegment.readOnly(descriptor.raw)
        let writer = try SharedSegment(adopting: descriptor.release())
        let reader = try SharedSegment(adopting: readOnly.release())
        #expect(writer.writable && !reader.writable && writer.slots == 512)
        writer.atomicStore(slot: 511, .max)
        #expect(reader.atomicLoad(slot: 511) == .max)
        #expect(reader.atomicLoad(slot: 0) == 0)
        // Nobody can take the memory away under a reader, or map the reader's descriptor for writing.
        #expect(ftruncate(writer.fd, 0) == -1)
        #expect(mmap(nil, 4096, PROT_WRITE, MAP_SHARED, reader.fd, 0) == MAP_FAILED)
    }

    @Test func eventCounts() throws {
        let event = try EventFD.create()
        #expect(EventFD.take(event.raw) == 0)
        EventFD.signal(event.raw)
        EventFD.signal(event.raw)
        #expect(EventFD.take(event.raw) == 2)
        #expect(EventFD.take(event.raw) == 0)
    }

    @Test func descriptorsTravel() throws {
        let (a, b) = try SocketPair.create(sequencedPackets: true).ends()
        let event = try EventFD.create()
        try Array("hello".utf8).withUnsafeBytes {
            try DescriptorPassing.send($0, descriptors: [event.raw, event.raw], to: a.raw, wait: true)
        }
        var room = [UInt8](repeating: 0, count: 100)
        let received = try room.withUnsafeMutableBytes {
            try DescriptorPassing.receive(into: $0, from: b.raw, wait: true)
        }
        let message = try #require(received)
        #expect(String(decoding: room[..<message.count], as: UTF8.self) == "hello")
        #expect(message.descriptors.count == 2)
        EventFD.signal(message.descriptors[0])
        #expect(EventFD.take(event.raw) == 1)
        for fd in message.descriptors {
            #expect(fcntl(fd, F_GETFD) & FD_CLOEXEC != 0)
            close(fd)
        }
    }

    @Test func messagesThatDoNotFitAreRefused() throws {
        let (a, b) = try SocketPair.create(sequencedPackets: true).ends()
        try [UInt8](repeating: 1, count: 100).withUnsafeBytes { try DescriptorPassing.send($0, to: a.raw, wait: true) }
        var room = [UInt8](repeating: 0, count: 10)
        #expect {
            try room.withUnsafeMutableBytes { _ = try DescriptorPassing.receive(into: $0, from: b.raw, wait: true) }
        } throws: { ($0 as? SystemError)?.errno == EMSGSIZE }
    }

    @Test func endOfTheOtherSideIsNil() throws {
        let pair = try SocketPair.create(sequencedPackets: true)
        let (first, second) = pair.ends()
        shutdown(second.raw, Int32(SHUT_RDWR))
        var room = [UInt8](repeating: 0, count: 10)
        let received = try room.withUnsafeMutableBytes {
            try DescriptorPassing.receive(into: $0, from: first.raw, wait: true)
        }
        #expect(received == nil)
    }
}

@Suite struct ListenAndLockTests {
    private func temporaryFolder() -> String {
        let path = NSTemporaryDirectory() + "apus-\(UUID().uuidString)"
        return path
    }

    private func hasConnection(_ listener: Int32) throws -> Bool {
        if let connection = try ListenSocket.accept(listener) { connection.raw >= 0 } else { false }
    }

    @Test func portInUse() throws {
        let first = try ListenSocket.tcp(address: "127.0.0.1", port: 0)
        let port = try ListenSocket.port(of: first.raw)
        #expect(port > 0)
        #expect {
            _ = try ListenSocket.tcp(address: "127.0.0.1", port: port)
        } throws: { ($0 as? SystemError)?.errno == EADDRINUSE && "\($0)".contains("127.0.0.1:\(port)") }
    }

    @Test func ipv6Too() throws {
        let socket = try ListenSocket.tcp(address: "::1", port: 0)
        #expect(try ListenSocket.port(of: socket.raw) > 0)
    }

    /// Longer than the 107 bytes of a socket address.
    @Test func unixSocketInADeepFolder() throws {
        let base = temporaryFolder()
        let folder = base + "/" + String(repeating: "deep/", count: 40)
        try RunDirectory.makeDirectories(folder)
        defer { try? FileManager.default.removeItem(atPath: base) }
        let directory = try RunDirectory.open(folder)
        let listener = try ListenSocket.unix(name: "s", inDirectory: directory.raw)
        let client = try ListenSocket.connectUnix(name: "s", inDirectory: directory.raw)
        #expect(client.raw >= 0)
        if try hasConnection(listener.raw) == false { Issue.record("the connection is not there") }
        let mode = try FileManager.default.attributesOfItem(atPath: folder + "s")[.posixPermissions] as? Int
        #expect(mode == 0o600)
    }

    @Test func secondLockNamesTheFirst() throws {
        let folder = temporaryFolder()
        defer { try? FileManager.default.removeItem(atPath: folder) }
        #expect(RunDirectory.runningPid(path: folder) == nil)
        var first: RunDirectory? = try RunDirectory(path: folder)
        #expect(RunDirectory.runningPid(path: folder) == getpid())
        #expect(throws: RunDirectory.Failure.running(pid: getpid(), path: "\(folder)/apus.pid")) {
            try RunDirectory(path: folder)
        }
        _ = first?.directory
        first = nil
        #expect(RunDirectory.runningPid(path: folder) == nil)
        // A file left by a kill -9 is no obstacle.
        _ = try RunDirectory(path: folder)
    }
}
