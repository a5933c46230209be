import Glibc

/// What a test waited for did not come in time.
package struct NotInTime: Error, CustomStringConvertible {
    package let description: String

    fileprivate init(_ what: String, _ limit: Duration, _ file: String, _ line: Int) {
        description = "not within \(limit)\(what.isEmpty ? "" : ": \(what)") (\(file):\(line))"
    }
}

/// How often a condition is looked at.
private let millisecondsBetweenLooks = 3

/// Waits until a condition holds. A test waits so for the state it means; it sleeps only where time itself must pass,
/// and says so there.
///
/// - Parameter what: the awaited state in words, for the error.
/// - Throws: `NotInTime` when the limit is over, and what the condition throws.
package func eventually(
    _ what: String = "", within limit: Duration = .seconds(10), file: String = #fileID, line: Int = #line,
    _ holds: () async throws -> Bool
) async throws {
    let deadline = ContinuousClock.now + limit
    while try await !holds() {
        guard ContinuousClock.now < deadline else { throw NotInTime(what, limit, file, line) }
        try await Task.sleep(for: .milliseconds(millisecondsBetweenLooks))
    }
}

/// The same for tests that are not async: it keeps its thread meanwhile.
@_disfavoredOverload
package func eventually(
    _ what: String = "", within limit: Duration = .seconds(10), file: String = #fileID, line: Int = #line,
    _ holds: () throws -> Bool
) throws {
    let deadline = ContinuousClock.now + limit
    while try !holds() {
        guard ContinuousClock.now < deadline else { throw NotInTime(what, limit, file, line) }
        usleep(UInt32(millisecondsBetweenLooks) * 1000)
    }
}
