import BrokerService
import Foundation
import MessageModel
import MessageStore
import NIOCore
import RemotingProtocol
import StoreFormat
import TestFolders
import Testing

/// One stored message as a consumer sees it.
struct Consumed: Equatable, Sendable {
    var topic: String
    var queueID: Int32
    var queueOffset: Int64
    var physicalOffset: Int64
    var sysFlag: Int32
    var reconsumeTimes: Int32
    var preparedTransactionOffset: Int64
    var bornTimestamp: Int64
    var storeTimestamp: Int64
    var body: String
    var properties: [String: String]

    init(_ record: CommitLogRecordView) {
        topic = String(decoding: record.topic, as: UTF8.self)
        queueID = record.queueID
        queueOffset = record.queueOffset.rawValue
        physicalOffset = record.physicalOffset.rawValue
        sysFlag = record.sysFlag
        reconsumeTimes = record.reconsumeTimes
        preparedTransactionOffset = record.preparedTransactionOffset
        bornTimestamp = record.bornTimestamp
        storeTimestamp = record.storeTimestamp
        body = String(decoding: record.body, as: UTF8.self)
        var properties: [String: String] = [:]
        MessageProperties.forEach(in: record.properties) { name, value in
            properties[String(decoding: name, as: UTF8.self)] = String(decoding: value, as: UTF8.self)
        }
        self.properties = properties
    }

    static func all(_ body: [UInt8]) -> [Consumed] {
        body.withUnsafeBytes { bytes in
            var result: [Consumed] = []
            var offset = 0
            while offset < bytes.count,
                case .record(let record) = CommitLogRecord.parse(UnsafeRawBufferPointer(rebasing: bytes[offset...]))
            {
                result.append(Consumed(record))
                offset += record.totalSize
            }
            return result
        }
    }
}

extension RawConnection {
    static var nowMilliseconds: Int64 { Int64(Date().timeIntervalSince1970 * 1000) }

    /// `name=value;name=value` as the properties of a message.
    static func properties(_ text: String) -> String {
        text.replacing("=", with: "\u{1}").replacing(";", with: "\u{2}")
    }

    /// What lies in a queue from `offset` on.
    func consume(_ topic: String, queueID: Int32 = 0, from offset: Int64 = 0, count: Int = 32) throws -> [Consumed] {
        let answer = try invoke(
            .pullMessage, Self.pullFields(topic: topic, queueID: queueID, offset: offset, count: count))
        return answer.code == 0 ? Consumed.all(answer.body) : []
    }

    /// Waits until a queue holds that many.
    func wait(
        _ topic: String, queueID: Int32 = 0, count: Int, seconds: Double = 10
    ) throws -> [Consumed] {
        let deadline = Date().addingTimeInterval(seconds)
        var found: [Consumed] = []
        while found.count < count, Date() < deadline {
            found += try consume(topic, queueID: queueID, from: Int64(found.count))
            if found.count < count { usleep(5000) }
        }
        return found
    }

    /// The next request of the broker with that code.
    func request(_ code: RequestCode, timeoutMilliseconds: Int32 = 5000) throws -> RemotingCommand {
        while true {
            let frame = try receive(timeoutMilliseconds: timeoutMilliseconds)
            if !frame.isResponse, frame.requestCode == code { return frame }
        }
    }

    /// Whether that request comes within a time.
    func gets(_ code: RequestCode, within milliseconds: Int32) -> Bool {
        (try? request(code, timeoutMilliseconds: milliseconds)) != nil
    }

    func heartbeat(_ clientID: String, producerGroup: String) throws {
        let body = HeartbeatData(clientID: clientID, producerGroups: [producerGroup], consumerDataSet: []).encoded()
        let answer = try invoke(.heartBeat, body: body)
        #expect(answer.code == 0)
    }

    func answer(_ request: RemotingCommand, _ code: ResponseCode = .success, body: String = "") throws {
        var response = RemotingCommand.response(code)
        response.body = Array(body.utf8)
        response.opaque = request.opaque
        var buffer = ByteBuffer()
        response.encode(into: &buffer)
        try send(Array(buffer.readableBytesView))
    }
}

extension BrokerHarness {
    /// What a queue holds whose topic clients cannot pull.
    func stored(_ topic: String, queueID: Int32 = 0) throws -> [Consumed] {
        try onLoop { broker in
            var all: [Consumed] = []
            _ = Array(topic.utf8).withUnsafeBytes { topic in
                broker.store.getMessages(topic: topic, queueID: queueID, from: QueueOffset(0), maxCount: 1000) {
                    all += Consumed.all(Array($0))
                }
            }
            return all
        }
    }

    /// A broker on a copy of this one's files as they are at this moment: what `kill -9` leaves.
    /// - Parameters:
    ///   - clock: that broker's; nil: the machine's.
    ///   - change: what happens to the files before that broker opens them.
    func afterKill(
        _ settings: [(String, String)] = [], clock: ShiftedClock? = nil, change: (URL) throws -> Void = { _ in }
    ) throws -> BrokerHarness {
        let copy = try TestFolder.make("broker")
        try FileManager.default.removeItem(at: copy)
        let folder = folder
        // On its loop, so that it does nothing meanwhile.
        try onLoop { _ in try FileManager.default.copyItem(at: folder, to: copy) }
        try change(copy)
        return try BrokerHarness(settings, folder: copy, clock: clock)
    }
}
