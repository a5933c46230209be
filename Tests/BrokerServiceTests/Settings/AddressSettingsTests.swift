import FastJSON
import Foundation
import MessageStore
import RemotingProtocol
import SettingTable
import StoreFormat
import TestTools
import Testing

@testable import BrokerService

/// Settings that name hosts, and what a run before has left.
@Suite("addresses, permissions and settings kept from a run before") struct AddressSettingsTests {
    private func change(_ connection: RawConnection, _ text: String) throws -> RemotingCommand {
        try connection.invoke(.updateBrokerConfig, body: Array((text + "\n").utf8))
    }

    @Test("brokerIP1 as a host name: clients are told the name, message identifiers have its address")
    func hostName() throws {
        let nameServer = try NameServerDouble()
        let harness = try BrokerHarness([
            ("brokerIP1", "localhost"), ("namesrvAddr", "127.0.0.1:\(nameServer.port)"),
        ])
        try eventually { nameServer.requests.contains { $0.requestCode == .registerBroker } }
        #expect(nameServer.requests.first?.extFields["brokerAddr"] == "localhost:31911")
        let sent = try harness.connect().send(topic: "Named")
        #expect(sent.code == 0)
        #expect(sent.extFields["msgId"]?.hasPrefix("7F000001") == true, "\(sent.extFields)")
        try harness.end()
        try nameServer.end()
    }

    @Test("a host name without an address ends the start in words")
    func unknownHost() throws {
        let error = #expect(throws: BrokerError.self) {
            _ = try BrokerHarness([("brokerIP1", "no-such-host.invalid")])
        }
        #expect(error?.description.hasPrefix("brokerIP1 = no-such-host.invalid: ") == true)
        #expect(error?.description.contains("/etc/hosts") == true)
    }

    @Test("a topic's permission: what is none is refused, all others are taken")
    func permissions() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        func make(_ perm: String) throws -> RemotingCommand {
            try connection.invoke(
                .updateAndCreateTopic,
                [
                    "topic": "Permitted", "defaultTopic": "TBW102", "readQueueNums": "2", "writeQueueNums": "2",
                    "perm": perm, "topicFilterType": "SINGLE_TAG", "order": "false",
                ])
        }
        for perm in ["9", "8", "-1", "2147483647"] {
            let answer = try make(perm)
            #expect(
                answer.code == ResponseCode.systemError.rawValue && answer.remark?.contains("2 writes, 4 reads") == true
            )
        }
        #expect(try harness.onLoop { $0.topics["Permitted"] == nil })
        for perm in ["6", "2", "4", "7", "0"] { #expect(try make(perm).code == 0, "\(perm)") }
    }

    @Test("nonsense an older release took with updateBrokerConfig is named at the start and given up, the rest holds")
    func nonsenseOfBefore() throws {
        let former = try BrokerHarness()
        try former.drain()
        let folder = former.folder
        let settings =
            #"{"settings":{"brokerPermission":{"value":"9"},"somethingOfTheirs":{"value":"1"},"fileReservedTime":{"value":"48"}}}"#
        try FileManager.default.createDirectory(at: folder.appending(path: "config"), withIntermediateDirectories: true)
        try settings.write(to: folder.appending(path: "config/changedSettings.json"), atomically: true, encoding: .utf8)
        let log = LogLines()
        let harness = try BrokerHarness(folder: folder, log: log)
        #expect(try harness.onLoop { $0.configuration.brokerPermission } == 6)
        #expect(try harness.onLoop { $0.store.configuration.fileReservedTime } == 48)
        #expect(log.lines.contains { $0.contains("is given up") && $0.contains("brokerPermission = 9") })
        #expect(log.lines.contains { $0.contains("there is no setting somethingOfTheirs") })
        try harness.end()
    }

    @Test("what is kept is what the table took, and a stranger's line ends are shown as what they are")
    func canonicalValues() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let connection = try harness.connect()
        #expect(try change(connection, "fileReservedTime= 48 \nautoCreateTopicEnable=False").code == 0)
        #expect(try harness.onLoop { $0.configuration.raw("autoCreateTopicEnable") } == "false")
        #expect(try harness.onLoop { $0.settings.changed.changes["fileReservedTime"]?.value } == "48")
        let answer = try change(connection, "line\\nend=1")
        #expect(answer.remark == "there is no setting line\\u{a}end; nothing was changed")
    }
}
