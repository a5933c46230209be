import RemotingProtocol
import RemotingTransport

/// Reads a queue by plain pulls, which no consumer group knows of.
enum QueueReader {
    struct Reading {
        var answers: [RemotingCommand] = []
        /// Where the next reading begins.
        var end: Int64
        /// The records of all answers, as the log holds them.
        var bodies: [[UInt8]] { answers.map(\.body) }
    }

    /// What pulls answer from an offset to what is the queue's end when it begins.
    ///
    /// - Parameter demandsSuccess: an answer that there is nothing at an offset, and where it goes on, is a failure
    ///   too.
    static func read(
        _ client: RemotingClient, topic: String, queue: Int, from start: Int64 = 0, demandsSuccess: Bool = false
    ) async throws -> Reading {
        let place = ["topic": topic, "queueId": String(queue)]
        let end = try await client.invokeSuccessfully(RemotingCommand(.getMaxOffset, extFields: place)).integer(
            "offset")
        var reading = Reading(end: start)
        while reading.end < end {
            let reply = try await client.invoke(request(place, reading.end))
            let next = try reply.integer("nextBeginOffset")
            guard next > reading.end, reply.code == 0 || !demandsSuccess else {
                throw ScenarioFailure(
                    "\(topic) \(queue) stands still at \(reading.end) of \(end): \(reply.code) \(reply.remark ?? "")")
            }
            reading.end = next
            reading.answers.append(reply)
        }
        return reading
    }

    /// One pull of everything.
    ///
    /// - Parameter place: `topic` and `queueID`.
    static func request(_ place: [String: String], _ offset: Int64) -> RemotingCommand {
        RemotingCommand(
            .pullMessage,
            extFields: place.merging([
                "consumerGroup": "QUEUE_READER", "queueOffset": String(offset), "maxMsgNums": "32", "sysFlag": "4",
                "commitOffset": "0", "suspendTimeoutMillis": "0", "subscription": "*", "subVersion": "0",
                "expressionType": "TAG",
            ]) { $1 })
    }
}
