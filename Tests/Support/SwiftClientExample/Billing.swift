import RocketMQClient

struct NoAmount: Error {}

/// Bills orders until its task is cancelled, several at a time: returning acknowledges a message, throwing has it come
/// again.
func bill(at servers: String) async throws {
    try await RocketMQ.subscribe("orders", mode: .queue, group: "billing", at: servers) { order in
        guard let amount = Int(order.text) else { throw NoAmount() }
        print("billed \(amount)")
    }
}
