import RocketMQClient
import Synchronization

/// A consumer of `apus consume`, which writes lines once it was started.
protocol LineConsumer: Sendable {
    func start() async throws(RocketMQClientError)
    /// What was written is consumed when it returns.
    func close() async
}

extension PushConsumer: LineConsumer {}

/// Pops messages, writes their lines and acknowledges them, one after the other: a message whose line was written is
/// acknowledged, and no other.
final class PopLoop: LineConsumer {
    private let consumer: PopConsumer
    private let topic: String
    private let output: MessageOutput
    private let trouble: ConsumeTrouble
    private let work = Mutex<Task<Void, Never>?>(nil)

    init(_ consumer: PopConsumer, of topic: String, _ output: MessageOutput, _ trouble: ConsumeTrouble) {
        self.topic = topic
        self.consumer = consumer
        self.output = output
        self.trouble = trouble
    }

    func start() async throws(RocketMQClientError) {
        try await consumer.start()
        work.withLock { $0 = Task { await writeLines() } }
    }

    func close() async {
        let work = work.withLock { $0 }
        await consumer.stop()
        work?.cancel()
        await work?.value
        await consumer.close()
    }

    private func writeLines() async {
        // Acknowledgements travel while further lines are written.
        await withDiscardingTaskGroup { acknowledgements in
            do throws(RocketMQClientError) {
                while let message = try await consumer.next() {
                    guard await output.write([message.message]) == 1 else { return await message.giveBack() }
                    acknowledgements.addTask { [trouble] in
                        do throws(RocketMQClientError) {
                            guard try await !message.acknowledge() else { return }
                            trouble.note(.warning("message \(message.messageID) was held too long and comes again"))
                        } catch {
                            trouble.note(.warning("message \(message.messageID) may come again: \(error)"))
                        }
                    }
                }
            } catch {
                trouble.fail(ClientFailure.consumeText(error, topic))
            }
        }
    }
}
