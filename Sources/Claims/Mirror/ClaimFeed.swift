import Glibc
package import LinuxSystem
import MessageModel
import Synchronization

/// A master's side of the mirror: answers what slaves ask of the files of claims. On the store's thread, but for the
/// reading of files.
package final class ClaimFeed {
    /// Bytes of a file in one answer, at most.
    static let pieceMax = 256 << 10
    /// Seconds without a question after which files are closed, so that deleted ones free their blocks.
    static let idleSeconds = 10

    /// What becomes of a question.
    package enum Reply {
        /// There is nothing to read.
        case ready([UInt8])
        /// To be called on a thread that may block; any one, but in order. Gives the answer, or why there is none.
        case read(@Sendable () -> Result<[UInt8], SystemError>)
        /// It cannot be read, or the store is not open (a slave's).
        case refused(String)
    }

    private let store: ClaimStore
    private let reader: FeedReader
    private var secondsIdle = ClaimFeed.idleSeconds

    /// - Parameter store: may be opened later, or never.
    package convenience init(_ store: ClaimStore, disk: any Disk) {
        self.init(store, disk: disk, pieceMax: Self.pieceMax)
    }

    /// - Parameter pieceMax: bytes of a file in one answer; room for a header.
    init(_ store: ClaimStore, disk: any Disk, pieceMax: Int) {
        self.store = store
        reader = FeedReader(folder: store.folder, disk: disk, pieceMax: pieceMax)
    }

    /// Answers a question of `ClaimMirror`. The bytes are foreign.
    package func reply(to bytes: UnsafeRawBufferPointer) -> Reply {
        guard let files = store.files else { return .refused("this broker has no claims: it is a slave itself") }
        let question: FeedQuestion
        do throws(JournalDamage) { question = try FeedQuestion(bytes) } catch { return .refused("\(error)") }
        secondsIdle = 0
        let begin = FeedAnswer.begin(history: files.history, snapshot: files.snapshot).encoded
        guard question.history == files.history, question.number > 0,
            question.kind == .snapshot || question.number <= files.currentHeader.number
        else { return .ready(begin) }
        let (end, next) = bounds(question, files)
        if let end, question.offset >= end {
            guard question.offset == end else { return .ready(begin) }
            let nothing = FeedPiece(question: question, end: end, next: next, snapshot: files.snapshot, bytes: [])
            return .ready(FeedAnswer.piece(nothing).encoded)
        }
        let snapshot = files.snapshot
        return .read { [reader] in
            Result { () throws(SystemError) in
                try reader.piece(question, end: end, next: next, snapshot: snapshot).map {
                    FeedAnswer.piece($0).encoded
                }
                    ?? begin
            }
        }
    }

    /// Bytes of the file, nil where only the file itself tells; the number of the journal after it, 0 for none.
    private func bounds(_ question: FeedQuestion, _ files: JournalFiles) -> (end: Int64?, next: UInt32) {
        guard question.kind == .journal else { return (nil, 0) }
        // Of the present journal only what is committed: after a write that failed more may be in the file.
        if question.number == files.currentHeader.number { return (files.end, 0) }
        return (files.closed.first { $0.number == question.number }?.bytes, question.number + 1)
    }

    /// To be called about each second.
    /// - Returns: what is to be done on the thread that reads; nil for nothing.
    package func secondPassed() -> (@Sendable () -> Void)? {
        guard secondsIdle < Self.idleSeconds else { return nil }
        secondsIdle += 1
        guard secondsIdle == Self.idleSeconds else { return nil }
        return { [reader] in reader.release() }
    }
}

/// Reads the files slaves ask for, and keeps the last ones open: a journal that a snapshot has replaced can be read to
/// its end. Any thread.
private final class FeedReader: Sendable {
    /// Each slave reads one file after the other.
    static let openMax = 2

    private struct Open {
        let kind: ClaimFile.Kind
        let number: UInt32
        let history: Int64
        let file: any DiskFile
    }

    private let folder: String
    private let disk: any Disk
    private let pieceMax: Int
    /// The one used last is the last.
    private let open = Mutex<[Open]>([])

    init(folder: String, disk: any Disk, pieceMax: Int) {
        self.folder = folder
        self.disk = disk
        self.pieceMax = pieceMax
    }

    func release() { open.withLock { $0 = [] } }

    /// Nil when the file is not there any more, or has not so many bytes.
    /// - Parameter end: bytes of the file that count; nil: all.
    func piece(_ question: FeedQuestion, end: Int64?, next: UInt32, snapshot: UInt32) throws(SystemError) -> FeedPiece?
    {
        guard let file = try file(question) else { return nil }
        let end = if let end { end } else { try file.size() }
        guard question.offset <= end else { return nil }
        let wanted = Int(min(Int64(pieceMax), end - question.offset))
        var bytes = [UInt8](repeating: 0, count: wanted)
        let count = try bytes.withUnsafeMutableBytes { buffer in
            Result { () throws(SystemError) in try file.read(into: buffer, at: question.offset) }
        }.get()
        guard count == wanted else { return nil }
        return FeedPiece(question: question, end: end, next: next, snapshot: snapshot, bytes: bytes)
    }

    private func file(_ question: FeedQuestion) throws(SystemError) -> (any DiskFile)? {
        let known = open.withLock { open -> (any DiskFile)? in
            // Of another history are files of the same names; and who asks for a journal has those before.
            open.removeAll { file in
                file.history != question.history || file.number < question.number
                    || (file.kind == .snapshot && question.kind == .journal)
            }
            guard
                let index = open.firstIndex(where: { $0.kind == question.kind && $0.number == question.number })
            else { return nil }
            open.append(open.remove(at: index))
            return open.last?.file
        }
        if let known { return known }
        let path = "\(folder)/\(ClaimFile.name(question.kind, question.number))"
        let file: any DiskFile
        do throws(SystemError) {
            file = try disk.open(path, .read)
        } catch {
            // A snapshot may remove it at any moment.
            guard error.errno == ENOENT else { throw error }
            return nil
        }
        let entry = Open(kind: question.kind, number: question.number, history: question.history, file: file)
        open.withLock { open in
            open.append(entry)
            if open.count > Self.openMax { open.removeFirst() }
        }
        return file
    }
}
