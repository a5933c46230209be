import FastJSON
import Logging
import MessageStore
import RemotingProtocol
import StoreFormat
package import WorkerProtocol

/// Replication: on a slave bytes and tables of the master come in through the replication worker; on a master slaves'
/// acknowledgements release those who wait for them.
extension Broker {
    /// The slots of the segment `replication` have changed.
    package func slavesMoved() {
        gate.replicated(to: slaves().ackOffset)
        scheduleTick()
    }

    /// Takes bytes of the master's log; answers where the log goes on, or why they do not fit.
    package func replicate(at offset: Int64, _ bytes: [UInt8]) -> WorkerMessage {
        let outcome = bytes.withUnsafeBytes { store.appendReplicated(at: PhysicalOffset(offset), $0) }
        switch outcome {
        case .appended(let next):
            replica.lastBytesMillis = now()
            replica.rate.add(bytes.count, second: replica.lastBytesMillis / 1000)
            endOfTick()
            return .replicaPosition(next: next.rawValue)
        case .refused(let expected, let reason):
            logger.error("bytes of the master at \(offset) do not fit: \(reason); the log goes on at \(expected)")
            return .replicaRefused(at: expected.rawValue, reason: reason)
        }
    }

    /// Replaces one of the tables by the master's.
    package func replicate(_ kind: ReplicaMetadataKind, _ bytes: [UInt8]) {
        do {
            let json = try JSONValue(parsing: bytes)
            let refused: [RefusedEntry]
            switch kind {
            case .topics: refused = try topics.replace(json)
            case .subscriptionGroup: refused = try groups.replace(json)
            case .consumerOffset: refused = try offsets.load(json)
            case .delayOffset:
                refused = try schedule.load(json)
                persist(.delayOffsets)
            }
            if !refused.isEmpty {
                logger.error(
                    "\(refused.count) entries of the master's \(kind) are none and are not taken: \(refused.summary)")
            }
            scheduleTick()
        } catch {
            logger.error("the master's \(kind) cannot be read: \(error); the slave keeps its own")
        }
    }
}
