import NIOCore

/// In the pipeline of each connection: ends what waits for its client when the client leaves. Confined to the event
/// loop.
final class ConnectionWatch: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = NIOAny

    /// Called once, when the connection has ended; nil: nothing waits.
    var onEnd: (() -> Void)?

    func channelRead(context: ChannelHandlerContext, data: NIOAny) { context.fireChannelRead(data) }

    func channelInactive(context: ChannelHandlerContext) {
        onEnd?()
        onEnd = nil
        context.fireChannelInactive()
    }
}

@available(*, unavailable)
extension ConnectionWatch: Sendable {}
