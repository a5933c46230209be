import FastJSON
import Glibc
import MessageModel

/// One queue of a topic and where its broker listens.
struct BenchQueue {
    let brokerName: String
    let address: WireAddress
    let queueID: Int
}

/// Before the run: finds or creates the topic and learns queue bounds, one blocking request at a time.
struct ControlPlane {
    let plan: BenchPlan

    /// The topic's queues, created when the cluster does not have the topic yet.
    ///
    /// - Parameter writable: queues to send to; otherwise queues to read from.
    func queues(writable: Bool) throws(BenchError) -> [BenchQueue] {
        let nameServer = try WireAddress(plan.nameServer)
        if let found = try route(of: plan.topic, at: nameServer, writable: writable), !found.isEmpty { return found }
        guard plan.produces else {
            throw BenchError("\(nameServer) knows no topic '\(plan.topic)': produce to it first (--mode produce)")
        }
        guard let template = try route(of: SendFields.template, at: nameServer, writable: true),
            let first = template.first
        else {
            throw BenchError(
                "\(nameServer) knows neither topic '\(plan.topic)' nor the template topic \(SendFields.template): "
                    + "no broker registered, or autoCreateTopicEnable=false")
        }
        var brokers: [WireAddress] = []
        for queue in template where !brokers.contains(queue.address) { brokers.append(queue.address) }
        for broker in brokers {
            try createTopic(at: broker, brokerName: first.brokerName)
        }
        let deadline = monotonicNanoseconds() + 35_000_000_000
        while monotonicNanoseconds() < deadline {
            if let found = try route(of: plan.topic, at: nameServer, writable: writable), !found.isEmpty {
                return found
            }
            usleep(20_000)
        }
        throw BenchError("topic '\(plan.topic)' was created but \(nameServer) got no route to it within 35 s")
    }

    /// The smallest or largest queue offset (codes 31 and 30).
    func bound(of queue: BenchQueue, largest: Bool) throws(BenchError) -> Int64 {
        let reply = try ask(
            queue.address, code: largest ? 30 : 31, fields: [("topic", plan.topic), ("queueId", String(queue.queueID))])
        guard reply.code == 0, let offset = reply.offset else {
            throw BenchError(
                "\(queue.address) gave no offset of queue \(queue.queueID): code \(reply.code) \(reply.remark)")
        }
        return offset
    }

    private func createTopic(at broker: WireAddress, brokerName: String) throws(BenchError) {
        let queues = String(plan.queues)
        let created = try ask(
            broker, code: 17,
            fields: [
                ("topic", plan.topic), ("defaultTopic", SendFields.template), ("readQueueNums", queues),
                ("writeQueueNums", queues),
                ("perm", "6"), ("topicFilterType", "SINGLE_TAG"), ("topicSysFlag", "0"), ("order", "false"),
            ])
        if created.code == 0 { return }
        // A broker without topic administration makes the topic at the first message.
        let sent = try ask(
            broker, code: 310,
            fields: SendFields.make(
                plan: plan, queueID: 0, brokerName: brokerName, properties: SendFields.waits, isBatch: false),
            body: Array("bench".utf8))
        guard sent.code == 0 else {
            throw BenchError("\(broker) refused to create topic '\(plan.topic)': code \(sent.code) \(sent.remark)")
        }
    }

    private func route(of topic: String, at nameServer: WireAddress, writable: Bool) throws(BenchError) -> [BenchQueue]?
    {
        let reply = try ask(nameServer, code: 105, fields: [("topic", topic)])
        if reply.code == 17 { return nil }
        guard reply.code == 0 else {
            throw BenchError("\(nameServer) gave no route of '\(topic)': code \(reply.code) \(reply.remark)")
        }
        return try Self.queues(inRoute: reply.body, from: "\(nameServer)", writable: writable)
    }

    /// Of each broker once, and as many as a topic has at most.
    static func queues(inRoute body: [UInt8], from nameServer: String, writable: Bool) throws(BenchError)
        -> [BenchQueue]
    {
        let json: JSONValue
        do {
            json = try JSONValue(parsing: body)
        } catch {
            throw BenchError("\(nameServer) gave a route that cannot be read: \(error)")
        }
        var addresses: [String: WireAddress] = [:]
        for broker in json["brokerDatas"]?.array ?? [] {
            guard let name = broker["brokerName"]?.string, let text = broker["brokerAddrs"]?["0"]?.string else {
                continue
            }
            addresses[name] = try WireAddress(text)
        }
        var found: [BenchQueue] = []
        var seen: Set<String> = []
        for queue in json["queueDatas"]?.array ?? [] {
            guard let name = queue["brokerName"]?.string, let address = addresses[name] else { continue }
            let permission = queue["perm"]?.integer ?? 0
            guard permission & (writable ? 2 : 4) != 0, seen.insert(name).inserted else { continue }
            let count = queue[writable ? "writeQueueNums" : "readQueueNums"]?.integer ?? 0
            for id in 0..<min(max(0, count), Int64(QueueLimits.queuesPerTopic)) {
                found.append(BenchQueue(brokerName: name, address: address, queueID: Int(id)))
            }
        }
        return found
    }

    private struct Reply {
        let code: Int
        let remark: String
        let offset: Int64?
        let body: [UInt8]
    }

    /// One request on a connection of its own, answered within 5 s.
    private func ask(
        _ address: WireAddress, code: Int, fields: [(name: String, value: String)], body: [UInt8] = []
    ) throws(BenchError) -> Reply {
        let connection = try WireConnection(to: address)
        let template = FrameTemplate(code: code, form: plan.form, fields: fields, body: body)
        template.bytes.withUnsafeBytes { _ = connection.append($0) }
        let deadline = monotonicNanoseconds() + 5_000_000_000
        while true {
            let left = (Int64(deadline) - Int64(monotonicNanoseconds())) / 1_000_000
            guard left > 0 else { throw BenchError("\(address) did not answer request \(code) within 5 s") }
            var wait = pollfd(
                fd: connection.descriptor, events: Int16(POLLIN | (connection.hasUnsentBytes ? POLLOUT : 0)), revents: 0
            )
            guard poll(&wait, 1, Int32(left)) > 0 else { continue }
            var failure: Int32 = 0
            var size = socklen_t(MemoryLayout<Int32>.size)
            getsockopt(connection.descriptor, SOL_SOCKET, SO_ERROR, &failure, &size)
            if failure != 0 {
                throw BenchError(
                    "cannot reach \(address): \(String(cString: strerror(failure))); is a platform running there? "
                        + "Start one with `apus up`")
            }
            if connection.hasUnsentBytes { try connection.flush() }
            guard Int32(wait.revents) & (POLLIN | POLLHUP | POLLERR) != 0 else { continue }
            guard try connection.receive() else {
                throw BenchError("\(address) closed the connection on request \(code)")
            }
            if let frame = try connection.nextFrame() {
                let view = try ResponseView(frame)
                return Reply(
                    code: view.code, remark: view.remark, offset: view.number("offset"), body: Array(view.body))
            }
        }
    }
}

/// The fields of SEND_MESSAGE_V2 and SEND_BATCH_MESSAGE as the Java client writes them.
enum SendFields {
    /// New topics take their queues from it.
    static let template = "\(KnownTopic.autoCreateKey)"
    /// The property by which a sender waits for disk and slave.
    static let waits = "\(PropertyName.waitStoreMsgOK)\u{1}true"

    static func make(
        plan: BenchPlan, queueID: Int, brokerName: String, properties: String, isBatch: Bool
    ) -> [(name: String, value: String)] {
        [
            ("a", "BENCH_PRODUCER"), ("b", plan.topic), ("c", SendFields.template), ("d", String(plan.queues)),
            ("e", String(queueID)),
            ("f", "0"), ("g", String(wallMilliseconds())), ("h", "0"), ("i", properties),
            ("j", "0"), ("k", "false"), ("m", isBatch ? "true" : "false"), ("n", brokerName),
        ]
    }
}
