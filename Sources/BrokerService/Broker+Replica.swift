import FastJSON
import Logging
import MessageStore
import RemotingProtocol
import StoreFormat
package import WorkerProtocol

/// Replication: on a slave bytes and tables of the master come in through the replication worker. On a master slaves'
/// acknowledgements release the answers that wait for them.
extension Broker {
    /// The slots of the segment `replication` have changed.
    package func slavesMoved() {
        gate.replicated(to: environment.platform.slaves.ackOffset)
        scheduleTick()
    }

    /// Takes bytes of the master's log; answers where the log goes on, or why they do not fit.
    package func replicate(at offset: Int64, _ bytes: [UInt8]) -> WorkerMessage {
        guard configuration.isSlave, isOpen else {
            return .replicaRefused(
                at: isOpen ? store.writtenOffset.rawValue : 0,
                reason: isOpen ? "this broker is not a slave" : "this broker has not opened its store")
        }
        let outcome = bytes.withUnsafeBytes { store.appendReplicated(at: PhysicalOffset(offset), $0) }
        switch outcome {
        case .appended(let next):
            replica.received(bytes: bytes.count)
            endOfTick()
            return .replicaPosition(next: next.rawValue)
        case .refused(let expected, let reason):
            logger.error(
                """
                the master's log at \(offset) does not fit and is not appended: \(reason); this slave's log goes on at \
                \(expected)
                """
            )
            return .replicaRefused(at: expected.rawValue, reason: reason)
        }
    }

    /// The replication worker reports which slaves follow: the answer to `BrokerPlatform.askForSlaves`.
    package func slavesReported(request: UInt64, _ reports: [SlaveReport]) {
        replica.slavesReported(request: request, reports)
    }

    /// A new replication worker can be asked.
    package func replicationConnected() { claimsReplica?.connected() }

    /// As a slave: what came of a question of `BrokerPlatform.askForClaims`.
    package func claimsAnswered(request: UInt64, _ answer: ClaimsAnswer) { claimsReplica?.answered(request, answer) }

    /// As a slave: it follows a master, or has lost it.
    package func replicaState(connected: Bool, master: String) { replica.master = master }

    /// A table that is larger is read on another thread.
    private static let replicaBytesAtOnce = 32 << 10

    /// The store is open: tables of the master that arrived before count now.
    func takeEarlyTables() {
        isOpen = true
        let early = earlyTables
        earlyTables = []
        for (kind, bytes) in early { replicate(kind, bytes) }
    }

    /// Replaces one of the tables by the master's, in slices if it is large. Before the store is open the newest of
    /// each kind is kept, as the files read then would replace it. Only a slave takes any.
    package func replicate(_ kind: ReplicaMetadataKind, _ bytes: [UInt8]) {
        guard configuration.isSlave else { return }
        guard isOpen else {
            earlyTables.removeAll { $0.kind == kind }
            return earlyTables.append((kind, bytes))
        }
        // In the order they came.
        guard bytes.count > Self.replicaBytesAtOnce || replicaTablesInWork > 0 else {
            return take(kind, Result { try ReplicaTable(kind, bytes) })
        }
        replicaTablesInWork += 1
        environment.textWork.submit({ Result { try ReplicaTable(kind, bytes) } }) { [self] table in
            replicaTablesInWork -= 1
            take(kind, table)
        }
    }

    private func take(_ kind: ReplicaMetadataKind, _ table: Result<ReplicaTable, any Error>) {
        do {
            let refused: [RefusedEntry]
            let done = { [self] in scheduleTick() }
            switch try table.get() {
            case .topics(let read):
                refused = read.refused
                topics.replace(by: read, in: slices, then: done)
            case .subscriptionGroups(let read):
                refused = read.refused
                groups.replace(by: read, in: slices, then: done)
            case .consumerOffsets(let read):
                refused = read.refused
                offsets.replace(by: read, in: slices, then: done)
            case .messageRequestModes(let read):
                refused = read.refused
                tables.requestModes.replace(by: read)
            case .delayOffsets(let json):
                refused = try kinds.schedule.load(json)
                keeper.persist(.delayOffsets)
            }
            if !refused.isEmpty {
                logger.error(
                    """
                    \(refused.count) entries of the master's \(kind) cannot be used, this slave goes on without them: \
                    \(refused.summary)
                    """
                )
            }
        } catch {
            logger.error("the master's \(kind) cannot be read: \(error); the slave keeps its own")
        }
    }
}

/// A table of the master, read.
private enum ReplicaTable: Sendable {
    case topics(TopicConfigManager.Entries)
    case subscriptionGroups(SubscriptionGroupManager.Entries)
    case consumerOffsets(ConsumerOffsetManager.Entries)
    case messageRequestModes(MessageRequestModes.Entries)
    /// A few levels: read where they are taken over.
    case delayOffsets(JSONValue)

    /// Any thread.
    init(_ kind: ReplicaMetadataKind, _ bytes: [UInt8]) throws {
        let json = try JSONValue(parsing: bytes, limits: .tables)
        switch kind {
        case .topics: self = .topics(try TopicConfigManager.read(json))
        case .subscriptionGroup: self = .subscriptionGroups(try SubscriptionGroupManager.read(json))
        case .consumerOffset: self = .consumerOffsets(try ConsumerOffsetManager.read(json))
        case .messageRequestMode: self = .messageRequestModes(try MessageRequestModes.read(json))
        case .delayOffset: self = .delayOffsets(json)
        }
    }
}
