import Foundation
import Logging
import Testing

@testable import Systemd

@Suite struct LogHandlerTests {
    @Test(arguments: [
        ("topic", "APUS_TOPIC"), ("consumerGroup", "APUS_CONSUMER_GROUP"), ("queueId", "APUS_QUEUE_ID"),
        ("remote-address", "APUS_REMOTE_ADDRESS"), ("größe", "APUS_GR__E"), ("brokerIP1", "APUS_BROKER_IP1"),
        (String(repeating: "x", count: 100), "APUS_" + String(repeating: "X", count: 59)),
    ]) func metadataKeysBecomeFieldNames(_ pair: (key: String, field: String)) {
        #expect(JournalLogHandler.fieldName(pair.key) == pair.field)
    }

    @Test func linesForPeople() {
        #expect(
            JournalLogHandler.text("loaded", ["type": "TAG", "path": "/x", "about": "filter-0"])
                == "loaded path=/x type=TAG")
        let handler = StderrLogHandler(worker: "filter-0", level: .info, colour: false)
        let line = handler.line(
            level: .info, message: "loaded", metadata: ["type": "TAG", "path": "/x", "about": "filter-0"],
            seconds: 0, milliseconds: 7)
        #expect(line.hasSuffix(".007 filter-0       loaded path=/x type=TAG\n"))
        #expect(
            handler.line(level: .error, message: "broken", metadata: [:], seconds: 0, milliseconds: 0)
                .hasSuffix(".000 filter-0       error: broken\n"))
    }
}

/// What every line passes.
@Suite struct LogEdgeTests {
    private func event(_ text: String, _ metadata: Logger.Metadata = [:], line: UInt = 1, _ level: Logger.Level = .info)
        -> LogEvent
    {
        LogEvent(
            level: level, message: "\(text)", metadata: metadata, source: "test", file: "Test/File.swift",
            function: "f()", line: line)
    }

    /// A client id with a line break and colours: one line, as dull as the others, in both handlers.
    @Test func noLineIsForged() throws {
        let forged = "x\n12:00:00.000 supervisor     \u{1B}[31;1merror: \u{1B}[0mthe disk is gone\u{202E}"
        let line = try #require(LogEdge().pass(event("consumer \(forged)", ["topic": "\(forged)"]), [:]))
        let shown = "x\\n12:00:00.000 supervisor     \\u001b[31;1merror: \\u001b[0mthe disk is gone\\u202e"
        #expect(line.message == "consumer \(shown)")
        #expect(line.metadata["topic"] == "\(shown)")
        let handler = StderrLogHandler(worker: "w", level: .info, colour: false)
        let text = handler.line(
            level: .info, message: line.message, metadata: line.metadata, seconds: 0, milliseconds: 0)
        #expect(text.filter(\.isNewline).count == 1)
        #expect(!JournalLogHandler.text("\(line.message)", line.metadata).contains { $0.isNewline || $0 == "\u{1B}" })
    }

    @Test func lengthsAreBounded() throws {
        let long = String(repeating: "x", count: 1 << 20)
        let line = try #require(LogEdge().pass(event(long, ["group": "\(long)"]), [:]))
        #expect(line.message.utf8.count < LogEdge.messageBytesMax + 40)
        #expect("\(line.metadata["group"] ?? "")".utf8.count < LogEdge.valueBytesMax + 40)
        #expect(line.message.hasSuffix("bytes more)"))
    }

    /// 5 700 lines a second of one kind became as many lines: a few pass, the rest is a number.
    @Test func floodsAreCounted() throws {
        let edge = LogEdge()
        var passed = 0
        for number in 0..<57_000 {
            passed += edge.pass(event("refused \(number)"), [:], now: Int64(number / 6)) == nil ? 0 : 1
        }
        #expect(passed == LogEdge.linesMax)
        // Another place is not held back, nor what the supervisor says of another worker.
        #expect(edge.pass(event("of another", ["about": "filter-0"]), [:], now: 9_000) != nil)
        #expect(edge.pass(event("other", line: 2), [:], now: 9_000) != nil)
        let next = try #require(edge.pass(event("refused again"), [:], now: 10_500))
        #expect(next.metadata["heldBack"] == "\(57_000 - LogEdge.linesMax)")
        #expect(edge.pass(event("refused again"), [:], now: 10_501)?.metadata["heldBack"] == nil)
    }

    /// When the flood ends the number is said all the same.
    @Test func whatWasHeldBackIsReported() {
        let edge = LogEdge()
        let lines = LogEdge.linesMax + 10
        for number in 0..<lines { _ = edge.pass(event("refused \(number)", [:], line: 1, .warning), [:], now: 0) }
        #expect(edge.takeSuppressed(now: 5_000).isEmpty)
        let reports = edge.takeSuppressed(now: 10_000)
        #expect(reports.map(\.count) == [10])
        #expect(reports.first?.line.message == "refused \(lines - 1)")
        #expect(reports.first?.level == .warning)
        #expect(edge.takeSuppressed(now: 30_000).isEmpty)
    }
}

/// A datagram socket plays systemd.
@Suite(.serialized) struct NotifierTests {
    /// Whoever talks to systemd where there is none must not notice.
    @Test func withoutSystemdNothingHappens() {
        #expect(!Notifier.send([.ready, .status("x")]))
        #expect(Notifier.watchdogMicroseconds == nil)
        #expect(SocketActivation.take().isEmpty)
    }

    @Test func oneDatagramWithAllAssignments() throws {
        let path = "/tmp/apus-notify-\(getpid())"
        let fd = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0)
        defer {
            close(fd)
            unlink(path)
            unsetenv("NOTIFY_SOCKET")
        }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        let bound = withUnsafePointer(to: address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(fd, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        #expect(bound == 0)
        setenv("NOTIFY_SOCKET", path, 1)
        #expect(Notifier.send([.ready, .status("two\nlines"), .watchdog, .reloading(monotonicMicroseconds: 5)]))
        var buffer = [UInt8](repeating: 0, count: 1000)
        let count = read(fd, &buffer, buffer.count)
        #expect(
            String(decoding: buffer[..<max(count, 0)], as: UTF8.self)
                == "READY=1\nSTATUS=two lines\nWATCHDOG=1\nRELOADING=1\nMONOTONIC_USEC=5")
    }
}
