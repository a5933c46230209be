/// Which messages of a queue were pulled and not consumed yet, and which offset may be committed because of that.
///
/// Messages may be consumed in any order. The committed offset never passes one that is outstanding.
package struct OffsetWindow: Sendable {
    /// What to pull next.
    package private(set) var nextPull: Int64
    /// Pulled offsets in order; those before `head` are finished.
    private var offsets: [Int64] = []
    private var head = 0
    private var unfinished: Set<Int64> = []

    /// - Parameter start: queue offset of the first message to pull.
    package init(start: Int64) { nextPull = start }

    /// Messages pulled and not finished.
    package var outstanding: Int { unfinished.count }

    /// The next message to consume for a member that takes the queue over.
    package var committable: Int64 { head < offsets.count ? offsets[head] : nextPull }

    /// A pull brought messages at these ascending offsets; the next one begins at `next`.
    package mutating func pulled(_ pulled: some Sequence<Int64>, next: Int64) {
        for offset in pulled where unfinished.insert(offset).inserted { offsets.append(offset) }
        nextPull = next
    }

    /// The message at this offset needs no more work. Offsets that are not outstanding change nothing.
    package mutating func finish(_ offset: Int64) {
        guard unfinished.remove(offset) != nil else { return }
        while head < offsets.count, !unfinished.contains(offsets[head]) { head += 1 }
        if head == offsets.count {
            offsets.removeAll(keepingCapacity: true)
            head = 0
        } else if head >= 1024 {
            offsets.removeFirst(head)
            head = 0
        }
    }
}

/// Pauses between attempts: each twice as long as the one before, up to a bound.
package struct BackOff: Sendable {
    private let first: Duration
    private let longest: Duration
    private var following: Duration

    package init(first: Duration, longest: Duration) {
        self.first = first
        self.longest = longest
        following = first
    }

    /// The pause to make now.
    package mutating func next() -> Duration {
        defer { following = min(following * 2, longest) }
        return following
    }

    /// An attempt succeeded.
    package mutating func reset() { following = first }
}
