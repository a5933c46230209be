import FastJSON
import Logging
import NIOCore
import RemotingProtocol
import RemotingTransport
import StoreFormat
import WorkerProtocol

/// Notifies every name server of what this broker serves. It sends REGISTER_BROKER (103) at the start, every
/// `registerNameServerPeriod` and as soon as topics change, and UNREGISTER_BROKER (104) when it leaves. Changes of one
/// tick go in one request; while one is under way, the next waits for it. With so many topics that a request takes
/// time, changes are gathered so that this takes a tenth of it. A name server that does not answer is tried again with
/// back-off and does not keep the others waiting.
final class NameserverRegistration {
    static let requestTimeout = TimeAmount.seconds(6)
    static let retryFirstMilliseconds: Int64 = 100
    static let retryMaxMilliseconds: Int64 = 5_000

    final class NameServer {
        let address: String
        var client: RemotingClient?
        var isBusy = false
        /// Something changed while a request was under way.
        var isStale = false
        var retryMilliseconds = NameserverRegistration.retryFirstMilliseconds
        var retry: Scheduled<Void>?
        var failuresLogged = false
        /// `namesrvAddr` names it no more.
        var hasLeft = false
        /// Called when a registration that was begun after they asked has ended, well or not.
        var waiters: [() -> Void] = []
        var nextWaiters: [() -> Void] = []

        init(_ address: String) { self.address = address }
    }

    let environment: BrokerEnvironment
    let tables: BrokerTables
    private(set) var servers: [NameServer]
    /// What name servers have answered about topics (`readableQueues`).
    var routes = KnownRoutes()
    private var period: RepeatedTask?
    private var isScheduled = false
    private var isRunning = false
    /// Milliseconds since 1970 before which changes of topics are gathered.
    private var notBeforeMilliseconds: Int64 = 0
    static let gatherMaxMilliseconds: Int64 = 5000

    init(_ environment: BrokerEnvironment, _ tables: BrokerTables) {
        self.environment = environment
        self.tables = tables
        servers = environment.configuration.namesrvAddr.map { NameServer($0) }
    }

    /// `namesrvAddr` was changed: those named anew get this broker's registration, the others are notified that it has
    /// left. The platform's own name server (`ownNamesrvAddr`) stays: the platform's clients know no other.
    func nameServersChanged() {
        let own = environment.configuration.raw("ownNamesrvAddr").map { [$0] } ?? []
        var addresses = own
        for address in environment.configuration.namesrvAddr where !addresses.contains(address) {
            addresses.append(address)
        }
        let former = servers
        servers = addresses.map { address in former.first { $0.address == address } ?? NameServer(address) }
        guard isRunning else { return }
        for server in former where !addresses.contains(server.address) { leave(server) }
        for server in servers where !former.contains(where: { $0 === server }) { register(server) }
        environment.logger.notice("this broker registers with \(addresses.joined(separator: ";")) from now on")
    }

    private func leave(_ server: NameServer) {
        server.hasLeft = true
        server.retry?.cancel()
        // No answer waits for one that is left.
        for waiter in server.waiters + server.nextWaiters { waiter() }
        (server.waiters, server.nextWaiters) = ([], [])
        guard let client = server.client, client.isActive else { return }
        client.invoking(RemotingCommand(.unregisterBroker, extFields: identity), timeout: .seconds(1))
            .whenComplete { _ in client.closeNow() }
    }

    func start() {
        isRunning = true
        let this = NIOLoopBound(self, eventLoop: environment.eventLoop)
        let interval = TimeAmount.milliseconds(environment.configuration.registerNameServerPeriod)
        period = environment.eventLoop.scheduleRepeatedTask(initialDelay: interval, delay: interval) { _ in
            this.value.registerAll()
        }
        registerAll()
    }

    /// Changes of topics that were seen here.
    private var seenChanges: Int64 = 0

    /// If topics have changed since the last call, name servers are notified. Called at the end of each tick, and every
    /// second for what changes outside of one.
    func registerChanges() {
        guard tables.topics.changes != seenChanges else { return }
        seenChanges = tables.topics.changes
        topicsChanged()
    }

    private func topicsChanged() {
        guard isRunning, !isScheduled else { return }
        isScheduled = true
        let this = NIOLoopBound(self, eventLoop: environment.eventLoop)
        @Sendable func register() {
            this.value.isScheduled = false
            this.value.registerAll()
        }
        let wait = min(notBeforeMilliseconds - environment.now(), Self.gatherMaxMilliseconds)
        if wait > 0 {
            environment.eventLoop.scheduleTask(in: .milliseconds(wait)) { register() }
        } else {
            environment.eventLoop.execute { register() }
        }
    }

    /// Calls back when every name server has been notified of what is true now, or could not be.
    func whenRegistered(_ completion: @escaping () -> Void) {
        guard isRunning, !servers.isEmpty else { return completion() }
        var left = servers.count
        for server in servers {
            let waiter = {
                left -= 1
                if left == 0 { completion() }
            }
            if server.isBusy { server.nextWaiters.append(waiter) } else { server.waiters.append(waiter) }
            register(server)
        }
    }

    private func registerAll() {
        guard isRunning else { return }
        for server in servers { register(server) }
    }

    // MARK: - One name server

    private func register(_ server: NameServer) {
        guard !server.hasLeft else { return }
        guard !server.isBusy else {
            server.isStale = true
            return
        }
        server.isBusy = true
        server.isStale = false
        server.retry?.cancel()
        server.retry = nil
        let request = registrationRequest()
        connected(server).flatMap { client in
            request.flatMap { client.invoking($0, timeout: Self.requestTimeout) }
        }.assumeIsolated().whenComplete { [self] result in
            switch result {
            case .success(let answer) where answer.responseCode == .success: ended(server, nil)
            case .success(let answer): ended(server, "code \(answer.code): \(answer.remark ?? "no remark")")
            case .failure(let error): ended(server, "\(error)")
            }
        }
    }

    private func ended(_ server: NameServer, _ failure: String?) {
        server.isBusy = false
        let waiters = server.waiters
        server.waiters = server.nextWaiters
        server.nextWaiters = []
        for waiter in waiters { waiter() }
        guard isRunning else { return }
        guard !server.hasLeft else { return leave(server) }
        if let failure {
            if !server.failuresLogged {
                environment.logger.warning(
                    """
                    cannot register with name server \(server.address): \(failure); clients that ask it may not find \
                    this broker; tried again until it works
                    """
                )
                server.failuresLogged = true
            }
            server.client?.closeNow()
            server.client = nil
            let this = NIOLoopBound((self, server), eventLoop: environment.eventLoop)
            server.retry = environment.eventLoop.scheduleTask(in: .milliseconds(server.retryMilliseconds)) {
                this.value.0.register(this.value.1)
            }
            server.retryMilliseconds = min(server.retryMilliseconds * 2, Self.retryMaxMilliseconds)
            return
        }
        if server.failuresLogged { environment.logger.notice("registered with name server \(server.address) again") }
        server.failuresLogged = false
        server.retryMilliseconds = Self.retryFirstMilliseconds
        if !server.waiters.isEmpty {
            register(server)
        } else if server.isStale {
            topicsChanged()
        }
    }

    private func connected(_ server: NameServer) -> EventLoopFuture<RemotingClient> {
        if let client = server.client, client.isActive { return environment.eventLoop.makeSucceededFuture(client) }
        guard let colon = server.address.lastIndex(of: ":"),
            let port = Int(server.address[server.address.index(after: colon)...])
        else {
            return environment.eventLoop.makeFailedFuture(
                RemotingError.connectFailed(address: server.address, cause: "namesrvAddr is host:port;host:port…"))
        }
        let this = NIOLoopBound((self, server), eventLoop: environment.eventLoop)
        return RemotingClient.connecting(
            host: String(server.address[..<colon]), port: port, group: environment.eventLoop
        ).map { client in
            this.value.1.client = client
            // A name server that was restarted knows no broker: register there at once, not at the next period.
            client.closeFuture.whenComplete { _ in
                let (registration, server) = this.value
                guard server.client === client, registration.isRunning, !server.hasLeft else { return }
                server.client = nil
                registration.register(server)
            }
            return client
        }
    }

    private var identity: [String: String] {
        let configuration = environment.configuration
        return [
            "brokerName": configuration.brokerName, "brokerAddr": configuration.address,
            "clusterName": configuration.brokerClusterName, "brokerId": String(configuration.brokerID),
        ]
    }

    /// With more topics than that the request is made on another thread.
    private static let topicsAtOnce = 128

    /// All topics as they are now, in the form of REGISTER_BROKER. With very many it takes a while to make and to read,
    /// and so comes less often.
    private func registrationRequest() -> EventLoopFuture<RemotingCommand> {
        let begin = environment.now()
        let permission = environment.configuration.brokerPermission
        var fields = identity
        fields["haServerAddr"] = environment.configuration.haServerAddress
        fields["compressed"] = "false"
        let promise = environment.eventLoop.makePromise(of: RemotingCommand.self)
        let base = fields
        tables.topics.copied(in: environment.slices) { [self] table in
            func made(_ request: RemotingCommand) {
                let end = environment.now()
                notBeforeMilliseconds = end + 10 * max(0, end - begin)
                promise.succeed(request)
            }
            if table.topicConfigTable.count <= Self.topicsAtOnce {
                made(Self.request(base, table, permission))
            } else {
                environment.textWork.submit({ Self.request(base, table, permission) }, then: made)
            }
        }
        return promise.futureResult
    }

    private static func request(
        _ fields: [String: String], _ topics: TopicConfigSerializeWrapper, _ permission: Int32
    ) -> RemotingCommand {
        var topics = topics
        if permission & (Permission.read | Permission.write) != Permission.read | Permission.write {
            // A broker that must not be read or written announces its topics so.
            for index in topics.topicConfigTable.indices { topics.topicConfigTable[index].perm &= permission }
        }
        let body = RegisterBrokerBody(topicConfigSerializeWrapper: topics).encoded()
        var fields = fields
        fields["bodyCrc32"] = String(body.withUnsafeBytes { CommitLogRecord.bodyCRC($0) })
        return RemotingCommand(.registerBroker, extFields: fields, body: body)
    }

    // MARK: - Stopping

    /// Sends nothing more to the name servers. `reason` nil: this broker's disk is away. Unregisters the broker from
    /// those that go on without it, as far as they can be reached within a second. Before a restart it is unregistered
    /// from none, so that no client meets a moment without a route. A restart is over sooner than a name server gives
    /// up a broker whose connection has closed. When the whole platform stops, the broker stays registered at the
    /// platform's own name server, which stops with it.
    func end(_ reason: DrainReason?) -> EventLoopFuture<Void> {
        isRunning = false
        period?.cancel()
        period = nil
        let request = RemotingCommand(.unregisterBroker, extFields: identity)
        let own = environment.configuration.raw("ownNamesrvAddr")
        let requests = servers.compactMap { server -> EventLoopFuture<Void>? in
            server.retry?.cancel()
            if reason == .restart || reason == .stop && server.address == own { return nil }
            guard let client = server.client, client.isActive else { return nil }
            let ended = client.invoking(request, timeout: .seconds(1)).map { _ in () }
            ended.whenComplete { _ in client.closeNow() }
            return ended
        }
        return EventLoopFuture.andAllComplete(requests, on: environment.eventLoop)
    }
}
