import MessageModel
import RocketMQClient

/// The client library's failures as an operator reads them, with what to type next.
enum ClientFailure {
    /// Runs a call of `apus send`.
    static func ofSend<Value>(
        _ server: ServerOption, _ call: () throws(RocketMQClientError) -> Value
    ) throws(CommandFailure) -> Value {
        do {
            return try call()
        } catch {
            throw CommandFailure(sendText(error, server))
        }
    }

    /// The same for calls that wait.
    static func ofSend<Value: Sendable>(
        _ server: ServerOption, _ call: () async throws(RocketMQClientError) -> Value
    ) async throws(CommandFailure) -> Value {
        do {
            return try await call()
        } catch {
            throw CommandFailure(sendText(error, server))
        }
    }

    static func sendText(_ error: RocketMQClientError, _ server: ServerOption) -> String {
        if case .topicNotFound(let topic, let nameServers) = error {
            return
                "topic '\(topic)' does not exist and the brokers of \(nameServers.joined(separator: ", ")) do not "
                + "create topics by themselves (no route of \(templateTopic)); is a broker running?"
        }
        return text(error)
    }

    /// Runs a call of `apus consume`.
    static func ofConsume<Value>(
        _ topic: String, _ server: ServerOption, _ call: () throws(RocketMQClientError) -> Value
    ) throws(CommandFailure) -> Value {
        do {
            return try call()
        } catch {
            throw CommandFailure(consumeText(error, topic))
        }
    }

    /// The same for calls that wait.
    static func ofConsume<Value: Sendable>(
        _ topic: String, _ server: ServerOption, _ call: () async throws(RocketMQClientError) -> Value
    ) async throws(CommandFailure) -> Value {
        do {
            return try await call()
        } catch {
            throw CommandFailure(consumeText(error, topic))
        }
    }

    static func consumeText(_ error: RocketMQClientError, _ topic: String) -> String {
        switch error {
        case .topicNotFound:
            "\(error); check its name, or send to it first: apus send --topic \(topic)"
        case .queueNotFound: "\(error): apus admin updateTopicPerm -t \(topic) -p 6"
        case .refused(let refusal):
            "broker \(refusal.address) of topic '\(topic)' does not take part: \(refusal.reason)"
        default: text(error)
        }
    }

    private static func text(_ error: RocketMQClientError) -> String {
        switch error {
        case .noNameServer:
            "\(error)\nStart a platform with `apus up`, or say where one runs with --name-server."
        case .invalidArgument(let text) where text.hasPrefix("no name server"):
            "--name-server is empty: give its address, such as 127.0.0.1:9876"
        default: error.description
        }
    }

    private static let templateTopic = TopicName.autoCreateKey.text
}

extension RocketMQClientError {
    /// RocketMQ's code of a topic no name server knows.
    static let topicDoesNotExist = 17

    /// A refusal without the server's address; anything else as it is.
    var reason: String {
        guard case .refused(let refusal) = self else { return description }
        return refusal.reason
    }
}
