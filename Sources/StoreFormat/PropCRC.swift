import CLinux
import MessageModel

/// The checksum of a whole record, which RocketMQ 5 appends with `enabledAppendPropCRC` (`CommitLog`,
/// `MessageDecoder.createCrc32`): a property of fixed width, always the record's last 20 bytes,
///
///     `__CRC32#` 8 | 1 | CRC-32 of all bytes before the property, sign bit cut off: 10 decimal digits, the lowest first | 2
///
/// so it covers every field, the queue offset and the physical offset too.
package enum PropCRC {
    /// Bytes of the property (`CommitLog.CRC32_RESERVED_LEN`).
    @inlinable package static var size: Int { 20 }
    static let digits = 10
    /// `__CRC32#` as the number its bytes make, read as little-endian.
    static let name = UInt64(littleEndian: 0x2332_3343_5243_5F5F)
    /// A property that differs from the fixed bytes by so few bits is a damaged checksum and not a record without one.
    static let mostFlippedBits = 3

    enum Found: Equatable {
        case none
        /// Something like it, which no writer leaves.
        case damaged
        case value(UInt32)
    }

    /// Looks at the last bytes of a record's properties.
    static func find(in properties: UnsafeRawBufferPointer) -> Found {
        guard properties.count >= size, let base = properties.baseAddress else { return .none }
        let tail = base + (properties.count - size)
        let flipped = flippedBits(tail)
        if flipped > 0 { return flipped <= mostFlippedBits ? .damaged : .none }
        var value: UInt64 = 0
        for place in stride(from: digits + 8, through: 9, by: -1) {
            let digit = tail.load(fromByteOffset: place, as: UInt8.self) &- 48
            if digit > 9 { return .damaged }
            value = value * 10 + UInt64(digit)
        }
        return UInt32(exactly: value).map { .value($0) } ?? .damaged
    }

    /// In how many bits 20 bytes differ from a checksum, its digits left out.
    private static func flippedBits(_ tail: UnsafeRawPointer) -> Int {
        (tail.loadUnaligned(as: UInt64.self) ^ name).nonzeroBitCount
            + (tail.load(fromByteOffset: 8, as: UInt8.self) ^ MessageProperties.nameValueSeparator).nonzeroBitCount
            + (tail.load(fromByteOffset: size - 1, as: UInt8.self) ^ MessageProperties.propertySeparator)
            .nonzeroBitCount
    }

    /// Whether properties end with the checksum of a record they were copied from.
    @inline(__always)
    package static func ends(_ properties: UnsafeRawBufferPointer) -> Bool {
        guard properties.count >= size, let base = properties.baseAddress,
            base.load(fromByteOffset: properties.count - 1, as: UInt8.self) == MessageProperties.propertySeparator
        else { return false }
        return flippedBits(base + (properties.count - size)) == 0
    }

    /// Computes and writes the checksum into the last 20 bytes of a record.
    /// - Parameter record: `size` bytes, all but the last 20 as they will be stored.
    @inline(__always)
    package static func write(_ record: UnsafeMutableRawPointer, size total: Int) {
        var rest = of(UnsafeRawBufferPointer(start: record, count: total - size))
        let tail = record + (total - size)
        tail.storeBytes(of: name, as: UInt64.self)
        tail.storeBytes(of: MessageProperties.nameValueSeparator, toByteOffset: 8, as: UInt8.self)
        for place in 9..<(9 + digits) {
            let (quotient, digit) = rest.quotientAndRemainder(dividingBy: 10)
            tail.storeBytes(of: UInt8(truncatingIfNeeded: digit) &+ 48, toByteOffset: place, as: UInt8.self)
            rest = quotient
        }
        tail.storeBytes(of: MessageProperties.propertySeparator, toByteOffset: size - 1, as: UInt8.self)
    }

    @inline(__always)
    static func of(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
        apus_crc32(bytes.baseAddress, bytes.count) & 0x7FFF_FFFF
    }
}

/// What is asked of a record before it counts as what was written.
package enum RecordCheck: Sendable {
    /// The body's CRC: all that RocketMQ 4 has.
    case body
    /// The checksum of the whole record where it carries one, else the body's CRC.
    case propCRCIfPresent
    /// The checksum; a record without one is damaged (`forceVerifyPropCRC`).
    case propCRC
}

extension CommitLogRecordView {
    /// Why this is not what was written; nil when nothing shows that.
    package func damage(by check: RecordCheck) -> CommitLogDamage? {
        if check != .body {
            switch PropCRC.find(in: properties) {
            case .value(let value):
                let covered = UnsafeRawBufferPointer(rebasing: bytes.dropLast(PropCRC.size))
                return PropCRC.of(covered) == value ? nil : .propCRC
            case .damaged: return .propCRC
            case .none: if check == .propCRC { return .noPropCRC }
            }
        }
        return bodyIsIntact ? nil : .bodyCRC
    }
}
