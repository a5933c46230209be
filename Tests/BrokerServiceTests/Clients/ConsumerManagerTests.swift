import BrokerService
import FastJSON
import Foundation
import RemotingProtocol
import TestTools
import Testing

/// Who is a member of a group, and who is told when that changes.
@Suite("groups and clients") struct ConsumerManagerTests {
    private func join(_ connection: RawConnection, _ clientID: String, group: String = "G") throws {
        let data = ConsumerData(groupName: group, subscriptionDataSet: [SubscriptionData(topic: "T", subVersion: 1)])
        let body = HeartbeatData(clientID: clientID, producerGroups: ["P"], consumerDataSet: [data]).encoded()
        #expect(try connection.invoke(.heartBeat, body: body).code == 0)
    }

    private func members(_ connection: RawConnection, group: String = "G") throws -> [String] {
        let answer = try connection.invoke(.getConsumerListByGroup, ["consumerGroup": group])
        return try answer.code == 0 ? (answer.json()["consumerIdList"]?.array ?? []).compactMap(\.string) : []
    }

    @Test("a member that joins, says goodbye or is cut off is told to the others at once, and 38 answers what is true")
    func atOnce() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let stays = try harness.connect()
        try join(stays, "stays")
        func told(_ what: String, _ change: () throws -> Void) throws {
            let began = Date()
            try change()
            let notice = try stays.request(.notifyConsumerIDsChanged)
            #expect(notice.isOneway && notice.extFields == ["consumerGroup": "G"])
            // 100 ms on a quiet machine; the figure is measured elsewhere.
            #expect(Date().timeIntervalSince(began) < 1, "\(what)")
        }
        _ = try? stays.request(.notifyConsumerIDsChanged, timeoutMilliseconds: 100)
        let leaves = try harness.connect()
        try told("join") { try join(leaves, "leaves") }
        #expect(try members(stays) == ["stays", "leaves"])
        try told("goodbye") {
            let answer = try leaves.invoke(.unregisterClient, ["clientID": "leaves", "consumerGroup": "G"])
            #expect(answer.code == 0)
        }
        #expect(try members(stays) == ["stays"])
        try told("join again") { try join(leaves, "leaves") }
        try told("cut off") { leaves.close() }
        #expect(try members(stays) == ["stays"])
        // A heartbeat that says nothing new causes no notice.
        try join(stays, "stays")
        #expect(!stays.gets(.notifyConsumerIDsChanged, within: 200))
    }

    @Test("a group that does not want to be told is not (notifyConsumerIdsChangedEnable)")
    func quietly() throws {
        let harness = try BrokerHarness()
        defer { try? harness.end() }
        let (first, second) = (try harness.connect(), try harness.connect())
        var config = SubscriptionGroupConfig(groupName: "G")
        config.notifyConsumerIDsChangedEnable = false
        #expect(try first.invoke(.updateAndCreateSubscriptionGroup, body: config.encoded()).code == 0)
        try join(first, "first")
        try join(second, "second")
        second.close()
        #expect(!first.gets(.notifyConsumerIDsChanged, within: 300))
        #expect(try members(first) == ["first"])
    }

    @Test("a client not heard of for 120 s is dropped and its connection closed; those that beat stay")
    func expiry() throws {
        let clock = ShiftedClock()
        let harness = try BrokerHarness(clock: clock)
        defer { try? harness.end() }
        let (silent, beats, producer) = (try harness.connect(), try harness.connect(), try harness.connect())
        try join(silent, "silent")
        try join(beats, "beats")
        try producer.heartbeat("producer", producerGroup: "Lonely")
        try harness.onLoop { _ in clock.shift = 119_000 }
        try join(beats, "beats")
        // A scan comes every 10 s; at 119 s none is dropped.
        #expect(try members(beats) == ["silent", "beats"])
        try harness.onLoop { _ in clock.shift = 125_000 }
        try eventually(within: .seconds(40)) { try members(beats) == ["beats"] }
        #expect(throws: RawConnection.Closed.self) { while true { _ = try silent.receive(timeoutMilliseconds: 2000) } }
        #expect(throws: RawConnection.Closed.self) {
            while true { _ = try producer.receive(timeoutMilliseconds: 2000) }
        }
        let gone = try beats.invoke(.getProducerConnectionList, ["producerGroup": "Lonely"])
        #expect(gone.code == ResponseCode.systemError.rawValue)
    }
}
