import FastJSON
import Foundation
import MessageModel
import NIOCore
import RemotingProtocol
import StoreFormat

/// One recorded flow of Tests/Fixtures/broker-wire.
struct GoldenFlow {
    struct Frame {
        var connection: Int
        var isRequestOfClient: Bool
        var bytes: [UInt8]
        var command: RemotingCommand
        var serialization: HeaderSerialization
    }

    var frames: [Frame]

    static var folder: URL {
        URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appendingPathComponent("Fixtures/broker-wire")
    }

    init(_ name: String) throws {
        let file = Self.folder.appendingPathComponent(name + ".txt")
        let text =
            FileManager.default.fileExists(atPath: file.path)
            ? try String(contentsOf: file, encoding: .utf8) : try Self.packed(name)
        try self.init(lines: text.split(separator: "\n"))
    }

    init(lines: [Substring]) throws {
        frames = try lines.map { line in
            let words = line.split(separator: " ")
            var bytes = Self.bytes(words[2])
            if words.count > 3, let zeros = Int(words[3]) { bytes += [UInt8](repeating: 0, count: zeros) }
            let command = try bytes.withUnsafeBytes { try RemotingCommand(decoding: $0) }
            return Frame(
                connection: Int(words[0]) ?? 0, isRequestOfClient: words[1] == ">", bytes: bytes, command: command,
                serialization: bytes[4] == 1 ? .rocketMQ : .json)
        }
    }

    /// From the archive of flows that are not looked at by hand.
    static func packed(_ name: String) throws -> String {
        let tar = Process()
        tar.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        tar.arguments = ["tar", "-xzOf", folder.appendingPathComponent("more.tar.gz").path, name + ".txt"]
        let output = Pipe()
        tar.standardOutput = output
        try tar.run()
        let data = output.fileHandleForReading.readDataToEndOfFile()
        tar.waitUntilExit()
        guard tar.terminationStatus == 0 else { throw CocoaError(.fileNoSuchFile) }
        return String(decoding: data, as: UTF8.self)
    }

    private static func bytes(_ hex: Substring) -> [UInt8] {
        func digit(_ byte: UInt8) -> UInt8 { byte < 58 ? byte - 48 : byte - 87 }
        let digits = Array(hex.utf8)
        return stride(from: 0, to: digits.count, by: 2).map { digit(digits[$0]) << 4 | digit(digits[$0 + 1]) }
    }

    /// What Apache's broker answered to a frame.
    func answer(to request: Frame) -> RemotingCommand? {
        frames.first { frame in
            frame.connection == request.connection && !frame.isRequestOfClient && frame.command.isResponse
                && frame.command.opaque == request.command.opaque
        }?.command
    }
}

/// An answer with everything taken out that differs from run to run.
struct NormalizedAnswer: Equatable, CustomStringConvertible {
    var code: Int32
    var remark: String
    var fields: [String: String]
    var body: [String]

    init(_ answer: RemotingCommand, to request: RemotingCommand) {
        code = answer.code
        // Apache's default text where its code forgot to set one says nothing.
        remark = answer.remark ?? ""
        if remark == "not set any response code" { remark = "" }
        remark = remark.replacing(/127\.0\.0\.1:\d+/, with: "CLIENT").replacing(/on;? offset,? \d+/, with: "offset")
        fields = answer.extFields
        if let ids = fields["msgId"] {
            // Host and port stay; the place in the log depends on what was stored before.
            fields["msgId"] = ids.split(separator: ",").map { String($0.prefix(16)) }.joined(separator: ",")
        }
        for name in ["timestamp", "indexLastUpdateTimestamp", "indexLastUpdatePhyoffset"] where fields[name] != nil {
            fields[name] = "*"
        }
        switch RequestCode(rawValue: request.code) {
        case .pullMessage, .litePullMessage, .viewMessageByID, .queryMessage: body = Self.messages(answer.body)
        case .getConsumerListByGroup:
            // A set, in the order of a hash table.
            let ids = (try? answer.json())?["consumerIdList"]?.array?.compactMap(\.string)
            body = ids?.sorted() ?? [String(decoding: answer.body, as: UTF8.self)]
        case .lockBatchMQ:
            body = [(try? answer.json())?.text(.sorted) ?? String(decoding: answer.body, as: UTF8.self)]
        default: body = answer.body.isEmpty ? [] : [String(decoding: answer.body, as: UTF8.self)]
        }
    }

    /// The records of a pull, without what the store decides.
    /// As Apache's answer, if ours only says more: remarks begin with RocketMQ's words and go on with cause and remedy.
    func shortened(to expected: NormalizedAnswer) -> NormalizedAnswer {
        var result = self
        if !expected.remark.isEmpty, remark.hasPrefix(expected.remark) { result.remark = expected.remark }
        return result
    }

    static func messages(_ body: [UInt8]) -> [String] {
        body.withUnsafeBytes { bytes in
            var result: [String] = []
            var offset = 0
            while offset < bytes.count {
                let rest = UnsafeRawBufferPointer(rebasing: bytes[offset...])
                guard case .record(let record) = CommitLogRecord.parse(rest) else { return result + ["damaged"] }
                var properties: [String] = []
                MessageProperties.forEach(in: record.properties) { name, value in
                    let name = String(decoding: name, as: UTF8.self)
                    let isOfStore = name == "ORIGIN_MESSAGE_ID" || name == "WAIT"
                    properties.append(name + "=" + (isOfStore ? "*" : String(decoding: value, as: UTF8.self)))
                }
                // WAIT: Apache stores it with the messages of a batch, where it means nothing.
                properties.removeAll { $0.hasPrefix("WAIT=") }
                result.append(
                    "\(String(decoding: record.topic, as: UTF8.self)):\(record.queueID):\(record.queueOffset) "
                        + "flag \(record.flag) sys \(record.sysFlag) retries \(record.reconsumeTimes) "
                        + "\(properties.sorted()) \(record.body.count) bytes \(record.storedBodyCRC)")
                offset += record.totalSize
            }
            return result
        }
    }

    var description: String {
        "code \(code) remark \"\(remark)\" \(fields.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }) \(body)"
    }
}
