import FastJSON
import MessageStore
import NIOCore
import RemotingProtocol
import StoreFormat
import WorkerProtocol

/// The slaves of this broker, or its master: what GET_BROKER_HA_STATUS (907) answers. Confined to the broker's loop.
final class ReplicaStatus {
    /// The replication worker is asked at most this long.
    static let slavesAnswerMilliseconds: Int64 = 2000

    private let environment: BrokerEnvironment
    private let storage: StoreAccess
    /// Clients that wait for one answer of the replication worker.
    static let askersMax = 64
    /// Who waits for the answer to `lastRequest`; none: it is answered, or was given up.
    private var askers: [Asker] = []
    private var lastRequest: UInt64 = 0
    /// Of a slave: its master.
    var master = ""
    /// Milliseconds since 1970 of the master's last bytes; 0: none yet.
    private var lastBytesMilliseconds: Int64 = 0
    private var rate = ByteRate()

    init(_ environment: BrokerEnvironment, _ storage: StoreAccess) {
        self.environment = environment
        self.storage = storage
    }

    /// The master has sent bytes.
    func received(bytes: Int) {
        lastBytesMilliseconds = environment.now()
        rate.add(bytes, second: lastBytesMilliseconds / 1000)
    }

    /// The replication worker reports which slaves follow: the answer to `BrokerPlatform.askForSlaves`.
    func slavesReported(request: UInt64, _ reports: [SlaveReport]) {
        for asker in takeAskers(of: request) { answerHAStatus(asker, reports) }
    }

    private func takeAskers(of request: UInt64) -> [Asker] {
        guard request == lastRequest else { return [] }
        defer { askers = [] }
        return askers
    }

    /// One question is under way at a time: its answer is for all that ask meanwhile.
    func haStatus(_ asker: Asker) {
        guard askers.count < Self.askersMax else {
            return asker.answer(
                .systemBusy, remark: "too many clients ask for the slaves of this broker; ask again in a moment")
        }
        askers.append(asker)
        guard askers.count == 1 else { return }
        lastRequest &+= 1
        let request = lastRequest
        guard !environment.configuration.isSlave, environment.platform.askForSlaves(request: request) else {
            return slavesReported(request: request, [])
        }
        let this = NIOLoopBound(self, eventLoop: environment.eventLoop)
        environment.eventLoop.scheduleTask(in: .milliseconds(Self.slavesAnswerMilliseconds)) {
            for asker in this.value.takeAskers(of: request) {
                asker.answer(
                    .systemError,
                    remark: "Can not get HARuntimeInfo: the replication worker has not answered for "
                        + "\(Self.slavesAnswerMilliseconds) ms; see apus status")
            }
        }
    }

    private func answerHAStatus(_ asker: Asker, _ reports: [SlaveReport]) {
        let end = storage.store.writtenOffset.rawValue
        func gap(_ report: SlaveReport) -> Int64 { end.subtractingReportingOverflow(report.acknowledged).partialValue }
        func isInSync(_ report: SlaveReport) -> Bool {
            report.acknowledged >= 0 && gap(report) < environment.configuration.haSlaveFallbehindMax
        }
        let connections = reports.map { report in
            JSONValue.fields([
                ("addr", .string(report.address)), ("diff", .integer(gap(report))), ("inSync", .bool(isInSync(report))),
                ("slaveAckOffset", .integer(report.acknowledged)), ("transferFromWhere", .integer(report.next)),
                ("transferredByteInSecond", .integer(report.bytesPerSecond)),
            ])
        }
        let inSync = Int64(reports.filter(isInSync).count)
        let isSlave = environment.configuration.isSlave
        let followed: JSONValue? = isSlave && !master.isEmpty ? .string(master) : nil
        let rate: Int64 = rate.perSecond(at: environment.now() / 1000)
        let ownEnd: Int64 = isSlave ? end : 0
        // A slave of Apache's reports nothing of its master's log.
        let masterEnd: Int64 = isSlave ? 0 : end
        let none: Int64 = 0
        let following = JSONValue.fields([
            ("lastReadTimestamp", .integer(lastBytesMilliseconds)),
            ("lastWriteTimestamp", .integer(lastBytesMilliseconds)), ("masterAddr", followed),
            ("masterFlushOffset", .integer(none)), ("maxOffset", .integer(ownEnd)),
            ("transferredByteInSecond", .integer(rate)),
        ])
        let body = JSONValue.fields([
            ("haClientRuntimeInfo", following), ("haConnectionInfo", .array(connections)),
            ("inSyncSlaveNums", .integer(inSync)), ("master", .bool(!isSlave)),
            ("masterCommitLogMaxOffset", .integer(masterEnd)),
        ])
        asker.answer(.success, body: body.bytes())
    }
}

extension AdminBrokerProcessor {
    func haStatus(_ request: borrowing Request) { replica.haStatus(request.asker) }

    /// RESET_MASTER_FLUSH_OFFSET (908). On a master Apache answers "success" and does nothing. A slave of Apus keeps no
    /// such offset: its log ends where it ends, so there is nothing to set, and its answer states that.
    func resetMasterFlushOffset(_ request: borrowing Request) throws(RemotingDecodeError) {
        guard environment.configuration.isSlave else { return request.answer(.success) }
        _ = try request.extFields.requiredInt64("masterFlushOffset")
        request.answer(
            .systemError,
            remark: "this slave keeps no flush offset of its master, nothing was changed: "
                + "it compares its log with the master's each time it connects")
    }
}
