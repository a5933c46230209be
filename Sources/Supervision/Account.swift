import Glibc

/// A user of this machine, for the question what it may write.
package struct Account: Hashable, Sendable {
    /// The user's name, or its number as text.
    package var name: String
    /// The user's number.
    package var user: UInt32
    /// All of its groups.
    package var groups: Set<UInt32>

    package init(name: String, user: UInt32, groups: Set<UInt32>) {
        self.name = name
        self.user = user
        self.groups = groups
    }

    /// The user who runs this program.
    package static var own: Account {
        var groups = [gid_t](repeating: 0, count: 256)
        let count = getgroups(Int32(groups.count), &groups)
        let name = StateFolder.variable("USER") ?? "uid \(geteuid())"
        return Account(
            name: geteuid() == 0 ? "root" : name, user: geteuid(),
            groups: Set(groups.prefix(Int(max(0, count)))).union([getegid()]))
    }

    /// The user of a service; nil when the system's list of users has none of that name.
    package init?(named name: String) {
        guard let entry = getpwnam(name) else { return nil }
        var groups = [gid_t](repeating: 0, count: 256)
        var count = Int32(groups.count)
        guard getgrouplist(name, entry.pointee.pw_gid, &groups, &count) >= 0 else { return nil }
        self.init(name: name, user: entry.pointee.pw_uid, groups: Set(groups.prefix(Int(count))))
    }

    /// Whether it may make files in a folder, by owner, group and mode; access control lists are not looked at.
    func mayWrite(in status: stat) -> Bool {
        if user == 0 { return true }
        let needed: mode_t = 0o3
        if status.st_uid == user { return status.st_mode >> 6 & needed == needed }
        if groups.contains(status.st_gid) { return status.st_mode >> 3 & needed == needed }
        return status.st_mode & needed == needed
    }
}
