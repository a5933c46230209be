import Glibc
import MessageModel
import StoreFormat

/// One pass over the properties of a message to be stored: RocketMQ decodes them into a map and writes them back. So it
/// drops what is not `name \u{1} value`, takes out WAIT and a record's checksum and puts in its own. Here the same
/// bytes are copied once into a scratch buffer that is kept as long as the processor. What the broker must know is
/// picked up on the way.
struct StoredProperties {
    static let nameEnd: UInt8 = 1
    static let propertyEnd: UInt8 = 2

    /// What will be stored.
    private(set) var bytes: [UInt8] = []
    /// `WAIT=false`: the producer does not want to wait for disk or slave.
    private(set) var waitStoreMsgOK = true
    /// 0: it asks for none.
    private(set) var delayLevel: Int32 = 0
    /// DELAY is no number. RocketMQ's broker fails at such a message, and so does not take it.
    private(set) var hasIllegalDelay = false
    private(set) var isPreparedTransaction = false
    /// It states when it wants to be delivered (`TimerProperties`).
    private(set) var hasTimer = false
    /// Where the value of DELAY stands in `bytes`, for a level that must be cut down to the largest one.
    private(set) var delayRange: Range<Int>?

    /// As RocketMQ 4.9 stores a message, and as RocketMQ 5 does.
    private let own: Own
    private let ownWithRegion: Own

    init(cluster: String, region: String, traceOn: Bool) {
        own = Own(cluster: cluster)
        ownWithRegion = Own(cluster: cluster, region: region, traceOn: traceOn)
        bytes.reserveCapacity(4096)
    }

    /// What the broker adds to each message.
    private struct Own {
        /// `name \u{1} value`, separated by `\u{2}`.
        let bytes: [UInt8]

        /// As RocketMQ 4.9 stores them.
        init(cluster: String) {
            bytes = Array("\(PropertyName.cluster)\u{1}\(cluster)".utf8)
        }

        /// As RocketMQ 5 stores them: without MSG_REGION its consumers throw their trace records away
        /// (AsyncTraceDispatcher).
        init(cluster: String, region: String, traceOn: Bool) {
            let regionOn = "\(PropertyName.region)\u{1}\(region)\u{2}\(PropertyName.traceSwitch)\u{1}\(traceOn)"
            bytes = Array("\(PropertyName.cluster)\u{1}\(cluster)\u{2}\(regionOn)".utf8)
        }
    }

    /// Whether MSG_REGION and TRACE_ON of the message are dropped.
    private var dropsRegion = false

    /// Reads `source` and leaves the properties to store in `bytes`, the broker's own after those of the message.
    /// - Parameter region: MSG_REGION and TRACE_ON are among the broker's own.
    mutating func take(_ source: UnsafeRawBufferPointer, region: Bool) {
        dropsRegion = region
        bytes.removeAll(keepingCapacity: true)
        waitStoreMsgOK = true
        delayLevel = 0
        hasIllegalDelay = false
        isPreparedTransaction = false
        hasTimer = false
        delayRange = nil
        var index = 0
        while index < source.count {
            let end = Self.next(Self.propertyEnd, in: source, from: index)
            let separator = Self.next(Self.nameEnd, in: source, from: index)
            if separator > index, separator < end - 1 {
                let name = UnsafeRawBufferPointer(rebasing: source[index..<separator])
                let value = UnsafeRawBufferPointer(rebasing: source[separator + 1..<end])
                keep(name, value)
            }
            index = end + 1
        }
        separate()
        if region {
            bytes.append(contentsOf: ownWithRegion.bytes)
        } else {
            bytes.append(contentsOf: own.bytes)
        }
    }

    private static func next(_ byte: UInt8, in source: UnsafeRawBufferPointer, from index: Int) -> Int {
        guard let base = source.baseAddress, index < source.count,
            let found = memchr(base + index, Int32(byte), source.count - index)
        else { return source.count }
        return found - UnsafeMutableRawPointer(mutating: base)
    }

    private mutating func keep(_ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) {
        switch name.count {
        case 4 where name.matches(PropertyName.waitStoreMsgOK):
            waitStoreMsgOK = value.matches("true", ignoringCase: true)
            return
        case 5 where name.matches(PropertyName.delayLevel):
            let level = Int32(String(decoding: value, as: UTF8.self))
            hasIllegalDelay = level == nil
            delayLevel = level ?? 0
            separate()
            bytes.append(contentsOf: name)
            bytes.append(Self.nameEnd)
            let start = bytes.count
            bytes.append(contentsOf: value)
            delayRange = start..<bytes.count
            return
        case 7 where name.matches(PropertyName.cluster): return
        // Of another record: the store computes a new one, or none.
        case 8 where name.matches(PropertyName.recordCRC): return
        case 8 where dropsRegion && name.matches(PropertyName.traceSwitch): return
        // Only the store's newer versions of messages have it.
        case 9 where name.matches(PropertyName.edit): return
        case 10 where dropsRegion && name.matches(PropertyName.region): return
        case 8 where name.matches(PropertyName.isPrepared):
            isPreparedTransaction = value.matches("true", ignoringCase: true)
        case 14 where name.matches(PropertyName.timerDelayMilliseconds): hasTimer = true
        case 15 where name.matches(PropertyName.timerDelaySeconds): hasTimer = true
        case 16 where name.matches(PropertyName.timerDeliverMilliseconds): hasTimer = true
        default: break
        }
        separate()
        bytes.append(contentsOf: name)
        bytes.append(Self.nameEnd)
        bytes.append(contentsOf: value)
    }

    private mutating func separate() {
        if !bytes.isEmpty { bytes.append(Self.propertyEnd) }
    }

    mutating func append(_ name: StaticString, _ value: some Collection<UInt8>) {
        separate()
        name.withUTF8Buffer { bytes.append(contentsOf: $0) }
        bytes.append(Self.nameEnd)
        bytes.append(contentsOf: value)
    }

    /// Stores the level in plain decimal digits, by which the store works out the time. When the message asks for more,
    /// the largest one is stored, as RocketMQ does.
    mutating func normalizeDelay(largest: Int32) {
        guard let range = delayRange, delayLevel > 0 else { return }
        delayLevel = min(delayLevel, largest)
        let digits = String(delayLevel).utf8
        if !bytes[range].elementsEqual(digits) { bytes.replaceSubrange(range, with: digits) }
        delayRange = nil
    }

    /// Takes out properties by name. Not for the path of ordinary messages: it makes a copy.
    mutating func remove(_ names: [StaticString]) {
        var kept: [UInt8] = []
        kept.reserveCapacity(bytes.count)
        bytes.withUnsafeBytes { bytes in
            MessageProperties.forEach(in: bytes) { name, value in
                if names.contains(where: { name.matches($0) }) { return }
                if !kept.isEmpty { kept.append(Self.propertyEnd) }
                kept.append(contentsOf: name)
                kept.append(Self.nameEnd)
                kept.append(contentsOf: value)
            }
        }
        bytes = kept
        delayRange = nil
    }

    /// The message is a dead letter: what it states about a later delivery or a transaction is over.
    mutating func removeWaiting() {
        remove(TimerProperties.requests + [PropertyName.delayLevel, PropertyName.isPrepared])
        delayLevel = 0
        hasIllegalDelay = false
        isPreparedTransaction = false
        hasTimer = false
    }

    /// It is delayed by a level: its own times do not count, and RocketMQ does not store them.
    mutating func removeTimer() {
        remove(TimerProperties.requests)
        hasTimer = false
    }
}

extension UnsafeRawBufferPointer {
    func matches(_ text: StaticString, ignoringCase: Bool = false) -> Bool {
        guard count == text.utf8CodeUnitCount else { return false }
        let mask: UInt8 = ignoringCase ? 0xDF : 0xFF
        return text.withUTF8Buffer { expected in
            for index in 0..<count where (self[index] & mask) != (expected[index] & mask) { return false }
            return true
        }
    }
}
