import RemotingProtocol
import Synchronization

/// Answers brokers that ask what became of transactions (39).
final class CheckBackAnswers: Sendable {
    private let group: String
    private let checkBack: Producer.CheckBack?
    private let connections = Mutex<ServerConnections?>(nil)

    init(group: String, checkBack: Producer.CheckBack?) {
        self.group = group
        self.checkBack = checkBack
    }

    /// Where answers go; a connection belongs to the producer, so it comes after this was made.
    func attach(_ connections: ServerConnections) { self.connections.withLock { $0 = connections } }

    /// Called on an event loop; the application's part runs in a task.
    func received(_ address: String, _ request: RemotingCommand) -> RemotingCommand? {
        guard request.requestCode == .checkTransactionState else {
            return .response(.requestCodeNotSupported, remark: "a producer does not answer request \(request.code)")
        }
        guard let checkBack, let connections = connections.withLock({ $0 }),
            let message = try? ReceivedMessage.decode(request.body, brokerName: request.extFields["bname"] ?? "").first
        else { return nil }
        let group = group
        Task {
            let state = await checkBack(message)
            guard let end = TransactionEnd(answering: request, group: group, state: state) else { return }
            // The broker asks again when this gets lost.
            try? await connections.oneway(address, end.command)
        }
        return nil
    }
}
