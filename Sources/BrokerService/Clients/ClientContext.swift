import MessageModel
import NIOCore
import RemotingProtocol
import RemotingTransport
import StoreFormat

/// What the broker remembers of one connection; hangs at `RemotingConnection.context`.
final class ClientContext {
    let connection: RemotingConnection
    /// Connections are numbered as they come.
    let number: Int
    /// Set when this one has ended: connections from this number on came after that.
    var closedBefore: Int?
    /// Its suspended reads: `PullRequestHold` hangs them here.
    var suspended: AnyObject?
    /// Its waiting pops: `PopWaiters` hangs them here.
    var suspendedPops: AnyObject?
    /// What it is in groups whose queues have one consumer: `QueueLeases` hangs it here.
    var consumers: AnyObject?
    /// Messages of this connection that are stored and wait for disk or slave (AckGate).
    var waitingAcknowledgements = 0
    /// Groups this connection has registered in.
    var consumerGroups: Set<String> = []
    var producerGroups: Set<String> = []
    /// What it called itself last, as a producer.
    var producerID: String?
    /// What it called itself last, as a consumer.
    var consumerID: String?
    /// Bytes of what a client calls itself. Each member of its groups is told, and RocketMQ's clients have some 50.
    static let idBytesMax = 255
    /// A heartbeat, for the broker's next process (`ClientHandOver`).
    struct Heartbeat {
        let language: LanguageCode
        let version: Int32
        let body: [UInt8]
    }
    /// Its last one, where that is kept.
    fileprivate(set) var said: Heartbeat?
    /// Converted once: goes into every message as born host.
    let bornHost: HostAddress

    init(_ connection: RemotingConnection, number: Int) {
        self.connection = connection
        self.number = number
        bornHost = connection.remoteAddress
    }

    /// Made once: it is asked for with each pop.
    private(set) lazy var address = connection.remoteAddress.text

    /// What it called itself as a consumer, or its address.
    var name: String { consumerID ?? address }

    func answer(
        _ address: ReturnAddress, _ code: ResponseCode, remark: String? = nil, fields: [(String, String)] = [],
        body: [UInt8] = []
    ) {
        connection.respond(to: address, code, remark: remark, fields: fields, body: body)
    }
}

/// The last heartbeats of all clients: some hundred bytes each, but 1 MiB if a client likes.
final class KeptHeartbeats {
    /// One that is beyond is not kept: after a restart its client registers with its next one, within 30 s.
    var bytesMax = 128 << 20
    /// Of those that are kept.
    private(set) var bytes = 0

    /// The client has said this, in place of what it said before; nil: that is not true any more.
    /// - Returns: whether it is kept.
    @discardableResult
    func keep(_ said: ClientContext.Heartbeat?, of client: ClientContext) -> Bool {
        bytes -= client.said?.body.count ?? 0
        client.said = nil
        guard let said, !client.connection.isClosed, bytes + said.body.count <= bytesMax else { return false }
        bytes += said.body.count
        client.said = said
        return true
    }
}

/// One client in one group.
struct ClientChannelInfo {
    let client: ClientContext
    var clientID: String
    var language: LanguageCode
    var version: Int32
    /// Milliseconds since 1970.
    var lastUpdateMilliseconds: Int64
    /// What this client itself wants, if it consumes: usually the very objects of its group's table.
    var subscriptions: [Subscription] = []
    /// `CLUSTERING` or `BROADCASTING`, as in its heartbeat.
    var messageModel = ""
}
