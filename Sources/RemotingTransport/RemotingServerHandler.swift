import Glibc
import Logging
import NIOCore
import RemotingProtocol

/// Slices frames out of a connection's reads and hands them on in place; keeps the bytes of an unfinished frame.
///
/// Holds a peer back (reads and handles no more of its requests) while more than
/// `RemotingServerConfiguration.outboundHighWaterBytes` wait to be sent to it, or the service says so.
final class RemotingServerHandler: ChannelDuplexHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundIn = Never
    typealias OutboundOut = IOData

    private let connection: RemotingConnection
    private let server: RemotingServer
    private var context: ChannelHandlerContext?

    /// Bytes not handled yet: the head of an unfinished frame, or whole frames while the peer is held back.
    private var pending = ByteBuffer()
    /// A read the channel asked for while the peer is held back.
    private var readIsWanted = false
    private var isHeldBack = false
    private var channelIsFull = false

    private var lastRead = NIODeadline.now()
    private var frameBegan: NIODeadline?
    private var stalledSince: NIODeadline?
    private var bytesHandedOver: Int64 = 0
    private var bytesTaken: Int64 = 0
    /// Of the last request handed on.
    private var lastCode: Int32 = 0

    init(connection: RemotingConnection, server: RemotingServer) {
        self.connection = connection
        self.server = server
    }

    // MARK: life

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        self.connection.attach(self)
    }

    func channelActive(context: ChannelHandlerContext) {
        self.server.opened(self.connection)
    }

    func channelInactive(context: ChannelHandlerContext) {
        self.connection.didClose()
        self.server.closed(self.connection)
        self.context = nil
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        self.connection.didClose()
        self.context = nil
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // Resets are everyday life; anything else deserves a line.
        if (error as? IOError)?.errnoCode != ECONNRESET {
            self.server.refused("\(error)", self.connection.remoteAddress.text)
        }
        self.connection.abandon()
    }

    private func refuse(_ reason: String) {
        self.server.refused(reason, self.connection.remoteAddress.text)
        self.pending = ByteBuffer()
        self.connection.abandon()
    }

    // MARK: reading

    func read(context: ChannelHandlerContext) {
        if self.isHeldBack {
            self.readIsWanted = true
        } else {
            context.read()
        }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var buffer = self.unwrapInboundIn(data)
        guard !self.connection.isClosed else { return }
        self.server.scheduleTick()
        self.lastRead = self.server.now
        defer { self.server.ended(.read(code: self.lastCode, peer: self.connection.remoteAddress)) }
        if self.pending.readableBytes > 0 {
            self.pending.writeBuffer(&buffer)
            self.handlePending()
            return
        }
        let handled = self.handleFrames(in: buffer)
        if handled < buffer.readableBytes, !self.connection.isClosed {
            buffer.moveReaderIndex(forwardBy: handled)
            // A copy, so that the channel's read buffer can be used again.
            self.pending.clear(minimumCapacity: buffer.readableBytes)
            self.pending.writeBuffer(&buffer)
        }
    }

    private func handlePending() {
        let handled = self.handleFrames(in: self.pending)
        self.pending.moveReaderIndex(forwardBy: min(handled, self.pending.readableBytes))
        if self.pending.readableBytes == 0 {
            self.pending = ByteBuffer()
        } else if self.pending.readerIndex > self.pending.readableBytes {
            self.pending.discardReadBytes()
        }
    }

    /// Hands on every whole frame; returns the bytes consumed.
    private func handleFrames(in buffer: ByteBuffer) -> Int {
        buffer.withUnsafeReadableBytes { bytes in
            var offset = 0
            while bytes.count - offset >= 4, !self.connection.isClosed {
                let length = Int(
                    Int32(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Int32.self)))
                guard length >= 4, length <= RemotingLimits.frameBytes else {
                    self.refuse(RemotingDecodeError.badFrameLength(length).description)
                    return bytes.count
                }
                guard bytes.count - offset >= 4 + length else { break }
                if self.mustHoldBack {
                    self.isHeldBack = true
                    self.frameBegan = nil
                    return offset
                }
                let frameBytes = UnsafeRawBufferPointer(rebasing: bytes[offset..<(offset + 4 + length)])
                do throws(RemotingDecodeError) {
                    let frame = try RemotingFrame.parse(frameBytes, scratch: self.server.scratch)
                    self.lastCode = frame.code
                    if frame.isResponse {
                        self.connection.received(response: frame)
                    } else {
                        self.server.service.received(frame, on: self.connection)
                    }
                } catch {
                    // The stream cannot be trusted any more: nothing tells where the next frame begins.
                    self.refuse(error.description)
                    return bytes.count
                }
                offset += 4 + length
            }
            if offset == bytes.count {
                self.frameBegan = nil
            } else if offset > 0 || self.frameBegan == nil {
                self.frameBegan = self.lastRead
            }
            return offset
        }
    }

    // MARK: holding back

    private var mustHoldBack: Bool {
        self.channelIsFull || self.connection.readsAreHeld || self.connection.awaitsAnswer
            || self.connection.unflushedBytes > self.server.configuration.outboundHighWaterBytes
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        self.channelIsFull = !context.channel.isWritable
        if self.channelIsFull {
            self.isHeldBack = true
        } else {
            self.resume()
        }
    }

    /// Goes on with a peer that was held back, when it has taken enough.
    func resume() {
        guard self.isHeldBack, !self.mustHoldBack, let context = self.context else { return }
        self.isHeldBack = false
        if self.pending.readableBytes > 0 {
            self.server.scheduleTick()
            self.handlePending()
        }
        if !self.isHeldBack, self.readIsWanted {
            self.readIsWanted = false
            context.read()
        }
    }

    // MARK: writing

    func write(_ buffer: ByteBuffer) {
        self.bytesHandedOver += Int64(buffer.readableBytes)
        self.context?.write(self.wrapOutboundOut(.byteBuffer(buffer)), promise: nil)
    }

    func write(file region: FileRegion, promise: EventLoopPromise<Void>) {
        guard let context = self.context else {
            promise.fail(ChannelError.ioOnClosedChannel)
            return
        }
        self.bytesHandedOver += Int64(region.readableBytes)
        context.write(self.wrapOutboundOut(.fileRegion(region)), promise: promise)
    }

    func flush() {
        self.context?.flush()
    }

    /// Bytes given to the channel that the kernel has not taken.
    var bytesInChannel: Int {
        (try? self.context?.channel.syncOptions?.getOption(.bufferedWritableBytes)) ?? 0
    }

    /// Part of a frame, or frames of a peer that is held back.
    var hasUnhandledBytes: Bool { self.pending.readableBytes > 0 }

    // MARK: time-outs

    func sweep(now: NIODeadline) {
        let configuration = self.server.configuration
        let waiting = self.bytesInChannel
        if waiting > 0 {
            let taken = self.bytesHandedOver - Int64(waiting)
            if self.stalledSince == nil || taken != self.bytesTaken {
                self.stalledSince = now
            }
            self.bytesTaken = taken
            if let since = self.stalledSince, now - since > configuration.stallTimeout {
                return self.refuse("takes no answers: \(waiting) bytes wait for it")
            }
        } else {
            self.stalledSince = nil
        }
        if let began = self.frameBegan, !self.isHeldBack, now - began > configuration.frameTimeout {
            return self.refuse("a frame was not complete in time")
        }
        if now - self.lastRead > configuration.idleTimeout {
            self.server.logger.debug(
                "idle connection closed", metadata: ["peer": "\(self.connection.remoteAddress.text)"])
            self.connection.abandon()
        }
    }
}
