package import MessageModel
package import NIOCore

/// Writes response frames straight into a connection's outbound buffer, in the request's serialization. Callers
/// check `ReturnAddress.isOneway` (or use `RemotingConnection.respond`, which does): a one-way request gets no answer.
package enum ResponseEncoder {
    /// Any response: `fields` become the header fields, in that order.
    package static func encode(
        into buffer: inout ByteBuffer, _ address: ReturnAddress, _ code: ResponseCode, remark: String? = nil,
        fields: [(String, String)] = [], body: [UInt8] = []
    ) {
        body.withUnsafeBytes { bytes in
            Self.encode(into: &buffer, address, code.rawValue, remark: remark, fields: fields, bodyCount: bytes.count)
            buffer.writeBytes(bytes)
        }
    }

    /// The header of a response whose body of `bodyCount` bytes the caller writes or sends next.
    package static func encode(
        into buffer: inout ByteBuffer, _ address: ReturnAddress, _ code: Int32, remark: String?,
        fields: [(String, String)], bodyCount: Int
    ) {
        encodeFrame(
            into: &buffer, address.serialization, code: code, flag: RemotingFrame.responseFlag,
            opaque: address.opaque, language: .java, version: RemotingVersion.current, remark: remark, fields: fields,
            bodyCount: bodyCount)
    }

    /// The answer to a stored message (10, 310, 320): `physicalOffsets` has one entry, for a batch one per message.
    /// `transactionID` is the producer's unique key; `remark` explains a code such as `flushDiskTimeout`.
    package static func encodeSendResponse(
        into buffer: inout ByteBuffer, _ address: ReturnAddress, _ code: ResponseCode = .success,
        remark: StaticString? = nil, storeHost: HostAddress, physicalOffsets: UnsafeBufferPointer<Int64>,
        queueID: Int32, queueOffset: Int64, transactionID: UnsafeRawBufferPointer? = nil
    ) {
        let remarkBytes = remark.map { UnsafeRawBufferPointer(start: $0.utf8Start, count: $0.utf8CodeUnitCount) }
        let capacity =
            HeaderWriter.capacity(remarkCount: remarkBytes?.count ?? 0) + 192
            + physicalOffsets.count * (OffsetMessageID.digits(storeHost) + 1) + (transactionID?.count ?? 0) * 6
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: capacity) { memory in
            var writer = HeaderWriter(
                into: memory, serialization: address.serialization, code: code.rawValue,
                flag: RemotingFrame.responseFlag, opaque: address.opaque, remark: remarkBytes)
            writer.messageIDs(host: storeHost, physicalOffsets: physicalOffsets)
            writer.field("queueId", Int64(queueID))
            writer.field("queueOffset", queueOffset)
            if let transactionID {
                writer.field("transactionId", transactionID)
            }
            writer.field(PropertyName.region, plain: "DefaultRegion")
            writer.field(PropertyName.traceSwitch, plain: "true")
            writer.end(bodyCount: 0)
            return writer.count
        }
    }

    /// The same for one message.
    package static func encodeSendResponse(
        into buffer: inout ByteBuffer, _ address: ReturnAddress, _ code: ResponseCode = .success,
        remark: StaticString? = nil, storeHost: HostAddress, physicalOffset: Int64, queueID: Int32,
        queueOffset: Int64, transactionID: UnsafeRawBufferPointer? = nil
    ) {
        withUnsafePointer(to: physicalOffset) { pointer in
            Self.encodeSendResponse(
                into: &buffer, address, code, remark: remark, storeHost: storeHost,
                physicalOffsets: UnsafeBufferPointer(start: pointer, count: 1), queueID: queueID,
                queueOffset: queueOffset, transactionID: transactionID)
        }
    }

    /// The header of a pull response (11, 361). Then the caller writes the messages into the same buffer and calls
    /// `finish`; nothing else may be written in between.
    package static func beginPullResponse(
        into buffer: inout ByteBuffer, _ address: ReturnAddress, _ code: ResponseCode, remark: StaticString? = nil,
        nextBeginOffset: Int64, minOffset: Int64, maxOffset: Int64, suggestWhichBrokerID: Int64
    ) -> OpenFrame {
        let start = buffer.writerIndex
        let remarkBytes = remark.map { UnsafeRawBufferPointer(start: $0.utf8Start, count: $0.utf8CodeUnitCount) }
        let capacity = HeaderWriter.capacity(remarkCount: remarkBytes?.count ?? 0) + 256
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: capacity) { memory in
            var writer = HeaderWriter(
                into: memory, serialization: address.serialization, code: code.rawValue,
                flag: RemotingFrame.responseFlag, opaque: address.opaque, remark: remarkBytes)
            writer.field("suggestWhichBrokerId", suggestWhichBrokerID)
            writer.field("nextBeginOffset", nextBeginOffset)
            writer.field("minOffset", minOffset)
            writer.field("maxOffset", maxOffset)
            writer.end(bodyCount: 0)
            return writer.count
        }
        return OpenFrame(start: start)
    }

    /// A frame whose body is still being written.
    package struct OpenFrame {
        /// Writer index of the buffer where the frame's length word lies.
        fileprivate var start: Int
    }

    /// Sets the frame's length to what was written since it was begun plus `bytesElsewhere`. These are body bytes that
    /// follow it on the wire without passing through the buffer (sendfile).
    package static func finish(_ frame: OpenFrame, in buffer: inout ByteBuffer, bytesElsewhere: Int = 0) {
        let count = buffer.writerIndex - frame.start - 4 + bytesElsewhere
        buffer.setInteger(Int32(truncatingIfNeeded: count), at: frame.start)
    }
}

/// One frame with its header, without the body; for requests and responses alike.
func encodeFrame(
    into buffer: inout ByteBuffer, _ serialization: HeaderSerialization, code: Int32, flag: Int32, opaque: Int32,
    language: LanguageCode, version: Int32, remark: String?, fields: some Collection<(String, String)>, bodyCount: Int
) {
    var remark = remark
    var capacity = HeaderWriter.capacity(remarkCount: remark?.utf8.count ?? 0)
    for (name, value) in fields {
        capacity += HeaderWriter.capacity(nameCount: name.utf8.count, valueCount: value.utf8.count)
    }
    let fill = { (memory: UnsafeMutableRawBufferPointer, remark: UnsafeRawBufferPointer?) -> Int in
        var writer = HeaderWriter(
            into: memory, serialization: serialization, code: code, flag: flag, opaque: opaque, language: language,
            version: version, remark: remark)
        for var (name, value) in fields {
            name.withUTF8 { name in
                value.withUTF8 { value in
                    writer.field(name: UnsafeRawBufferPointer(name), UnsafeRawBufferPointer(value))
                }
            }
        }
        writer.end(bodyCount: bodyCount)
        return writer.count
    }
    buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: capacity) { memory in
        remark?.withUTF8 { fill(memory, UnsafeRawBufferPointer($0)) } ?? fill(memory, nil)
    }
}
