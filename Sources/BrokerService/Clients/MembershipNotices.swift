/// When which group's members are notified that their group has changed (NOTIFY_CONSUMER_IDS_CHANGED). Time comes as an
/// argument.
///
/// The first change is notified at the end of its tick. Further ones are gathered for a while and notified together.
/// Ten thousand members that come one after the other would otherwise cause fifty million notices. A client answers
/// each with a request for the list of all members.
struct MembershipNotices {
    /// Between two notices to the same group: a quarter of what a member may have to wait for one.
    static let intervalMilliseconds: Int64 = 25
    /// More members take longer to notify and to answer: a millisecond more for so many of them.
    static let membersPerMilli = 20

    private struct Group {
        var mayBeToldAt: Int64 = 0
        var isChanged = false
    }

    private var groups: [String: Group] = [:]
    /// Names of changed groups.
    private var changed: [String] = []
    /// Names of the notified ones, to be forgotten when nothing more happens to them.
    private var told: [String] = []

    mutating func changed(_ group: String) {
        guard groups[group]?.isChanged != true else { return }
        groups[group, default: Group()].isChanged = true
        changed.append(group)
    }

    var isEmpty: Bool { changed.isEmpty }
    /// Groups it knows something of.
    var remembered: Int { groups.count }

    /// Calls `tell` for each group whose members may be notified now; it returns how many members that were. Returns
    /// when to come again, or `nil` if no group waits.
    mutating func tell(now: Int64, _ tell: (String) -> Int) -> Int64? {
        guard !changed.isEmpty else { return nil }
        forget(now)
        var later: [String] = []
        var next: Int64?
        for name in changed {
            let time = groups[name]?.mayBeToldAt ?? 0
            // A clock that was set back does not silence a group.
            if time > now, time - now <= Self.interval(members: Int(Int32.max)) {
                later.append(name)
                next = min(next ?? time, time)
                continue
            }
            let count = tell(name)
            groups[name] = Group(mayBeToldAt: now + Self.interval(members: count))
            told.append(name)
        }
        changed = later
        return next
    }

    private mutating func forget(_ now: Int64) {
        guard told.count > 64 else { return }
        told.removeAll { name in
            // A changed one will be notified, and so comes back here.
            guard let group = groups[name], !group.isChanged else { return true }
            guard group.mayBeToldAt <= now else { return false }
            groups[name] = nil
            return true
        }
    }

    static func interval(members: Int) -> Int64 {
        intervalMilliseconds + Int64(min(members, 100_000) / membersPerMilli)
    }
}
