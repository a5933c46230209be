import BrokerService
import NIOCore
import RemotingTransport
import StoreFormat
import WorkerProtocol

/// What a test's broker has around it instead of a worker: nothing but its server. Touched on the event loop only.
final class TestPlatform: BrokerPlatform, @unchecked Sendable {
    weak var server: RemotingServer?
    var slaves: (count: UInt64, ackOffset: Int64) = (0, 0)
    /// Answers for the replication worker; without it there is none.
    var replication: ((_ request: UInt64) -> Void)?
    /// Answers for a slave's master; without it there is none.
    var master: ((_ request: UInt64, _ question: [UInt8]) -> Void)?

    func requestTick() { server?.scheduleTick() }
    func logWritten(to offset: PhysicalOffset) {}
    func logFlushed(to offset: PhysicalOffset) {}
    func logBegins(at offset: PhysicalOffset) {}
    func topicCreated(_ topic: AutoCreatedTopic) {}
    func askForSlaves(request: UInt64) -> Bool {
        replication?(request)
        return replication != nil
    }
    func askForClaims(request: UInt64, question: [UInt8]) -> Bool {
        master?(request, question)
        return master != nil
    }
    func workTookLong(_ name: String, _ duration: TimeAmount) {}
    var longestTurns: (ever: TimeAmount, lastMinute: TimeAmount) { (.zero, .zero) }
}
