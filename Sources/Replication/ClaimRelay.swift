package import NIOCore
import RemotingProtocol
import RemotingTransport
import WorkerProtocol

/// Puts a slave's questions about claims to the master and gives the broker-store the answers, whose content it does
/// not know. Over a connection of its own: tables under way delay none. Confined to one event loop.
package final class ClaimRelay {
    /// A piece of a file and what is known of it; a master sends 256 KiB.
    private static let answerBytesMax = 1 << 20
    /// Characters of a refusal.
    private static let reasonMax = 500

    private let eventLoop: any EventLoop
    private var store: (any StoreLink)?
    private var master: HostPort?
    private var client: RemotingClient?
    private var isStopped = false

    package init(eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    /// The broker-store to which answers go from now on. On the event loop.
    package func storeConnected(_ link: any StoreLink) { store = link }

    /// Answers that come meanwhile are dropped. On the event loop.
    package func storeDisconnected() { store = nil }

    /// Where the master answers requests. A changed address is used at once.
    package func masterFound(host: String, port: Int) {
        let address = HostPort(host: host, port: port)
        guard address != master else { return }
        master = address
        disconnect()
    }

    /// `claimsWanted`: answered by `claims`, also when there is no answer.
    package func ask(request: UInt64, question: [UInt8]) {
        let relay = NIOLoopBound(self, eventLoop: eventLoop)
        connected().flatMap { client in client.invoking(RemotingCommand(.getClaims, body: question)) }
            .whenComplete { result in relay.value.ended(request, result) }
    }

    /// On the event loop; nothing is asked any more.
    package func stop() {
        isStopped = true
        store = nil
        disconnect()
    }

    private func connected() -> EventLoopFuture<RemotingClient> {
        if let client, client.isActive { return eventLoop.makeSucceededFuture(client) }
        guard let master, !isStopped else { return eventLoop.makeFailedFuture(MetadataSyncError.connectionLost) }
        let relay = NIOLoopBound(self, eventLoop: eventLoop)
        return RemotingClient.connecting(host: master.host, port: master.port, group: eventLoop).flatMapThrowing {
            let relay = relay.value
            guard relay.master == master, !relay.isStopped else {
                $0.closeNow()
                throw MetadataSyncError.connectionLost
            }
            relay.client = $0
            return $0
        }
    }

    private func ended(_ request: UInt64, _ result: Result<RemotingCommand, any Error>) {
        let answer: ClaimsAnswer
        switch result {
        case .success(let response) where response.code == ResponseCode.success.rawValue:
            answer =
                response.body.count <= Self.answerBytesMax
                ? .answered(response.body)
                : .failed(reason: "an answer of \(response.body.count) bytes is none of a master's")
        case .success(let response) where response.code == ResponseCode.requestCodeNotSupported.rawValue:
            answer = .unknown
        case .success(let response):
            let refusal = MetadataSyncError.refused(
                request: RequestCode.getClaims.rawValue, code: response.code, remark: response.remark)
            // The text is the master's, and may fill a frame.
            answer = .failed(reason: String("\(refusal)".prefix(Self.reasonMax)))
        case .failure(let error):
            disconnect()
            answer = .failed(reason: "\(error)")
        }
        store?.send(.claims(request: request, answer))
    }

    private func disconnect() {
        client?.closeNow()
        client = nil
    }
}
