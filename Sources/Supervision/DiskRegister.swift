import Glibc
import LinuxSystem

/// Which disk is which broker, remembered in DATA/disks. So number, name and port stay with a disk however the setting
/// `disks` is reordered. A mount point whose disk is missing is known as such. One line a disk:
///
///     SLOT ID STATE BROKERNAME PATH
///
/// SLOT is `-` for a `[[broker]]` table, which names its own; STATE is `served` once the broker has been ready there,
/// else `new`. Lines stay when a disk is taken out of the settings: should it come back it is the same broker again.
/// Removing a line by hand makes Apus forget the disk.
package struct DiskRegister: Hashable, Sendable {
    /// One line of the file: a disk and whose it is.
    package struct Entry: Hashable, Sendable {
        /// The broker's number; nil for a `[[broker]]` table.
        package var slot: Int?
        /// As in the disk's mark.
        package var identity: String
        /// The broker has been ready on this disk: from then on the mark must be there.
        package var served: Bool
        /// RocketMQ's `brokerName`.
        package var brokerName: String
        /// Where the disk is mounted.
        package var path: String

        package init(slot: Int?, identity: String, served: Bool, brokerName: String, path: String) {
            self.slot = slot
            self.identity = identity
            self.served = served
            self.brokerName = brokerName
            self.path = path
        }
    }

    /// In the data directory.
    package static let fileName = "disks"
    /// How long a disk may take to show its mark before it is taken for away.
    static let markMillisecondsMax: Int32 = 2_000

    private let file: String
    private let isReadOnly: Bool
    /// In the order of the file.
    package private(set) var entries: [Entry] = []

    /// - Parameter isReadOnly: only to look what would be; nothing is remembered.
    /// - Throws: the file cannot be read, or a line of it is malformed.
    package init(dataDirectory: String, isReadOnly: Bool = false) throws(ConfigurationError) {
        self.isReadOnly = isReadOnly
        file = "\(dataDirectory)/\(DiskRegister.fileName)"
        let text: String?
        do throws(SystemError) {
            text = try DurableFile.read(file)
        } catch {
            // A user who only checks may not read every file.
            guard isReadOnly, error.errno == EACCES else { throw ConfigurationError("\(error)") }
            text = nil
        }
        let lines = (text ?? "").split(omittingEmptySubsequences: false, whereSeparator: \.isNewline)
        for (number, line) in lines.enumerated() where !line.isEmpty {
            let parts = line.split(separator: " ", maxSplits: 4).map(String.init)
            let slot = parts.first.flatMap { DiskMark.slot($0) }
            guard parts.count == 5, parts[0] == "-" || slot != nil else {
                let slots = "\(DiskMark.slots.lowerBound) to \(DiskMark.slots.upperBound)"
                throw ConfigurationError(
                    """
                    \(file) line \(number + 1) is not SLOT ID STATE BROKERNAME PATH, with - or \(slots) as SLOT: \
                    correct or remove it
                    """)
            }
            if let slot, let other = entries.first(where: { $0.slot == slot }) {
                throw ConfigurationError(
                    """
                    \(file) line \(number + 1) gives the disk at \(parts[4]) number \(slot), which the one at \
                    \(other.path) has: correct or remove one of the lines
                    """)
            }
            entries.append(
                Entry(
                    slot: slot, identity: parts[1], served: parts[2] == "served", brokerName: parts[3],
                    path: parts[4]))
        }
    }

    private func save() throws(ConfigurationError) {
        guard !isReadOnly else { return }
        let text = entries.map {
            """
            \($0.slot.map(String.init) ?? "-") \($0.identity) \($0.served ? "served" : "new") \($0.brokerName) \
            \($0.path)\n
            """
        }.joined()
        do throws(SystemError) {
            if let slash = file.lastIndex(of: "/") { try RunDirectory.makeDirectories(String(file[..<slash])) }
            try DurableFile.replace(file, with: text)
        } catch {
            throw ConfigurationError("cannot remember the disks: \(error)")
        }
    }

    /// The entries of these disks, in this order; new ones get the lowest free slot and `name` of it. A disk that
    /// carries the mark of an entry has it also when it is mounted elsewhere than last time.
    /// - Throws: two disks carry the mark of one broker, or the file cannot be written.
    package mutating func entries(
        for paths: [String], name: (Int) -> String
    ) throws(ConfigurationError) -> [Entry] {
        let before = entries
        var found: [Entry] = []
        for path in paths {
            var entry = entries.first { $0.path == path && $0.slot != nil }
            if case .mark(let mark) = DiskMark.read(in: path, withinMilliseconds: DiskRegister.markMillisecondsMax),
                let slot = mark.slot, mark.identity != entry?.identity
            {
                entry = try adopt(mark, slot: slot, at: path, taken: found)
            }
            if entry == nil {
                let used = Set(entries.compactMap(\.slot))
                guard let slot = DiskMark.slots.first(where: { !used.contains($0) }) else {
                    throw ConfigurationError(
                        "\(file) has a line for every number a broker can have: remove those of disks that are gone")
                }
                entry = Entry(
                    slot: slot, identity: DiskMark.newIdentity(), served: false, brokerName: name(slot), path: path)
                if let entry { entries.append(entry) }
            }
            if let entry { found.append(entry) }
        }
        if entries != before { try save() }
        return found
    }

    /// A disk with a mark that was not expected at `path`: moved here, or brought from elsewhere.
    private mutating func adopt(
        _ mark: DiskMark, slot: Int, at path: String, taken: [Entry]
    ) throws(ConfigurationError) -> Entry {
        let entry = Entry(
            slot: slot, identity: mark.identity, served: true, brokerName: mark.brokerName, path: path)
        if let other = taken.first(where: { $0.slot == slot || $0.identity == mark.identity }) {
            throw ConfigurationError(
                "the disks at \(other.path) and \(path) both carry the mark of \(mark.brokerName) "
                    + "(\(DiskMark.fileName)): remove the wrong one from 'disks'")
        }
        if let index = entries.firstIndex(where: { $0.identity == mark.identity }) {
            entries[index] = entry
        } else if let index = entries.firstIndex(where: { $0.slot == slot }), entries[index].served {
            throw ConfigurationError(
                "the disk at \(path) says it is \(mark.brokerName), number \(slot), and so does the one last seen at "
                    + "\(entries[index].path): remove the line of the one that is gone from \(file)")
        } else {
            entries.removeAll { $0.slot == slot }
            entries.append(entry)
        }
        // Whatever was known at this path is elsewhere now, or away.
        for index in entries.indices where entries[index].path == path && entries[index].identity != mark.identity {
            entries[index].path = "?"
        }
        return entry
    }

    /// The entry of a `[[broker]]` table's store that lies on a disk of its own.
    /// - Throws: the file cannot be written.
    package mutating func guarded(_ path: String, brokerName: String) throws(ConfigurationError) -> Entry {
        if let entry = entries.first(where: { $0.path == path && $0.slot == nil }) { return entry }
        let entry = Entry(
            slot: nil, identity: DiskMark.newIdentity(), served: false, brokerName: brokerName, path: path)
        entries.append(entry)
        try save()
        return entry
    }

    /// From now on the mark must be there.
    /// - Throws: the file cannot be written.
    package mutating func served(identity: String) throws(ConfigurationError) {
        guard let index = entries.firstIndex(where: { $0.identity == identity && !$0.served }) else { return }
        entries[index].served = true
        try save()
    }
}
