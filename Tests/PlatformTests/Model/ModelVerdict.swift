import Foundation
import ModelClients
import RemotingProtocol

/// Compares what was sent with what lies in the log and what each group got.
struct ModelVerdict {
    let oracle: ModelOracle
    let log: ModelLog
    /// Members that must have seen everything in the mixed topic.
    let broadcasters: [String]

    private func copies(_ topic: String, _ id: Int) -> [ModelLog.Copy] { log.copies[topic]?[id] ?? [] }

    /// What has not happened yet and must.
    func missing() -> [String] {
        var missing: [String] = []
        let attempts = oracle.attempts
        for attempt in attempts where attempt.state == .acknowledged && attempt.mayBeDelivered {
            if copies(attempt.topic, attempt.id).isEmpty {
                missing.append(
                    "message \(attempt.id) (\(attempt.kind.rawValue)), acknowledged as \(attempt.messageID) at \(attempt.queueOffset), delayed \(attempt.earliest > 0), \(attempt.checks) checks of which \(attempt.unknowns) unknown, is not in \(attempt.topic)"
                )
            }
        }
        for group in ModelPlan.groups where group.mode != .broadcast {
            let received = oracle.received(group.name)
            for topic in group.topics {
                for id in (log.copies[topic] ?? [:]).keys {
                    let failures = ModelPlan.failures(oracle.seed, group: group, id: id)
                    let isDeadLetter = group.mode == .concurrent && failures > group.maxRetries
                    if isDeadLetter, copies("%DLQ%" + group.name, id).isEmpty {
                        missing.append("message \(id) is no dead letter of \(group.name) yet: \(trail(group, id))")
                    } else if !isDeadLetter, received[id]?.isDone != true {
                        missing.append("\(group.name) has not done message \(id) of \(topic): \(trail(group, id))")
                    }
                }
            }
        }
        for member in broadcasters {
            let seen = oracle.broadcast(member)
            for id in (log.copies[ModelPlan.mixed] ?? [:]).keys where !seen.contains(id) {
                missing.append("\(member) has not seen message \(id)")
            }
        }
        return missing
    }

    /// What is known of a message in a group, for those who look for the reason.
    private func trail(_ group: ModelPlan.Group, _ id: Int) -> String {
        let known = oracle.received(group.name)[id] ?? ModelOracle.Received()
        let wanted = ModelPlan.failures(oracle.seed, group: group, id: id)
        let places = (ModelPlan.topics + ["%RETRY%" + group.name, "%DLQ%" + group.name]).flatMap { topic in
            copies(topic, id).map { copy in
                "\(topic) \(copy.queue)@\(copy.queueOffset) retry \(copy.message.reconsumeTimes) stored \(copy.storeTimestamp)"
            }
        }
        return
            "fails \(wanted) times, delivered \(known.count) times, up to retry \(known.retries), sent back \(known.sentBack), lies at \(places)"
    }

    /// What must never be.
    func contradictions() -> [String] {
        var found: [String] = []
        let attempts = Dictionary(uniqueKeysWithValues: oracle.attempts.map { ($0.id, $0) })
        for topic in ModelPlan.topics {
            for (id, copies) in log.copies[topic] ?? [:] {
                guard let attempt = attempts[id] else {
                    found.append("\(topic) holds message \(id), which was never sent")
                    continue
                }
                found += contradictions(attempt, copies, topic)
            }
        }
        found += keyOrder(attempts)
        for group in ModelPlan.groups where group.mode != .broadcast { found += deadLetters(group, attempts) }
        return found
    }

    private func contradictions(_ attempt: ModelOracle.Attempt, _ copies: [ModelLog.Copy], _ topic: String) -> [String]
    {
        let name = "message \(attempt.id) (\(attempt.kind.rawValue), \(attempt.state))"
        var found: [String] = []
        if copies.count > 1 {
            let places = copies.map { "\($0.queue)@\($0.queueOffset)" }
            found.append("\(name) lies \(copies.count) times in \(topic): \(places.joined(separator: ", "))")
        }
        if attempt.topic != topic { found.append("\(name) of \(attempt.topic) lies in \(topic)") }
        if attempt.state == .refused { found.append("\(name) was refused and lies in \(topic)") }
        if !attempt.mayBeDelivered {
            found.append(
                "\(name) lies in \(topic) although it ended with \(attempt.outcome.map { "\($0)" } ?? "no word")")
        }
        guard attempt.state == .acknowledged, let copy = copies.first else { return found }
        let isDirect = [.plain, .batch, .keyed].contains(attempt.kind)
        if isDirect, copy.messageID != attempt.messageID {
            found.append("\(name) was acknowledged as \(attempt.messageID) and is \(copy.messageID)")
        }
        if copy.storeTimestamp < attempt.earliest {
            found.append("\(name) is \(attempt.earliest - copy.storeTimestamp) ms early")
        }
        return found
    }

    /// Messages of a key lie in the order in which they were acknowledged.
    private func keyOrder(_ attempts: [Int: ModelOracle.Attempt]) -> [String] {
        var byKey: [Int: [(sequence: Int, offset: Int64)]] = [:]
        for attempt in attempts.values where attempt.state == .acknowledged {
            guard let key = attempt.key, let copy = copies(attempt.topic, attempt.id).first else { continue }
            byKey[key, default: []].append((attempt.sequence, copy.queueOffset))
        }
        var found: [String] = []
        for (key, places) in byKey {
            let sorted = places.sorted { $0.sequence < $1.sequence }
            for (one, next) in zip(sorted, sorted.dropFirst()) where one.offset >= next.offset {
                found.append("key \(key): \(one.sequence) at \(one.offset) and \(next.sequence) at \(next.offset)")
            }
        }
        return found
    }

    private func deadLetters(_ group: ModelPlan.Group, _ attempts: [Int: ModelOracle.Attempt]) -> [String] {
        var found: [String] = []
        let received = oracle.received(group.name)
        for (id, copies) in log.copies["%DLQ%" + group.name] ?? [:] {
            let name = "dead letter \(id) of \(group.name)"
            guard let attempt = attempts[id] else {
                found.append("\(name): it was never sent")
                continue
            }
            if ModelPlan.failures(oracle.seed, group: group, id: id) <= group.maxRetries {
                found.append("\(name): it failed less often than it may")
            }
            let tries = received[id]
            if (tries?.retries ?? -1) != group.maxRetries || (tries?.count ?? 0) <= Int(group.maxRetries) {
                found.append("\(name): tried \(tries?.count ?? 0) times, with \(tries?.retries ?? -1) retries")
            }
            let origin = self.copies(attempt.topic, id).first?.messageID
            for copy in copies {
                let properties = copy.message.properties
                if properties["ORIGIN_MESSAGE_ID"] != origin {
                    found.append(
                        "\(name): origin \(properties["ORIGIN_MESSAGE_ID"] ?? "none"), not \(origin ?? "none")")
                }
                if properties["RETRY_TOPIC"] != attempt.topic || copy.message.body != attempt.body
                    || copy.message.keys != "k\(id)" || copy.message.reconsumeTimes != group.maxRetries + 1
                {
                    found.append("\(name): it is not whole: \(properties), \(copy.message.reconsumeTimes) retries")
                }
            }
        }
        return found
    }
}
