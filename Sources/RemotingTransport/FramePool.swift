import NIOCore

/// Who asks a `FramePool` for memory.
protocol FramePoolMember: AnyObject {
    /// What it waited for has been reserved for it.
    func framePoolGranted()
}

/// Memory that unfinished frames of all connections share. Counts bytes only. Confined to one event loop.
///
/// A frame reserves its whole length before more than its beginning is kept. So no two frames can each hold what the other
/// needs: one that has a reservation can always finish.
///
/// While there is not enough, networks take turns by start-time fair queueing: each wait begins at a point of virtual time,
/// the lowest is granted first, and the network's next wait begins later by what this one cost. That is its bytes, its bytes
/// again for each second it kept them, and eight times its bytes when it never came to its end. So one network's many, slow
/// or false frames delay its own next ones; a network that comes new is next in line.
final class FramePool {
    private struct Waiter {
        let start: Int
        let ticket: UInt64
        let bytes: Int
    }

    /// Bytes.
    let capacity: Int
    /// Bytes promised to frames that are not complete.
    private(set) var reserved = 0
    /// In the order of their turns, from `first` on.
    private var waiters: [Waiter] = []
    private var first = 0
    /// Of the tickets that still count.
    private var members: [UInt64: any FramePoolMember] = [:]
    private var lastTicket: UInt64 = 0
    /// Where the last wait that was granted began. Zero again when nobody waits.
    private var virtualTime = 0
    /// Where a network's next wait begins, when that is later than `virtualTime`.
    private var nextStarts: [RemoteNetwork: Int] = [:]

    /// Networks remembered at a time, at most; when there are more the past is forgotten.
    private static let networksMax = 16_384

    private static let costOfUnfinished = 8

    init(capacity: Int) {
        self.capacity = capacity
    }

    /// Somebody waits for memory.
    var isContended: Bool { !self.members.isEmpty }

    /// Takes `bytes`, or answers false: then `wait` is the way. One frame alone is never refused, whatever its length.
    func reserve(_ bytes: Int) -> Bool {
        guard self.members.isEmpty, self.fits(bytes) else { return false }
        self.reserved += bytes
        return true
    }

    /// Queues up for `bytes`; calls `member.framePoolGranted` when they are there. Keeps the member until then or until
    /// `cancel`, which takes the ticket answered here.
    func wait(_ member: any FramePoolMember, for bytes: Int, of network: RemoteNetwork) -> UInt64 {
        self.lastTicket += 1
        self.members[self.lastTicket] = member
        let start = max(self.virtualTime, self.nextStarts[network] ?? 0)
        self.charge(network, bytes)
        self.insert(Waiter(start: start, ticket: self.lastTicket, bytes: bytes))
        return self.lastTicket
    }

    func cancel(_ ticket: UInt64) {
        guard self.members.removeValue(forKey: ticket) != nil else { return }
        self.grant()
    }

    /// Gives back what `reserve` or `framePoolGranted` gave, and was kept for so long.
    ///
    /// - Parameter isWhole: the frame has come to its end.
    func release(_ bytes: Int, of network: RemoteNetwork, after time: TimeAmount, isWhole: Bool = true) {
        precondition(bytes <= self.reserved, "\(bytes) bytes given back, \(self.reserved) reserved")
        self.reserved -= bytes
        guard self.isContended else { return }
        let held = Int(Double(bytes) * Double(max(0, time.nanoseconds)) / 1e9)
        self.charge(network, held + (isWhole ? 0 : bytes * Self.costOfUnfinished))
        self.grant()
    }

    private func fits(_ bytes: Int) -> Bool { self.reserved == 0 || bytes <= self.capacity - self.reserved }

    private func charge(_ network: RemoteNetwork, _ cost: Int) {
        if self.nextStarts.count >= Self.networksMax, self.nextStarts[network] == nil {
            self.nextStarts = self.nextStarts.filter { $0.value > self.virtualTime }
            if self.nextStarts.count >= Self.networksMax { self.nextStarts = [:] }
        }
        self.nextStarts[network] = max(self.virtualTime, self.nextStarts[network] ?? 0) + cost
    }

    /// Behind all that begin no later.
    private func insert(_ waiter: Waiter) {
        if self.waiters.count > 64, self.waiters.count > 2 * self.members.count {
            self.waiters.removeFirst(self.first)
            self.first = 0
            self.waiters.removeAll { self.members[$0.ticket] == nil && $0.ticket != waiter.ticket }
        }
        var (low, high) = (self.first, self.waiters.count)
        while low < high {
            let middle = (low + high) / 2
            if self.waiters[middle].start <= waiter.start { low = middle + 1 } else { high = middle }
        }
        self.waiters.insert(waiter, at: low)
    }

    private func grant() {
        while self.first < self.waiters.count {
            let next = self.waiters[self.first]
            if let member = self.members[next.ticket] {
                guard self.fits(next.bytes) else { return }
                self.members[next.ticket] = nil
                self.reserved += next.bytes
                self.virtualTime = max(self.virtualTime, next.start)
                self.first += 1
                member.framePoolGranted()
            } else {
                self.first += 1
            }
        }
        self.waiters.removeAll(keepingCapacity: self.waiters.capacity < 4096)
        self.first = 0
        self.virtualTime = 0
        self.nextStarts = [:]
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
