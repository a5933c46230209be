import FastJSON
import MessageStore
import NIOCore
import RemotingProtocol
import StoreFormat
package import WorkerProtocol

/// What GET_BROKER_HA_STATUS (907) needs to know. Confined to the broker's loop.
struct ReplicaStatus {
    /// Questions to the replication worker that are not answered.
    var waiting: [UInt64: (address: ReturnAddress, client: ClientContext)] = [:]
    var lastRequest: UInt64 = 0
    /// Of a slave: its master, and the bytes it sends.
    var master = ""
    /// Milliseconds since 1970 of the last bytes; 0: none yet.
    var lastBytesMillis: Int64 = 0
    var rate = ByteRate()
}

extension Broker {
    /// The replication worker is asked at most this long.
    static let slavesAnswerMillis: Int64 = 2000

    /// The replication worker says who follows: the answer to `askForSlaves`.
    package func slavesReported(request: UInt64, _ reports: [SlaveReport]) {
        guard let asker = replica.waiting.removeValue(forKey: request) else { return }
        answerHAStatus(asker.address, asker.client, reports)
    }

    /// As a slave: it follows a master, or has lost it.
    package func replicaState(connected: Bool, master: String) { replica.master = master }

    func haStatus(_ address: ReturnAddress, _ client: ClientContext) {
        guard !configuration.isSlave, let askForSlaves else { return answerHAStatus(address, client, []) }
        replica.lastRequest &+= 1
        let request = replica.lastRequest
        replica.waiting[request] = (address, client)
        askForSlaves(request)
        let this = NIOLoopBound(self, eventLoop: eventLoop)
        eventLoop.scheduleTask(in: .milliseconds(Self.slavesAnswerMillis)) {
            guard let asker = this.value.replica.waiting.removeValue(forKey: request) else { return }
            asker.client.answer(
                asker.address, .systemError,
                remark: "Can not get HARuntimeInfo: the replication worker has not answered for "
                    + "\(Self.slavesAnswerMillis) ms; see apus status")
        }
    }

    private func answerHAStatus(_ address: ReturnAddress, _ client: ClientContext, _ reports: [SlaveReport]) {
        let end = store.writtenOffset.rawValue
        func gap(_ report: SlaveReport) -> Int64 { end.subtractingReportingOverflow(report.acknowledged).partialValue }
        func isInSync(_ report: SlaveReport) -> Bool {
            report.acknowledged >= 0 && gap(report) < configuration.haSlaveFallbehindMax
        }
        let connections = reports.map { report in
            JSONValue.fields([
                ("addr", .string(report.address)), ("diff", .integer(gap(report))), ("inSync", .bool(isInSync(report))),
                ("slaveAckOffset", .integer(report.acknowledged)), ("transferFromWhere", .integer(report.next)),
                ("transferredByteInSecond", .integer(report.bytesPerSecond)),
            ])
        }
        let inSync = Int64(reports.filter(isInSync).count)
        let isSlave = configuration.isSlave
        let followed: JSONValue? = isSlave && !replica.master.isEmpty ? .string(replica.master) : nil
        let rate: Int64 = replica.rate.perSecond(at: now() / 1000)
        let ownEnd: Int64 = isSlave ? end : 0
        // A slave of Apache's says nothing of its master's log.
        let masterEnd: Int64 = isSlave ? 0 : end
        let none: Int64 = 0
        let following = JSONValue.fields([
            ("lastReadTimestamp", .integer(replica.lastBytesMillis)),
            ("lastWriteTimestamp", .integer(replica.lastBytesMillis)), ("masterAddr", followed),
            ("masterFlushOffset", .integer(none)), ("maxOffset", .integer(ownEnd)),
            ("transferredByteInSecond", .integer(rate)),
        ])
        let body = JSONValue.fields([
            ("haClientRuntimeInfo", following), ("haConnectionInfo", .array(connections)),
            ("inSyncSlaveNums", .integer(inSync)), ("master", .bool(!isSlave)),
            ("masterCommitLogMaxOffset", .integer(masterEnd)),
        ])
        client.answer(address, .success, body: body.bytes())
    }
}

extension AdminBrokerProcessor {
    func haStatus(_ frame: RemotingFrame, _ client: ClientContext) { broker.haStatus(frame.returnAddress, client) }

    /// RESET_MASTER_FLUSH_OFFSET (908). On a master Apache answers "success" and does nothing. A slave of Apus keeps no such
    /// offset: its log ends where it ends, so there is nothing to set, and it says so.
    func resetMasterFlushOffset(_ frame: RemotingFrame, _ client: ClientContext) throws(RemotingDecodeError) {
        guard broker.configuration.isSlave else { return client.answer(frame.returnAddress, .success) }
        _ = try frame.extFields.requiredInt64("masterFlushOffset")
        client.answer(
            frame.returnAddress, .systemError,
            remark: "this slave keeps no flush offset of its master, nothing was changed: "
                + "it compares its log with the master's each time it connects")
    }
}
