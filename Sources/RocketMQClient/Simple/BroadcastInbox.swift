/// Messages on their way from a consumer that pulls to the loops of a subscriber. Each waits until a loop takes it.
actor BroadcastInbox {
    private var offers: [(message: ReceivedMessage, taken: CheckedContinuation<Bool, Never>)] = []
    private var takers: [(number: Int, continuation: CheckedContinuation<Void, Never>)] = []
    private var numbers = 0
    private var isClosed = false
    private var failure: RocketMQClientError?

    /// Returns when the message was taken; false: no loop takes messages any more.
    func offer(_ message: ReceivedMessage) async -> Bool {
        guard !isClosed else { return false }
        return await withCheckedContinuation { taken in
            offers.append((message, taken))
            wakeTakers()
        }
    }

    /// The next message; nil at the end, and when the task was cancelled.
    func next() async throws(RocketMQClientError) -> ReceivedMessage? {
        while true {
            if let failure { throw failure }
            if isClosed || Task.isCancelled { return nil }
            if !offers.isEmpty {
                let offer = offers.removeFirst()
                offer.taken.resume(returning: true)
                return offer.message
            }
            numbers += 1
            let number = numbers
            await withTaskCancellationHandler {
                await withCheckedContinuation { continuation in
                    guard !Task.isCancelled else { return continuation.resume() }
                    takers.append((number, continuation))
                }
            } onCancel: {
                Task { await self.wake(number) }
            }
        }
    }

    func close() {
        isClosed = true
        for offer in offers { offer.taken.resume(returning: false) }
        offers = []
        wakeTakers()
    }

    func fail(_ error: RocketMQClientError) {
        failure = failure ?? error
        wakeTakers()
    }

    private func wakeTakers() {
        let waiting = takers
        takers = []
        for taker in waiting { taker.continuation.resume() }
    }

    private func wake(_ number: Int) {
        guard let index = takers.firstIndex(where: { $0.number == number }) else { return }
        takers.remove(at: index).continuation.resume()
    }
}
