import LinuxSystem
import MessageModel
import StoreFormat

/// The files of `popState`, ours alone: `journal-NNNNNNNN` and `snapshot-NNNNNNNN`, eight decimal digits. A snapshot
/// holds the state in which the journal of its number begins; temporary files end in `.new`. `trail-NNNNNNNN` was the
/// journal of its number.
///
/// Both are a header and blocks. Header, 36 bytes, numbers little-endian:
///
///     `APUSCLMJ` or `APUSCLMS` 8 | version 4 | number 4 | end 8 | time 8 | checksum 4 (CRC-32 of the 32 bytes before)
///
/// *end* is how many bytes the journal before must have, so that none of its blocks is missing unnoticed. It is 0 in a
/// snapshot, in the first journal, and in one that follows a snapshot. The header's *time*, in milliseconds since 1970,
/// is what the first block's time is relative to.
///
/// A block is what one tick has written, or a part of a snapshot:
///
///     length n | checksum 4 (CRC-32 of the payload, little-endian) | payload n: time ± | entries
///
/// *n* is a number: 7 bits a byte, the lowest first. The highest bit means that another byte follows. *±* is such a
/// number with the sign in bit 0. The block's time is relative to that of the block before. An entry begins with a
/// byte: kind in the low 4 bits, flags in the others; `EntryKind` has the layouts.
///
/// In an entry, *table* is the table's number. Its *time* is relative to the block's, *popTime* to that time. An
/// *offset* is relative to that of the entry before of the same table and file; 0 if there is none. Where marked so, it
/// is relative to the `next` those entries have left. The unit of *invisible* is milliseconds.
enum ClaimFile {
    enum Kind: UInt8 {
        case journal
        case snapshot

        var magic: [UInt8] { Array((self == .journal ? "APUSCLMJ" : "APUSCLMS").utf8) }
        var prefix: String { self == .journal ? "journal-" : "snapshot-" }
    }

    struct Header: Equatable {
        var kind: Kind
        var number: UInt32
        /// Bytes the journal before must have; 0 for none.
        var previousEnd: Int64 = 0
        /// Milliseconds since 1970.
        var time: Int64

        static let size = 36

        var encoded: EntryBytes {
            var bytes = EntryBytes()
            for byte in kind.magic { bytes.byte(byte) }
            bytes.fixed32(ClaimFile.version)
            bytes.fixed32(number)
            bytes.fixed64(previousEnd)
            bytes.fixed64(time)
            bytes.fixed32(0)
            bytes.setChecksum(at: Self.size - 4, from: 0, to: Self.size - 4)
            return bytes
        }

        init(kind: Kind, number: UInt32, previousEnd: Int64 = 0, time: Int64) {
            self.kind = kind
            self.number = number
            self.previousEnd = previousEnd
            self.time = time
        }

        /// - Throws: it is not the header of the file of this kind and number.
        init(_ reader: inout EntryReader, kind: Kind, number: UInt32) throws(JournalDamage) {
            var fields = EntryReader(try reader.take(Self.size))
            let magic = try fields.take(8)
            guard magic.elementsEqual(kind.magic) else { throw JournalDamage("its first bytes are not those of Apus") }
            let version = try fields.fixed32()
            self.kind = kind
            self.number = try fields.fixed32()
            previousEnd = try fields.fixed64()
            time = try fields.fixed64()
            guard try encoded.bytes[32...].elementsEqual(fields.take(4)), version == ClaimFile.version else {
                throw JournalDamage("its header is damaged, or of another version of Apus (\(version))")
            }
            guard self.number == number, previousEnd >= 0, ClaimFile.times.contains(time) else {
                throw JournalDamage("its header is that of another file")
            }
        }
    }

    static let version: UInt32 = 1
    /// Numbers of files are below it.
    static let numberLimit: UInt32 = 1 << 30
    /// Numbers of tables and clients are below it: there are further ones after any that a file has.
    static let entryNumberLimit: UInt32 = 1 << 31
    /// Milliseconds since 1970 that files may have: whatever is calculated from them fits.
    static let times: ClosedRange<Int64> = -(1 << 56)...1 << 56
    /// Bytes a block has at most, but for one entry.
    static let blockMax = 1 << 20
    /// Offsets of one claim.
    static let claimMax = 65_536

    static func checksum(_ bytes: UnsafeRawBufferPointer) -> UInt32 { RecordChecksum.of(bytes) }

    static func name(_ kind: Kind, _ number: UInt32) -> String {
        let digits = String(number)
        return kind.prefix + String(repeating: "0", count: max(0, 8 - digits.count)) + digits
    }

    /// Nil for names of other files.
    static func parse(_ name: String) -> (kind: Kind, number: UInt32)? {
        for kind in [Kind.journal, .snapshot] where name.hasPrefix(kind.prefix) {
            guard let number = UInt32(name.dropFirst(kind.prefix.count)), number > 0, number < numberLimit,
                name == self.name(kind, number)
            else { return nil }
            return (kind, number)
        }
        return nil
    }

    /// Journals that a snapshot has replaced are kept under this name, for the trail (`TrailFiles`).
    static func trailName(_ number: UInt32) -> String { "trail-" + name(.journal, number).dropFirst(8) }

    /// The number of a journal that is kept for the trail; nil for names of other files.
    static func parseTrail(_ name: String) -> UInt32? {
        guard name.hasPrefix("trail-") else { return nil }
        return parse("journal-" + name.dropFirst(6))?.number
    }

    /// Bytes of a file; one that states more is damaged. Each of 30 million claims that were given out anew takes 130.
    static let sizeMax: Int64 = 4 << 30

    /// All bytes of a file, or those up to its first hole and some of that: no block is read after them. Nil: it
    /// states more than `sizeMax`.
    static func read(_ path: String, _ disk: any Disk) throws(SystemError) -> [UInt8]? {
        let file = try disk.open(path, .read)
        let size = try file.size()
        guard size <= sizeMax else { return nil }
        var bytes = [UInt8](repeating: 0, count: Int(min(size, file.firstHole(from: 0) +| 4096)))
        var count = 0
        var failure: SystemError?
        bytes.withUnsafeMutableBytes { buffer in
            do throws(SystemError) { count = try file.read(into: buffer, at: 0) } catch { failure = error }
        }
        if let failure { throw failure }
        bytes.removeLast(bytes.count - count)
        return bytes
    }
}

/// What an entry states, with its layout after the first byte.
enum EntryKind: UInt8 {
    /// Last entry of a snapshot: popTimeMin ±, of new tables ±, tables n.
    case end = 0
    /// table n, group length and bytes, topic length and bytes, queue ±, offset ± (absolute): `floor` and `next`.
    case define = 1
    /// client n, name length and bytes: at its first use in each file.
    case client = 2
    /// table n, time ±, popTime ±, invisible n, client n, [attempt ID length and bytes], count n, [offsets]. Then ± how
    /// many after the last one are finished. Offsets: the first one ± (to `next`), and unless they are consecutive the
    /// gap n before each further one.
    case claim = 3
    /// table n, offset ±, time ±, popTime ±, invisible n, client n, [attempt ID].
    case reclaim = 4
    /// table n, offset ±, unless it is one message: bits n of the 63 offsets after it.
    case finish = 5
    /// table n, offset ±, time ±.
    case abandon = 6
    /// table n, offset ±, time ±, popTime ±, invisible n. `plain`: the client has reported a failure.
    case change = 7
    /// table n, offset ± (to `next`).
    case reset = 8
    /// table n, minimum offset ± (to `next`).
    case retain = 9
    /// table n, maximum offset ± (to `next`).
    case lower = 10
    /// table n.
    case remove = 11
    /// table n, time ±, popTime ±, invisible n, client n.
    case reopen = 12
    /// Snapshot: table n, offset ±, popTime ± (to the block's time), deadline ± (to popTime),
    /// invisible n, attempt ±, client n. `plain`: its client has reported a failure.
    case single = 13
    /// Snapshot: table n, start ±, bits n, popTime ± (to the block's time), deadline ± (to popTime), client n.
    case run = 14
    /// Snapshot: table n, next ± (to `next`), popTimeMax ± (absolute), popTimeMin ± (absolute), [attempt ID].
    case state = 15

    static let inSnapshots: Set<Self> = [.end, .define, .client, .single, .run, .state]
    static let inJournals: Set<Self> = [
        .define, .client, .claim, .reclaim, .finish, .abandon, .change, .reset, .retain, .lower, .remove, .reopen,
    ]

    /// The table is ordered.
    static let ordered: UInt8 = 0x10
    /// An attempt ID is there.
    static let attempt: UInt8 = 0x20
    /// `claim`: the offsets are consecutive. `finish`: one message. `change`, `single`: a failure.
    static let plain: UInt8 = 0x40
    /// `finish`: no client has acknowledged it; the broker took it out.
    static let withdrawn: UInt8 = 0x80
}

/// What a table's entries in the present file are relative to.
struct JournalReference {
    /// Which file: `ClaimFile` number and kind. In another file, everything begins with 0.
    var file: UInt32 = 0
    /// `next` after the last entry that contains it.
    var next: Int64 = 0
    /// The offset of the last entry with one.
    var offset: Int64 = 0

    static func file(_ header: ClaimFile.Header) -> UInt32 {
        header.number << 1 | (header.kind == .snapshot ? 1 : 0)
    }
}

extension ClaimTable {
    /// The reference for an entry of the file; begun anew if the table had none in it.
    func reference(in file: UInt32) -> JournalReference {
        journalled.file == file ? journalled : JournalReference(file: file)
    }
}
