import MessageModel
import MessageStore
import StoreFormat
import WorkerProtocol

/// Waits for verdicts of the filter worker. On the broker's event loop.
protocol FilterWaiter: AnyObject {
    /// - Parameter hasVerdicts: `false`: the filter worker has ended, is late, or could not evaluate.
    func filterAnswered(_ hasVerdicts: Bool, expired: Bool)
}

/// The filter worker's verdicts for a range of one queue, for one group of consumers. The pulls that follow find it
/// here and ask no worker. A program's answer depends on the message alone. So a verdict holds as long as its program,
/// and as long as no message of the queue is edited.
///
/// The ranges asked about grow while a group reads on, and the next one is asked about before the present one is
/// used up. Confined to the broker's event loop.
final class FilterWindow {
    /// Whose window it is: by identity, the window keeps both alive.
    struct Key: Hashable {
        private let queue: ObjectIdentifier
        private let group: ObjectIdentifier

        init(_ queue: ConsumeQueue, _ group: AnyObject) {
            self.queue = ObjectIdentifier(queue)
            self.group = ObjectIdentifier(group)
        }
    }

    /// Differs for most windows of one subscription.
    @inline(__always)
    static func place(_ queue: ConsumeQueue, _ group: AnyObject) -> Int {
        let bits = UInt(bitPattern: ObjectIdentifier(queue)) ^ UInt(bitPattern: ObjectIdentifier(group)) &* 31
        return Int((bits &* 0x9E37_79B9_7F4A_7C15) >> 32)
    }

    @inline(__always)
    func isOf(_ queue: ConsumeQueue, _ group: AnyObject) -> Bool {
        self.queue === queue && self.group === group
    }

    /// A read that needs the next verdict.
    struct Waiter {
        let reader: any FilterWaiter
        /// It must be answered now.
        let expired: Bool
    }

    /// Entries of the first range: a few pulls' worth.
    static let firstBatch = 256

    let queue: ConsumeQueue
    private let group: AnyObject
    /// Verdicts of one or two ranges, one after the other.
    private var stretches: [EntryVerdicts] = []
    /// Where the last range ended, also after it was used up.
    private var end: Int64 = -1
    /// Entries the next range may have.
    private var size = FilterWindow.firstBatch
    /// The answer of the filter worker is on its way.
    private(set) var isAsking = false
    private var waiters: [Waiter] = []
    /// Of the queue, when the ranges were asked about.
    private var editChanges = 0

    init(queue: ConsumeQueue, group: AnyObject) {
        self.queue = queue
        self.group = group
    }

    /// The verdicts that cover an entry; what lies before them is given up.
    func verdicts(at offset: Int64) -> EntryVerdicts? {
        // A queue that was cut back, on a slave, may have got other messages at those offsets.
        if end > queue.maxOffset.rawValue || editChanges != queue.editChanges { forget() }
        if let present = stretches.first, offset >= present.start, offset < present.end { return present }
        for (index, stretch) in stretches.enumerated() where offset >= stretch.start && offset < stretch.end {
            if index > 0 { stretches.removeFirst(index) }
            return stretch
        }
        if offset != end { forget() }
        stretches.removeAll(keepingCapacity: true)
        return nil
    }

    func covers(_ offset: Int64) -> Bool { stretches.contains { offset >= $0.start && offset < $0.end } }

    private func forget() {
        stretches.removeAll(keepingCapacity: true)
        size = Self.firstBatch
        end = -1
    }

    /// The range to ask about ahead of need begins here, once a reader has come to `offset`; nil: not yet, or nothing
    /// is there.
    func next(after offset: Int64) -> Int64? {
        guard !isAsking, stretches.count == 1, let present = stretches.last, present.end < queue.maxOffset.rawValue,
            present.end -| offset <= Int64(present.count) / 2
        else { return nil }
        return present.end
    }

    /// How many entries from `offset` on are to be asked about now.
    func begin(from offset: Int64, atMost limit: Int) -> Int {
        isAsking = true
        if editChanges != queue.editChanges {
            forget()
            editChanges = queue.editChanges
        }
        let count = min(Int64(min(size, limit)), queue.maxOffset.rawValue -| offset)
        size = min(size * 2, WorkerMessage.filterBatchMax)
        return Int(max(count, 0))
    }

    /// The answer is there, nil when it is not to be had; the reads that waited for it.
    func ended(_ verdicts: EntryVerdicts?) -> [Waiter] {
        isAsking = false
        if let verdicts, verdicts.count > 0, editChanges == queue.editChanges {
            if verdicts.start != end { stretches.removeAll(keepingCapacity: true) }
            stretches.append(verdicts)
            end = verdicts.end
        }
        let waiters = self.waiters
        self.waiters.removeAll(keepingCapacity: true)
        return waiters
    }

    func wait(_ waiter: Waiter) { waiters.append(waiter) }
}
