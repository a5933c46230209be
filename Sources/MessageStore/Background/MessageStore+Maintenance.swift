import StoreReader

extension MessageStore {
    /// Bounded background work: tails of consume queues, index, recovery points, flushing, retention, release of mapped
    /// windows. The owner calls it about every 100 ms; a call takes a few milliseconds at most.
    package func runMaintenance() {
        guard isOpen else { return }
        let now = clock()
        flushIfDue(now)
        if gate.isRetryDue(now: now) { retryWriting() }
        writeBehind(now)
        cleanIfDue(now)
        checkSome()
        if now - lastReleaseMilliseconds >= 1000 {
            lastReleaseMilliseconds = now
            windows.release()
            index?.idle()
        }
    }
}
