package import StoreFormat

/// What a store reports to its owner. All of it is given to `MessageStore.open`, so that forgetting one does not
/// compile. Called on the store's thread.
package struct StoreEvents {
    /// A message has become readable in a queue whose `wantsArrival` is set. Called while the tick is dispatched: note
    /// it, and read after `commitTick`.
    package var arrival: (ConsumeQueue, MessageArrival) -> Void
    /// The written end of the log moved; once a tick.
    package var written: (PhysicalOffset) -> Void
    /// The flushed end of the log moved.
    package var flushed: (PhysicalOffset) -> Void
    /// A flush failed. Acknowledgements that wait for `flushed` are to be answered; the store takes nothing until it
    /// has verified its log.
    package var flushFailed: (StoreError) -> Void
    /// The beginning of the log moved: files were deleted.
    package var minimumMoved: (PhysicalOffset) -> Void

    /// All of them.
    package init(
        arrival: @escaping (ConsumeQueue, MessageArrival) -> Void,
        written: @escaping (PhysicalOffset) -> Void,
        flushed: @escaping (PhysicalOffset) -> Void,
        flushFailed: @escaping (StoreError) -> Void,
        minimumMoved: @escaping (PhysicalOffset) -> Void
    ) {
        self.arrival = arrival
        self.written = written
        self.flushed = flushed
        self.flushFailed = flushFailed
        self.minimumMoved = minimumMoved
    }

    /// For an owner that waits for nothing: tools and tests.
    package static var ignored: StoreEvents {
        StoreEvents(
            arrival: { _, _ in }, written: { _ in }, flushed: { _ in }, flushFailed: { _ in }, minimumMoved: { _ in })
    }
}
