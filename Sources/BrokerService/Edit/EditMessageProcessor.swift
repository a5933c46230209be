import Logging
import MessageStore
import RemotingProtocol
import RemotingTransport
import StoreFormat

/// APUS_EDIT_MESSAGE (31002, Apus's own): changes, withdraws, postpones or repeats one message. An edit is carried out
/// at the end of a tick, behind all the tick has handed out, ended or delivered. Whatever comes after it reads what it
/// has stored. Confined to the broker's event loop.
final class EditMessageProcessor {
    /// Edits carried out in one tick, and bytes after which it ends.
    static let perTickMax = 32
    static let bytesPerTick = 4 << 20
    /// Edits that wait for the end of a tick, and bytes of their bodies: more are refused.
    static let waitingMax = 256
    static let waitingBytesMax = 16 << 20
    /// Groups named in an answer.
    static let consumedByMax = 256

    private let environment: BrokerEnvironment
    private let tables: BrokerTables
    private let storage: StoreAccess
    private let claims: GroupClaims
    private let finder: MessageFinder
    private let editor: MessageEditor

    private struct Waiting {
        let edit: EditRequest
        let message: StoredMessage
        let audience: PullingAudience
        let asker: Asker

        var bytes: Int { edit.body?.count ?? 0 }
    }

    private var waiting: [Waiting] = []
    private var waitingBytes = 0
    /// Messages this tick takes out of their queues.
    private var withdrawn: [StoredMessage] = []

    init(
        _ environment: BrokerEnvironment, _ tables: BrokerTables, _ storage: StoreAccess, _ claims: GroupClaims,
        _ editor: MessageEditor
    ) {
        self.environment = environment
        self.tables = tables
        self.storage = storage
        self.claims = claims
        self.editor = editor
        finder = MessageFinder(environment, storage)
    }

    /// Fields: those of `MessageFinder` for the message, those of `EditRequest` for what is to be done. The answer's
    /// fields name the version that was made: `version`, `topic`, `queueId`, `queueOffset`, `commitLogOffset`, `msgId`,
    /// `uniqueKey`, and `deliverAt` where it waits for a time. `consumedBy` has the groups that have consumed the
    /// version before, separated by commas; `consumedByLeftOut` is there where there are more. Its code is that of a
    /// send. Codes 10, 11 and 12 say that the edit is stored, and that disk or slave have not confirmed it.
    func process(_ request: borrowing Request) throws(RemotingDecodeError) {
        let edit: EditRequest
        switch try EditRequest.parse(request) {
        case .refused(let reason): return request.answer(.systemError, remark: reason)
        case .request(let parsed): edit = parsed
        }
        let asker = request.asker
        // Sending one of several alike once more does no harm; all else must hit the one that is meant.
        let isLive: ((StoredMessage) -> Bool)? = edit.operation == .resend ? nil : { [editor] in editor.isLive($0) }
        try finder.find(request, among: isLive) { [self] message, others in
            guard others.isEmpty else {
                return refuse(edit, asker, .illegalOperation, Self.ambiguous([message] + others))
            }
            askWhoConsumed(edit, message, asker)
        }
    }

    private static func ambiguous(_ messages: [StoredMessage]) -> String {
        let places = messages.prefix(8).map { message in
            "\(message.topic) queue \(message.queueID) offset \(message.queueOffset) (\(message.messageID))"
        }
        let more = messages.count > places.count ? " and \(messages.count - places.count) more" : ""
        return "\(messages.count) messages have this id: \(places.joined(separator: ", "))\(more); name one by its "
            + "position (the id in parentheses)"
    }

    private func refuse(_ edit: EditRequest, _ asker: Asker, _ code: ResponseCode, _ reason: String) {
        environment.logger.info("\(edit.operation.rawValue) of a message by \(edit.by) was refused: \(reason)")
        asker.answer(code, remark: reason)
    }

    /// Looks at the groups that pull, which may be very many, in slices.
    private func askWhoConsumed(_ edit: EditRequest, _ message: StoredMessage, _ asker: Asker) {
        guard edit.operation != .resend, !MessageFinder.waitingTopics.contains(message.topic) else {
            return wait(Waiting(edit: edit, message: message, audience: .empty, asker: asker))
        }
        asker.client.connection.awaitsAnswer = true
        tables.consumers.groups(subscribedTo: message.topic, in: environment.slices) { [self] online in
            asker.client.connection.awaitsAnswer = false
            var inquiry = PullingAudience.Inquiry(tables, claims, message, online: online)
            environment.slices.work(for: asker.client) {
                inquiry.advance()
            } then: { [self] in
                wait(Waiting(edit: edit, message: message, audience: inquiry.found, asker: asker))
            }
        }
    }

    private func wait(_ one: Waiting) {
        let hasRoom = waiting.isEmpty || waitingBytes + one.bytes <= Self.waitingBytesMax
        guard waiting.count < Self.waitingMax, hasRoom else {
            let reason = "\(waiting.count) edits wait to be carried out: ask again in a moment"
            return refuse(one.edit, one.asker, .systemBusy, reason)
        }
        waiting.append(one)
        waitingBytes += one.bytes
        storage.scheduleTick()
    }

    // MARK: - The end of a tick

    /// Carries out what waits, a bounded part of it. The broker calls it before the tick's messages are written.
    func carryOutWaiting() {
        guard !waiting.isEmpty else { return }
        var count = 0
        var bytes = 0
        while count < min(waiting.count, Self.perTickMax), bytes < Self.bytesPerTick {
            bytes += waiting[count].bytes + carryOut(waiting[count])
            waitingBytes -= waiting[count].bytes
            count += 1
        }
        waiting.removeFirst(count)
        if !waiting.isEmpty { storage.scheduleTick() }
    }

    /// - Returns: bytes of the message that was read for it.
    private func carryOut(_ one: Waiting) -> Int {
        let (edit, message, asker) = (one.edit, one.message, one.asker)
        guard !asker.client.connection.isClosed else { return 0 }
        // The broker may be about to stop, or have become a slave, since the message was looked for.
        if let refusal = storage.admission.refusal(of: .pop, in: Admission.Refusal.pop.states) {
            asker.answer(refusal.code, remark: refusal.remark, fields: refusal.fields)
            return 0
        }
        switch editor.carryOut(edit, message, one.audience) {
        case .refused(let code, let reason):
            refuse(edit, asker, code, reason)
            return 0
        case .done(let done):
            environment.logger.notice(
                "message edited",
                metadata: [
                    "operation": "\(edit.operation.rawValue)", "by": "\(edit.by)", "topic": "\(message.topic)",
                    "queue": "\(message.queueID)", "offset": "\(message.queueOffset)",
                    "from": "\(message.physicalOffset)", "to": "\(done.physicalOffset)",
                ])
            storage.scheduleTick()
            if edit.operation.deletes { withdrawn.append(message) }
            storage.gate.add(
                PendingAck(
                    client: asker.client, address: asker.address, kind: .stored(fields(done)), queueID: done.queueID,
                    queueOffset: done.queueOffset, physicalOffset: done.physicalOffset, end: done.end, waits: true,
                    topicMadeAt: done.topicMadeAt))
            return done.bytesRead
        }
    }

    /// What the tick has stored is in the log. Not before that are claims ended: one that is ended for a deletion the
    /// disk has refused would lose its message.
    func storeCommitted() {
        for message in withdrawn {
            claims.withdraw(topic: message.topic, queueID: message.queueID, offset: message.queueOffset)
        }
        withdrawn.removeAll(keepingCapacity: true)
    }

    /// It is not.
    func storeFailed() { withdrawn.removeAll(keepingCapacity: true) }

    private func fields(_ done: MessageEditor.Done) -> [(String, String)] {
        var fields: [(String, String)] = [
            ("version", String(done.version)), ("topic", done.topic), ("queueId", String(done.queueID)),
            ("queueOffset", String(done.queueOffset)), ("commitLogOffset", String(done.physicalOffset)),
            ("msgId", OffsetMessageID.text(host: environment.storeHost, physicalOffset: done.physicalOffset)),
        ]
        if let key = done.uniqueKey { fields.append(("uniqueKey", key)) }
        if let due = done.deliverAt { fields.append(("deliverAt", String(due))) }
        if !done.consumedBy.isEmpty {
            fields.append(("consumedBy", done.consumedBy.prefix(Self.consumedByMax).joined(separator: ",")))
        }
        if done.consumedBy.count > Self.consumedByMax {
            fields.append(("consumedByLeftOut", String(done.consumedBy.count - Self.consumedByMax)))
        }
        return fields
    }
}
