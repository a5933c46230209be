import CLinux
package import MessageModel

/// A message in the commit log (`CommitLog`, `MessageExtEncoder`), all numbers big-endian:
///
///     total size 4 | magic 4 | body CRC 4 | queue id 4 | flag 4 | queue offset 8 | physical offset 8 | sys flag 4
///     | born time 8 | born host 8 or 20 | store time 8 | store host 8 or 20 | reconsume times 4
///     | prepared transaction offset 8 | body length 4, body | topic length 1 (V2: 2), topic | properties length 2, properties
///
/// The end of a file that has no room for the next message is marked by `total size = rest of the file, blank magic`.
/// Public for the reason `BigEndian` is.
public enum CommitLogRecord {
    /// `MessageDecoder.MESSAGE_MAGIC_CODE`, version 1: topics up to 127 bytes.
    @inlinable public static var magicV1: Int32 { -626_843_481 }
    /// Version 2 of RocketMQ 5: a 2-byte topic length.
    @inlinable public static var magicV2: Int32 { -626_843_477 }
    /// `CommitLog.BLANK_MAGIC_CODE`: no record follows in this file.
    @inlinable package static var blankMagic: Int32 { -875_286_124 }
    /// Total size and magic: the smallest thing that can end a file.
    @inlinable package static var blankSize: Int { 8 }
    /// Bytes of the longest topic a record of version 1 can name.
    @inlinable package static var topicLengthMax: Int { 127 }

    /// Bytes from the record's start, here and in the lines below; what follows the hosts has no fixed position.
    @inlinable public static var magicPosition: Int { 4 }
    @inlinable package static var bodyCRCPosition: Int { 8 }
    @inlinable package static var queueIDPosition: Int { 12 }
    @inlinable package static var flagPosition: Int { 16 }
    @inlinable package static var queueOffsetPosition: Int { 20 }
    @inlinable package static var physicalOffsetPosition: Int { 28 }
    /// Of `SysFlag`'s bits.
    @inlinable public static var sysFlagPosition: Int { 36 }
    /// Of the producer's time.
    @inlinable public static var bornTimestampPosition: Int { 40 }
    /// Of the producer's address; what follows lies where its length puts it.
    @inlinable public static var bornHostPosition: Int { 48 }

    /// All fields but hosts, body, topic and properties; the topic's length counted as 1 byte.
    @inlinable public static var fixedSize: Int { 48 + 8 + 4 + 8 + 4 + 1 + 2 }
    /// The smallest possible record: IPv4 hosts, nothing in it.
    @inlinable public static var minimumSize: Int { fixedSize + 16 }

    /// Total size of a version 1 record (`calMsgLength`).
    @inlinable
    public static func size(sysFlag: Int32, body: Int, topic: Int, properties: Int) -> Int {
        fixedSize + (sysFlag & SysFlag.bornHostV6 == 0 ? 8 : 20) + (sysFlag & SysFlag.storeHostAddressV6 == 0 ? 8 : 20)
            + body + topic + properties
    }

    /// CRC-32 of a body as RocketMQ stores it: the sign bit cut off (`UtilAll.crc32`).
    package static func bodyCRC(_ body: UnsafeRawBufferPointer) -> Int32 {
        Int32(bitPattern: apus_crc32(body.baseAddress, body.count) & 0x7FFF_FFFF)
    }
}

/// A whole record, pointing into the bytes it was parsed from and valid only as long as they are.
package struct CommitLogRecordView {
    /// The record's bytes, `totalSize` of them.
    package let bytes: UnsafeRawBufferPointer
    /// Of the topic, from 0 on.
    package let queueID: Int32
    /// Its offset in the consume queue; 0 for prepared and rolled back messages.
    package let queueOffset: QueueOffset
    /// Where in the log the record states that it begins.
    package let physicalOffset: PhysicalOffset
    /// Bits of `SysFlag`.
    package let sysFlag: Int32
    /// Milliseconds since 1970.
    package let storeTimestamp: Int64
    /// As the client sent it: possibly compressed.
    package let body: UnsafeRawBufferPointer
    /// UTF-8.
    package let topic: UnsafeRawBufferPointer
    /// Encoded as `MessageProperties` reads them.
    package let properties: UnsafeRawBufferPointer

    /// Bytes of the record.
    package var totalSize: Int { bytes.count }
    /// The client's own; no server looks at it.
    package var flag: Int32 { loadInt32(CommitLogRecord.flagPosition) }
    /// Written with the body; `bodyIsIntact` compares.
    package var storedBodyCRC: Int32 { loadInt32(CommitLogRecord.bodyCRCPosition) }
    /// Milliseconds since 1970.
    package var bornTimestamp: Int64 { loadInt64(CommitLogRecord.bornTimestampPosition) }
    /// Of the client that sent it.
    package var bornHost: HostAddress { host(CommitLogRecord.bornHostPosition, sysFlag & SysFlag.bornHostV6 != 0) }
    /// Of the broker that stored it first; a slave keeps it.
    package var storeHost: HostAddress {
        host(storeTimestampPosition + 8, sysFlag & SysFlag.storeHostAddressV6 != 0)
    }
    /// How often a consumer has sent it back.
    package var reconsumeTimes: Int32 { loadInt32(afterHosts) }
    /// Where in the record that number lies, 4 bytes, big-endian.
    package var reconsumeTimesPosition: Int { afterHosts }
    /// Of a committed message: where its half message lies; else 0.
    package var preparedTransactionOffset: Int64 { loadInt64(afterHosts + 4) }

    /// Whether the body is what was written.
    package var bodyIsIntact: Bool { body.isEmpty || CommitLogRecord.bodyCRC(body) == storedBodyCRC }

    /// The value of a property, or nil; points into `bytes`.
    package func property(_ name: StaticString) -> UnsafeRawBufferPointer? {
        MessageProperties.value(of: name, in: properties)
    }

    private var storeTimestampPosition: Int {
        CommitLogRecord.bornHostPosition + (sysFlag & SysFlag.bornHostV6 == 0 ? 8 : 20)
    }
    private var afterHosts: Int {
        storeTimestampPosition + 8 + (sysFlag & SysFlag.storeHostAddressV6 == 0 ? 8 : 20)
    }

    private func loadInt32(_ offset: Int) -> Int32 {
        bytes.loadUnaligned(fromByteOffset: offset, as: Int32.self).bigEndian
    }

    private func loadInt64(_ offset: Int) -> Int64 {
        bytes.loadUnaligned(fromByteOffset: offset, as: Int64.self).bigEndian
    }

    private func host(_ offset: Int, _ isIPv6: Bool) -> HostAddress {
        isIPv6
            ? HostAddress(
                ipv6High: UInt64(bitPattern: loadInt64(offset)), low: UInt64(bitPattern: loadInt64(offset + 8)),
                port: loadInt32(offset + 16))
            : HostAddress(ipv4: UInt32(bitPattern: loadInt32(offset)), port: loadInt32(offset + 4))
    }
}

/// What lies at an offset of the commit log. Only the shape is judged: `CommitLogRecordView.damage` looks at the
/// checksums, and the caller compares the physical offset in the record with its own.
package enum CommitLogParse {
    case record(CommitLogRecordView)
    /// The rest of the file is unused; `size` bytes from here to its end.
    case blank(size: Int)
    /// The bytes end inside the record: `needed` bytes from its start would do (8 when even that is unknown).
    case incomplete(needed: Int)
    /// No record: never written, torn or damaged.
    case invalid(CommitLogDamage)
}

/// Why bytes are no record.
package enum CommitLogDamage: Equatable, Sendable, CustomStringConvertible {
    /// Zeros where a record would start: the end of what was written.
    case nothing
    case magic(Int32)
    case size(Int32)
    /// The parts do not add up to the total.
    case lengths
    case bodyCRC
    /// The checksum of the whole record (`PropCRC`) does not match.
    case propCRC
    /// It has no such checksum, and `forceVerifyPropCRC` asks for one.
    case noPropCRC
    /// It is not what its checksum beside the log (`RecordChecksum`) was made of.
    case recordChecksum
    case physicalOffset(found: Int64)
    /// A disk block inside the record was never written.
    case tornBlock

    /// For operators.
    package var description: String {
        switch self {
        case .nothing: "nothing was written here"
        case .magic(let magic): "no record begins here (magic \(magic))"
        case .size(let size): "impossible record size \(size)"
        case .lengths: "the parts of the record do not add up to its size"
        case .bodyCRC: "the body's CRC does not match"
        case .propCRC: "the record's CRC does not match"
        case .noPropCRC: "the record has no CRC of its own, which forceVerifyPropCRC asks for"
        case .recordChecksum: "the record is not what was written: its checksum in the folder recordsums does not match"
        case .physicalOffset(let found): "the record says it lies at \(found)"
        case .tornBlock: "a disk block inside the record was never written"
        }
    }
}

extension CommitLogRecord {
    /// Looks at the record that starts at `bytes[0]`. Never reads past `bytes`, whatever they hold.
    /// - Parameter maximumSize: a larger total size is damage.
    package static func parse(_ bytes: UnsafeRawBufferPointer, maximumSize: Int = Int(Int32.max)) -> CommitLogParse {
        guard bytes.count >= blankSize, let base = bytes.baseAddress else { return .incomplete(needed: blankSize) }
        let total = Int(BigEndian.load(base, 0, as: Int32.self))
        let magic = BigEndian.load(base, magicPosition, as: Int32.self)
        guard magic == magicV1 || magic == magicV2 else {
            if magic == blankMagic { return total >= blankSize ? .blank(size: total) : .invalid(.size(Int32(total))) }
            return .invalid(magic == 0 && total == 0 ? .nothing : .magic(magic))
        }
        guard total >= minimumSize, total <= maximumSize else {
            return .invalid(.size(Int32(truncatingIfNeeded: total)))
        }
        guard bytes.count >= total else { return .incomplete(needed: total) }

        let sysFlag = BigEndian.load(base, sysFlagPosition, as: Int32.self)
        let storeTimePosition = bornHostPosition + (sysFlag & SysFlag.bornHostV6 == 0 ? 8 : 20)
        var position = storeTimePosition + 8 + (sysFlag & SysFlag.storeHostAddressV6 == 0 ? 8 : 20) + 12
        // Every read below is checked against `total` first: lengths in a damaged record may be anything.
        guard position + 4 <= total else { return .invalid(.lengths) }
        let bodyLength = Int(BigEndian.load(base, position, as: Int32.self))
        position += 4
        guard bodyLength >= 0, bodyLength <= total - position else { return .invalid(.lengths) }
        let bodyStart = position
        position += bodyLength
        let topicLengthSize = magic == magicV2 ? 2 : 1
        guard position + topicLengthSize <= total else { return .invalid(.lengths) }
        let topicLength: Int
        if magic == magicV2 {
            topicLength = Int(BigEndian.load(base, position, as: Int16.self))
        } else {
            topicLength = Int(BigEndian.load(base, position, as: Int8.self))
        }
        position += topicLengthSize
        guard topicLength >= 0, position + topicLength + 2 <= total else { return .invalid(.lengths) }
        let topicStart = position
        position += topicLength
        let propertiesLength = Int(BigEndian.load(base, position, as: Int16.self))
        position += 2
        guard propertiesLength >= 0, position + propertiesLength == total else { return .invalid(.lengths) }
        return .record(
            CommitLogRecordView(
                bytes: UnsafeRawBufferPointer(start: base, count: total),
                queueID: BigEndian.load(base, queueIDPosition, as: Int32.self),
                queueOffset: QueueOffset(BigEndian.load(base, queueOffsetPosition, as: Int64.self)),
                physicalOffset: PhysicalOffset(BigEndian.load(base, physicalOffsetPosition, as: Int64.self)),
                sysFlag: sysFlag,
                storeTimestamp: BigEndian.load(base, storeTimePosition, as: Int64.self),
                body: UnsafeRawBufferPointer(start: base + bodyStart, count: bodyLength),
                topic: UnsafeRawBufferPointer(start: base + topicStart, count: topicLength),
                properties: UnsafeRawBufferPointer(start: base + position, count: propertiesLength)))
    }
}
