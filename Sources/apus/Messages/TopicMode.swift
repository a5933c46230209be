import RocketMQClient

/// `apus send --mode`.
enum TopicMode {
    /// Creates a topic with a mode where it does not exist.
    ///
    /// - Parameter queues: of a new topic, on each broker; nil: as its mode has them.
    /// - Throws: why it cannot be created; that it has another mode, or none, and what to do.
    static func ensure(
        _ mode: DeliveryMode, of topic: String, queues: Int?, _ server: ServerOption
    ) async throws(CommandFailure) {
        let known = try await ClientFailure.ofSend(server) { () async throws(RocketMQClientError) in
            let client = try AdminClient(ClientSettings(nameServers: server.addresses))
            do throws(RocketMQClientError) {
                let policy = try await client.policy(of: topic)
                if policy == nil { try await client.createTopic(topic, mode: mode, queues: queues) }
                await client.close()
                return policy
            } catch {
                await client.close()
                throw error
            }
        }
        guard let known, known.mode != mode else { return }
        let change = "apus admin updateTopic -t \(topic) -c CLUSTER -a +apus.mode=\(mode.rawValue)"
        guard let other = known.mode else {
            throw CommandFailure("topic '\(topic)' exists and has no mode: give it one with \(change)")
        }
        throw CommandFailure(
            "topic '\(topic)' has the mode \(ModeOption.word(other)): send with --mode \(ModeOption.word(other)) or "
                + "without --mode, or change it with \(change)")
    }
}
