import FastJSON
package import Logging
package import NIOCore
import RemotingProtocol
import RemotingTransport
import WorkerProtocol

/// Finds the master and copies its metadata (topics, consumer offsets, delay offsets, subscription groups, which
/// groups pop) to the local broker-store. It does so at the start and every ten seconds, as Apache's slaves do.
/// Confined to one event loop.
package final class MetadataSync {
    /// What a slave knows of its master and its name servers.
    package struct Configuration {
        /// RocketMQ's `brokerName`, the same on master and slave.
        package var brokerName: String
        /// `namesrvAddr`: `host:port;host:port`. Empty: there is no name server to ask.
        package var nameServers: [String]
        /// `haMasterAddress`: `host:port` of the master's HA port. Empty: derived from the name server's answer.
        package var haMasterAddress: String
        /// Between two copies of the master's tables.
        package var interval: TimeAmount

        /// - Parameter nameServers: as in the setting: `;` between, blanks are left out.
        package init(
            brokerName: String, nameServers: String, haMasterAddress: String, interval: TimeAmount = .seconds(10)
        ) {
            self.brokerName = brokerName
            self.nameServers = nameServers.split(separator: ";").map { String($0.filter { $0 != " " }) }
                .filter { !$0.isEmpty }
            self.haMasterAddress = haMasterAddress
            self.interval = interval
        }
    }

    private static let kinds: [(ReplicaMetadataKind, RequestCode)] = [
        (.topics, .getAllTopicConfig), (.consumerOffset, .getAllConsumerOffset),
        (.delayOffset, .getAllDelayOffset), (.subscriptionGroup, .getAllSubscriptionGroupConfig),
        (.messageRequestMode, .getAllMessageRequestMode),
    ]

    /// Wait after a round that failed: both sides may just be starting.
    private static let retryInterval = TimeAmount.seconds(2)

    private let eventLoop: any EventLoop
    private let configuration: Configuration
    private let logger: Logger
    /// Name servers whose answers were too long, which is logged once.
    private var longAnswers: Set<String> = []
    /// Called when the master's HA port is known or has moved.
    private let found: (_ host: String, _ port: Int) -> Void
    /// Called each round with where the master answers requests.
    private let located: (_ host: String, _ port: Int) -> Void
    private var store: (any StoreLink)?
    /// What the broker-store was given last, so that it is not given the same again.
    private var sent: [ReplicaMetadataKind: [UInt8]] = [:]
    private var client: RemotingClient?
    private var clientAddress: HostPort?
    /// HA address the broker-store learned when it registered.
    private var learned: HostPort?
    private var running = false
    private var again = false
    private var stopped = false
    private var timer: Scheduled<Void>?
    private var lastFailure: String?

    package init(
        eventLoop: any EventLoop, configuration: Configuration, logger: Logger,
        found: @escaping (_ host: String, _ port: Int) -> Void,
        located: @escaping (_ host: String, _ port: Int) -> Void
    ) {
        self.eventLoop = eventLoop
        self.configuration = configuration
        self.logger = logger
        self.found = found
        self.located = located
    }

    /// Copies all tables at once: the broker-store may be a new process. On the event loop.
    package func storeConnected(_ link: any StoreLink) {
        store = link
        sent = [:]
        now()
    }

    /// What rounds bring meanwhile is not delivered. On the event loop.
    package func storeDisconnected() { store = nil }

    /// The master's HA address as the broker-store got it with the answer to its registration.
    package func learned(haAddress: String) {
        guard let address = HostPort(haAddress), address != learned else { return }
        learned = address
        now()
    }

    /// A round at once, or right after the one that runs.
    package func now() {
        guard !stopped else { return }
        guard !running else {
            again = true
            return
        }
        timer?.cancel()
        running = true
        let sync = NIOLoopBound(self, eventLoop: eventLoop)
        round().whenComplete { result in sync.value.ended(result) }
    }

    /// On the event loop; nothing is asked for any more.
    package func stop() {
        stopped = true
        timer?.cancel()
        client?.closeNow()
    }

    private func ended(_ result: Result<Void, any Error>) {
        running = false
        switch result {
        case .success:
            if lastFailure != nil { logger.info("the master's tables (topics, groups, offsets) are copied again") }
            lastFailure = nil
        case .failure(let error):
            let text = "\(error)"
            // The same line every ten seconds would bring nothing new.
            if text != lastFailure {
                logger.error(
                    """
                    the master's tables (topics, groups, offsets) are not copied, this slave keeps what it has; tried \
                    again: \(text)
                    """
                )
            }
            lastFailure = text
            client?.closeNow()
            client = nil
        }
        guard !stopped else { return }
        if again {
            again = false
            return now()
        }
        let sync = NIOLoopBound(self, eventLoop: eventLoop)
        let wait = lastFailure == nil ? configuration.interval : min(configuration.interval, Self.retryInterval)
        timer = eventLoop.scheduleTask(in: wait) { sync.value.now() }
    }

    private func round() -> EventLoopFuture<Void> {
        let sync = NIOLoopBound(self, eventLoop: eventLoop)
        return locate().flatMap { address in
            sync.value.located(address.host, address.port)
            return sync.value.connect(address)
        }
        .flatMap { _ in sync.value.copy() }
    }

    // MARK: - Finding the master

    /// The master's remoting address; passes the HA address to `found` on the way.
    private func locate() -> EventLoopFuture<HostPort> {
        let configured = HostPort(configuration.haMasterAddress)
        if let ha = configured ?? learned { found(ha.host, ha.port) }
        let sync = NIOLoopBound(self, eventLoop: eventLoop)
        return askNameServers(configuration.nameServers[...]).map { answer in
            let sync = sync.value
            if let answer, configured == nil, sync.learned == nil {
                // RocketMQ's brokers always listen for slaves one port above their own.
                sync.found(answer.host, min(answer.port + 1, 65_535))
            }
            return answer
        }.flatMapThrowing { answer in
            if let answer { return answer }
            guard let ha = configured ?? sync.value.learned else {
                throw MetadataSyncError.noMaster(broker: sync.value.configuration.brokerName)
            }
            return HostPort(host: ha.host, port: max(ha.port - 1, 1))
        }
    }

    /// The address of broker 0 of our name, from the first name server that knows it.
    private func askNameServers(_ rest: ArraySlice<String>) -> EventLoopFuture<HostPort?> {
        guard let address = rest.first, let server = HostPort(address) else {
            return rest.isEmpty ? eventLoop.makeSucceededFuture(nil) : askNameServers(rest.dropFirst())
        }
        let sync = NIOLoopBound(self, eventLoop: eventLoop)
        return RemotingClient.connecting(host: server.host, port: server.port, group: eventLoop)
            .flatMap { client in
                client.invoking(RemotingCommand(.getBrokerClusterInfo)).always { _ in client.closeNow() }
            }
            .map { response in sync.value.master(in: response, of: address) }
            // A name server that is away is as good as one that does not know the master.
            .flatMapErrorThrowing { _ in nil }
            .flatMap { answer in
                let sync = sync.value
                return answer == nil
                    ? sync.askNameServers(rest.dropFirst()) : sync.eventLoop.makeSucceededFuture(answer)
            }
    }

    /// Bytes of a name server's answer that are read on the loop: the addresses of some thousands of brokers.
    static let clusterInfoBytesMax = 1 << 20

    private func master(in response: RemotingCommand, of nameServer: String) -> HostPort? {
        if response.body.count > Self.clusterInfoBytesMax, !longAnswers.contains(nameServer) {
            longAnswers.insert(nameServer)
            logger.warning(
                """
                name server \(nameServer) names brokers in \(response.body.count) bytes, more than a slave reads \
                (\(Self.clusterInfoBytesMax)): the master is not found there; set haMasterAddress
                """)
        }
        return Self.master(of: configuration.brokerName, in: response)
    }

    /// As the name server knows it; nil: it does not, or its answer is too long to be read.
    static func master(of brokerName: String, in response: RemotingCommand) -> HostPort? {
        guard response.code == ResponseCode.success.rawValue, response.body.count <= clusterInfoBytesMax,
            let table = json(response.body)?["brokerAddrTable"]
        else { return nil }
        return table[brokerName]?["brokerAddrs"]?["0"]?.string.flatMap { HostPort($0) }
    }

    private static func json(_ bytes: [UInt8]) -> JSONValue? {
        bytes.withUnsafeBytes { bytes in
            do throws(JSONError) {
                return try JSONReader.read(bytes)
            } catch {
                return nil  // As if the name server did not know.
            }
        }
    }

    // MARK: - Copying

    private func connect(_ address: HostPort) -> EventLoopFuture<Void> {
        if let client, client.isActive, clientAddress == address { return eventLoop.makeSucceededVoidFuture() }
        client?.closeNow()
        client = nil
        let sync = NIOLoopBound(self, eventLoop: eventLoop)
        return RemotingClient.connecting(host: address.host, port: address.port, group: eventLoop).map { client in
            sync.value.client = client
            sync.value.clientAddress = address
        }
    }

    private func copy() -> EventLoopFuture<Void> {
        let sync = NIOLoopBound(self, eventLoop: eventLoop)
        var done = eventLoop.makeSucceededVoidFuture()
        for (kind, code) in Self.kinds {
            done = done.flatMap { sync.value.copy(kind, code) }
        }
        return done
    }

    private func copy(_ kind: ReplicaMetadataKind, _ code: RequestCode) -> EventLoopFuture<Void> {
        guard let client else { return eventLoop.makeFailedFuture(MetadataSyncError.connectionLost) }
        let sync = NIOLoopBound(self, eventLoop: eventLoop)
        return client.invoking(RemotingCommand(code)).flatMapThrowing { response in
            // RocketMQ 4 has no groups that pop.
            if kind == .messageRequestMode, response.code == ResponseCode.requestCodeNotSupported.rawValue { return }
            guard response.code == ResponseCode.success.rawValue else {
                throw MetadataSyncError.refused(request: code.rawValue, code: response.code, remark: response.remark)
            }
            sync.value.received(kind, response.body)
        }
    }

    private func received(_ kind: ReplicaMetadataKind, _ body: [UInt8]) {
        guard let store, !body.isEmpty, sent[kind] != body else { return }
        sent[kind] = body
        store.send(.replicaMetadata(kind: kind, json: body))
    }
}

/// Why a round of metadata failed.
package enum MetadataSyncError: Error, CustomStringConvertible {
    case noMaster(broker: String)
    case connectionLost
    case refused(request: Int32, code: Int32, remark: String?)

    package var description: String {
        switch self {
        case .noMaster(let broker):
            "no name server knows a master of broker \(broker), and haMasterAddress is not set"
        case .connectionLost:
            "the connection to the master was lost"
        case .refused(let request, let code, let remark):
            "the master answered \(code) to request \(request): \(remark ?? "no remark")"
        }
    }
}

/// `host:port`; the host may be an IPv6 address in brackets.
struct HostPort: Equatable, Sendable {
    var host: String
    var port: Int

    /// Of a name in DNS.
    private static let hostBytesMax = 255

    init(host: String, port: Int) {
        self.host = host
        self.port = port
    }

    init?(_ text: String) {
        guard let colon = text.lastIndex(of: ":"), let port = Int(text[text.index(after: colon)...]),
            (1...65535).contains(port)
        else { return nil }
        var host = text[..<colon].drop { $0 == " " }
        if host.first == "[", host.last == "]" { host = host.dropFirst().dropLast() }
        guard !host.isEmpty, host.utf8.count <= Self.hostBytesMax else { return nil }
        self.host = String(host)
        self.port = port
    }
}
