import MessageStore
package import NIOCore
package import StoreFormat
package import WorkerProtocol

/// What the process around a broker does for it: event loop, shared segments, links to other processes. `Broker.open`
/// takes it.
///
/// Called on the broker's event loop only; nothing here may block.
package protocol BrokerPlatform: AnyObject {
    /// Makes the transport end a tick after what runs now.
    func requestTick()
    /// The written log ends here now: other processes may read below.
    func logWritten(to offset: PhysicalOffset)
    /// The log survives a power cut up to here now.
    func logFlushed(to offset: PhysicalOffset)
    /// The log begins here now: the files before were deleted.
    func logBegins(at offset: PhysicalOffset)
    /// A client's message has made this topic: the platform's other brokers are to have it, too.
    func topicCreated(_ topic: AutoCreatedTopic)
    /// Slaves that have reported, and the physical offset the best of them has acknowledged.
    var slaves: (count: UInt64, ackOffset: Int64) { get }
    /// Asks the replication worker which slaves follow (`Broker.slavesReported` brings the answer).
    /// - Returns: `false` when there is no such worker.
    func askForSlaves(request: UInt64) -> Bool
    /// As a slave: puts a question about claims to the master (`Broker.claimsAnswered` brings the answer).
    /// - Returns: `false` when there is no replication worker.
    func askForClaims(request: UInt64, question: [UInt8]) -> Bool
    /// Work of the broker's own, by name, took longer than a millisecond of the event loop.
    func workTookLong(_ name: String, _ duration: TimeAmount)
    /// The longest turn of the event loop since the start, and of the last minute.
    var longestTurns: (ever: TimeAmount, lastMinute: TimeAmount) { get }
}

/// Stands for the platform until `open`: nothing may run before that.
final class NoPlatform: BrokerPlatform, Sendable {
    static let shared = NoPlatform()

    private func tooEarly() -> Never { preconditionFailure("the broker is used before it was opened") }

    /// What comes before `open` is written by its first tick.
    func requestTick() {}
    func logWritten(to offset: PhysicalOffset) { tooEarly() }
    func logFlushed(to offset: PhysicalOffset) { tooEarly() }
    func logBegins(at offset: PhysicalOffset) { tooEarly() }
    func topicCreated(_ topic: AutoCreatedTopic) { tooEarly() }
    var slaves: (count: UInt64, ackOffset: Int64) { tooEarly() }
    func askForSlaves(request: UInt64) -> Bool { tooEarly() }
    func askForClaims(request: UInt64, question: [UInt8]) -> Bool { tooEarly() }
    func workTookLong(_ name: String, _ duration: TimeAmount) {}
    var longestTurns: (ever: TimeAmount, lastMinute: TimeAmount) { tooEarly() }
}
