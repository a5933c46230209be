import Logging
import NIOCore
import RemotingTransport
import WorkerProtocol

/// One slave of a master: takes its reports, sends it the log as fast as its socket takes it.
final class MasterConnection: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = IOData

    /// One slave sends at most this much before the others and the reports get their turn, in bytes.
    private static let turn = 1024 * 1024

    let channel: any Channel
    private let master: ReplicationMaster
    private let address: String
    private var session: HASession
    private var context: ChannelHandlerContext?
    private var pumping = false
    private var closing = false
    /// When it was accepted.
    let opened = NIODeadline.now()
    private var lastRead = NIODeadline.now()
    private var lastWrite = NIODeadline.now()
    private var timer: Scheduled<Void>?
    private var rate = ByteRate()
    /// For one header and small bodies; reused while the socket has taken the last one.
    private var buffer = ByteBuffer()

    init(master: ReplicationMaster, channel: any Channel) {
        self.master = master
        self.channel = channel
        session = master.newSession()
        address = channel.remoteAddress.map { "\($0.ipAddress ?? "?"):\($0.port ?? 0)" } ?? "?"
    }

    /// Of a clock that only goes on.
    private static var second: Int64 { Int64(NIODeadline.now().uptimeNanoseconds / 1_000_000_000) }

    var report: SlaveReport {
        SlaveReport(
            address: address, acknowledged: session.acknowledged ?? -1, next: session.next ?? -1,
            bytesPerSecond: rate.perSecond(at: Self.second))
    }

    /// It has not reported its offset yet, and is not being closed.
    var hasNotReported: Bool { session.acknowledged == nil && !closing }

    /// The offset it has acknowledged and that was compared with the log; nil: none, or it is being closed.
    var judged: Int64? { session.next == nil || closing ? nil : session.acknowledged }

    /// Closes it for another.
    func giveWay() { close("it has reported nothing, and a new connection needs its slot") }

    func channelActive(context: ChannelHandlerContext) {
        self.context = context
        master.opened(self)
        master.logger.info("slave \(address) connected")
        scheduleTimer()
    }

    func channelInactive(context: ChannelHandlerContext) {
        timer?.cancel()
        self.context = nil
        if !closing {
            master.logger.warning(
                """
                slave \(address) disconnected; it has the log up to \(session.acknowledged ?? 0) and gets the rest \
                when it connects again
                """
            )
        }
        master.closed(self)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        close("its connection failed: \(error)")
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        lastRead = .now()
        let bytes = unwrapInboundIn(data)
        if session.acknowledged == nil, let advice = bytes.withUnsafeReadableBytes(ForeignProtocol.advice) {
            return close("what it sent \(advice)")
        }
        session.received(bytes.readableBytesView)
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        guard !closing, let acknowledged = session.acknowledged else { return }
        // The report counts once it has been compared with the log, as far as there is one to compare with.
        guard let log = master.state else { return }
        guard judge(log) else { return }
        master.reported(acknowledged)
        pump()
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        if context.channel.isWritable { pump() }
    }

    /// Compares its report with the log, if there is one; closes it when they do not fit.
    private func judge(_ log: HASession.Log) -> Bool {
        let before = judged
        if case .close(let reason) = session.judge(log) {
            close(reason)
            return false
        }
        if before == nil, let acknowledged = judged, let next = session.next {
            master.logger.info("slave \(address) has \(acknowledged), gets the log from \(next) on")
            master.judged()
        }
        return true
    }

    /// Sends what the slave does not have yet.
    func pump() {
        guard let context, !pumping, !closing, let log = master.state else { return }
        let before = judged
        guard judge(log) else { return }
        // What was written while broker-store knew of no slave that waits: from now on it signals.
        guard before != nil || judged == nil else { return pump() }
        pumping = true
        defer { pumping = false }
        var sent = 0
        while channel.isWritable, sent < Self.turn, let transfer = session.nextTransfer(log) {
            guard send(transfer, log, context) else {
                return close("the commit log file that holds \(transfer.offset) cannot be read")
            }
            sent += transfer.size
            rate.add(transfer.size, second: Self.second)
            // Keeps what waits in memory small, and lets the socket's buffer fill while the next piece is made.
            context.flush()
        }
        if sent >= Self.turn {
            let connection = NIOLoopBound(self, eventLoop: context.eventLoop)
            context.eventLoop.execute { connection.value.pump() }
        }
    }

    private func send(_ transfer: HASession.Transfer, _ log: HASession.Log, _ context: ChannelHandlerContext) -> Bool {
        guard let file = master.file(at: transfer.offset, fileSize: log.fileSize) else { return false }
        buffer.clear(minimumCapacity: HAProtocol.headerSize + FileSending.bytesMin)
        transfer.writeHeader(into: &buffer)
        if transfer.size < FileSending.bytesMin {
            guard file.read(at: transfer.offset, size: transfer.size, into: &buffer) else { return false }
            context.write(wrapOutboundOut(.byteBuffer(buffer)), promise: nil)
        } else {
            context.write(wrapOutboundOut(.byteBuffer(buffer)), promise: nil)
            let start = Int(transfer.offset - file.start)
            let region = FileRegion(fileHandle: file.handle, readerIndex: start, endIndex: start + transfer.size)
            let written = context.eventLoop.makePromise(of: Void.self)
            // The file stays open until the socket took its bytes.
            written.futureResult.whenComplete { _ in withExtendedLifetime(file) {} }
            context.write(wrapOutboundOut(.fileRegion(region)), promise: written)
        }
        lastWrite = .now()
        return true
    }

    // MARK: - Silence

    private func scheduleTimer() {
        guard let context else { return }
        let next = min(lastWrite + master.heartbeat, lastRead + master.housekeeping)
        let connection = NIOLoopBound(self, eventLoop: context.eventLoop)
        timer = context.eventLoop.scheduleTask(deadline: next) { connection.value.timerFired() }
    }

    private func timerFired() {
        guard let context, !closing else { return }
        let now = NIODeadline.now()
        if now >= lastRead + master.housekeeping {
            return close("it was silent for \(master.housekeeping.nanoseconds / 1_000_000) ms")
        }
        if now >= lastWrite + master.heartbeat {
            // Before the slave's first report there is nothing to send to it.
            if let heartbeat = session.heartbeat, channel.isWritable {
                buffer.clear()
                heartbeat.writeHeader(into: &buffer)
                context.writeAndFlush(wrapOutboundOut(.byteBuffer(buffer)), promise: nil)
            }
            lastWrite = now
        }
        scheduleTimer()
    }

    private func close(_ reason: String) {
        guard !closing else { return }
        closing = true
        master.logger.error("slave \(address) is disconnected: \(reason)")
        channel.close(promise: nil)
    }
}
