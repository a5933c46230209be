import MessageModel

/// What a slave asks of its master's files of claims. 22 bytes, numbers little-endian:
///
///     version 1 | history 8 | kind of file 1 | number 4 | offset 8
struct FeedQuestion: Equatable {
    /// `JournalFiles.history` of the files it means; 0: it knows none yet.
    var history: Int64 = 0
    var kind = ClaimFile.Kind.snapshot
    var number: UInt32 = 0
    /// Of the first byte it wants.
    var offset: Int64 = 0

    static let version: UInt8 = 1

    var encoded: EntryBytes {
        var bytes = EntryBytes()
        bytes.byte(Self.version)
        bytes.fixed64(history)
        bytes.byte(kind.rawValue)
        bytes.fixed32(number)
        bytes.fixed64(offset)
        return bytes
    }

    init(history: Int64 = 0, kind: ClaimFile.Kind = .snapshot, number: UInt32 = 0, offset: Int64 = 0) {
        self.history = history
        self.kind = kind
        self.number = number
        self.offset = offset
    }

    /// - Throws: the bytes are no question of this version.
    init(_ bytes: UnsafeRawBufferPointer) throws(JournalDamage) {
        var reader = EntryReader(bytes)
        guard try reader.byte() == Self.version else { throw JournalDamage("a question is of another version") }
        history = try reader.fixed64()
        guard let kind = ClaimFile.Kind(rawValue: try reader.byte()) else {
            throw JournalDamage("a question is about no file")
        }
        self.kind = kind
        number = try reader.fixed32()
        offset = try reader.fixed64()
        guard reader.isAtEnd, offset >= 0, number < ClaimFile.numberLimit else {
            throw JournalDamage("a question is none")
        }
    }
}

/// What a master answers. Numbers little-endian:
///
///     version 1 | 0 | history 8 | snapshot 4
///     version 1 | 1 | history 8 | snapshot 4 | kind of file 1 | number 4 | offset 8 | end 8 | next 4 | checksum 4 | bytes
enum FeedAnswer: Equatable {
    /// The files of this history begin with this snapshot (0: with the first journal). What the question named is not
    /// there, or not any more.
    case begin(history: Int64, snapshot: UInt32)
    case piece(FeedPiece)

    var encoded: [UInt8] {
        var bytes = EntryBytes()
        bytes.byte(FeedQuestion.version)
        switch self {
        case .begin(let history, let snapshot):
            bytes.byte(0)
            bytes.fixed64(history)
            bytes.fixed32(snapshot)
            return bytes.bytes
        case .piece(let piece):
            bytes.byte(1)
            bytes.fixed64(piece.question.history)
            bytes.fixed32(piece.snapshot)
            bytes.byte(piece.question.kind.rawValue)
            bytes.fixed32(piece.question.number)
            bytes.fixed64(piece.question.offset)
            bytes.fixed64(piece.end)
            bytes.fixed32(piece.next)
            bytes.fixed32(piece.bytes.withUnsafeBytes { ClaimFile.checksum($0) })
            return bytes.bytes + piece.bytes
        }
    }

    /// - Throws: the bytes are no answer of this version, or were damaged on their way.
    init(_ bytes: [UInt8]) throws(JournalDamage) {
        let answer = bytes.withUnsafeBytes { bytes in
            Result { () throws(JournalDamage) in try Self(reading: bytes) }
        }
        self = try answer.get()
    }

    private init(reading bytes: UnsafeRawBufferPointer) throws(JournalDamage) {
        var reader = EntryReader(bytes)
        guard try reader.byte() == FeedQuestion.version else { throw JournalDamage("it is of another version") }
        let kind = try reader.byte()
        let history = try reader.fixed64()
        let snapshot = try reader.fixed32()
        guard kind <= 1, history != 0, snapshot < ClaimFile.numberLimit else { throw JournalDamage("it is none") }
        guard kind == 1 else {
            guard reader.isAtEnd else { throw JournalDamage("it is too long") }
            self = .begin(history: history, snapshot: snapshot)
            return
        }
        guard let file = ClaimFile.Kind(rawValue: try reader.byte()) else { throw JournalDamage("it names no file") }
        let question = FeedQuestion(
            history: history, kind: file, number: try reader.fixed32(), offset: try reader.fixed64())
        let end = try reader.fixed64()
        let next = try reader.fixed32()
        let checksum = try reader.fixed32()
        let count = reader.remaining
        let content = try reader.take(count)
        guard ClaimFile.checksum(content) == checksum else { throw JournalDamage("its checksum is wrong") }
        let isWhole = question.offset &+ Int64(count) == end
        guard count <= ClaimFeed.pieceMax, question.offset >= 0, end >= question.offset +| Int64(count),
            count > 0 || isWhole, next == 0 || (file == .journal && next == question.number &+ 1 && end > 0)
        else { throw JournalDamage("its numbers do not fit each other") }
        self = .piece(
            FeedPiece(question: question, end: end, next: next, snapshot: snapshot, bytes: Array(content)))
    }
}

/// Bytes of a file from where a question asks.
struct FeedPiece: Equatable {
    let question: FeedQuestion
    /// Bytes the file has.
    let end: Int64
    /// Of a journal that is closed: the number of the next one. 0: the file may grow, or is a snapshot.
    let next: UInt32
    /// The number of the present snapshot, whose making let older files go; 0 for none.
    let snapshot: UInt32
    let bytes: [UInt8]

    /// Whether these bytes are the last ones.
    var reachesEnd: Bool { question.offset + Int64(bytes.count) == end }
}
