import FastJSON
import MessageModel
import NIOCore
import NIOPosix
import RemotingProtocol
import RemotingTransport
import Synchronization
import TestTools

@testable import RocketMQClient

/// A name server and a broker with one topic, which answer as a broker of some version would.
final class BrokerDouble: RemotingService, Sendable {
    struct Script: Sendable {
        /// Messages of the one queue that were not handed out yet.
        var messages: [String] = []
        var handedOut = 0
        /// Of the topic; nil: the request is not known.
        var attributes: [String: String]? = [:]
        var knowsBatches = true
        /// How a change to -1 is answered: as a time, as Apache does; refused; or by a pause.
        var pauseAfterFailure: Int64? = -1
        /// It says so, as Apus does.
        var knowsStrategies = false
        /// A failed message becomes a dead letter.
        var givesUp = false
        var knowsTopic = true
        var knowsPops = true
        /// The topic's, here and at each other broker.
        var queues: Int32 = 1
        /// Address of this broker in routes, if it is not its own; other brokers of the topic by name.
        var movedTo: String?
        var others: [String: String] = [:]
        /// By how much the broker's clock is ahead, milliseconds; whether it takes 0 for "not known", as Apus does.
        var clockAhead: Int64 = 0
        var takesNoTime = false
        /// Pops refused before the first that is answered.
        var refusals: [ResponseCode] = []
        var invisibleTime: Int64?
        var heartbeats = 0
        var pops: [[String: String]] = []
        var acknowledged: [Int64] = []
        var batches: [Int] = []
        var changes: [Change] = []
        /// Acknowledgements wait for their answer.
        var holdsAcknowledgements = false
        var left: [String] = []
        /// Of queues that are pulled.
        var pullable: [Int32: [Pullable]] = [:]
        var pulls: [[String: String]] = []
        var searches: [Int32: Int64] = [:]
    }

    struct Pullable: Sendable {
        let text: String
        let stored: Int64
    }

    struct Change: Sendable, Equatable {
        let offset: Int64
        let time: Int64
    }

    let script: Mutex<Script>
    let address = Mutex("")
    private let held = Mutex<[@Sendable () -> Void]>([])

    init(_ script: Script) { self.script = Mutex(script) }

    func connectionOpened(_ connection: RemotingConnection) {}
    func connectionClosed(_ connection: RemotingConnection) {}

    func received(_ frame: RemotingFrame, on connection: RemotingConnection) {
        let fields = frame.extFields
        func text(_ name: StaticString) -> String { fields.string(name) ?? "" }
        let to = frame.returnAddress
        switch RequestCode(rawValue: frame.code) {
        case .getRouteInfoByTopic:
            let own = address.withLock { $0 }
            let (known, brokers, queues) = script.withLock { script in
                (
                    script.knowsTopic && text("topic") == "T",
                    script.others.merging(["broker-a": script.movedTo ?? own]) { $1 }.sorted { $0.key < $1.key },
                    script.queues
                )
            }
            guard known else { return connection.respond(to: to, .topicNotExist) }
            let route = TopicRouteData(
                queueDatas: brokers.map {
                    QueueData(
                        brokerName: $0.key, readQueueNums: queues, writeQueueNums: queues, perm: 6, topicSysFlag: 0)
                },
                brokerDatas: brokers.map { BrokerData(cluster: "c", brokerName: $0.key, brokerAddrs: [0: $0.value]) })
            connection.respond(to: to, .success, body: route.encoded())
        case .updateAndCreateTopic: connection.respond(to: to, .success)
        case .getMaxOffset:
            let queue = Int32(text("queueId")) ?? 0
            let end = script.withLock { $0.pullable[queue]?.count ?? 0 }
            connection.respond(to: to, .success, fields: [("offset", String(end))])
        case .searchOffsetByTimestamp:
            let (queue, time) = (Int32(text("queueId")) ?? 0, Int64(text("timestamp")) ?? 0)
            let offset = script.withLock { script in
                script.searches[queue] = time
                let all = script.pullable[queue] ?? []
                // As RocketMQ 4 does: the one before the time.
                return max(0, (all.firstIndex { $0.stored >= time } ?? all.count) - 1)
            }
            connection.respond(to: to, .success, fields: [("offset", String(offset))])
        case .pullMessage: pull(frame, connection)
        case .heartBeat:
            script.withLock { $0.heartbeats += 1 }
            connection.respond(to: to, .success)
        case .unregisterClient:
            script.withLock { $0.left.append(text("consumerGroup")) }
            connection.respond(to: to, .success)
        case .getTopicConfig:
            guard let attributes = script.withLock({ $0.attributes }) else {
                return connection.respondNotSupported(to: frame)
            }
            let config = TopicConfig(topicName: "T", readQueueNums: 1, writeQueueNums: 1, attributes: attributes)
            connection.respond(to: to, .success, body: config.encoded())
        case .popMessage: pop(frame, connection)
        case .ackMessage:
            let offset = Int64(text("offset")) ?? -1
            answerAcknowledgement(connection, to, [offset])
        case .batchAckMessage:
            guard script.withLock({ $0.knowsBatches }) else { return connection.respondNotSupported(to: frame) }
            guard let body = try? BatchAckBody(frame.body) else { return connection.respond(to: to, .systemError) }
            var offsets: [Int64] = []
            for entry in body.entries {
                for (index, byte) in entry.bits.enumerated() {
                    for bit in 0..<8 where byte & (1 << UInt8(bit)) != 0 {
                        offsets.append(entry.startOffset + Int64(index * 8 + bit))
                    }
                }
            }
            script.withLock { [offsets] in $0.batches.append(offsets.count) }
            answerAcknowledgement(connection, to, offsets)
        case .changeMessageInvisibleTime:
            let time = Int64(text("invisibleTime")) ?? 0
            let (pause, marks) = script.withLock { script -> (Int64?, [(String, String)]) in
                script.changes.append(Change(offset: Int64(text("offset")) ?? -1, time: time))
                guard time == -1 else { return (time, []) }
                let marks =
                    (script.knowsStrategies ? [("strategy", "true")] : [])
                    + (script.givesUp ? [("deadLetter", "true")] : [])
                return (script.givesUp ? 0 : script.pauseAfterFailure, marks)
            }
            guard let pause else { return connection.respond(to: to, .invalidParameter) }
            connection.respond(
                to: to, .success,
                fields: [("popTime", "2000"), ("invisibleTime", String(pause)), ("reviveQid", "0")] + marks)
        default: connection.respondNotSupported(to: frame)
        }
    }

    private func pop(_ frame: RemotingFrame, _ connection: RemotingConnection) {
        let fields = frame.extFields
        let most = Int(fields.string("maxMsgNums") ?? "") ?? 0
        let asked = fields.string("invisibleTime") ?? ""
        let order = fields.string("order") ?? ""
        let (wait, born) = ((try? fields.int64("pollTime")) ?? 0, (try? fields.int64("bornTime")) ?? 0)
        guard script.withLock({ $0.knowsPops }) else { return connection.respondNotSupported(to: frame) }
        let refusal = script.withLock { script -> ResponseCode? in
            script.pops.append([
                "maxMsgNums": String(most), "invisibleTime": asked, "order": order, "pollTime": String(wait),
                "attemptId": fields.string("attemptId") ?? "",
            ])
            // As Apache's PopMessageRequestHeader.isTimeoutTooMuch.
            let late = WallClock.milliseconds + script.clockAhead - born - wait
            if late > 500, !(script.takesNoTime && born == 0) { return .pollingTimeout }
            return script.refusals.isEmpty ? nil : script.refusals.removeFirst()
        }
        if let refusal {
            return connection.respond(
                to: frame.returnAddress, refusal,
                fields: [
                    ("popTime", "1000"), ("invisibleTime", "0"), ("reviveQid", "0"), ("restNum", "0"),
                    ("startOffsetInfo", ""),
                ])
        }
        answerPop(most, asked, wait, connection, frame.returnAddress)
    }

    /// Looks again until there are messages, or the wait is over.
    private func answerPop(
        _ most: Int, _ asked: String, _ wait: Int64, _ connection: RemotingConnection, _ to: ReturnAddress
    ) {
        let found = script.withLock { script -> (first: Int, texts: [String], time: String) in
            let texts = Array(script.messages.prefix(most))
            let first = script.handedOut
            script.messages.removeFirst(texts.count)
            script.handedOut += texts.count
            return (first, texts, script.invisibleTime.map { String($0) } ?? asked)
        }
        if found.texts.isEmpty, wait > 0 {
            let pause = min(wait, 10)
            let answer = NIOLoopBound((connection, to), eventLoop: connection.eventLoop)
            connection.eventLoop.scheduleTask(in: .milliseconds(pause)) {
                self.answerPop(most, asked, wait - pause, answer.value.0, answer.value.1)
            }
            return
        }
        let body = found.texts.enumerated().flatMap { index, text in
            TestRecord.bytes(offset: Int64(found.first + index), body: text)
        }
        connection.respond(
            to: to, found.texts.isEmpty ? .pollingTimeout : .success,
            fields: [
                ("popTime", "1000"), ("invisibleTime", found.time), ("reviveQid", "0"), ("restNum", "0"),
                ("startOffsetInfo", found.texts.isEmpty ? "" : "0 0 \(found.first)"),
            ], body: body)
    }

    private func pull(_ frame: RemotingFrame, _ connection: RemotingConnection) {
        let fields = frame.extFields
        let (queue, offset) = (Int32((try? fields.int64("queueId")) ?? 0), Int((try? fields.int64("queueOffset")) ?? 0))
        let found = script.withLock { script in
            script.pulls.append(["maxMsgNums": fields.string("maxMsgNums") ?? ""])
            return Array((script.pullable[queue] ?? []).dropFirst(offset))
        }
        let body = found.enumerated().flatMap { index, one in
            TestRecord.bytes(queueID: queue, offset: Int64(offset + index), body: one.text, stored: one.stored)
        }
        let answer = NIOLoopBound((connection, frame.returnAddress), eventLoop: connection.eventLoop)
        connection.eventLoop.scheduleTask(in: .milliseconds(found.isEmpty ? 20 : 0)) {
            let next = String(offset + found.count)
            answer.value.0.respond(
                to: answer.value.1, found.isEmpty ? .pullNotFound : .success,
                fields: [
                    ("nextBeginOffset", next), ("minOffset", "0"), ("maxOffset", next), ("suggestWhichBrokerId", "0"),
                ], body: body)
        }
    }

    private func answerAcknowledgement(_ connection: RemotingConnection, _ to: ReturnAddress, _ offsets: [Int64]) {
        let holds = script.withLock { script in
            script.acknowledged += offsets
            return script.holdsAcknowledgements
        }
        let answer = NIOLoopBound((connection, to), eventLoop: connection.eventLoop)
        let respond: @Sendable () -> Void = {
            answer.value.0.respond(to: answer.value.1, .success)
        }
        if holds { held.withLock { $0.append(respond) } } else { respond() }
    }

    /// Answers the acknowledgements that wait, and later ones at once. On the event loop.
    func answerHeld() {
        script.withLock { $0.holdsAcknowledgements = false }
        let waiting = held.withLock { held in
            defer { held = [] }
            return held
        }
        for respond in waiting { respond() }
    }
}

/// Serves a double on a loop of the process.
struct DoubleServer {
    let loop: any EventLoop
    let server: NIOLoopBound<RemotingServer>
    let address: String

    init(_ double: some RemotingService & Sendable) async throws {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let server = try await loop.submit {
            NIOLoopBound(
                RemotingServer(eventLoop: loop, service: double, logger: LogBook().logger, endOfTick: {}),
                eventLoop: loop)
        }.get()
        let port = try await loop.flatSubmit {
            server.value.bind(host: "127.0.0.1", port: 0).map { server.value.localAddresses.first?.port ?? 0 }
        }.get()
        self.loop = loop
        self.server = server
        address = "127.0.0.1:\(port)"
    }

    var settings: ClientSettings { ClientSettings(nameServers: address) }

    func close() async throws { try await loop.flatSubmit { server.value.close() }.get() }
}

/// A broker double that serves.
struct ServingDouble {
    let double: BrokerDouble
    let server: DoubleServer
    let settings: ClientSettings

    init(_ script: BrokerDouble.Script) async throws {
        let double = BrokerDouble(script)
        let server = try await DoubleServer(double)
        double.address.withLock { $0 = server.address }
        self.double = double
        self.server = server
        settings = server.settings
    }

    var loop: any EventLoop { server.loop }

    var seen: BrokerDouble.Script { double.script.withLock { $0 } }
    var address: String { double.address.withLock { $0 } }

    func change(_ change: @Sendable (inout BrokerDouble.Script) -> Void) { double.script.withLock { change(&$0) } }

    func close() async throws { try await server.close() }

    func consumer(
        _ change: (inout PopConsumer.Options) -> Void = { _ in },
        onEvent: @escaping @Sendable (String) -> Void = { _ in }
    ) async throws -> PopConsumer {
        var options = PopConsumer.Options()
        options.pollWait = .milliseconds(10)
        options.closeTimeout = .milliseconds(200)
        change(&options)
        let consumer = try PopConsumer(
            settings, group: "g", subscriptions: [Subscription(topic: "T")], options: options,
            onEvent: { onEvent("\($0)") })
        try await consumer.start()
        return consumer
    }

    func take(_ count: Int, of consumer: PopConsumer) async throws -> [DeliveredMessage] {
        var messages: [DeliveredMessage] = []
        while messages.count < count, let message = try await consumer.next() { messages.append(message) }
        return messages
    }
}
