import LinuxSystem
import MessageModel

/// Reads the files of a folder back: a snapshot, and the journals from its number on.
struct ClaimRecovery {
    /// What was found; its axis of time is the wall clock.
    private(set) var registry = ClaimRegistry()
    /// Number of the snapshot the state began with; 0 for none.
    private(set) var snapshot: UInt32 = 0
    private(set) var snapshotBytes: Int64 = 0
    /// Journals read, and how many bytes of each are whole.
    private(set) var journals: [(number: UInt32, end: Int64)] = []
    /// Of the last journal read.
    private(set) var header: ClaimFile.Header?
    private(set) var blockTime: Int64 = 0
    private(set) var clients: Set<UInt32> = []
    /// The highest number of any file; 0 for none.
    private(set) var highest: UInt32 = 0
    /// Why what was found is not all that was written.
    private(set) var damage: [String] = []

    private let disk: any Disk
    private let folder: String

    /// - Parameter last: the last journal to be read; later ones are still written.
    /// - Throws: the disk refused. Damaged files are no error.
    init(_ folder: String, _ disk: any Disk, upTo last: UInt32 = .max) throws(SystemError) {
        self.folder = folder
        self.disk = disk
        let files = try disk.list(folder).compactMap { ClaimFile.parse($0) }
        highest = files.map(\.number).max() ?? 0
        let existing = Set(files.filter { $0.kind == .journal && $0.number <= last }.map(\.number))
        for file in files.sorted(by: { $0.number > $1.number }) where file.kind == .snapshot {
            if try readSnapshot(file.number) { break }
            registry = ClaimRegistry()
        }
        // The first journal follows no snapshot.
        var number = max(snapshot, 1)
        var replay = ClaimReplay(into: registry)
        while existing.contains(number) {
            guard try readJournal(number, &replay) else { break }
            number += 1
        }
        if let missing = existing.max(), missing >= number, damage.isEmpty {
            damage.append("\(folder) has \(ClaimFile.name(.journal, missing)), but not the one that begins the story")
        }
    }

    private static let isTooLarge = "it has more than \(ClaimFile.sizeMax) bytes"

    private func path(_ kind: ClaimFile.Kind, _ number: UInt32) -> String {
        "\(folder)/\(ClaimFile.name(kind, number))"
    }

    private mutating func readSnapshot(_ number: UInt32) throws(SystemError) -> Bool {
        guard let bytes = try ClaimFile.read(path(.snapshot, number), disk) else {
            damage.append("\(path(.snapshot, number)) is damaged and not used: \(Self.isTooLarge)")
            return false
        }
        var replay = ClaimReplay(into: registry)
        let found = bytes.withUnsafeBytes { bytes -> JournalDamage? in
            do throws(JournalDamage) {
                var reader = EntryReader(bytes)
                replay.begin(try ClaimFile.Header(&reader, kind: .snapshot, number: number))
                while !replay.isComplete { try replay.block(&reader) }
                return nil
            } catch {
                return error
            }
        }
        if let found {
            damage.append("\(path(.snapshot, number)) is damaged and not used: \(found)")
            return false
        }
        snapshot = number
        snapshotBytes = Int64(bytes.count)
        return true
    }

    /// False when nothing after it may be read.
    private mutating func readJournal(_ number: UInt32, _ replay: inout ClaimReplay) throws(SystemError) -> Bool {
        guard let bytes = try ClaimFile.read(path(.journal, number), disk) else {
            damage.append("\(path(.journal, number)) is damaged and not used: \(Self.isTooLarge)")
            return false
        }
        let previousEnd = journals.last?.end
        var end = 0
        var found: JournalDamage?
        var header: ClaimFile.Header?
        bytes.withUnsafeBytes { bytes in
            do throws(JournalDamage) {
                var reader = EntryReader(bytes)
                let begun = try ClaimFile.Header(&reader, kind: .journal, number: number)
                if let previousEnd, begun.previousEnd != previousEnd {
                    throw JournalDamage(
                        "the journal before should have \(begun.previousEnd) bytes, and has \(previousEnd)")
                }
                header = begun
                replay.begin(begun)
                end = reader.position
                while !reader.isAtEnd {
                    try replay.block(&reader)
                    end = reader.position
                }
            } catch {
                found = error
            }
        }
        if let found {
            damage.append("\(path(.journal, number)) counts up to byte \(end) of \(bytes.count): \(found)")
        }
        guard let header else { return false }
        self.header = header
        blockTime = replay.blockTime
        clients = replay.clients
        journals.append((number, Int64(end)))
        return found == nil
    }
}

extension ClaimRegistry {
    /// From the wall clock's time to the steady clock's. A claim lasts as long as it has left by the wall clock, at
    /// most as long as it was given out for. One that is over keeps its place in the order of deadlines.
    func convertDeadlines(at now: ClaimTime) {
        func converted(_ deadline: Int64, _ invisible: Int64) -> Int64 {
            now.steady +| min(deadline -| now.wall, invisible)
        }
        for table in tables {
            table.open?.runs.changeAll { run in
                run.deadline = converted(run.deadline, ClaimTable.allowed(run.deadline - run.popTime))
            }
            table.open?.singles.changeAll { $0.deadline = converted($0.deadline, Int64($0.invisible)) }
            table.settle()
        }
    }
}
