import LinuxSystem
import StoreFormat

/// What a metadata file and its backup held when we wrote them: `config/.NAME.apus`, beside the file, where RocketMQ
/// does not look. JSON has no checksum; this is how a flipped bit that leaves it readable is found. A file whose time
/// of change is another one was written by another program (RocketMQ, an editor), which makes no checksum.
///
/// Text, one line per content: `CRC SIZE MODIFIED` (hexadecimal, bytes, milliseconds since 1970), and last the CRC of
/// these lines.
struct MetadataChecksums: Equatable {
    struct Content: Equatable {
        var crc: Int32
        var size: Int
        /// Milliseconds since 1970.
        var modified: Int64

        init(crc: Int32, size: Int, modified: Int64) {
            self.crc = crc
            self.size = size
            self.modified = modified
        }

        init(_ bytes: [UInt8], modified: Int64) {
            self.init(crc: MetadataChecksums.crc(bytes), size: bytes.count, modified: modified)
        }

        func matches(_ bytes: [UInt8]) -> Bool { size == bytes.count && crc == MetadataChecksums.crc(bytes) }
    }

    var contents: [Content]

    init(_ contents: [Content]) {
        self.contents = contents
    }

    static func path(of file: String) -> String {
        let slash = file.lastIndex(of: "/").map { file.index(after: $0) } ?? file.startIndex
        return "\(file[..<slash]).\(file[slash...]).apus"
    }

    private static func crc(_ bytes: [UInt8]) -> Int32 { bytes.withUnsafeBytes { CommitLogRecord.bodyCRC($0) } }

    private var lines: String {
        contents.map { "\(String($0.crc, radix: 16)) \($0.size) \($0.modified)\n" }.joined()
    }

    var encoded: [UInt8] {
        let text = Array(lines.utf8)
        return text + Array("\(String(Self.crc(text), radix: 16))\n".utf8)
    }

    /// Nil for anything but what `encoded` made: then nothing is known.
    init?(_ bytes: [UInt8]) {
        contents = []
        for line in bytes.split(separator: 10).dropLast() {
            let fields = line.split(separator: 32).map { String(decoding: $0, as: UTF8.self) }
            guard fields.count == 3, let crc = Int32(fields[0], radix: 16), let size = Int(fields[1]),
                let modified = Int64(fields[2])
            else { return nil }
            contents.append(Content(crc: crc, size: size, modified: modified))
        }
        guard encoded == bytes else { return nil }
    }

    /// Whether these bytes were written by us.
    func know(_ bytes: [UInt8]) -> Bool { contents.contains { $0.matches(bytes) } }

    /// Whether bytes are not what was written: they match nothing although no other program has changed the file.
    func objects(to bytes: [UInt8], modified: Int64) -> Bool {
        !contents.contains { $0.matches(bytes) } && contents.contains { $0.modified == modified }
    }
}
