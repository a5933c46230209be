import Logging
package import MessageModel
package import NIOCore
package import RemotingProtocol

/// One client's connection, seen from the server. Confined to the server's event loop.
///
/// Everything written here collects in one outbound buffer and leaves with one flush at the end of the tick.
package final class RemotingConnection {
    /// Unique within one server.
    package let id: UInt64
    /// Of the client.
    package let remoteAddress: HostAddress
    /// Where the client connected to.
    package let localAddress: HostAddress
    /// The service's own data about this client.
    package var context: AnyObject?

    /// The server's, to which all of this is confined.
    package var eventLoop: any EventLoop { channel.eventLoop }

    private let channel: any Channel
    // Both references make a circle, broken when the connection ends.
    private let server: RemotingServer
    private var handler: RemotingServerHandler?
    private var outbound = ByteBuffer()
    private var isDirty = false
    /// The service has enough of this peer's requests under way: further ones stay in the kernel's buffers, and in the
    /// end in the peer's. Takes effect with the next frame; taken back, reading goes on with the next flush of an
    /// answer.
    package var readsAreHeld = false
    /// An answer to this peer is being made in parts or on another thread: its next request is handled after that.
    /// Taken back as it is written, reading goes on with the flush.
    package var awaitsAnswer = false {
        didSet { if oldValue, !self.awaitsAnswer, !isClosed { markDirty() } }
    }
    /// Requests of this peer that wait for the answer of another one, while further ones are read.
    package var answersOwed = 0
    /// True from the moment closing began: nothing is read, handled or written any more.
    package private(set) var isClosed = false

    /// What the server counts as unsent for this connection, in bytes.
    private(set) var countedOutbound = 0
    private var lastOpaque: Int32 = 0
    private var pending: [Int32: PendingRequest] = [:]

    private struct PendingRequest {
        var promise: EventLoopPromise<RemotingCommand>
        var code: Int32
        var timeout: Scheduled<Void>
    }

    private enum Limits {
        /// An outbound buffer that grew larger is given back after its flush.
        static let keptOutboundBytes = 64 << 10
        /// Less than this is taken as sent with its flush; the next sweep looks.
        static let countedBytesMin = 16 << 10
    }

    init(id: UInt64, channel: any Channel, server: RemotingServer) {
        self.id = id
        self.channel = channel
        self.server = server
        remoteAddress = HostAddress(channel.remoteAddress)
        localAddress = HostAddress(channel.localAddress)
    }

    func attach(_ handler: RemotingServerHandler?) {
        self.handler = handler
    }

    // MARK: - Answering

    /// Appends whole frames to what leaves at the end of the tick. Without effect on a closed connection.
    package func write(_ encode: (inout ByteBuffer) -> Void) {
        guard !isClosed else { return }
        let before = outbound.readableBytes
        encode(&outbound)
        count(countedOutbound + outbound.readableBytes - before)
        markDirty()
    }

    /// Appends bytes of a file after everything written so far (sendfile). The region's handle must stay open until
    /// the future succeeds or fails.
    package func write(file region: FileRegion) -> EventLoopFuture<Void> {
        guard !isClosed else {
            return channel.eventLoop.makeFailedFuture(
                RemotingError.connectionClosed(peer: remoteAddress.text, reason: "closed before the write"))
        }
        if outbound.readableBytes > 0 {
            self.handler?.write(outbound)
            outbound = ByteBuffer()
        }
        let promise = channel.eventLoop.makePromise(of: Void.self)
        if let handler = self.handler {
            handler.write(file: region, promise: promise)
        } else {
            promise.fail(ChannelError.ioOnClosedChannel)
        }
        markDirty()
        return promise.futureResult
    }

    /// Answers a request; nothing is sent when it was one-way.
    package func respond(
        to address: ReturnAddress, _ code: ResponseCode, remark: String? = nil, fields: [(String, String)] = [],
        body: [UInt8] = []
    ) {
        guard !address.isOneway else { return }
        write { buffer in
            ResponseEncoder.encode(into: &buffer, address, code, remark: remark, fields: fields, body: body)
        }
    }

    /// As `respond`, with a body that other connections are sent too: it is not copied.
    package func respond(
        to address: ReturnAddress, _ code: ResponseCode, fields: [(String, String)] = [], sharedBody: ByteBuffer
    ) {
        guard !address.isOneway, !isClosed else { return }
        ResponseEncoder.encode(
            into: &outbound, address, code.rawValue, remark: nil, fields: fields,
            bodyCount: sharedBody.readableBytes)
        handler?.write(outbound)
        outbound = ByteBuffer()
        handler?.write(sharedBody)
        markDirty()
    }

    /// Answers 3 to a request whose code is not known here.
    package func respondNotSupported(to frame: RemotingFrame) {
        respond(
            to: frame.returnAddress, .requestCodeNotSupported, remark: " request type \(frame.code) not supported")
    }

    /// Bytes written since the last flush.
    var unflushedBytes: Int { outbound.readableBytes }
    /// Bytes written that the kernel has not taken yet.
    package var outboundBytes: Int { outbound.readableBytes + (handler?.bytesInChannel ?? 0) }

    private func count(_ bytes: Int) {
        server.outboundMoved(by: bytes - countedOutbound)
        countedOutbound = bytes
    }

    /// Looks at what is unsent.
    func countOutbound() {
        count(outbound.readableBytes + (handler?.memoryInChannel ?? 0))
    }

    /// Has taken none of its answers since then.
    func isStalled(since time: NIODeadline) -> Bool {
        countedOutbound > 0 && handler?.isStalled(since: time) == true
    }

    /// When its client last sent something.
    var lastRead: NIODeadline { handler?.lastRead ?? .uptimeNanoseconds(0) }

    /// A request of its client's was complete.
    var hasSpoken: Bool { handler?.hasSpoken ?? false }
    /// Something has come from its client.
    var hasBegun: Bool { handler?.hasBegun ?? false }
    /// When it was accepted.
    let opened = NIODeadline.now()
    /// `GivingWay` knows that it has been silent for long.
    var isListedIdle = false

    /// Goes on with requests that waited.
    func resume() { handler?.resume() }

    // MARK: - Asking the client

    /// Sends a request to the client. Fails with `RemotingError`.
    package func request(
        _ command: RemotingCommand, serialization: HeaderSerialization = .json, timeout: TimeAmount = .seconds(5)
    ) -> EventLoopFuture<RemotingCommand> {
        let promise = channel.eventLoop.makePromise(of: RemotingCommand.self)
        guard !isClosed else {
            promise.fail(RemotingError.connectionClosed(peer: remoteAddress.text, reason: "closed already"))
            return promise.futureResult
        }
        var command = command
        command.opaque = nextOpaque()
        let this = NIOLoopBound(self, eventLoop: channel.eventLoop)
        let opaque = command.opaque
        let scheduled = channel.eventLoop.scheduleTask(in: timeout) {
            let connection = this.value
            guard let request = connection.pending.removeValue(forKey: opaque) else { return }
            request.promise.fail(
                RemotingError.timedOut(
                    peer: connection.remoteAddress.text, request: request.code,
                    milliseconds: timeout.nanoseconds / 1_000_000))
        }
        pending[opaque] = PendingRequest(promise: promise, code: command.code, timeout: scheduled)
        write { command.encode(into: &$0, serialization: serialization) }
        return promise.futureResult
    }

    /// Sends a request that wants no answer.
    package func oneway(_ command: RemotingCommand, serialization: HeaderSerialization = .json) {
        var command = command
        command.opaque = nextOpaque()
        command.flag |= RemotingFrame.onewayFlag
        write { command.encode(into: &$0, serialization: serialization) }
    }

    /// Requests sent to the client that it has not answered.
    package var unansweredRequests: Int { pending.count }

    private func nextOpaque() -> Int32 {
        lastOpaque &+= 1
        return lastOpaque
    }

    func received(response frame: RemotingFrame) {
        // One that no request waits for came too late; its request has been answered with a time-out.
        guard let request = pending.removeValue(forKey: frame.opaque) else { return }
        request.timeout.cancel()
        request.promise.succeed(RemotingCommand(frame))
    }

    // MARK: - Closing

    /// Closes at once, after handing what was written to the kernel as far as it takes it.
    package func close(reason: String) {
        guard !isClosed else { return }
        flush()
        server.logger.debug(
            "connection closed", metadata: ["peer": "\(remoteAddress.text)", "reason": "\(reason)"])
        abandon()
    }

    /// What its peer sends from now on stays in the kernel.
    func stopReading() {
        do {
            try channel.syncOptions?.setOption(.autoRead, value: false)
        } catch {
            // Only a channel that is closed already refuses that.
            abandon()
        }
    }

    /// Nothing is half read or half written, no answer is owed, none of the peer's is awaited: the next process can go
    /// on here.
    var isClean: Bool {
        !isClosed && !awaitsAnswer && answersOwed == 0 && pending.isEmpty && outboundBytes == 0
            && handler?.hasUnhandledBytes == false
    }

    /// Closes without sending what waits.
    func abandon() {
        guard !isClosed else { return }
        isClosed = true
        outbound = ByteBuffer()
        count(0)
        channel.close(promise: nil)
    }

    func didClose() {
        isClosed = true
        outbound = ByteBuffer()
        count(0)
        handler = nil
        let unanswered = pending.values
        pending = [:]
        for request in unanswered {
            request.timeout.cancel()
            request.promise.fail(
                RemotingError.connectionClosed(peer: remoteAddress.text, reason: "it was closed"))
        }
    }

    func sweep(now: NIODeadline, judgesSlow: Bool) {
        handler?.sweep(now: now, judgesSlow: judgesSlow)
        if !isClosed { countOutbound() }
    }

    // MARK: - Flushing

    private func markDirty() {
        guard !isDirty else { return }
        isDirty = true
        server.markDirty(self)
    }

    func flush() {
        isDirty = false
        guard !isClosed, let handler = self.handler else { return }
        let counted = countedOutbound
        if outbound.readableBytes > 0 {
            handler.write(outbound)
            handler.flush()
            // The channel has released what it could send at once: then the storage is ours alone and used again.
            if outbound.capacity > Limits.keptOutboundBytes {
                outbound = ByteBuffer()
            } else {
                outbound.clear()
            }
        } else {
            handler.flush()
        }
        if counted >= Limits.countedBytesMin {
            countOutbound()
        } else {
            count(outbound.readableBytes)
        }
        handler.resume()
    }
}

extension HostAddress {
    /// Zero for addresses that are neither IPv4 nor IPv6.
    package init(_ address: SocketAddress?) {
        // The kernel's layout: family 2, port 2, then IPv4 address 4, or flow 4 and IPv6 address 16.
        guard let address, address.protocol == .inet || address.protocol == .inet6 else {
            self.init(ipv4: 0, port: 0)
            return
        }
        let isIPv6 = address.protocol == .inet6
        let (port, high, low) = address.withSockAddr { pointer, count in
            let raw = UnsafeRawBufferPointer(start: pointer, count: count)
            let port = UInt16(bigEndian: raw.loadUnaligned(fromByteOffset: 2, as: UInt16.self))
            guard isIPv6 else {
                return (
                    port, UInt64(0), UInt64(UInt32(bigEndian: raw.loadUnaligned(fromByteOffset: 4, as: UInt32.self)))
                )
            }
            return (
                port, UInt64(bigEndian: raw.loadUnaligned(fromByteOffset: 8, as: UInt64.self)),
                UInt64(bigEndian: raw.loadUnaligned(fromByteOffset: 16, as: UInt64.self))
            )
        }
        if isIPv6 {
            self.init(ipv6High: high, low: low, port: Int32(port))
        } else {
            self.init(ipv4: UInt32(truncatingIfNeeded: low), port: Int32(port))
        }
    }
}
