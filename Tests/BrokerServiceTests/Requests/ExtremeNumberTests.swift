import Foundation
import NIOCore
import RemotingProtocol
import Testing

@testable import BrokerService

/// Every number of every request that was ever recorded, in its header and in its JSON body, replaced by one no client
/// means. A broker that computed with it unlooked-at would stop; it goes on, and answers the next request.
@Suite("numbers no client means") struct ExtremeNumberTests {
    private static let extremes = [
        "-9223372036854775808", "9223372036854775807", "-1", "-2147483648", "2147483647", "4294967296",
        "99999999999999999999", "0", "", "x",
    ]
    private static let flows = [
        "sync", "batch", "pull", "order", "errors", "query", "litepull", "tag.bin", "delay", "retry", "rpc", "tx",
        "oneway", "broadcast", "rebalance", "trace", "recall-5.3.3", "timer-5.3.3", "tx-5.3.3", "rebalance-5.3.3",
        "litepull-5.3.3",
    ]

    /// One request for each code and set of fields.
    private func requests() throws -> [RemotingCommand] {
        var frames = try Self.flows.flatMap { try GoldenFlow($0).frames }
        let admin = try GoldenFlow.packed("admin").split(separator: "\n").filter { !$0.hasPrefix("# ") }
        frames += try GoldenFlow(lines: admin).frames
        var known: Set<String> = []
        return frames.filter(\.isRequestOfClient).map(\.command).filter { command in
            !command.isResponse && known.insert("\(command.code) \(command.extFields.keys.sorted())").inserted
        }
    }

    @Test("in each field of the header and each number of the body", .timeLimit(.minutes(2)))
    func everyNumber() throws {
        let harness = try BrokerHarness([("defaultTopicQueueNums", "8"), ("timerWheelEnable", "true")])
        defer { try? harness.end() }
        let requests = try requests()
        #expect(Set(requests.map(\.code)).count > 40)
        var tried = 0
        for request in requests {
            let connection = try harness.connect()
            // First as it was, so that what it is about is there.
            try connection.send(bytes(request))
            for changed in fields(request) + bodies(request) {
                try connection.send(bytes(changed))
                tried += 1
            }
            try answers(connection)
        }
        print("extreme numbers: \(tried) requests of \(requests.count) kinds")
        let connection = try harness.connect()
        #expect(try connection.send(topic: "StillThere").code == 0)
    }

    /// The connection is still there and answers in time, behind all that was sent.
    private func answers(_ connection: RawConnection) throws {
        let opaque = try connection.post(.getBrokerConfig)
        while true {
            let answer = try connection.receive(timeoutMilliseconds: 20_000)
            if answer.isResponse, answer.opaque == opaque { return }
        }
    }

    private func bytes(_ request: RemotingCommand) -> [UInt8] {
        var request = request
        // Not the number `answers` waits for.
        request.opaque = 1_000_000
        var buffer = ByteBuffer()
        request.encode(into: &buffer, serialization: .json)
        return Array(buffer.readableBytesView)
    }

    private func fields(_ request: RemotingCommand) -> [RemotingCommand] {
        request.extFields.sorted { $0.key < $1.key }.flatMap { name, value -> [RemotingCommand] in
            if Int64(value) != nil {
                return Self.extremes.map { extreme in
                    var changed = request
                    changed.extFields[name] = extreme
                    return changed
                }
            }
            // Numbers among the properties: delays, timers, retries.
            guard value.contains("\u{1}") else { return [] }
            let pairs = value.split(separator: "\u{2}").map {
                $0.split(separator: "\u{1}", omittingEmptySubsequences: false)
            }
            return pairs.indices.filter { pairs[$0].count == 2 && Int64(pairs[$0][1]) != nil }.flatMap { place in
                Self.extremes.map { extreme in
                    var changed = request
                    changed.extFields[name] = pairs.enumerated().map { index, pair in
                        "\(pair[0])\u{1}\(index == place ? extreme : String(pair.count > 1 ? pair[1] : ""))\u{2}"
                    }.joined()
                    return changed
                }
            }
        }
    }

    private func bodies(_ request: RemotingCommand) -> [RemotingCommand] {
        let text = String(decoding: request.body, as: UTF8.self)
        guard text.hasPrefix("{") || text.hasPrefix("[") else { return [] }
        return text.matches(of: /[:\[,](-?\d+)(?=[,}\]])/).map(\.output.1).flatMap { number in
            Self.extremes.map { extreme in
                var changed = request
                let place = number.startIndex..<number.endIndex
                changed.body = Array(text.replacingCharacters(in: place, with: extreme).utf8)
                return changed
            }
        }
    }
}
