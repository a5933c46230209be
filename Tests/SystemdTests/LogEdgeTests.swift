import Foundation
import Logging
import Testing

@testable import Systemd

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
