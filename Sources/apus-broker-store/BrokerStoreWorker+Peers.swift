import BrokerService
import LinuxSystem
import Logging
import MessageStore
import StoreFormat
import WorkerKit
import WorkerProtocol

/// Links to filter workers, to the replication worker and to the platform's other brokers.
extension BrokerStoreWorker {
    func peer(kind: WorkerKind, index: Int, descriptor: Int32) {
        let peer = WorkerID(kind, index)
        switch kind {
        case .filter: connectFilter(peer, descriptor)
        case .replication: connectReplication(peer, descriptor)
        case .brokerStore: connectBroker(peer, descriptor)
        default:
            _ = Descriptor(owning: descriptor)
            environment.logger.error("introduced to \(peer), which a broker does not talk to: the link is closed")
        }
    }

    /// Every message of a peer that a broker takes, by the kind of the peer: a plugin may have taken a filter worker
    /// over.
    private func received(_ message: WorkerMessage, from peer: WorkerID) {
        switch (peer.kind, message) {
        case (.filter, .filterServes), (.filter, .filterCompiled), (.filter, .filterMatched), (.filter, .filterFailed):
            broker.filters.receive(message, from: peer.index)
        case (.brokerStore, .topicCreated(let topic)):
            if isOpen { broker.create(topic) } else { earlyTopics.append(topic) }
        case (.replication, .replicaBytes(let at, let bytes)): replication?.send(broker.replicate(at: at, bytes))
        case (.replication, .replicaMetadata(let kind, let json)): broker.replicate(kind, json)
        case (.replication, .slaves(let request, let reports)):
            broker.slavesReported(request: request, reports)
        case (.replication, .claims(let request, let answer)): broker.claimsAnswered(request: request, answer)
        case (.replication, .replicaState(let connected, let master)):
            broker.replicaState(connected: connected, master: master)
            environment.logger.notice("\(connected ? "following" : "lost") the master \(master)")
        default: environment.logger.error("\(peer) sent a message that is not for a broker: it is dropped")
        }
    }

    private func connectFilter(_ peer: WorkerID, _ descriptor: Int32) {
        let index = peer.index
        filters[index]?.close()
        let link = PeerLink.attach(descriptor, on: environment.eventLoop) { [unowned self] message in
            received(message, from: peer)
        } closed: { [unowned self] in
            filters[index] = nil
            environment.logger.warning("the link to \(peer) closed; subscriptions that need it wait")
            broker.filters.disconnect(index)
        }
        filters[index] = link
        broker.filters.connect(index) { link.send($0) }
    }

    private func connectBroker(_ peer: WorkerID, _ descriptor: Int32) {
        brokers[peer.index]?.close()
        let link = PeerLink.attach(descriptor, on: environment.eventLoop) { [unowned self] message in
            received(message, from: peer)
        } closed: { [unowned self] in
            brokers[peer.index] = nil
        }
        brokers[peer.index] = link
        if isOpen { shareTopics(with: link) }
    }

    /// A broker that was away, or is new, gets the topics that were created meanwhile.
    func shareTopics(with link: PeerLink) {
        for topic in broker.topicsToShare { link.send(.topicCreated(topic)) }
    }

    private func connectReplication(_ peer: WorkerID, _ descriptor: Int32) {
        replication?.close()
        replication = PeerLink.attach(descriptor, on: environment.eventLoop) { [unowned self] message in
            received(message, from: peer)
        } closed: { [unowned self] in
            replication = nil
        }
        startReplication()
    }

    /// Replication learns the role, and on a slave where the log goes on; not before the store is open.
    func startReplication() {
        guard isOpen, let replication else { return }
        let master = environment.settings.string("haMasterAddress", default: "")
        replication.send(.brokerRole(broker.configuration.brokerRole, masterAddress: master))
        if broker.configuration.isSlave {
            replication.send(.replicaPosition(next: broker.store.writtenOffset.rawValue))
        }
        broker.replicationConnected()
    }
}
