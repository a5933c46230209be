import Glibc
import Logging
import MessageModel
import NIOCore
import RemotingProtocol

/// Slices frames out of a connection's reads and hands them on in place; keeps the bytes of an unfinished frame.
///
/// Holds a peer back (reads and handles no more of its requests) while more than
/// `RemotingServerConfiguration.outboundHighWaterBytes` wait to be sent to it, or the service says so.
final class RemotingServerHandler: ChannelDuplexHandler, FramePoolMember {
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

    /// Memory for the unfinished frame in `pending`: its whole length.
    private var reservation: (pool: FramePool, bytes: Int)?
    /// A place in the queue for that. Nothing is read meanwhile.
    private var wanted: (pool: FramePool, bytes: Int, ticket: UInt64)?
    /// Bytes of `pending` that are kept without a reservation.
    private var unreserved = 0
    /// Bytes that have come over this connection.
    private var bytesRead = 0
    private var pace = FramePace()
    /// A request was complete.
    private(set) var hasSpoken: Bool
    var hasBegun: Bool { self.bytesRead > 0 }

    private(set) var lastRead = NIODeadline.now()
    private var frameBegan: NIODeadline?
    private var stalledSince: NIODeadline?
    private var bytesHandedOver: Int64 = 0
    private var bytesTaken: Int64 = 0
    /// Of the last request handed on.
    private var lastCode: Int32 = 0
    /// Of `bytesInChannel`, those that lie in files.
    private var fileBytesInChannel = 0

    init(connection: RemotingConnection, server: RemotingServer, hasSpoken: Bool = false) {
        self.connection = connection
        self.server = server
        self.hasSpoken = hasSpoken
    }

    // MARK: - Life cycle

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
        self.forget()
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        self.connection.didClose()
        self.forget()
    }

    private func forget() {
        self.context = nil
        self.pending = ByteBuffer()
        self.releaseMemory(isWhole: false)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // Resets are everyday; anything else deserves a line.
        if (error as? IOError)?.errnoCode != ECONNRESET {
            self.server.refused("\(error)", self.connection.remoteAddress.text)
        }
        self.connection.abandon()
    }

    private func refuse(_ reason: String) {
        self.server.refused(reason, self.connection.remoteAddress.text)
        self.pending = ByteBuffer()
        self.releaseMemory(isWhole: false)
        self.connection.abandon()
    }

    /// The stream cannot be trusted any more: nothing tells where the next frame begins.
    private func refuse(_ reason: String, after bytes: UnsafeRawBufferPointer) {
        let advice = self.hasSpoken ? nil : ForeignProtocol.advice(bytes)
        self.refuse(advice.map { "\($0) (\(reason))" } ?? reason)
    }

    // MARK: reading

    func read(context: ChannelHandlerContext) {
        if self.isHeldBack || self.wanted != nil {
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
        defer { self.server.readEnded(code: self.lastCode, peer: self.connection.remoteAddress) }
        self.bytesRead += buffer.readableBytes
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
            self.accountForPending()
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
        if !self.connection.isClosed { self.accountForPending() }
    }

    // MARK: memory for unfinished frames

    /// Reserves what the frame that begins `pending` will take, or has this connection wait for it.
    private func accountForPending() {
        let kept = self.pending.readableBytes
        guard kept > 0 else { return self.releaseMemory() }
        if self.isHeldBack, let reservation = self.reservation, kept <= reservation.bytes { return }
        guard !self.isHeldBack, let length = self.pending.getInteger(at: self.pending.readerIndex, as: Int32.self)
        else {
            self.releaseReservation()
            return self.keepUnreserved(kept)
        }
        let bytes = 4 + Int(length)
        if self.reservation?.bytes == bytes { return }
        // What a read under way had still brought counts as well.
        if self.wanted?.bytes == bytes { return self.keepUnreserved(kept) }
        self.releaseReservation()
        let pool = self.server.frameMemory.pool(for: bytes)
        if pool.reserve(bytes) {
            self.take(pool, bytes)
        } else {
            self.wanted = (pool, bytes, pool.wait(self, for: bytes, of: self.network))
            self.keepUnreserved(kept)
        }
    }

    private func take(_ pool: FramePool, _ bytes: Int) {
        self.reservation = (pool, bytes)
        self.restartPace(at: self.lastRead)
        self.keepUnreserved(0)
        // In one piece, instead of doubling as it grows.
        if bytes > FrameMemory.smallBytesMax { self.pending.reserveCapacity(bytes) }
    }

    func framePoolGranted() {
        guard let wanted = self.wanted else { return }
        self.wanted = nil
        self.lastRead = .now()
        self.frameBegan = self.lastRead
        self.take(wanted.pool, wanted.bytes)
        self.readOn()
    }

    private func keepUnreserved(_ bytes: Int) {
        let change = bytes - self.unreserved
        self.unreserved = bytes
        guard !self.server.frameMemory.keep(change) else { return }
        self.refuse("no memory is left for requests of peers that wait: \(bytes) bytes of this one")
    }

    /// - Parameter isWhole: the frame is complete.
    private func releaseReservation(isWhole: Bool = true) {
        if let wanted = self.wanted {
            self.wanted = nil
            wanted.pool.cancel(wanted.ticket)
        }
        if let reservation = self.reservation {
            self.reservation = nil
            reservation.pool.release(
                reservation.bytes, of: self.network,
                after: reservation.pool.isContended ? .now() - self.pace.isTimedFrom : .zero, isWhole: isWhole)
        }
    }

    private func releaseMemory(isWhole: Bool = true) {
        self.releaseReservation(isWhole: isWhole)
        if self.unreserved > 0 { self.keepUnreserved(0) }
    }

    private var network: RemoteNetwork {
        RemoteNetwork(remote: self.connection.remoteAddress, local: self.connection.localAddress)
    }

    private func restartPace(at now: NIODeadline) {
        let bytes = self.reservation?.bytes ?? 0
        self.pace.restart(at: now, bytes: self.bytesRead, rest: bytes - self.pending.readableBytes)
    }

    /// Whether the frame that has memory reserved comes too slowly for those that wait for it.
    private func trickles(now: NIODeadline) -> Bool {
        guard let reservation = self.reservation else { return false }
        // A peer that is held back for what others do cannot send; one that takes no answers could.
        guard reservation.pool.isContended, !self.isHeldBack || self.channelIsFull else {
            self.restartPace(at: now)
            return false
        }
        return self.pace.isTooSlow(at: now, bytes: self.bytesRead, self.server.configuration)
    }

    // MARK: frames

    /// Hands on every whole frame; returns the bytes consumed.
    private func handleFrames(in buffer: ByteBuffer) -> Int {
        buffer.withUnsafeReadableBytes { bytes in
            var offset = 0
            while bytes.count - offset >= 4, !self.connection.isClosed {
                let length = Int(
                    Int32(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Int32.self)))
                guard length >= 4, length <= Self.unaskedBytesMax || length <= self.frameBytesMax else {
                    self.refuse(Self.words(ofLength: length, max: self.frameBytesMax), after: bytes)
                    return bytes.count
                }
                guard bytes.count - offset >= 4 + length else { break }
                // A large frame that is whole goes on: it would keep its memory while others wait for it.
                if self.mustHoldBack, offset > 0 || !self.hasLargeReservation {
                    self.isHeldBack = true
                    self.frameBegan = nil
                    return offset
                }
                let frameBytes = UnsafeRawBufferPointer(rebasing: bytes[offset..<(offset + 4 + length)])
                do throws(RemotingDecodeError) {
                    let frame = try RemotingFrame.parse(frameBytes, scratch: self.server.scratch)
                    self.lastCode = frame.code
                    self.hasSpoken = true
                    if frame.isResponse {
                        self.connection.received(response: frame)
                    } else {
                        self.server.service.received(frame, on: self.connection)
                    }
                } catch {
                    self.refuse(error.description, after: bytes)
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

    private var hasLargeReservation: Bool { self.reservation.map { $0.bytes > FrameMemory.smallBytesMax } ?? false }

    /// Frames up to this length need no look at the service's own bound.
    private static let unaskedBytesMax = 1 << 20
    private var frameBytesMax: Int { min(self.server.service.frameBytesMax, RemotingLimits.frameBytes) }

    private static func words(ofLength length: Int, max: Int) -> String {
        guard length > max, length <= RemotingLimits.frameBytes else {
            return RemotingDecodeError.badFrameLength(length).description
        }
        return "a frame of \(length) bytes is announced and \(max) are taken here"
    }

    // MARK: holding back

    private var mustHoldBack: Bool {
        if self.channelIsFull || self.connection.readsAreHeld || self.connection.awaitsAnswer
            || self.connection.unflushedBytes > self.server.configuration.outboundHighWaterBytes
        {
            return true
        }
        guard self.server.mustWaitForRoom(unsent: self.connection.countedOutbound) else { return false }
        self.server.waitsForRoom(self.connection)
        return true
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
        guard self.isHeldBack, self.context != nil, !self.mustHoldBack else { return }
        self.isHeldBack = false
        if self.pending.readableBytes > 0 {
            self.server.scheduleTick()
            self.handlePending()
        }
        self.readOn()
    }

    private func readOn() {
        guard !self.isHeldBack, self.wanted == nil, self.readIsWanted, let context = self.context else { return }
        self.readIsWanted = false
        context.read()
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
        let count = region.readableBytes
        self.bytesHandedOver += Int64(count)
        self.fileBytesInChannel += count
        let this = NIOLoopBound(self, eventLoop: context.eventLoop)
        promise.futureResult.whenComplete { _ in this.value.fileBytesInChannel -= count }
        context.write(self.wrapOutboundOut(.fileRegion(region)), promise: promise)
    }

    func flush() {
        self.context?.flush()
    }

    /// Bytes given to the channel that the kernel has not taken.
    var bytesInChannel: Int {
        (try? self.context?.channel.syncOptions?.getOption(.bufferedWritableBytes)) ?? 0
    }

    /// The same without what lies in files.
    var memoryInChannel: Int { max(0, self.bytesInChannel - self.fileBytesInChannel) }

    func isStalled(since time: NIODeadline) -> Bool { self.stalledSince.map { $0 <= time } ?? false }

    /// Part of a frame, or frames of a peer that is held back.
    var hasUnhandledBytes: Bool { self.pending.readableBytes > 0 }

    // MARK: time-outs

    func sweep(now: NIODeadline, judgesSlow: Bool) {
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
        if !judgesSlow { self.restartPace(at: now) }
        if self.trickles(now: now) {
            return self.refuse(
                "a frame of \(self.reservation?.bytes ?? 0) bytes comes too slowly while others wait for memory")
        }
        if let began = self.frameBegan, !self.isHeldBack, self.wanted == nil, now - began > configuration.frameTimeout {
            return self.refuse("a frame was not complete in time")
        }
        if now - self.lastRead > configuration.idleTimeout {
            self.server.logger.debug(
                "idle connection closed", metadata: ["peer": "\(self.connection.remoteAddress.text)"])
            self.connection.abandon()
        }
    }
}
