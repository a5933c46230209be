package import RemotingProtocol
import RocketMQClient

/// What became of a send, as its producer knows it.
package enum ModelSendOutcome: Sendable, Equatable {
    /// With the queue offset of the (first) message.
    case acknowledged(queueOffset: Int64, messageID: String)
    /// The broker said no: nothing was stored.
    case refused(code: Int32, remark: String)
    /// No answer: it may have been stored or not.
    case unknown(String)
}

/// What a producer says of a transaction.
package enum ModelTransactionOutcome: Sendable {
    case unknown
    case commit
    case rollback

    var state: TransactionState {
        switch self {
        case .unknown: .unknown
        case .commit: .commit
        case .rollback: .rollback
        }
    }
}

/// A producer as RocketMQ's client 4.9 has it: beats for its group, sends, ends transactions and answers check-backs.
package actor ModelProducer {
    package let group: String
    package let clientID: String
    private let link: ModelLink
    /// What became of the transaction of this message; nil: no answer is given at all.
    private let decide: @Sendable (MessageExt) -> ModelTransactionOutcome?
    private var beatenGeneration = -1
    private var beating: Task<Void, Never>?
    private var isRunning = true

    package init(
        group: String, clientID: String, link: ModelLink,
        decide: @escaping @Sendable (MessageExt) -> ModelTransactionOutcome? = { _ in nil }
    ) {
        self.group = group
        self.clientID = clientID
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
            guard let outcome = decide(message),
                let end = TransactionEnd(answering: request, group: group, state: outcome.state)
            else { return nil }
            Task { try? await link.oneway(end.command) }
            return nil
        }
        beating = Task {
            var last = ContinuousClock.now - .seconds(60)
            while isRunning {
                for topic in topics { _ = try? await link.queues(of: topic) }
                if (try? await link.client()) != nil {
                    let generation = await link.generation
                    if generation != beatenGeneration || last.duration(to: .now) > .seconds(1) {
                        let body = HeartbeatData(clientID: clientID, producerGroups: [group]).encoded()
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
            RemotingCommand(.unregisterClient, extFields: ["clientID": clientID, "producerGroup": group]))
        await link.close()
    }

    /// Properties as a message carries them.
    package static func text(_ properties: [String: String]) -> String {
        properties.sorted { $0.key < $1.key }.map { "\($0.key)\u{1}\($0.value)\u{2}" }.joined()
    }

    private func request(_ topic: String, _ queue: Int32, _ properties: String) -> SendRequest {
        SendRequest(
            group: group, queue: .init(topic: topic, brokerName: "broker-a", queueID: Int(queue)),
            properties: properties)
    }

    private func outcome(of command: RemotingCommand) async -> (ModelSendOutcome, RemotingCommand?) {
        do {
            let reply = try await link.invoke(command)
            switch reply.responseCode {
            case .success:
                return (
                    .acknowledged(
                        queueOffset: (try? reply.integer("queueOffset")) ?? -1,
                        messageID: reply.extFields["msgId"] ?? ""), reply
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
        await outcome(of: request(topic, queue, Self.text(properties)).command(body: body)).0
    }

    package func sendBatch(
        _ topic: String, queue: Int32, _ messages: [(body: [UInt8], properties: [String: String])]
    ) async -> ModelSendOutcome {
        var body: [UInt8] = []
        for message in messages {
            MessageBatch.append(body: message.body, properties: Array(Self.text(message.properties).utf8), to: &body)
        }
        var request = request(topic, queue, "")
        request.isBatch = true
        return await outcome(of: request.command(body: body)).0
    }

    /// Prepares a message and, if that was acknowledged, says at once what becomes of it.
    /// - Parameter end: what is said, after so many milliseconds; nil: nothing, the broker has to ask.
    package func sendTransaction(
        _ topic: String, queue: Int32, body: [UInt8], properties: [String: String],
        end: (outcome: ModelTransactionOutcome, afterMilliseconds: Int)?
    ) async -> ModelSendOutcome {
        var properties = properties
        properties["TRAN_MSG"] = "true"
        properties["PGROUP"] = group
        var request = request(topic, queue, Self.text(properties))
        request.systemFlag = SendRequest.preparedFlag
        let (outcome, reply) = await outcome(of: request.command(body: body))
        guard case .acknowledged(let queueOffset, let id) = outcome, let reply, let end,
            let position = OffsetMessageID.parse(id)?.physicalOffset
        else { return outcome }
        if end.afterMilliseconds > 0 { try? await Task.sleep(for: .milliseconds(end.afterMilliseconds)) }
        let message = TransactionEnd(
            group: group, queueOffset: queueOffset, commitLogOffset: position, state: end.outcome.state,
            messageID: properties["UNIQ_KEY"] ?? "",
            transactionID: reply.extFields["transactionId"] ?? properties["UNIQ_KEY"] ?? "", isCheckBack: false)
        try? await link.oneway(message.command)
        return outcome
    }
}
