import Foundation
package import RemotingProtocol

/// What became of a send, as its producer knows it.
package enum ModelSendOutcome: Sendable, Equatable {
    /// With the queue offset of the (first) message.
    case acknowledged(queueOffset: Int64, messageId: String)
    /// The broker said no: nothing was stored.
    case refused(code: Int32, remark: String)
    /// No answer: it may have been stored or not.
    case unknown(String)
}

package enum ModelTransactionOutcome: Int32, Sendable {
    case unknown = 0
    case commit = 8
    case rollback = 12
}

/// A producer as RocketMQ's client 4.9 has it: beats for its group, sends, ends transactions and answers check-backs.
package actor ModelProducer {
    package let group: String
    package let clientId: String
    private let link: ModelLink
    /// What became of the transaction of this message; nil: no answer is given at all.
    private let decide: @Sendable (MessageExt) -> ModelTransactionOutcome?
    private var beatenGeneration = -1
    private var beating: Task<Void, Never>?
    private var isRunning = true

    package init(
        group: String, clientId: String, link: ModelLink,
        decide: @escaping @Sendable (MessageExt) -> ModelTransactionOutcome? = { _ in nil }
    ) {
        self.group = group
        self.clientId = clientId
        self.link = link
        self.decide = decide
    }

    package func start(topics: [String]) async {
        let decide = decide
        let group = group
        await link.setInbound { [link] request in
            guard request.requestCode == .checkTransactionState,
                let message = try? MessageExt.decodeAll(request.body).first
            else { return nil }
            guard let outcome = decide(message), let queue = request.extFields["tranStateTableOffset"],
                let place = request.extFields["commitLogOffset"]
            else { return nil }
            Task {
                try? await link.oneway(
                    RemotingCommand(
                        .endTransaction,
                        extFields: [
                            "producerGroup": group, "tranStateTableOffset": queue, "commitLogOffset": place,
                            "commitOrRollback": String(outcome.rawValue), "fromTransactionCheck": "true",
                            "msgId": request.extFields["msgId"] ?? "",
                            "transactionId": request.extFields["transactionId"] ?? "",
                        ]))
            }
            return nil
        }
        beating = Task {
            var last = ContinuousClock.now - .seconds(60)
            while isRunning {
                for topic in topics { _ = try? await link.queues(of: topic) }
                if (try? await link.client()) != nil {
                    let generation = await link.generation
                    if generation != beatenGeneration || last.duration(to: .now) > .seconds(1) {
                        let body = HeartbeatData(clientID: clientId, producerGroups: [group]).encoded()
                        if let reply = try? await link.invoke(RemotingCommand(.heartBeat, body: body)), reply.code == 0
                        {
                            beatenGeneration = generation
                            last = .now
                        }
                    }
                }
                try? await Task.sleep(for: .milliseconds(50))
            }
        }
    }

    package var isConnected: Bool { get async { await link.isConnected } }

    package func disconnect() async { await link.disconnect() }

    package func end() async {
        isRunning = false
        beating?.cancel()
        _ = try? await link.invoke(
            RemotingCommand(.unregisterClient, extFields: ["clientID": clientId, "producerGroup": group]))
        await link.close()
    }

    /// Properties as a message carries them.
    package static func text(_ properties: [String: String]) -> String {
        properties.sorted { $0.key < $1.key }.map { "\($0.key)\u{1}\($0.value)\u{2}" }.joined()
    }

    private func header(_ topic: String, _ queue: Int32, _ properties: String, sysFlag: Int32 = 0) -> [String: String] {
        [
            "a": group, "b": topic, "c": "TBW102", "d": "4", "e": String(queue), "f": String(sysFlag),
            "g": String(ModelClock.nowMillis), "h": "0", "i": properties, "j": "0", "k": "false", "m": "false",
        ]
    }

    private func outcome(of command: RemotingCommand) async -> (ModelSendOutcome, RemotingCommand?) {
        do {
            let reply = try await link.invoke(command)
            switch reply.responseCode {
            case .success:
                return (
                    .acknowledged(
                        queueOffset: (try? reply.integer("queueOffset")) ?? -1,
                        messageId: reply.extFields["msgId"] ?? ""), reply
                )
            case .flushDiskTimeout, .flushSlaveTimeout, .slaveNotAvailable:
                return (.unknown("code \(reply.code)"), reply)
            default: return (.refused(code: reply.code, remark: reply.remark ?? ""), reply)
            }
        } catch {
            return (.unknown("\(error)"), nil)
        }
    }

    package func send(
        _ topic: String, queue: Int32, body: [UInt8], properties: [String: String]
    ) async -> ModelSendOutcome {
        await outcome(
            of: RemotingCommand(.sendMessageV2, extFields: header(topic, queue, Self.text(properties)), body: body)
        ).0
    }

    package func sendBatch(
        _ topic: String, queue: Int32, _ messages: [(body: [UInt8], properties: [String: String])]
    ) async -> ModelSendOutcome {
        var body: [UInt8] = []
        for message in messages {
            MessageBatch.append(body: message.body, properties: Array(Self.text(message.properties).utf8), to: &body)
        }
        var fields = header(topic, queue, "")
        fields["m"] = "true"
        return await outcome(of: RemotingCommand(.sendBatchMessage, extFields: fields, body: body)).0
    }

    /// Prepares a message and, if that was acknowledged, says at once what becomes of it.
    /// - Parameter end: what is said, after so many milliseconds; nil: nothing, the broker has to ask.
    package func sendTransaction(
        _ topic: String, queue: Int32, body: [UInt8], properties: [String: String],
        end: (outcome: ModelTransactionOutcome, afterMillis: Int)?
    ) async -> ModelSendOutcome {
        var properties = properties
        properties["TRAN_MSG"] = "true"
        properties["PGROUP"] = group
        let (outcome, reply) = await outcome(
            of: RemotingCommand(
                .sendMessageV2, extFields: header(topic, queue, Self.text(properties), sysFlag: 4), body: body))
        guard case .acknowledged(let queueOffset, let id) = outcome, let reply, let end,
            let place = OffsetMessageID.parse(id)?.physicalOffset
        else { return outcome }
        if end.afterMillis > 0 { try? await Task.sleep(for: .milliseconds(end.afterMillis)) }
        try? await link.oneway(
            RemotingCommand(
                .endTransaction,
                extFields: [
                    "producerGroup": group, "tranStateTableOffset": String(queueOffset),
                    "commitLogOffset": String(place), "commitOrRollback": String(end.outcome.rawValue),
                    "fromTransactionCheck": "false", "msgId": properties["UNIQ_KEY"] ?? "",
                    "transactionId": reply.extFields["transactionId"] ?? properties["UNIQ_KEY"] ?? "",
                ]))
        return outcome
    }
}
