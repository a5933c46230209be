import RemotingProtocol
import RemotingTransport

/// Reads a queue by plain pulls, which no consumer group knows of.
enum QueueReader {
    /// The bodies of the answers, records as the log holds them, from an offset to what is the queue's end when it begins.
    static func read(
        _ client: RemotingClient, topic: String, queue: Int, from start: Int64 = 0
    ) async throws -> [[UInt8]] {
        let place = ["topic": topic, "queueId": String(queue)]
        let end = try await client.invokeSuccessfully(RemotingCommand(.getMaxOffset, extFields: place)).integer(
            "offset")
        var offset = start
        var answers: [[UInt8]] = []
        while offset < end {
            let reply = try await client.invoke(
                RemotingCommand(
                    .pullMessage,
                    extFields: place.merging([
                        "consumerGroup": "QUEUE_READER", "queueOffset": String(offset), "maxMsgNums": "32",
                        "sysFlag": "4", "commitOffset": "0", "suspendTimeoutMillis": "0", "subscription": "*",
                        "subVersion": "0", "expressionType": "TAG",
                    ]) { $1 }))
            let next = try reply.integer("nextBeginOffset")
            guard next > offset else {
                throw ScenarioFailure(
                    "\(topic) \(queue) stands still at \(offset) of \(end): \(reply.code) \(reply.remark ?? "")")
            }
            offset = next
            answers.append(reply.body)
        }
        return answers
    }
}
