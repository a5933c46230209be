import Glibc
package import LinuxSystem
package import Logging
import MessageModel
import Synchronization

/// A slave's side of the mirror. It copies a master's files of claims into the folder in which `ClaimStore.open` finds
/// them when this broker becomes a master. It asks (`question`), is given answers, and writes; it knows no network.
///
/// A history it does not know is copied beside the present folder and checked. It takes the folder's place when it is
/// as far as the master is. From then on bytes are appended to it. So the folder holds a state the master had at some
/// time, at every moment.
///
/// Any thread that may block, one call after the other. The store of the folder must not be open.
package final class ClaimMirror: Sendable {
    /// What comes next.
    package struct Step: Sendable {
        /// To be put to the master's `ClaimFeed`.
        package let question: [UInt8]
        /// How soon to put it.
        package let pace: Pace
    }

    /// When a question is to be asked.
    package enum Pace: Sendable {
        /// There is more.
        case atOnce
        /// It has all the master had.
        case soon
        /// Something is wrong, and was logged.
        case later
    }

    private struct State {
        /// Where it is: the next byte to be written.
        var position = FeedQuestion()
        /// What is copied lies beside the present folder.
        var isBeside = true
        /// Number of the snapshot in the folder; 0 for none.
        var snapshot: UInt32 = 0
        /// Bytes of the journal before; nil when there is none.
        var previousEnd: Int64?
        /// Of `position`, once it is open.
        var file: (any DiskFile)?
        /// It has bytes that a power cut would take.
        var isDirty = false
        var isFolderDirty = false
        var complaint: String?
    }

    private let folders: MirrorFolders
    private let logger: Logger
    private let state = Mutex(State())

    /// Reads and writes nothing yet.
    /// - Parameter folder: `STORE/popState`.
    package init(folder: String, disk: any Disk, logger: Logger) {
        folders = MirrorFolders(folder, disk)
        self.logger = logger
    }

    /// The first question. What a former process has not copied to the end is removed.
    package func begin() -> Step {
        state.withLock { state in
            do throws(SystemError) {
                try folders.settle()
            } catch {
                complain("\(error)", &state)
            }
            return step(state, .atOnce)
        }
    }

    /// Writes what the master has answered. The bytes are foreign.
    /// - Parameter synchronize: what was written is to survive a power cut when this returns. About each second: what
    ///   is lost is delivered again.
    package func take(_ answer: [UInt8], synchronize: Bool) -> Step {
        state.withLock { state in
            do {
                let pace =
                    switch try FeedAnswer(answer) {
                    case .begin(let history, let snapshot): try begin(history, snapshot, &state)
                    case .piece(let piece): try take(piece, &state)
                    }
                if synchronize { try self.synchronize(&state) }
                if case .soon = pace { state.complaint = nil }
                return step(state, pace)
            } catch let damage as JournalDamage {
                complain("the master's answer is not used: \(damage)", &state)
                state = State(complaint: state.complaint)
            } catch {
                // Asked again from the same byte on; from the beginning if files are gone.
                complain("\(error)", &state)
                state.file = nil
                if (error as? SystemError)?.errno == ENOENT { state = State(complaint: state.complaint) }
            }
            return step(state, .later)
        }
    }

    /// The master has no claims: what was copied before, of it or of another, is of no worth. If it stayed, a slave
    /// that becomes the master would take old floors for its groups' offsets.
    package func forget() -> Step {
        state.withLock { state in
            state = State(complaint: state.complaint)
            do throws(SystemError) {
                try folders.settle()
                try folders.remove(folders.present)
            } catch {
                complain("\(error)", &state)
            }
            return step(state, .later)
        }
    }

    private func step(_ state: State, _ pace: Pace) -> Step {
        Step(question: state.position.encoded.bytes, pace: pace)
    }

    /// Once, until something else is wrong.
    private func complain(_ text: String, _ state: inout State) {
        guard state.complaint != text else { return }
        state.complaint = text
        logger.warning(
            """
            the master's claims of popped messages are not copied; if this slave becomes the master, messages that are \
            in hands then are delivered again at once: \(text)
            """
        )
    }

    // MARK: - Answers

    /// The master has another history than what was asked for, or not that file any more.
    private func begin(_ history: Int64, _ snapshot: UInt32, _ state: inout State) throws(SystemError) -> Pace {
        let isKnown = state.position.history == history
        try folders.settle()
        state = State(complaint: state.complaint)
        state.position = FeedQuestion(
            history: history, kind: snapshot > 0 ? .snapshot : .journal, number: max(snapshot, 1))
        state.snapshot = snapshot
        return isKnown ? .soon : .atOnce
    }

    private func take(_ piece: FeedPiece, _ state: inout State) throws -> Pace {
        // An answer to a question of before: nothing is wrong.
        guard piece.question == state.position, piece.question.number > 0 else { return .soon }
        if !piece.bytes.isEmpty { try write(piece, &state) }
        state.position.offset += Int64(piece.bytes.count)
        guard piece.reachesEnd else { return .atOnce }
        let isLast = piece.next == 0 && piece.question.kind == .journal
        if !isLast {
            try moveOn(piece, &state)
        } else if state.isBeside {
            try putInPlace(&state)
        }
        try shorten(to: piece.snapshot, &state)
        return isLast ? .soon : .atOnce
    }

    /// The next file begins.
    private func moveOn(_ piece: FeedPiece, _ state: inout State) throws {
        guard piece.end > 0 else { throw JournalDamage("a snapshot is empty") }
        try synchronize(&state)
        state.file = nil
        if piece.question.kind == .snapshot {
            state.position = FeedQuestion(history: piece.question.history, kind: .journal, number: state.snapshot)
            return
        }
        state.previousEnd = piece.end
        state.position = FeedQuestion(history: piece.question.history, kind: .journal, number: piece.next)
    }

    private func write(_ piece: FeedPiece, _ state: inout State) throws {
        let file: any DiskFile
        if let open = state.file {
            file = open
        } else {
            if piece.question.offset == 0 {
                try check(piece, state)
                try folders.disk.createDirectory(folder(state))
                state.isFolderDirty = true
            }
            file = try open(piece.question.offset == 0 ? .replace : .readWrite, state)
            state.file = file
        }
        try piece.bytes.withUnsafeBytes { bytes in
            Result { () throws(SystemError) in try file.write(bytes, at: piece.question.offset) }
        }.get()
        state.isDirty = true
    }

    /// The header must be that of the file asked for, and follow what was copied before.
    private func check(_ piece: FeedPiece, _ state: State) throws {
        let header = try piece.bytes.withUnsafeBytes { bytes in
            Result { () throws(JournalDamage) in
                var reader = EntryReader(bytes)
                return try ClaimFile.Header(&reader, kind: piece.question.kind, number: piece.question.number)
            }
        }.get()
        if let previousEnd = state.previousEnd, header.previousEnd != previousEnd {
            throw JournalDamage("the journal before should have \(header.previousEnd) bytes, and has \(previousEnd)")
        }
    }

    private func folder(_ state: State) -> String { state.isBeside ? folders.new : folders.present }

    private func open(_ mode: DiskOpenMode, _ state: State) throws(SystemError) -> any DiskFile {
        let name = ClaimFile.name(state.position.kind, state.position.number)
        return try folders.disk.open("\(folder(state))/\(name)", mode)
    }

    private func synchronize(_ state: inout State) throws(SystemError) {
        if state.isDirty {
            let file = if let open = state.file { open } else { try open(.readWrite, state) }
            try file.synchronize()
            state.isDirty = false
        }
        if state.isFolderDirty {
            try folders.disk.synchronizeDirectory(folder(state))
            state.isFolderDirty = false
        }
    }

    /// All is copied: the new folder is put in the place of the present one, if it is what a master writes.
    private func putInPlace(_ state: inout State) throws {
        try synchronize(&state)
        let recovery = try ClaimRecovery(folders.new, folders.disk)
        if let damage = recovery.damage.first { throw JournalDamage(damage) }
        state.file = nil
        try folders.replace()
        state.isBeside = false
        logger.info(
            "this slave has the master's claims of popped messages: \(recovery.registry.statistics.claimed) in hands")
        try folders.clean()
    }

    /// The master has made a snapshot of journals that are whole here: so does this slave, and removes them.
    private func shorten(to snapshot: UInt32, _ state: inout State) throws {
        guard !state.isBeside, snapshot > state.snapshot, snapshot <= state.position.number else { return }
        guard try SnapshotFile.make(snapshot, folders.present, folders.disk, logger, trailBytesMax: 0) != nil else {
            throw JournalDamage("the journals copied so far are damaged, they are copied anew")
        }
        state.snapshot = snapshot
    }
}
