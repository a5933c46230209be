import BrokerService
import FastJSON
import Foundation
import NIOCore
import NIOPosix
import RemotingProtocol
import Testing

/// Requests of edits as tests make them.
extension RawConnection {
    static func editFields(
        _ operation: String, _ message: [String: String], _ fields: [String: String] = [:], hasBody: Bool = false
    ) -> [String: String] {
        var all = message.merging(fields) { $1 }
        all["operation"] = operation
        all["by"] = all["by"] ?? "alice"
        if hasBody { all["hasBody"] = "true" }
        return all
    }

    func edit(
        _ operation: String, _ message: [String: String], _ fields: [String: String] = [:], body: String? = nil
    ) throws -> RemotingCommand {
        try invoke(
            .editMessage, Self.editFields(operation, message, fields, hasBody: body != nil),
            body: Array((body ?? "").utf8))
    }

    static func place(_ topic: String, _ offset: Int, queueID: Int = 0) -> [String: String] {
        ["topic": topic, "queueId": String(queueID), "queueOffset": String(offset)]
    }

    func status(ofMessage message: [String: String]) throws -> JSONValue {
        let answer = try invoke(.getMessageStatus, message)
        #expect(answer.code == 0, "\(answer.remark ?? "")")
        return try JSONValue(parsing: answer.body)
    }

    /// `action by (changed)`, oldest first.
    func edits(_ message: [String: String]) throws -> [String] {
        (try status(ofMessage: message)["edits"]?.array ?? []).map { edit in
            let changed = (edit["changed"]?.array ?? []).compactMap(\.string).joined(separator: " ")
            return "\(edit["action"]?.string ?? "") \(edit["by"]?.string ?? "") (\(changed))"
        }
    }

    /// A group's row of the status.
    func row(_ group: String, ofMessage message: [String: String]) throws -> JSONValue? {
        var message = message
        message["group"] = group
        return try status(ofMessage: message)["groups"]?.array?.first { $0["group"]?.string == group }
    }

    /// - Parameter properties: `name=value;name=value`.
    @discardableResult
    func send(_ topic: String, _ body: String, _ properties: String = "") throws -> RemotingCommand {
        let answer = try send(topic: topic, body: body, properties: RawConnection.properties(properties))
        #expect(answer.code == 0, "\(answer.remark ?? "")")
        return answer
    }

    func commit(_ group: String, _ topic: String, _ to: Int) throws {
        #expect(try makeGroup(group, retryQueues: 1).code == 0)
        let fields = ["consumerGroup": group, "topic": topic, "queueId": "0", "commitOffset": String(to)]
        #expect(try invoke(.updateConsumerOffset, fields).code == 0)
    }

    func subscribe(_ clientID: String, group: String, topic: String) throws {
        let data = ConsumerData(
            groupName: group, subscriptionDataSet: [SubscriptionData(topic: topic, subVersion: 1)])
        let body = HeartbeatData(clientID: clientID, producerGroups: [], consumerDataSet: [data]).encoded()
        #expect(try invoke(.heartBeat, body: body).code == 0)
    }

    /// Sends all of them with one write, so that they are of one tick; the answers in the same order.
    func together(_ commands: [RemotingCommand]) throws -> [RemotingCommand] {
        var bytes: [UInt8] = []
        for (index, command) in commands.enumerated() {
            var command = command
            command.opaque = Int32(900_000 + index)
            bytes += RawConnection.bytes(command)
        }
        try send(bytes)
        var answers: [Int32: RemotingCommand] = [:]
        while answers.count < commands.count {
            let answer = try receive()
            if answer.isResponse, answer.opaque >= 900_000 { answers[answer.opaque] = answer }
        }
        return commands.indices.compactMap { answers[Int32(900_000 + $0)] }
    }

    static func editCommand(
        _ operation: String, _ message: [String: String], _ fields: [String: String] = [:], body: String? = nil
    ) -> RemotingCommand {
        RemotingCommand(
            .editMessage, extFields: editFields(operation, message, fields, hasBody: body != nil),
            body: Array((body ?? "").utf8))
    }

    func prepare(_ topic: String, _ key: String, body: String) throws -> RemotingCommand {
        try send(topic, body, "TRAN_MSG=true;UNIQ_KEY=\(key);PGROUP=PG")
    }

    static func endCommand(_ half: RemotingCommand, _ outcome: Int32 = 8) -> RemotingCommand {
        let place = OffsetMessageID.parse(half.extFields["msgId"] ?? "")?.physicalOffset ?? -1
        return RemotingCommand(
            .endTransaction,
            extFields: [
                "producerGroup": "PG", "tranStateTableOffset": half.extFields["queueOffset"] ?? "",
                "commitLogOffset": String(place), "commitOrRollback": String(outcome), "fromTransactionCheck": "false",
            ])
    }
}

extension BrokerHarness {
    /// The broker's loop does nothing meanwhile: what arrives and what becomes due is of one turn after it.
    func whileItStands(_ work: () throws -> Void) rethrows {
        let stands = DispatchSemaphore(value: 0)
        let goesOn = DispatchSemaphore(value: 0)
        group.next().execute {
            stands.signal()
            goesOn.wait()
        }
        stands.wait()
        defer { goesOn.signal() }
        try work()
    }
}
