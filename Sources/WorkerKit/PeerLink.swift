package import NIOCore
import NIOPosix
package import WorkerProtocol

/// One end of the stream socket between two workers. Confined to its event loop.
///
/// Messages sent before the channel is up wait; messages of one tick leave in one write. When the other side goes away,
/// or sends what is no message, the link closes and `closed` is called once. The supervisor brings a new socket.
package final class PeerLink {
    private enum State {
        case connecting([ByteBuffer])
        case open(any Channel)
        case closed
    }

    private let eventLoop: any EventLoop
    private var state = State.connecting([])
    private var flushScheduled = false
    private var onClosed: (() -> Void)?

    /// Called when `isWritable` becomes true again.
    package var writable: (() -> Void)?

    /// Takes over `fd`. Must be called on `eventLoop`, which also calls both closures.
    package static func attach(
        _ fd: Int32, on eventLoop: any EventLoop, receive: @escaping (WorkerMessage) -> Void,
        closed: @escaping () -> Void
    ) -> PeerLink {
        eventLoop.preconditionInEventLoop()
        let link = PeerLink(eventLoop: eventLoop, closed: closed)
        let parts = NIOLoopBound((link, receive), eventLoop: eventLoop)
        ClientBootstrap(group: eventLoop)
            .channelOption(.writeBufferWaterMark, value: .init(low: 256 * 1024, high: 1024 * 1024))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let (link, receive) = parts.value
                    try channel.pipeline.syncOperations.addHandler(PeerLinkHandler(link: link, receive: receive))
                }
            }
            .withConnectedSocket(fd)
            .whenComplete { result in
                let link = parts.value.0
                switch result {
                case .success(let channel): link.opened(channel)
                case .failure: link.closedByChannel()
                }
            }
        return link
    }

    private init(eventLoop: any EventLoop, closed: @escaping () -> Void) {
        self.eventLoop = eventLoop
        onClosed = closed
    }

    /// False above 1 MiB of unsent bytes: hold back until `writable` is called.
    package var isWritable: Bool {
        switch state {
        case .connecting(let waiting): waiting.reduce(0) { $0 + $1.readableBytes } < 1024 * 1024
        case .open(let channel): channel.isWritable
        case .closed: false
        }
    }

    /// What is sent now is dropped.
    package var isClosed: Bool { if case .closed = state { true } else { false } }

    /// Sends one message; it is dropped when the link is closed (`closed` was or will be called).
    package func send(_ message: WorkerMessage) {
        eventLoop.assertInEventLoop()
        let (head, tail) = message.encodedFrameParts()
        let size = head.count + tail.count
        precondition(size <= WorkerMessage.peerBytesMax, "a peer message of \(size) bytes")
        func write(_ buffer: inout ByteBuffer) {
            buffer.writeBytes(head)
            buffer.writeBytes(tail)
        }
        switch state {
        case .connecting(let waiting):
            var frame = ByteBufferAllocator().buffer(capacity: size)
            write(&frame)
            state = .connecting(waiting + [frame])
        case .open(let channel):
            var frame = channel.allocator.buffer(capacity: size)
            write(&frame)
            channel.write(frame, promise: nil)
            scheduleFlush(channel)
        case .closed: break
        }
    }

    /// Closes without calling `closed`.
    package func close() {
        eventLoop.assertInEventLoop()
        onClosed = nil
        if case .open(let channel) = state { channel.close(promise: nil) }
        state = .closed
    }

    private func scheduleFlush(_ channel: any Channel) {
        guard !flushScheduled else { return }
        flushScheduled = true
        let link = NIOLoopBound(self, eventLoop: eventLoop)
        eventLoop.execute {
            link.value.flushScheduled = false
            channel.flush()
        }
    }

    private func opened(_ channel: any Channel) {
        guard case .connecting(let waiting) = state else {
            if case .closed = state { channel.close(promise: nil) }
            return
        }
        state = .open(channel)
        for frame in waiting { channel.write(frame, promise: nil) }
        channel.flush()
    }

    fileprivate func closedByChannel() {
        state = .closed
        let closed = onClosed
        onClosed = nil
        writable = nil
        closed?()
    }
}

/// Cuts the stream into frames (4 bytes length, then the message) and decodes them where they lie.
private final class PeerLinkHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private let link: PeerLink
    private let receive: (WorkerMessage) -> Void
    private var rest = ByteBuffer()

    init(link: PeerLink, receive: @escaping (WorkerMessage) -> Void) {
        self.link = link
        self.receive = receive
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var incoming = unwrapInboundIn(data)
        if rest.readableBytes == 0 {
            rest = incoming
        } else {
            rest.writeBuffer(&incoming)
        }
        do {
            while let length = rest.getInteger(at: rest.readerIndex, as: UInt32.self).map(Int.init) {
                guard length <= WorkerMessage.peerBytesMax else { throw WorkerMessageError.tooLong(length) }
                guard rest.readableBytes >= 4 + length else { break }
                let message = try rest.withUnsafeReadableBytes { bytes in
                    try WorkerMessage(decoding: UnsafeRawBufferPointer(rebasing: bytes[4..<4 + length]))
                }
                rest.moveReaderIndex(forwardBy: 4 + length)
                receive(message)
            }
        } catch {
            context.fireErrorCaught(error)
            context.close(promise: nil)
        }
        if rest.readableBytes == 0 {
            rest = ByteBuffer()
        } else {
            rest.discardReadBytes()
        }
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        if context.channel.isWritable { link.writable?() }
    }

    func channelInactive(context: ChannelHandlerContext) { link.closedByChannel() }

    /// The stream cannot be resynchronised after an error; the supervisor introduces the two anew.
    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
