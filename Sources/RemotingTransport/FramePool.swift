/// Who asks a `FramePool` for memory.
protocol FramePoolMember: AnyObject {
    /// What it waited for has been reserved for it.
    func framePoolGranted()
}

/// Memory that unfinished frames of all connections share, handed out in the order it was asked for. Counts bytes only.
///
/// A frame reserves its whole length before more than its beginning is kept. So no two frames can each hold what the other
/// needs: whoever has a reservation can always finish. Confined to one event loop.
final class FramePool {
    private struct Waiter {
        let ticket: UInt64
        let bytes: Int
        weak var member: (any FramePoolMember)?
    }

    /// Bytes.
    let capacity: Int
    /// Bytes promised to frames that are not complete.
    private(set) var reserved = 0
    private var waiters: [Waiter] = []
    /// Where the queue begins in `waiters`.
    private var first = 0
    /// Tickets in the queue that still count.
    private var live: Set<UInt64> = []
    private var lastTicket: UInt64 = 0

    init(capacity: Int) {
        self.capacity = capacity
    }

    /// Somebody waits for memory.
    var isContended: Bool { !self.live.isEmpty }

    /// Takes `bytes`, or answers false: then `wait` is the way. One frame alone is never refused, whatever its length.
    func reserve(_ bytes: Int) -> Bool {
        guard self.live.isEmpty, self.fits(bytes) else { return false }
        self.reserved += bytes
        return true
    }

    /// Queues up for `bytes`; `member.framePoolGranted` tells. Answers a ticket for `cancel`.
    func wait(_ member: any FramePoolMember, for bytes: Int) -> UInt64 {
        self.lastTicket += 1
        self.live.insert(self.lastTicket)
        self.waiters.append(Waiter(ticket: self.lastTicket, bytes: bytes, member: member))
        return self.lastTicket
    }

    func cancel(_ ticket: UInt64) {
        guard self.live.remove(ticket) != nil else { return }
        self.grant()
    }

    /// Gives back what `reserve` or `framePoolGranted` gave.
    func release(_ bytes: Int) {
        precondition(bytes <= self.reserved, "\(bytes) bytes given back, \(self.reserved) reserved")
        self.reserved -= bytes
        self.grant()
    }

    private func fits(_ bytes: Int) -> Bool { self.reserved == 0 || bytes <= self.capacity - self.reserved }

    private func grant() {
        while self.first < self.waiters.count {
            let next = self.waiters[self.first]
            if self.live.contains(next.ticket), let member = next.member {
                guard self.fits(next.bytes) else { break }
                self.reserved += next.bytes
                self.live.remove(next.ticket)
                self.first += 1
                member.framePoolGranted()
            } else {
                self.live.remove(next.ticket)
                self.first += 1
            }
        }
        if self.first > 64, self.first * 2 > self.waiters.count {
            self.waiters.removeFirst(self.first)
            self.first = 0
        }
    }
}

/// The memory for what connections have sent and the server has not handled. Confined to one event loop.
final class FrameMemory {
    /// Frames above this many bytes wait for each other, and never hold up those below.
    static let smallBytesMax = 64 << 10

    private let small: FramePool
    private let large: FramePool
    /// Bytes kept without a reservation: beginnings of frames that wait for one, and requests of peers that are held back.
    private(set) var unreserved = 0
    private let unreservedMax: Int

    init(_ configuration: RemotingServerConfiguration) {
        self.small = FramePool(capacity: configuration.unfinishedFrameBytesMax / 2)
        self.large = FramePool(capacity: configuration.unfinishedFrameBytesMax)
        // Many honest peers may be held back at a time, each with what one read brought.
        self.unreservedMax = configuration.unfinishedFrameBytesMax * 4
    }

    func pool(for bytes: Int) -> FramePool { bytes > Self.smallBytesMax ? self.large : self.small }

    /// False when there is no room for it: the connection must go.
    func keep(_ change: Int) -> Bool {
        self.unreserved += change
        return change <= 0 || self.unreserved <= self.unreservedMax
    }
}
