import BrokerService
import NIOCore
import RemotingTransport
import StoreFormat
import WorkerKit
import WorkerProtocol

extension BrokerStoreWorker: BrokerPlatform {
    func requestTick() { server.scheduleTick() }
    func logWritten(to offset: PhysicalOffset) { watermarks.publish(written: offset) }
    func logFlushed(to offset: PhysicalOffset) { watermarks.publish(flushed: offset) }
    func logBegins(at offset: PhysicalOffset) { watermarks.publish(minimum: offset) }

    func topicCreated(_ topic: AutoCreatedTopic) {
        for link in brokers.values { link.send(.topicCreated(topic)) }
    }

    /// From the segment `replication`, which the replication worker writes.
    var slaves: (count: UInt64, ackOffset: Int64) { watermarks.slaves }

    func askForSlaves(request: UInt64) -> Bool {
        guard let replication else { return false }
        // One that reads nothing is not asked more: the client learns that it has not answered.
        if replication.isWritable { replication.send(.slavesWanted(request: request)) }
        return true
    }

    func askForClaims(request: UInt64, question: [UInt8]) -> Bool {
        guard let replication else { return false }
        replication.send(.claimsWanted(request: request, question: question))
        return true
    }

    func workTookLong(_ name: String, _ duration: TimeAmount) { environment.turns.note(duration, name) }

    var longestTurns: (ever: TimeAmount, lastMinute: TimeAmount) {
        (environment.turns.longest, environment.turns.longestOfLastMinute)
    }
}
