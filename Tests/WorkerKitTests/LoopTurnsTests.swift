import Foundation
import Logging
import NIOCore
import Testing

@testable import WorkerKit

/// Keeps what is logged.
private struct Lines: LogHandler {
    private final class Kept: @unchecked Sendable {
        let lock = NSLock()
        var lines: [(String, Logger.Metadata)] = []
    }

    private let kept = Kept()
    var logLevel = Logger.Level.debug
    var metadata = Logger.Metadata()
    var lines: [(String, Logger.Metadata)] { kept.lock.withLock { kept.lines } }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        kept.lock.withLock { kept.lines.append(("\(event.message)", event.metadata ?? [:])) }
    }
}

@Suite("how long the event loop's turns take")
struct LoopTurnsTests {
    @Test("the longest turn since the start and of the last minute, by the first read or the first task of a round")
    func longest() {
        let turns = LoopTurns(logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
        let start = NIODeadline.now()
        turns.turn(from: start, to: start + .seconds(3))
        #expect(turns.summary == "", "opening the worker does not count")
        turns.serve()
        turns.turn(from: start, to: start + .seconds(3))
        turns.turn(from: start, to: start + .milliseconds(7))
        turns.turn(from: start + .milliseconds(8), to: start + .milliseconds(10))
        #expect(turns.longest == .milliseconds(7))
        #expect(turns.summary == "loop max 7 ms (7 in the last minute)")
        turns.turn(from: start + .seconds(40), to: start + .seconds(40) + .milliseconds(3))
        #expect(turns.longestOfLastMinute == .milliseconds(7))
        turns.turn(from: start + .seconds(75), to: start + .seconds(75) + .milliseconds(1))
        #expect(turns.summary == "loop max 7 ms (3 in the last minute)")
        // After a long silence nothing of it is of the last minute.
        turns.turn(from: start + .seconds(4000), to: start + .seconds(4000) + .milliseconds(2))
        #expect(turns.longestOfLastMinute == .milliseconds(2))
        #expect(turns.longest == .milliseconds(7))
    }

    @Test("a turn that takes too long is said once in ten seconds, with what took long in it")
    func warning() {
        let log = Lines()
        let turns = LoopTurns(logger: Logger(label: "test") { _ in log })
        let start = NIODeadline.now()
        turns.serve()
        turns.turn(from: start, to: start + .seconds(3))
        turns.note(.milliseconds(30), "short")
        turns.note(.milliseconds(120), "requests of 127.0.0.1:5, the last of code 34,")
        turns.note(.milliseconds(60), "shorter")
        turns.turn(from: start, to: start + .milliseconds(150))
        #expect(log.lines.count == 1)
        #expect(log.lines[0].0.contains("150 ms"))
        #expect(log.lines[0].0.contains("requests of 127.0.0.1:5, the last of code 34, took 120 ms"))
        for second in 1...5 {
            let begin = start + .seconds(Int64(second))
            turns.turn(from: begin, to: begin + .milliseconds(200))
        }
        #expect(log.lines.count == 1)
        let later = start + .seconds(12)
        turns.turn(from: later, to: later + .milliseconds(101))
        #expect(log.lines.count == 2)
        #expect(log.lines[1].1["suppressed"] == "5")
        #expect(log.lines[1].0.contains("nothing in it took long alone"))
        turns.turn(from: later + .seconds(20), to: later + .seconds(20) + .milliseconds(99))
        #expect(log.lines.count == 2)
    }
}
