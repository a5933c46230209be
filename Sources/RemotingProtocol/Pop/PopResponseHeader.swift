package import NIOCore

/// The header of an answer to POP_MESSAGE (200050): RocketMQ's `PopMessageResponseHeader`. Times are milliseconds.
package struct PopResponseHeader {
    /// When the messages were handed out, milliseconds since 1970.
    package let popTime: Int64
    /// How long no other client gets them, from `popTime` on.
    package let invisibleTime: Int64
    /// `PopHandle.reviveQueue`; `reviveQid` on the wire.
    package let reviveQueue: Int64
    /// Messages that remain in the queues; `restNum` on the wire.
    package let restCount: Int64
    /// `startOffsetInfo`, `msgOffsetInfo` and, for ordered groups, `orderCountInfo`.
    package let lists: PopOffsetLists

    /// The header with these fields.
    package init(
        popTime: Int64, invisibleTime: Int64, reviveQueue: Int64, restCount: Int64, lists: PopOffsetLists
    ) {
        self.popTime = popTime
        self.invisibleTime = invisibleTime
        self.reviveQueue = reviveQueue
        self.restCount = restCount
        self.lists = lists
    }

    /// The head of the answer, whose body of `bodyCount` bytes the caller writes or sends next.
    package func encode(
        into buffer: inout ByteBuffer, _ address: ReturnAddress, _ code: ResponseCode, remark: StaticString,
        bodyCount: Int
    ) {
        let remark = UnsafeRawBufferPointer(start: remark.utf8Start, count: remark.utf8CodeUnitCount)
        let capacity = HeaderWriter.capacity(remarkCount: remark.count) + 320 + lists.bytes
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: capacity) { memory in
            var writer = HeaderWriter(
                into: memory, serialization: address.serialization, code: code.rawValue,
                flag: RemotingFrame.responseFlag, opaque: address.opaque, remark: remark)
            writer.field("popTime", popTime)
            writer.field("invisibleTime", invisibleTime)
            writer.field("reviveQid", reviveQueue)
            writer.field("restNum", restCount)
            writer.field("startOffsetInfo", plain: lists.starts)
            writer.field("msgOffsetInfo", plain: lists.offsets)
            if !lists.counts.isEmpty { writer.field("orderCountInfo", plain: lists.counts) }
            writer.end(bodyCount: bodyCount)
            return writer.count
        }
    }
}

/// The strings of an answer to a pop, from which clients make the handles of its messages: an entry for each queue,
/// `KIND QUEUE OFFSET,OFFSET…`, with `;` between. Its memory is used for one answer after the other.
package struct PopOffsetLists {
    /// A decimal number of 64 bits, or a word with its separators, takes no more.
    private static let numberBytesMax = 20

    fileprivate var starts: [UInt8] = []
    fileprivate var offsets: [UInt8] = []
    fileprivate var counts: [UInt8] = []
    private var kind = PopTopicKind.normal
    private var queueID: Int32 = 0
    private var lowest: Int64?

    /// Lists without entries.
    package init() {}

    fileprivate var bytes: Int { starts.count + offsets.count + counts.count }

    /// Forgets the entries, and keeps the memory.
    package mutating func removeAll() {
        starts.removeAll(keepingCapacity: true)
        offsets.removeAll(keepingCapacity: true)
        counts.removeAll(keepingCapacity: true)
    }

    /// Begins the entry of a queue: its messages follow (`append`), then `end`.
    package mutating func begin(_ kind: PopTopicKind, queueID: Int32) {
        self.kind = kind
        self.queueID = queueID
        lowest = nil
        Self.begin(kind, queueID, in: &offsets)
    }

    /// The next message of the queue.
    package mutating func append(_ offset: Int64) {
        if let lowest {
            offsets.append(UInt8(ascii: ","))
            if offset < lowest { self.lowest = offset }
        } else {
            lowest = offset
        }
        Self.append(offset, to: &offsets)
    }

    /// Ends the entry.
    /// - Parameter offset: its start offset if it has no message.
    package mutating func end(orElse offset: Int64) {
        Self.begin(kind, queueID, in: &starts)
        Self.append(lowest ?? offset, to: &starts)
    }

    /// Deliveries of a message of an ordered group before this one.
    package mutating func append(attempts: Int32, ofMessage offset: Int64) {
        if !counts.isEmpty { counts.append(UInt8(ascii: ";")) }
        counts += kind.rawValue.utf8
        counts += " qo".utf8
        Self.append(Int64(queueID), to: &counts)
        counts.append(UInt8(ascii: "%"))
        Self.append(offset, to: &counts)
        counts.append(UInt8(ascii: " "))
        Self.append(Int64(attempts), to: &counts)
    }

    private static func begin(_ kind: PopTopicKind, _ queueID: Int32, in bytes: inout [UInt8]) {
        if !bytes.isEmpty { bytes.append(UInt8(ascii: ";")) }
        bytes += kind.rawValue.utf8
        bytes.append(UInt8(ascii: " "))
        append(Int64(queueID), to: &bytes)
        bytes.append(UInt8(ascii: " "))
    }

    /// Digit by digit: an answer has 32 offsets, and a string for each of them would be a good part of a pop's cost.
    private static func append(_ number: Int64, to bytes: inout [UInt8]) {
        withUnsafeTemporaryAllocation(byteCount: numberBytesMax, alignment: 1) { digits in
            var place = digits.count
            var rest = number.magnitude
            repeat {
                place -= 1
                digits[place] = UInt8(ascii: "0") + UInt8(truncatingIfNeeded: rest % 10)
                rest /= 10
            } while rest > 0
            if number < 0 {
                place -= 1
                digits[place] = UInt8(ascii: "-")
            }
            bytes.append(contentsOf: UnsafeRawBufferPointer(rebasing: digits[place...]))
        }
    }
}
