import Glibc
package import LinuxSystem
package import Logging
package import MessageModel
package import NIOCore
import RemotingProtocol

/// Decides which connections a server takes: a total, a number for each remote address, and descriptors left for files.
///
/// Without a free descriptor accept(2) fails and the listener stays readable: an event loop would ask again at once,
/// for ever. So accepting pauses then; the kernel keeps the connections that come, and they are taken when there is
/// room. Confined to one event loop.
package final class ConnectionAdmission {
    /// Connections beyond this are closed at once.
    package var connectionsMax: Int
    /// The same for one remote address; of IPv6 for one /64 network. The loopback addresses are not bounded by it.
    package var connectionsPerAddressMax: Int
    /// Notified of each refusal: the reason and the peer.
    package var refused: (_ reason: String, _ peer: String) -> Void = { _, _ in }
    /// Asked to close so many connections because files need their descriptors.
    package var shed: (_ count: Int) -> Void = { _ in }
    /// Asked to close one connection for a new one when `connectionsMax` are open. False: every one there is in use.
    package var makesWay: () -> Bool = { false }

    private let eventLoop: any EventLoop
    private let logger: Logger
    private let reserve: DescriptorReserve
    private var total = 0
    private var counts: [RemoteNetwork: Int] = [:]
    private var listeners: [any Channel] = []
    private var pauseMilliseconds: Int64 = 0

    private static let firstPause: Int64 = 50
    private static let longestPause: Int64 = 1000

    package init(
        connectionsMax: Int, connectionsPerAddressMax: Int, eventLoop: any EventLoop, logger: Logger,
        reserve: DescriptorReserve = .shared
    ) {
        self.connectionsMax = connectionsMax
        self.connectionsPerAddressMax = connectionsPerAddressMax
        self.eventLoop = eventLoop
        self.logger = logger
        self.reserve = reserve
    }

    /// Why a connection from there cannot be taken; nil: it is taken, and counts until `left`.
    package func admit(_ address: HostAddress) -> String? {
        let network = RemoteNetwork(address)
        let count = counts[network, default: 0]
        guard count < connectionsPerAddressMax || RemoteNetwork.isLoopback(address) else {
            return "too many connections from this address: \(count) are open (connectionsPerAddressMax)"
        }
        // The one that gives way is counted until the event loop has closed it, a moment later.
        guard total < connectionsMax || makesWay() else {
            return "too many connections: \(total) are open"
        }
        counts[network] = count + 1
        total += 1
        return nil
    }

    /// A connection that was admitted has ended.
    package func left(_ address: HostAddress) {
        total -= 1
        let network = RemoteNetwork(address)
        guard let count = counts[network] else { return }
        counts[network] = count > 1 ? count - 1 : nil
    }

    /// Connections from the address, or the network, of this one.
    func count(of address: HostAddress) -> Int { counts[RemoteNetwork(address), default: 0] }

    /// The handler for the pipeline of a listening channel, before the one that accepts.
    package func gate() -> any ChannelHandler { AcceptGate(self) }

    // MARK: - For the gates

    fileprivate func added(_ listener: any Channel) {
        listeners.append(listener)
        // One that is added meanwhile waits as well.
        if pauseMilliseconds > 0 { Self.setAccepting(false, listener) }
    }

    fileprivate func removed(_ listener: any Channel) { listeners.removeAll { $0 === listener } }

    /// True: it is taken.
    fileprivate func takes(_ channel: any Channel) -> Bool {
        let address = HostAddress(channel.remoteAddress)
        // A file has taken a descriptor of the reserve: the longest silent connection gives its own, or this one does.
        if isShort, !makesRoom() {
            refused("no descriptor is free for it: the files of this worker need the last ones", address.text)
            channel.close(promise: nil)
            if isShort { pause() }
            return false
        }
        if let reason = admit(address) {
            refused(reason, address.text)
            channel.close(promise: nil)
            return false
        }
        let this = NIOLoopBound(self, eventLoop: eventLoop)
        channel.closeFuture.whenComplete { _ in this.value.left(address) }
        return true
    }

    private func makesRoom() -> Bool {
        let count = reserve.count
        shed(count.wanted - count.held)
        return !isShort
    }

    private var isShort: Bool {
        let count = reserve.count
        return count.held < count.wanted && !reserve.refill()
    }

    fileprivate func failed(_ error: any Error) {
        guard let error = error as? IOError, [EMFILE, ENFILE, ENOMEM, ENOBUFS].contains(error.errnoCode) else { return }
        pause(String(cString: strerror(error.errnoCode)))
    }

    private func pause(_ reason: String = "no descriptor is free") {
        guard pauseMilliseconds == 0 else { return }
        logger.error(
            """
            no more connections are accepted for now: \(reason), \(total) connections are open; those that come wait. \
            Raise LimitNOFILE= or limits.KIND.files, or lower connectionsMax
            """
        )
        pauseMilliseconds = Self.firstPause
        for listener in listeners { Self.setAccepting(false, listener) }
        lookLater()
    }

    private func lookLater() {
        let this = NIOLoopBound(self, eventLoop: eventLoop)
        eventLoop.scheduleTask(in: .milliseconds(pauseMilliseconds)) { this.value.look() }
    }

    /// Accepts again when the reserve is whole and one more descriptor is free.
    private func look() {
        if isShort, !makesRoom() {
            pauseMilliseconds = min(pauseMilliseconds * 2, Self.longestPause)
            return lookLater()
        }
        guard OwnLimits.filesExhausted() == nil else {
            pauseMilliseconds = min(pauseMilliseconds * 2, Self.longestPause)
            return lookLater()
        }
        pauseMilliseconds = 0
        logger.notice("connections are accepted again; \(total) are open")
        for listener in listeners { Self.setAccepting(true, listener) }
    }

    private static func setAccepting(_ on: Bool, _ listener: any Channel) {
        // Only a listener that is closed already refuses that.
        try? listener.syncOptions?.setOption(.autoRead, value: on)
    }
}

/// Stands before the handler that accepts, and keeps connections from it.
private final class AcceptGate: ChannelInboundHandler {
    typealias InboundIn = any Channel
    typealias InboundOut = any Channel

    private let admission: ConnectionAdmission

    init(_ admission: ConnectionAdmission) {
        self.admission = admission
    }

    func handlerAdded(context: ChannelHandlerContext) { admission.added(context.channel) }
    func handlerRemoved(context: ChannelHandlerContext) { admission.removed(context.channel) }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        if admission.takes(unwrapInboundIn(data)) { context.fireChannelRead(data) }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { admission.failed(error) }
}
