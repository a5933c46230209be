import Foundation
import ModelClients
import NIOCore
import NIOPosix
import RemotingProtocol
import RemotingTransport

/// What the broker has stored, read by plain pulls as it grows.
final class ModelLog {
    struct Copy {
        var queue: Int32
        var queueOffset: Int64
        var storeTimestamp: Int64
        var messageID: String
        var message: MessageExt
    }

    private var cursors: [String: Int64] = [:]
    /// By topic and the model's number of the message.
    private(set) var copies: [String: [Int: [Copy]]] = [:]
    private var client: RemotingClient?

    /// Reads on to the present end of a topic.
    nonisolated(nonsending) func read(_ platform: Platform, topic: String, queues: Int32) async throws {
        if client?.isActive != true {
            client = try await RemotingClient.connect(
                to: platform.broker, group: MultiThreadedEventLoopGroup.singleton)
        }
        guard let client else { throw ScenarioFailure("no connection to the broker") }
        for queue in 0..<queues {
            let cursor = "\(topic) \(queue)"
            let reading = try await QueueReader.read(
                client, topic: topic, queue: Int(queue), from: cursors[cursor] ?? 0, demandsSuccess: true)
            for message in try reading.bodies.flatMap({ try MessageExt.decodeAll($0) }) {
                guard let id = ModelOracle.id(of: message) else {
                    throw ScenarioFailure("\(cursor) holds at \(message.queueOffset) what was never sent")
                }
                copies[topic, default: [:]][id, default: []].append(
                    Copy(
                        queue: message.queueID, queueOffset: message.queueOffset,
                        storeTimestamp: message.storeTimestamp, messageID: message.offsetMessageID, message: message))
            }
            cursors[cursor] = reading.end
        }
    }

    func end() { client?.closeNow() }
}
