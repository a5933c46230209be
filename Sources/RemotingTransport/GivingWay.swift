import NIOCore

/// Finds the connection that gives way when a server has as many as it may and one more comes.
///
/// First one that has not completed a request: of the 64 oldest the one whose address has the most connections. Then
/// one that was silent for half of the idle time-out. A client of RocketMQ says something every 30 s (heartbeat to a
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
    mutating func opened(_ id: UInt64, _ isGone: (UInt64) -> Bool) { self.strangers.append(id, isGone) }

    /// A connection that has completed requests has been silent for long. To be said once until it is `gone` again.
    mutating func becameIdle(_ id: UInt64, _ isGone: (UInt64) -> Bool) { self.idle.append(id, isGone) }

    /// The one to close; nil: all of them work.
    mutating func next(stranger: (UInt64) -> Verdict, idle: (UInt64) -> Verdict) -> UInt64? {
        self.strangers.take(stranger) ?? self.idle.take(idle)
    }
}

/// Identifiers of connections in the order they came; those that are gone are dropped when they are met.
private struct OldestFirst {
    private var ids: [UInt64] = []
    private var first = 0
    private var compactAt = Self.compactAtLeast

    private static let looked = 64
    private static let compactAtLeast = 1024

    /// Amortised: nothing is asked about most of the time.
    mutating func append(_ id: UInt64, _ isGone: (UInt64) -> Bool) {
        self.ids.append(id)
        guard self.ids.count >= self.compactAt else { return }
        self.ids.removeFirst(self.first)
        self.first = 0
        self.ids.removeAll(where: isGone)
        self.compactAt = max(Self.compactAtLeast, self.ids.count * 2)
    }

    /// Takes out the candidate of the most crowded address among the oldest; of equals the oldest.
    mutating func take(_ judge: (UInt64) -> GivingWay.Verdict) -> UInt64? {
        var best: (index: Int, count: Int)?
        var index = self.first
        while index < self.ids.count, index - self.first < Self.looked {
            switch judge(self.ids[index]) {
            case .gone:
                self.remove(at: index)
                best?.index += 1
            case .spared: break
            case .candidate(let count):
                if count > best?.count ?? -1 { best = (index, count) }
            }
            index += 1
        }
        guard let best else { return nil }
        let id = self.ids[best.index]
        self.remove(at: best.index)
        return id
    }

    /// Moves those before it up by one: at most 64.
    private mutating func remove(at index: Int) {
        for place in stride(from: index, to: self.first, by: -1) { self.ids[place] = self.ids[place - 1] }
        self.first += 1
    }
}
