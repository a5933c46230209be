import StoreFormat

/// One message (or cancellation) in a bucket file, big-endian, beginning at a multiple of 8:
///
///     magic 4 "ATMR" | CRC of all that follows 4 | kind 4 | payload length 4 | due 8 | sequence 8 | payload | zeros to 8
///
/// * kind 1: a message; the payload is the record as it lies in the commit log.
/// * kind 2: a cancellation; the payload is `topic + unique key` of the message to stop.
/// * kind 3: a cancellation by an edit; the payload is 8 bytes, the sequence before which it stops messages, then kind
///   2's.
///
/// A release that does not know a kind takes it for damage, and delivers. The file is not RocketMQ's; it lies where
/// RocketMQ does not look.
enum TimerFrame {
    static let magic: UInt32 = 0x4154_4D52
    static let headerSize = 32
    static let alignment = 8
    /// The latest time a message may wait for, milliseconds since 1970: adding to it does not overflow.
    static let dueMax: Int64 = 1 << 56
    static let message: UInt32 = 1
    static let cancellation: UInt32 = 2
    static let editCancellation: UInt32 = 3

    /// Bytes of a frame on disk.
    static func size(payload: Int) -> Int { (headerSize + payload + alignment - 1) & ~(alignment - 1) }

    static func append(kind: UInt32, _ key: TimerKey, _ payload: UnsafeRawBufferPointer, to bytes: inout [UInt8]) {
        let start = bytes.count
        let size = size(payload: payload.count)
        bytes.append(contentsOf: repeatElement(0, count: headerSize))
        bytes.append(contentsOf: payload)
        bytes.append(contentsOf: repeatElement(0, count: size - headerSize - payload.count))
        bytes.withUnsafeMutableBytes { all in
            guard let base = all.baseAddress else { return }
            let frame = base + start
            BigEndian.store(magic, frame, 0)
            BigEndian.store(kind, frame, 8)
            BigEndian.store(UInt32(payload.count), frame, 12)
            BigEndian.store(key.due, frame, 16)
            BigEndian.store(key.sequence, frame, 24)
            let covered = UnsafeRawBufferPointer(start: frame + 8, count: headerSize - 8 + payload.count)
            BigEndian.store(UInt32(bitPattern: CommitLogRecord.bodyCRC(covered)), frame, 4)
        }
    }

    static func append(_ cancellation: TimerCancellation, _ key: TimerKey, to bytes: inout [UInt8]) {
        var payload = Array(cancellation.key.utf8)
        if !cancellation.isRecall {
            payload = withUnsafeBytes(of: cancellation.before.bigEndian) { Array($0) } + payload
        }
        let kind = cancellation.isRecall ? Self.cancellation : editCancellation
        payload.withUnsafeBytes { append(kind: kind, key, $0, to: &bytes) }
    }

    struct View {
        let kind: UInt32
        let key: TimerKey
        /// Where the payload begins in the file.
        let payloadOffset: Int
        let payload: UnsafeRawBufferPointer
        let frame: UnsafeRawBufferPointer

        /// Nil for a message.
        var cancellation: TimerCancellation? {
            switch kind {
            case TimerFrame.cancellation:
                TimerCancellation(recalling: String(decoding: payload, as: UTF8.self), sequence: key.sequence)
            case TimerFrame.editCancellation:
                TimerCancellation(
                    key: String(decoding: payload.dropFirst(8), as: UTF8.self),
                    before: payload.loadUnaligned(as: Int64.self).bigEndian, isRecall: false)
            default: nil
            }
        }
    }

    /// Calls `body` for each whole frame; bytes that are none (a write that was cut off) are searched for the next.
    /// - Returns: the bytes that were skipped.
    static func forEach(in file: UnsafeRawBufferPointer, _ body: (View) -> Void) -> Int {
        var offset = 0
        var skipped = 0
        while offset + headerSize <= file.count {
            if let view = parse(file, at: offset) {
                body(view)
                offset += size(payload: view.payload.count)
            } else {
                offset += alignment
                skipped += alignment
            }
        }
        return skipped + max(0, file.count - offset)
    }

    private static func parse(_ file: UnsafeRawBufferPointer, at offset: Int) -> View? {
        guard let base = file.baseAddress, BigEndian.load(base, offset, as: UInt32.self) == magic else { return nil }
        let count = Int(BigEndian.load(base, offset + 12, as: UInt32.self))
        let kind = BigEndian.load(base, offset + 8, as: UInt32.self)
        guard (message...editCancellation).contains(kind), count <= file.count - offset - headerSize,
            count <= Int(Int32.max)
        else { return nil }
        let covered = UnsafeRawBufferPointer(start: base + offset + 8, count: headerSize - 8 + count)
        let crc = BigEndian.load(base, offset + 4, as: UInt32.self)
        guard UInt32(bitPattern: CommitLogRecord.bodyCRC(covered)) == crc, kind != editCancellation || count >= 8 else {
            return nil
        }
        let key = TimerKey(
            due: BigEndian.load(base, offset + 16, as: Int64.self),
            sequence: BigEndian.load(base, offset + 24, as: Int64.self))
        // The wheel puts no others into a file, and counts on it.
        guard 0...dueMax ~= key.due, 0..<ConsumeQueueEntry.queueOffsetLimit ~= key.sequence else { return nil }
        let end = min(offset + size(payload: count), file.count)
        return View(
            kind: kind, key: key, payloadOffset: offset + headerSize,
            payload: UnsafeRawBufferPointer(rebasing: file[(offset + headerSize)..<(offset + headerSize + count)]),
            frame: UnsafeRawBufferPointer(rebasing: file[offset..<end]))
    }
}
