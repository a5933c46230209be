import FastJSON
import NIOCore
import NIOPosix
import RemotingProtocol
import RemotingTransport
import Synchronization
import TestTools
import Testing

@testable import RocketMQClient

/// A name server, and brokers of one topic, all at one address: requests are answered in their order.
private final class ClusterDouble: RemotingService, Sendable {
    /// Answers of the brokers: to questions for the status, and to edits.
    struct Script: Sendable {
        var brokers = 2
        var statuses: [(ResponseCode, String)] = []
        var edits: [(ResponseCode, [String: String])] = []
        var asked: [String] = []
    }

    let script: Mutex<Script>
    let address = Mutex("")

    init(_ script: Script) { self.script = Mutex(script) }

    func connectionOpened(_ connection: RemotingConnection) {}
    func connectionClosed(_ connection: RemotingConnection) {}

    func received(_ frame: RemotingFrame, on connection: RemotingConnection) {
        let to = frame.returnAddress
        switch RequestCode(rawValue: frame.code) {
        case .getRouteInfoByTopic:
            let names = (0..<script.withLock { $0.brokers }).map { "broker-\($0)" }
            let here = address.withLock { $0 }
            let route = TopicRouteData(
                queueDatas: names.map {
                    QueueData(brokerName: $0, readQueueNums: 1, writeQueueNums: 1, perm: 6, topicSysFlag: 0)
                },
                brokerDatas: names.map { BrokerData(cluster: "c", brokerName: $0, brokerAddrs: [0: here]) })
            connection.respond(to: to, .success, body: route.encoded())
        case .getMessageStatus:
            let (code, body) = script.withLock { script -> (ResponseCode, String) in
                script.asked.append("status")
                return script.statuses.isEmpty ? (.queryNotFound, "") : script.statuses.removeFirst()
            }
            connection.respond(to: to, code, body: Array(body.utf8))
        case .editMessage:
            let name = frame.extFields.string("topic") ?? "-"
            let (code, fields) = script.withLock { script -> (ResponseCode, [String: String]) in
                script.asked.append("edit of \(name)")
                return script.edits.isEmpty ? (.queryNotFound, [:]) : script.edits.removeFirst()
            }
            connection.respond(to: to, code, fields: fields.map { ($0.key, $0.value) })
        default: connection.respond(to: to, .requestCodeNotSupported)
        }
    }
}

@Suite("RocketMQClient: edits against clusters of several kinds") struct MessageEditTests {
    private static let made = ["version": "2", "topic": "T", "queueId": "0", "queueOffset": "7", "msgId": "id"]

    private func status(_ id: String, isDeleted: Bool = false) -> (ResponseCode, String) {
        (
            .success,
            """
            {"topic":"T","queueId":0,"queueOffset":7,"msgId":"\(id)","storeTimestamp":1,"deleted":\(isDeleted),\
            "groups":[]}
            """
        )
    }

    /// What came of a deletion, and what was asked.
    private func delete(
        _ script: ClusterDouble.Script, id: String = "u"
    ) async throws -> (Result<EditedMessage, RocketMQClientError>, [String]) {
        let double = ClusterDouble(script)
        let server = try await DoubleServer(double)
        double.address.withLock { $0 = server.address }
        let client = try AdminClient(server.settings)
        let outcome: Result<EditedMessage, RocketMQClientError>
        do throws(RocketMQClientError) {
            outcome = .success(try await client.edit(message: id, topic: "T", MessageEdit(.delete, by: "a")))
        } catch {
            outcome = .failure(error)
        }
        await client.close()
        try await server.close()
        return (outcome, double.script.withLock { $0.asked })
    }

    @Test("what is stored and not confirmed is no refusal")
    func unconfirmed() async throws {
        let codes: [(ResponseCode, SendStatus)] = [
            (.success, .ok), (.flushDiskTimeout, .flushDiskTimeout), (.slaveNotAvailable, .slaveNotAvailable),
            (.flushSlaveTimeout, .flushSlaveTimeout),
        ]
        for (code, status) in codes {
            let fields = Self.made.merging(["consumedBy": "A,B", "consumedByLeftOut": "3"]) { $1 }
            let (outcome, asked) = try await delete(.init(brokers: 1, edits: [(code, fields)]))
            let edited = try outcome.get()
            #expect(edited.status == status && edited.consumedBy == ["A", "B"] && edited.consumedByLeftOut == 3)
            #expect(asked == ["edit of T"])
        }
        let (refused, _) = try await delete(.init(brokers: 1, edits: [(.illegalOperation, [:])]))
        #expect(throws: RocketMQClientError.self) { try refused.get() }
    }

    @Test("brokers that do not know the request are skipped while another has the message")
    func mixed() async throws {
        let (outcome, asked) = try await delete(
            .init(
                statuses: [(.requestCodeNotSupported, ""), (.requestCodeNotSupported, "")],
                edits: [(.requestCodeNotSupported, [:]), (.success, Self.made)]))
        #expect(try outcome.get().version == 2)
        #expect(asked == ["status", "status", "edit of T", "edit of T"])
        let (nowhere, _) = try await delete(
            .init(brokers: 1, edits: [(.requestCodeNotSupported, [:])]))
        guard case .failure(.refused(let refusal)) = nowhere else {
            Issue.record("\(nowhere)")
            return
        }
        #expect(refusal.code == 3)
        let (missing, _) = try await delete(.init())
        guard case .failure(.notFound) = missing else {
            Issue.record("\(missing)")
            return
        }
    }

    @Test("an id at two brokers is refused with both positions; a deleted one does not count")
    func twoBrokers() async throws {
        let (outcome, asked) = try await delete(.init(statuses: [status("ID0"), status("ID1")]))
        guard case .failure(.invalidArgument(let text)) = outcome else {
            Issue.record("\(outcome)")
            return
        }
        #expect(text.contains("2 brokers have a message with the id 'u': broker-0 (ID0), broker-1 (ID1)"), "\(text)")
        #expect(asked == ["status", "status"])
        let (one, then) = try await delete(
            .init(statuses: [status("ID0", isDeleted: true), status("ID1")], edits: [(.success, Self.made)]))
        #expect(try one.get().place.queue.brokerName == "broker-1" && then.last == "edit of T")
    }
}
