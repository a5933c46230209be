import NIOCore

/// A handler that asks a `FramePool` for memory.
protocol FramePoolMember: AnyObject {
    /// What it waited for has been reserved for it.
    func framePoolGranted()
}

/// Memory that unfinished frames of all connections share. Counts bytes only. Confined to one event loop.
///
/// A frame reserves its whole length before more than its beginning is kept. So no two frames can each hold what the
/// other needs: one that has a reservation can always finish.
///
/// While there is not enough, networks take turns by start-time fair queueing: the one that has used least is granted
/// next. A frame costs its bytes, and its bytes again for each second it kept them. One that never came to its end also
/// costs eight times its bytes. So one network's many, slow or false frames delay its own next ones; a network that
/// comes new is next in line.
final class FramePool {
    private struct Waiter {
        let ticket: UInt64
        let bytes: Int
    }

    /// What a network has used, and the handlers that wait there in the order of asking.
    private struct Account {
        /// A point of virtual time: where its next grant begins.
        var start: Int
        var waiters: [Waiter] = []
        /// Where the queue begins in `waiters`.
        var first = 0
        /// Of the waiters, those that have not been cancelled.
        var live = 0
        var isInTurns = false
    }

    private struct Member {
        let member: any FramePoolMember
        let network: RemoteNetwork
    }

    /// Bytes.
    let capacity: Int
    /// Bytes promised to frames that are not complete.
    private(set) var reserved = 0
    private var members: [UInt64: Member] = [:]
    private var lastTicket: UInt64 = 0
    private var accounts: [RemoteNetwork: Account] = [:]
    private var turns = FrameTurns()
    /// Where the last grant began. Zero again when no handler waits.
    private var virtualTime = 0

    /// Networks remembered at a time, besides those that wait; when there are more the past is forgotten.
    private static let networksMax = 16_384
    private static let costOfUnfinished = 8

    init(capacity: Int) {
        self.capacity = capacity
    }

    /// A handler waits for memory.
    var isContended: Bool { !members.isEmpty }

    /// Takes `bytes`, or answers false: then `wait` is the way. One frame alone is never refused, whatever its length.
    func reserve(_ bytes: Int) -> Bool {
        guard members.isEmpty, fits(bytes) else { return false }
        reserved += bytes
        return true
    }

    /// Queues up for `bytes`; calls `member.framePoolGranted` when they are there. Keeps the member until then or until
    /// `cancel`, which takes the ticket answered here.
    func wait(_ member: any FramePoolMember, for bytes: Int, of network: RemoteNetwork) -> UInt64 {
        lastTicket += 1
        members[lastTicket] = Member(member: member, network: network)
        var account = takeAccount(network)
        account.waiters.append(Waiter(ticket: lastTicket, bytes: bytes))
        account.live += 1
        if !account.isInTurns {
            account.isInTurns = true
            account.start = max(virtualTime, account.start)
            turns.insert(.init(start: account.start, ticket: lastTicket, network: network))
        }
        accounts[network] = account
        return lastTicket
    }

    func cancel(_ ticket: UInt64) {
        guard let member = members.removeValue(forKey: ticket) else { return }
        var account = takeAccount(member.network)
        account.live -= 1
        if account.waiters.count > 2 * account.live + 64 {
            account.waiters.removeFirst(account.first)
            account.waiters.removeAll { members[$0.ticket] == nil }
            account.first = 0
        }
        accounts[member.network] = account
        grant()
    }

    /// Gives back what `reserve` or `framePoolGranted` gave, and was kept for so long.
    ///
    /// - Parameter isWhole: the frame has come to its end.
    func release(_ bytes: Int, of network: RemoteNetwork, after time: TimeAmount, isWhole: Bool = true) {
        precondition(bytes <= reserved, "\(bytes) bytes given back, \(reserved) reserved")
        reserved -= bytes
        guard isContended else { return }
        let held = Int(Double(bytes) * Double(max(0, time.nanoseconds)) / 1e9)
        var account = takeAccount(network)
        account.start = max(virtualTime, account.start) + held + (isWhole ? 0 : bytes * Self.costOfUnfinished)
        accounts[network] = account
        grant()
    }

    private func fits(_ bytes: Int) -> Bool { reserved == 0 || bytes <= capacity - reserved }

    /// To be put back when it has changed: so that its list of waiters is not copied.
    private func takeAccount(_ network: RemoteNetwork) -> Account {
        if let known = accounts.removeValue(forKey: network) { return known }
        if accounts.count >= Self.networksMax {
            accounts = accounts.filter { $0.value.isInTurns || $0.value.start > virtualTime }
            if accounts.count >= Self.networksMax { accounts = accounts.filter { $0.value.isInTurns } }
        }
        return Account(start: virtualTime)
    }

    private func grant() {
        while let (network, waiter) = next() {
            guard fits(waiter.bytes) else { return }
            reserved += waiter.bytes
            var account = takeAccount(network)
            account.first += 1
            account.live -= 1
            virtualTime = max(virtualTime, account.start)
            account.start = virtualTime + waiter.bytes
            accounts[network] = account
            members.removeValue(forKey: waiter.ticket)?.member.framePoolGranted()
        }
        guard members.isEmpty else { return }
        accounts = [:]
        turns = FrameTurns()
        virtualTime = 0
    }

    /// Whose turn it is. What a network has used since its place was chosen counts now: places only move back.
    private func next() -> (RemoteNetwork, Waiter)? {
        while let turn = turns.first {
            var account = takeAccount(turn.network)
            while account.first < account.waiters.count, members[account.waiters[account.first].ticket] == nil {
                account.first += 1
            }
            if account.first > 64, account.first * 2 > account.waiters.count {
                account.waiters.removeFirst(account.first)
                account.first = 0
            }
            guard account.first < account.waiters.count else {
                account.waiters = []
                account.first = 0
                account.isInTurns = false
                accounts[turn.network] = account
                turns.removeFirst()
                continue
            }
            let waiter = account.waiters[account.first]
            let due = FrameTurns.Turn(start: account.start, ticket: waiter.ticket, network: turn.network)
            accounts[turn.network] = account
            if due.isBefore(turn) || turn.isBefore(due) {
                turns.replaceFirst(due)
                continue
            }
            return (turn.network, waiter)
        }
        return nil
    }
}

/// Networks that wait, the one whose turn is next first: a binary heap.
private struct FrameTurns {
    struct Turn {
        let start: Int
        /// Of its first waiter: among equals the one that asked first.
        let ticket: UInt64
        let network: RemoteNetwork

        func isBefore(_ other: Turn) -> Bool { (start, ticket) < (other.start, other.ticket) }
    }

    private var heap: [Turn] = []

    var first: Turn? { heap.first }

    mutating func insert(_ turn: Turn) {
        var index = heap.count
        heap.append(turn)
        while index > 0, heap[index].isBefore(heap[(index - 1) / 2]) {
            heap.swapAt(index, (index - 1) / 2)
            index = (index - 1) / 2
        }
    }

    mutating func removeFirst() {
        guard let last = heap.popLast(), !heap.isEmpty else { return }
        replaceFirst(last)
    }

    mutating func replaceFirst(_ turn: Turn) {
        heap[0] = turn
        var index = 0
        while true {
            var least = index
            for child in [2 * index + 1, 2 * index + 2]
            where child < heap.count && heap[child].isBefore(heap[least]) {
                least = child
            }
            guard least != index else { return }
            heap.swapAt(index, least)
            index = least
        }
    }
}

/// The memory for what connections have sent and the server has not handled. Confined to one event loop.
final class FrameMemory {
    /// Frames above this many bytes wait for each other, and never hold up those below.
    static let smallBytesMax = 64 << 10

    private let small: FramePool
    private let large: FramePool
    /// Bytes kept without a reservation: beginnings of frames that wait for one, and requests of peers that are held
    /// back.
    private(set) var unreserved = 0
    private let unreservedMax: Int

    init(_ configuration: RemotingServerConfiguration) {
        small = FramePool(capacity: configuration.unfinishedFrameBytesMax / 2)
        large = FramePool(capacity: configuration.unfinishedFrameBytesMax)
        // Many honest peers may be held back at a time, each with what one read brought.
        unreservedMax = configuration.unfinishedFrameBytesMax * 4
    }

    func pool(for bytes: Int) -> FramePool { bytes > Self.smallBytesMax ? large : small }

    /// False when there is no room for it: the connection must go.
    func keep(_ change: Int) -> Bool {
        unreserved += change
        return change <= 0 || unreserved <= unreservedMax
    }
}
