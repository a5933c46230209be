import BrokerService
import FastJSON
import Foundation
import NIOCore
import RemotingProtocol
import Testing

/// What `mqadmin` 4.9.8 asked a broker with a producer and a consumer at work, one command after the other: each answer
/// has the code, the words, the fields and the form of Apache's. Numbers, times and addresses are those of this run.
@Suite("recorded commands of mqadmin") struct GoldenAdminTests {
    private struct Section {
        var name: String
        var flow: GoldenFlow
    }

    private func sections() throws -> [Section] {
        var sections: [(String, [Substring])] = []
        for line in try GoldenFlow.packed("admin").split(separator: "\n") {
            if line.hasPrefix("# ") {
                sections.append((String(line.dropFirst(2)), []))
            } else {
                sections[sections.count - 1].1.append(line)
            }
        }
        return try sections.map { Section(name: $0.0, flow: try GoldenFlow(lines: $0.1)) }
    }

    @Test("each command, as Apache answered it") func commands() throws {
        let all = try sections()
        let harness = try BrokerHarness([("defaultTopicQueueNums", "8")])
        defer { try? harness.end() }
        let background = try #require(all.first { $0.name == "background" }).flow
        let asked = try #require(all.first { $0.name == "asked" }).flow
        var clients: [Int: RawConnection] = [:]
        for frame in background.frames {
            let client = try clients[frame.connection] ?? harness.connect()
            clients[frame.connection] = client
            try client.send(frame.bytes)
            let answer = try response(to: frame.command.opaque, on: client)
            #expect(answer.code == 0, "\(answer.remark ?? "")")
        }
        // The consumer's connection is the one that was asked things.
        let consumer = try #require(asked.frames.first.flatMap { clients[$0.connection] })
        let topics = ["BgTopic": Int32(4), "%RETRY%BG_GROUP": 1]
        for (topic, queues) in topics {
            for queueID in 0..<queues {
                _ = try consumer.invoke(
                    .updateConsumerOffset,
                    [
                        "topic": topic, "consumerGroup": "BG_GROUP", "queueId": String(queueID),
                        "commitOffset": topic == "BgTopic" ? "5" : "0",
                    ])
            }
        }
        for queueID in 0..<Int32(4) {
            // So that the group has statistics.
            _ = try consumer.invoke(
                .pullMessage, RawConnection.pullFields(topic: "BgTopic", queueID: queueID, group: "BG_GROUP"))
        }
        try harness.onLoop { _ in }
        var expectedOfConsumer = asked.frames.filter { !$0.command.isResponse }
        var compared = 0
        for section in all where section.name != "background" && section.name != "asked" {
            var tools: [Int: RawConnection] = [:]
            for frame in section.flow.frames where frame.isRequestOfClient && !frame.command.isResponse {
                let tool = try tools[frame.connection] ?? harness.connect()
                tools[frame.connection] = tool
                try tool.send(adapted(frame))
                guard !frame.command.isOneway else { continue }
                let isRelayed = [.getConsumerRunningInfo, .consumeMessageDirectly, .invokeBrokerToResetOffset]
                    .contains(frame.command.requestCode)
                if isRelayed, frame.command.extFields["group"] != "CLONE_GROUP" {
                    try answerAsConsumer(consumer, &expectedOfConsumer, asked, section.name)
                }
                guard let expected = section.flow.answer(to: frame) else { continue }
                let answer = try response(to: frame.command.opaque, on: tool)
                compare(answer, expected, frame.command, section.name)
                compared += 1
            }
            for tool in tools.values { tool.close() }
        }
        #expect(expectedOfConsumer.count <= 1, "the last was asked by a command that is not replayed")
        #expect(compared > 150)
    }

    /// Questions about a time reach up to now.
    private func adapted(_ frame: GoldenFlow.Frame) -> [UInt8] {
        guard frame.command.requestCode == .queryMessage else { return frame.bytes }
        var command = frame.command
        command.extFields["endTimestamp"] = String(Int64.max)
        var buffer = ByteBuffer()
        command.encode(into: &buffer, serialization: frame.serialization)
        return Array(buffer.readableBytesView)
    }

    private func response(to opaque: Int32, on connection: RawConnection) throws -> RemotingCommand {
        while true {
            let answer = try connection.receive()
            if answer.isResponse, answer.opaque == opaque { return answer }
        }
    }

    /// The broker turns to the consumer: with the same fields and the same form of body. It answers what it answered
    /// then.
    private func answerAsConsumer(
        _ consumer: RawConnection, _ expected: inout [GoldenFlow.Frame], _ asked: GoldenFlow, _ section: String
    ) throws {
        let recorded = try #require(expected.isEmpty ? nil : expected.removeFirst(), "\(section)")
        let code = try #require(recorded.command.requestCode)
        let request = try consumer.request(code)
        #expect(request.isOneway == recorded.command.isOneway, "\(section)")
        func own(_ fields: [String: String]) -> [String: String] {
            fields.filter { !["Signature", "AccessKey"].contains($0.key) }
        }
        #expect(own(request.extFields) == own(recorded.command.extFields), "\(section): \(code)")
        if code == .resetConsumerClientOffset {
            #expect(Shape(try request.json()) == Shape(try recorded.command.json()), "\(section)")
        } else {
            #expect(NormalizedAnswer.messages(request.body) == NormalizedAnswer.messages(recorded.command.body))
        }
        guard !request.isOneway else { return }
        let answer = try #require(
            asked.frames.first { $0.command.isResponse && $0.command.opaque == recorded.command.opaque }?.command)
        var response = answer
        response.opaque = request.opaque
        var buffer = ByteBuffer()
        response.encode(into: &buffer)
        try consumer.send(Array(buffer.readableBytesView))
    }

    private func compare(
        _ answer: RemotingCommand, _ expected: RemotingCommand, _ request: RemotingCommand, _ section: String
    ) {
        let place = "\(section): \(request.code) \(request.extFields)"
        var wanted = NormalizedAnswer(expected, to: request)
        var got = NormalizedAnswer(answer, to: request).shortened(to: wanted)
        // How far the producer had come then.
        for name in ["offset", "maxOffset", "nextBeginOffset", "queueOffset", "version", "queueId"] {
            for path in [\NormalizedAnswer.fields] {
                if got[keyPath: path][name] != nil { got[keyPath: path][name] = "*" }
                if wanted[keyPath: path][name] != nil { wanted[keyPath: path][name] = "*" }
            }
        }
        (got.body, wanted.body) = ([], [])
        #expect(got == wanted, "\(place)")
        switch request.requestCode {
        case .pullMessage, .queryMessage, .viewMessageByID:
            // The records of the beginning are the same to the byte's place.
            let mine = NormalizedAnswer.messages(answer.body)
            let theirs = NormalizedAnswer.messages(expected.body)
            #expect(mine.isEmpty == theirs.isEmpty && !mine.contains("damaged"), "\(place)")
            if request.requestCode == .viewMessageByID { #expect(mine == theirs, "\(place)") }
        case .getBrokerConfig:
            // Apache lists all its settings, Apus what was set.
            #expect(String(decoding: answer.body, as: UTF8.self).contains("brokerName=broker-a\n"))
        default:
            guard !expected.body.isEmpty || !answer.body.isEmpty else { return }
            guard let mine = try? answer.json(), let theirs = try? expected.json() else {
                Issue.record("\(place): a body is no JSON")
                return
            }
            let my = Shape(mine)
            let their = Shape(theirs)
            #expect(their.paths.subtracting(my.paths) == [], "\(place): missing")
            // Apus says more of itself in its runtime information.
            if request.requestCode != .getBrokerRuntimeInfo {
                // Of 5.x, whose tools print them.
                let newer = my.paths.filter { $0.contains(".pullOffset: ") || $0.hasPrefix(".topicPutTps: ") }
                #expect(my.paths.subtracting(their.paths).subtracting(newer) == [], "\(place): more")
            }
        }
    }
}

/// The form of a JSON value: which members there are, and of what type; tables keyed by names are one member each.
private struct Shape: Equatable {
    private static let tables: Set<String> = [
        "topicConfigTable", "subscriptionGroupTable", "subscriptionTable", "consumerTable", "data", "offsetTable",
        "consumeStatsList[]", "mqTable", "statusTable",
    ]

    var paths: Set<String> = []

    init(_ json: JSONValue) { walk(json, "") }

    private mutating func walk(_ json: JSONValue, _ path: String) {
        if let object = json.object {
            let isTable = Self.tables.contains(path.split(separator: ".").last.map(String.init) ?? "")
            for member in object.members {
                if member.key.hasPrefix("commitLogDiskRatio_") {
                    paths.insert(path + ".commitLogDiskRatio_PATH")
                    continue
                }
                let key = isTable || member.key.hasPrefix("{") || Int(member.key) != nil ? "*" : member.key
                walk(member.value, path + "." + key)
            }
        } else if let array = json.array {
            for element in array { walk(element, path + "[]") }
            if array.isEmpty { paths.insert(path + ": list") }
        } else if let text = json.string {
            // Words of a set of words, as of an enumeration, must be the same.
            let isName = path.hasSuffix("Name") || path.contains("[]")
            let isWord = text.count > 3 && text.allSatisfy { $0.isUppercase || $0 == "_" } && !isName
            paths.insert(path + (isWord ? ": \(text)" : ": text"))
        } else if json.double != nil {
            paths.insert(path + ": number")
        } else {
            paths.insert(path + ": \(json.text())")
        }
    }
}
