import NIOCore

/// One connection to the master. Reads only as long as the broker-store keeps up.
final class SlaveConnection: ChannelDuplexHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private(set) var receiver: HAReceiver
    private let slave: ReplicationSlave
    private var context: ChannelHandlerContext?
    private var abandoned = false
    /// NIO asked to read and was not let.
    private var readHeldBack = false
    /// What was reported to the master last.
    private var reported: Int64?
    private var reportScheduled = false
    private var lastRead = NIODeadline.now()
    private var lastWrite = NIODeadline.now()
    private var timer: Scheduled<Void>?
    private var heardFromMaster = false
    /// Neighbouring bytes on their way to the broker-store.
    private var piece: [UInt8] = []
    private var pieceStart: Int64 = 0

    init(slave: ReplicationSlave, next: Int64) {
        self.slave = slave
        receiver = HAReceiver(next: next)
    }

    var isUp: Bool { context != nil }

    /// Where this connection's first bytes went.
    private var base: Int64?

    /// Bytes fetched over this connection that the broker-store does not have yet.
    func inFlight(stored: Int64) -> Int64 {
        base.map { max(0, receiver.next - max(stored, $0)) } ?? 0
    }

    /// Closes; the slave is notified no more of this connection.
    func abandon() {
        abandoned = true
        timer?.cancel()
        context?.close(promise: nil)
        context = nil
    }

    func channelActive(context: ChannelHandlerContext) {
        guard !abandoned else { return context.close(promise: nil) }
        self.context = context
        lastRead = .now()
        slave.up(self)
        report()
        scheduleTimer()
        context.fireChannelActive()
    }

    func channelInactive(context: ChannelHandlerContext) {
        self.context = nil
        let hint =
            heardFromMaster
            ? "" : " without sending anything: if this repeats, its log says why it refuses this slave's position"
        end("the master closed the connection\(hint)")
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        end("the connection to the master failed: \(error)")
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !abandoned else { return }
        lastRead = .now()
        var input = unwrapInboundIn(data)
        do throws(HAReceiver.Failure) {
            while let event = try receiver.read(&input) {
                if !heardFromMaster {
                    heardFromMaster = true
                    slave.healthy()
                }
                guard case .bytes(let at, let bytes) = event else { continue }
                if base == nil { base = at }
                add(bytes, at: at)
            }
        } catch {
            piece.removeAll(keepingCapacity: true)
            end("\(error). Nothing was written. If this repeats, the two logs differ: empty this slave's store")
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        handOver()
    }

    func read(context: ChannelHandlerContext) {
        guard abandoned || slave.mayTakeMore else {
            readHeldBack = true
            return
        }
        context.read()
    }

    /// The broker-store appended, or takes more.
    func progress() {
        guard let context else { return }
        scheduleReport()
        if readHeldBack, slave.mayTakeMore {
            readHeldBack = false
            context.read()
        }
    }

    private func add(_ bytes: ByteBuffer, at offset: Int64) {
        if piece.isEmpty {
            pieceStart = offset
        } else if pieceStart + Int64(piece.count) != offset
            || piece.count + bytes.readableBytes > ReplicationSlave.pieceMaximum
        {
            handOver()
            pieceStart = offset
        }
        piece.append(contentsOf: bytes.readableBytesView)
    }

    private func handOver() {
        guard !abandoned, !piece.isEmpty else { return }
        slave.take(at: pieceStart, piece)
        piece.removeAll(keepingCapacity: true)
    }

    // MARK: - Reports

    /// One report for all progress of a tick.
    private func scheduleReport() {
        guard !reportScheduled, let context, slave.stored != reported else { return }
        reportScheduled = true
        let connection = NIOLoopBound(self, eventLoop: context.eventLoop)
        context.eventLoop.execute {
            connection.value.reportScheduled = false
            connection.value.report()
        }
    }

    private func report() {
        guard let context, let stored = slave.stored else { return }
        reported = stored
        lastWrite = .now()
        context.writeAndFlush(wrapOutboundOut(ByteBuffer(integer: stored)), promise: nil)
    }

    // MARK: - Silence

    private func scheduleTimer() {
        guard let context else { return }
        let next = min(lastWrite + slave.heartbeat, lastRead + slave.housekeeping)
        let connection = NIOLoopBound(self, eventLoop: context.eventLoop)
        timer = context.eventLoop.scheduleTask(deadline: next) { connection.value.timerFired() }
    }

    private func timerFired() {
        guard context != nil else { return }
        let now = NIODeadline.now()
        // Silence counts only while we listen.
        if readHeldBack { lastRead = now }
        if now >= lastRead + slave.housekeeping {
            return end("the master was silent for \(slave.housekeeping.nanoseconds / 1_000_000) ms")
        }
        if now >= lastWrite + slave.heartbeat { report() }
        scheduleTimer()
    }

    private func end(_ reason: String) {
        guard !abandoned else { return }
        slave.ended(self, reason)
    }
}
