import NIOCore

/// Finds the connection that gives way when a server has as many as it may and one more comes.
///
/// First one that has not completed a request: of the 64 oldest the one whose address has the most connections. Then
/// one that was silent for half of the idle time-out. A client of RocketMQ sends something every 30 s (heartbeat to a
/// broker, route to a name server), so one that works never gives way. Each choice costs a bounded look. Confined to
/// one event loop.
struct GivingWay {
    /// How long a connection may take for its first request, when nothing of it has come: a way there and back. The
    /// longer, the fewer new connections a second find a place: of 10 000 places those of 50 000.
    static let silentGrace = TimeAmount.milliseconds(200)
    /// The same when a part has come: a first frame may be large.
    static let begunGrace = TimeAmount.seconds(2)

    private var strangers = OldestFirst()
    private var idle = OldestFirst()

    enum Verdict: Equatable {
        /// Closed meanwhile, or no longer of this kind.
        case gone
        /// It may have a little longer.
        case spared
        case candidate(connectionsOfItsAddress: Int)
    }

    /// A connection was opened and has not completed a request.
    mutating func opened(_ id: UInt64, _ isGone: (UInt64) -> Bool) { strangers.append(id, isGone) }

    /// A connection that has completed requests has been silent for long. To be logged once until it is `gone` again.
    mutating func becameIdle(_ id: UInt64, _ isGone: (UInt64) -> Bool) { idle.append(id, isGone) }

    /// The one to close; nil: all of them work.
    mutating func next(stranger: (UInt64) -> Verdict, idle: (UInt64) -> Verdict) -> UInt64? {
        strangers.take(stranger) ?? self.idle.take(idle)
    }
}

/// Identifiers of connections in the order they came; those that were closed are dropped when they are met.
private struct OldestFirst {
    private var ids: [UInt64] = []
    private var first = 0
    private var compactAt = Self.compactAtLeast

    private static let looked = 64
    private static let compactAtLeast = 1024

    /// Amortised: nothing is asked about most of the time.
    mutating func append(_ id: UInt64, _ isGone: (UInt64) -> Bool) {
        ids.append(id)
        guard ids.count >= compactAt else { return }
        ids.removeFirst(first)
        first = 0
        ids.removeAll(where: isGone)
        compactAt = max(Self.compactAtLeast, ids.count * 2)
    }

    /// Takes out the candidate of the most crowded address among the oldest; of equals the oldest.
    mutating func take(_ judge: (UInt64) -> GivingWay.Verdict) -> UInt64? {
        var best: (index: Int, count: Int)?
        var index = first
        while index < ids.count, index - first < Self.looked {
            switch judge(ids[index]) {
            case .gone:
                remove(at: index)
                best?.index += 1
            case .spared: break
            case .candidate(let count):
                if count > best?.count ?? -1 { best = (index, count) }
            }
            index += 1
        }
        guard let best else { return nil }
        let id = ids[best.index]
        remove(at: best.index)
        return id
    }

    /// Moves those before it up by one: at most 64.
    private mutating func remove(at index: Int) {
        for place in stride(from: index, to: first, by: -1) { ids[place] = ids[place - 1] }
        first += 1
    }
}
