import Glibc
import Logging
import MessageModel
import NIOCore
import RemotingProtocol

/// Slices frames out of a connection's reads and hands them on in place; keeps the bytes of an unfinished frame.
///
/// Holds a peer back: reads and handles no more of its requests. It does so while more than
/// `RemotingServerConfiguration.outboundHighWaterBytes` wait to be sent to it, or the service asks for it.
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
    var hasBegun: Bool { bytesRead > 0 }

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
        connection.attach(self)
    }

    func channelActive(context: ChannelHandlerContext) {
        server.opened(connection)
    }

    func channelInactive(context: ChannelHandlerContext) {
        connection.didClose()
        server.closed(connection)
        forget()
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        connection.didClose()
        forget()
    }

    private func forget() {
        context = nil
        pending = ByteBuffer()
        releaseMemory(isWhole: false)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // Resets are everyday; anything else deserves a line.
        if (error as? IOError)?.errnoCode != ECONNRESET {
            server.refused("\(error)", connection.remoteAddress.text)
        }
        connection.abandon()
    }

    private func refuse(_ reason: String) {
        server.refused(reason, connection.remoteAddress.text)
        pending = ByteBuffer()
        releaseMemory(isWhole: false)
        connection.abandon()
    }

    /// The stream cannot be trusted any more: nothing shows where the next frame begins.
    private func refuse(_ reason: String, after bytes: UnsafeRawBufferPointer) {
        let advice = hasSpoken ? nil : ForeignProtocol.advice(bytes)
        refuse(advice.map { "\($0) (\(reason))" } ?? reason)
    }

    // MARK: - Reading

    func read(context: ChannelHandlerContext) {
        if isHeldBack || wanted != nil {
            readIsWanted = true
        } else {
            context.read()
        }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var buffer = unwrapInboundIn(data)
        guard !connection.isClosed else { return }
        server.scheduleTick()
        lastRead = server.now
        defer { server.readEnded(code: lastCode, peer: connection.remoteAddress) }
        bytesRead += buffer.readableBytes
        if pending.readableBytes > 0 {
            pending.writeBuffer(&buffer)
            handlePending()
            return
        }
        let handled = handleFrames(in: buffer)
        if handled < buffer.readableBytes, !connection.isClosed {
            buffer.moveReaderIndex(forwardBy: handled)
            // A copy, so that the channel's read buffer can be used again.
            pending.clear(minimumCapacity: buffer.readableBytes)
            pending.writeBuffer(&buffer)
            accountForPending()
        }
    }

    private func handlePending() {
        let handled = handleFrames(in: pending)
        pending.moveReaderIndex(forwardBy: min(handled, pending.readableBytes))
        if pending.readableBytes == 0 {
            pending = ByteBuffer()
        } else if pending.readerIndex > pending.readableBytes {
            pending.discardReadBytes()
        }
        if !connection.isClosed { accountForPending() }
    }

    // MARK: - Memory for unfinished frames

    /// Reserves what the frame that begins `pending` will take, or has this connection wait for it.
    private func accountForPending() {
        let kept = pending.readableBytes
        guard kept > 0 else { return releaseMemory() }
        if isHeldBack, let reservation = self.reservation, kept <= reservation.bytes { return }
        guard !isHeldBack, let length = pending.getInteger(at: pending.readerIndex, as: Int32.self)
        else {
            releaseReservation()
            return keepUnreserved(kept)
        }
        let bytes = 4 + Int(length)
        if self.reservation?.bytes == bytes { return }
        // What a read under way had still brought counts as well.
        if wanted?.bytes == bytes { return keepUnreserved(kept) }
        releaseReservation()
        let pool = server.frameMemory.pool(for: bytes)
        if pool.reserve(bytes) {
            take(pool, bytes)
        } else {
            wanted = (pool, bytes, pool.wait(self, for: bytes, of: network))
            keepUnreserved(kept)
        }
    }

    private func take(_ pool: FramePool, _ bytes: Int) {
        reservation = (pool, bytes)
        restartPace(at: lastRead)
        keepUnreserved(0)
        // In one piece, instead of doubling as it grows.
        if bytes > FrameMemory.smallBytesMax { pending.reserveCapacity(bytes) }
    }

    func framePoolGranted() {
        guard let wanted = self.wanted else { return }
        self.wanted = nil
        lastRead = .now()
        frameBegan = lastRead
        take(wanted.pool, wanted.bytes)
        readOn()
    }

    private func keepUnreserved(_ bytes: Int) {
        let change = bytes - unreserved
        unreserved = bytes
        guard !server.frameMemory.keep(change) else { return }
        refuse("no memory is left for requests of peers that wait: \(bytes) bytes of this one")
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
                reservation.bytes, of: network,
                after: reservation.pool.isContended ? .now() - pace.isTimedFrom : .zero, isWhole: isWhole)
        }
    }

    private func releaseMemory(isWhole: Bool = true) {
        releaseReservation(isWhole: isWhole)
        if unreserved > 0 { keepUnreserved(0) }
    }

    private var network: RemoteNetwork {
        RemoteNetwork(remote: connection.remoteAddress, local: connection.localAddress)
    }

    private func restartPace(at now: NIODeadline) {
        let bytes = reservation?.bytes ?? 0
        pace.restart(at: now, bytes: bytesRead, rest: bytes - pending.readableBytes)
    }

    /// Whether the frame that has memory reserved comes too slowly for those that wait for it.
    private func trickles(now: NIODeadline) -> Bool {
        guard let reservation = self.reservation else { return false }
        // A peer that is held back for what others do cannot send; one that takes no answers could.
        guard reservation.pool.isContended, !isHeldBack || channelIsFull else {
            restartPace(at: now)
            return false
        }
        return pace.isTooSlow(at: now, bytes: bytesRead, server.configuration)
    }

    // MARK: - Frames

    /// Hands on every whole frame; returns the bytes consumed.
    private func handleFrames(in buffer: ByteBuffer) -> Int {
        buffer.withUnsafeReadableBytes { bytes in
            var offset = 0
            while bytes.count - offset >= 4, !connection.isClosed {
                let length = Int(
                    Int32(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Int32.self)))
                guard length >= 4, length <= Self.unaskedBytesMax || length <= frameBytesMax else {
                    refuse(Self.words(ofLength: length, max: frameBytesMax), after: bytes)
                    return bytes.count
                }
                guard bytes.count - offset >= 4 + length else { break }
                // A large frame that is whole goes on: it would keep its memory while others wait for it.
                if mustHoldBack, offset > 0 || !hasLargeReservation {
                    isHeldBack = true
                    frameBegan = nil
                    return offset
                }
                let frameBytes = UnsafeRawBufferPointer(rebasing: bytes[offset..<(offset + 4 + length)])
                do throws(RemotingDecodeError) {
                    let frame = try RemotingFrame.parse(frameBytes, scratch: server.scratch)
                    lastCode = frame.code
                    hasSpoken = true
                    if frame.isResponse {
                        connection.received(response: frame)
                    } else {
                        server.service.received(frame, on: connection)
                    }
                } catch {
                    refuse(error.description, after: bytes)
                    return bytes.count
                }
                offset += 4 + length
            }
            if offset == bytes.count {
                frameBegan = nil
            } else if offset > 0 || frameBegan == nil {
                frameBegan = lastRead
            }
            return offset
        }
    }

    private var hasLargeReservation: Bool { reservation.map { $0.bytes > FrameMemory.smallBytesMax } ?? false }

    /// Frames up to this length need no look at the service's own bound.
    private static let unaskedBytesMax = 1 << 20
    private var frameBytesMax: Int { min(server.service.frameBytesMax, RemotingLimits.frameBytes) }

    private static func words(ofLength length: Int, max: Int) -> String {
        guard length > max, length <= RemotingLimits.frameBytes else {
            return RemotingDecodeError.badFrameLength(length).description
        }
        return "a frame of \(length) bytes is announced and \(max) are taken here"
    }

    // MARK: - Holding back

    private var mustHoldBack: Bool {
        if channelIsFull || connection.readsAreHeld || connection.awaitsAnswer
            || connection.unflushedBytes > server.configuration.outboundHighWaterBytes
        {
            return true
        }
        guard server.mustWaitForRoom(unsent: connection.countedOutbound) else { return false }
        server.waitsForRoom(connection)
        return true
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        channelIsFull = !context.channel.isWritable
        if channelIsFull {
            isHeldBack = true
        } else {
            resume()
        }
    }

    /// Goes on with a peer that was held back, when it has taken enough.
    func resume() {
        guard isHeldBack, context != nil, !mustHoldBack else { return }
        isHeldBack = false
        if pending.readableBytes > 0 {
            server.scheduleTick()
            handlePending()
        }
        readOn()
    }

    private func readOn() {
        guard !isHeldBack, wanted == nil, readIsWanted, let context = self.context else { return }
        readIsWanted = false
        context.read()
    }

    // MARK: - Writing

    func write(_ buffer: ByteBuffer) {
        bytesHandedOver += Int64(buffer.readableBytes)
        context?.write(wrapOutboundOut(.byteBuffer(buffer)), promise: nil)
    }

    func write(file region: FileRegion, promise: EventLoopPromise<Void>) {
        guard let context = self.context else {
            promise.fail(ChannelError.ioOnClosedChannel)
            return
        }
        let count = region.readableBytes
        bytesHandedOver += Int64(count)
        fileBytesInChannel += count
        let this = NIOLoopBound(self, eventLoop: context.eventLoop)
        promise.futureResult.whenComplete { _ in this.value.fileBytesInChannel -= count }
        context.write(wrapOutboundOut(.fileRegion(region)), promise: promise)
    }

    func flush() {
        context?.flush()
    }

    /// Bytes given to the channel that the kernel has not taken.
    var bytesInChannel: Int {
        (try? context?.channel.syncOptions?.getOption(.bufferedWritableBytes)) ?? 0
    }

    /// The same without what lies in files.
    var memoryInChannel: Int { max(0, bytesInChannel - fileBytesInChannel) }

    func isStalled(since time: NIODeadline) -> Bool { stalledSince.map { $0 <= time } ?? false }

    /// Part of a frame, or frames of a peer that is held back.
    var hasUnhandledBytes: Bool { pending.readableBytes > 0 }

    // MARK: - Time-outs

    func sweep(now: NIODeadline, judgesSlow: Bool) {
        let configuration = server.configuration
        let waiting = bytesInChannel
        if waiting > 0 {
            let taken = bytesHandedOver - Int64(waiting)
            if stalledSince == nil || taken != bytesTaken {
                stalledSince = now
            }
            bytesTaken = taken
            if let since = stalledSince, now - since > configuration.stallTimeout {
                return refuse("takes no answers: \(waiting) bytes wait for it")
            }
        } else {
            stalledSince = nil
        }
        if !judgesSlow { restartPace(at: now) }
        if trickles(now: now) {
            return refuse(
                "a frame of \(reservation?.bytes ?? 0) bytes comes too slowly while others wait for memory")
        }
        if let began = frameBegan, !isHeldBack, wanted == nil, now - began > configuration.frameTimeout {
            return refuse("a frame was not complete in time")
        }
        if now - lastRead > configuration.idleTimeout {
            server.logger.debug(
                "idle connection closed", metadata: ["peer": "\(connection.remoteAddress.text)"])
            connection.abandon()
        }
    }
}
