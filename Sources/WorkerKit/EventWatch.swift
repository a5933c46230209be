import Glibc
package import NIOCore
import NIOPosix

/// Calls back on the event loop whenever an eventfd was signalled: any number of signals before the call are one call.
package final class EventWatch: Sendable {
    private let channel: any Channel

    private init(channel: any Channel) {
        self.channel = channel
    }

    /// - Parameter descriptor: the eventfd; stays the caller's, this watch has a copy.
    package static func start(
        _ descriptor: Int32, on eventLoop: any EventLoop, signalled: @escaping () -> Void
    ) -> EventLoopFuture<EventWatch> {
        let copy = fcntl(descriptor, F_DUPFD_CLOEXEC, 0)
        guard copy >= 0 else {
            return eventLoop.makeFailedFuture(IOError(errnoCode: errno, reason: "copying an event descriptor"))
        }
        let handler = NIOLoopBound(EventWatchHandler(signalled), eventLoop: eventLoop)
        return NIOPipeBootstrap(group: eventLoop)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(handler.value) }
            }
            .takingOwnershipOfDescriptor(input: copy)
            .map { EventWatch(channel: $0) }
    }

    /// On the event loop; the closure is not called again.
    package func stop() { channel.close(promise: nil) }
}

/// An eventfd reads as its 8-byte counter, which is then 0; the number does not matter.
private final class EventWatchHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    private let signalled: () -> Void

    init(_ signalled: @escaping () -> Void) {
        self.signalled = signalled
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {}

    func channelReadComplete(context: ChannelHandlerContext) { signalled() }
}
