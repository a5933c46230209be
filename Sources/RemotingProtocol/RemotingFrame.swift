/// Why bytes are not a remoting frame or a header lacks what its request needs.
package enum RemotingDecodeError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The length word is negative, smaller than a header word or larger than `RemotingLimits.frameBytes`.
    case badFrameLength(Int)
    /// The header's length points past the frame or is larger than `RemotingLimits.headerBytes`.
    case badHeaderLength(Int)
    case unknownSerialization(UInt8)
    /// The header text or bytes cannot be read; offset in bytes from the header's start.
    case badHeader(offset: Int)
    case tooManyFields
    case missingField(String)
    case badField(String)
    /// A number no request has a use for; `bounds` as text.
    case outOfBounds(name: String, value: Int64, bounds: String)
    /// A name no topic or group can have; the text states which and why.
    case badName(String)
    /// The body is not what its request or response code promises.
    case badBody(String)

    /// Fit as the remark of a response.
    package var description: String {
        switch self {
        case .badFrameLength(let count): "frame length \(count) is not within 4...\(RemotingLimits.frameBytes)"
        case .badHeaderLength(let count): "header length \(count) does not fit its frame"
        case .unknownSerialization(let code): "header serialization \(code) is neither JSON (0) nor ROCKETMQ (1)"
        case .badHeader(let offset): "the header cannot be read at its byte \(offset)"
        case .tooManyFields: "more than \(RemotingLimits.headerFields) header fields"
        case .missingField(let name): "the custom field <\(name)> is null"
        case .badField(let name): "the value of the custom field <\(name)> is not a number in range"
        case .outOfBounds(let name, let value, let bounds):
            "the value of the custom field <\(name)> is \(value), but must be within \(bounds)"
        case .badName(let text): text
        case .badBody(let text): "the body cannot be read: \(text)"
        }
    }
}

/// Bounds on what a peer may send.
package enum RemotingLimits {
    /// Bytes after a frame's length word (`com.rocketmq.remoting.frameMaxLength`).
    package static let frameBytes = 16 << 20
    /// Properties are at most 32 KiB and each byte of them at most six in JSON; the rest is small.
    package static let headerBytes = 1 << 20
    /// Header fields of one frame.
    package static let headerFields = 4096
}

/// One frame as it lies in the read buffer, its header parsed: a view valid only inside the call that hands it out.
/// Copy out what must live longer (`RemotingCommand(frame)` copies all).
///
///     | length 4 | serialization 1 | header length 3 | header | body |      length counts all after itself
package struct RemotingFrame {
    /// A `RequestCode`, or a `ResponseCode` in a response; others are kept as they are.
    package internal(set) var code: Int32 = 0
    /// Bit 0: response; bit 1: one-way.
    package internal(set) var flag: Int32 = 0
    /// Pairs a response with its request; the requesting side chose it.
    package internal(set) var opaque: Int32 = 0
    /// Version of RocketMQ the sender claims (`MQVersion`, an ordinal).
    package internal(set) var version: Int32 = 0
    /// What the sender's program is written in.
    package internal(set) var language: LanguageCode = .other
    /// Form of this frame's header; a response uses the same.
    package internal(set) var serialization: HeaderSerialization = .json
    /// UTF-8, escapes resolved.
    package internal(set) var remarkBytes: UnsafeRawBufferPointer?
    /// The header fields, as views.
    package internal(set) var extFields: ExtFields = .empty
    /// The header as it came, without length words.
    package internal(set) var header = UnsafeRawBufferPointer(start: nil, count: 0)
    /// What follows the header; may be empty.
    package internal(set) var body = UnsafeRawBufferPointer(start: nil, count: 0)

    /// Bit of `flag`: a response.
    package static let responseFlag: Int32 = 1
    /// Bit of `flag`: a request that expects no response.
    package static let onewayFlag: Int32 = 2

    /// Bit 0 of `flag`.
    package var isResponse: Bool { flag & Self.responseFlag != 0 }
    /// Bit 1 of `flag`: no response is expected.
    package var isOneway: Bool { flag & Self.onewayFlag != 0 }
    /// A copy; bytes that are no UTF-8 are replaced.
    package var remark: String? { remarkBytes.map { String(decoding: $0, as: UTF8.self) } }
    /// What an answer needs to know of this request; may be kept.
    package var returnAddress: ReturnAddress {
        ReturnAddress(opaque: opaque, serialization: serialization, isOneway: isOneway)
    }

    /// Parses a whole frame, its length word included.
    /// - Throws: a length that does not fit the bytes, an unknown header form, or a header that cannot be read.
    package static func parse(
        _ bytes: UnsafeRawBufferPointer, scratch: HeaderScratch
    ) throws(RemotingDecodeError) -> RemotingFrame {
        guard bytes.count >= 8 else { throw .badFrameLength(bytes.count - 4) }
        let length = Int(bytes.bigEndian(Int32.self, at: 0))
        guard length >= 4, length <= RemotingLimits.frameBytes, length == bytes.count - 4 else {
            throw .badFrameLength(length)
        }
        let word = bytes.bigEndian(UInt32.self, at: 4)
        let headerCount = Int(word & 0xff_ffff)
        guard headerCount <= length - 4, headerCount <= RemotingLimits.headerBytes else {
            throw .badHeaderLength(headerCount)
        }
        guard let serialization = HeaderSerialization(rawValue: UInt8(truncatingIfNeeded: word >> 24)) else {
            throw .unknownSerialization(UInt8(truncatingIfNeeded: word >> 24))
        }
        var frame = RemotingFrame()
        frame.serialization = serialization
        let start = bytes.baseAddress.map { $0 + 8 }
        frame.header = UnsafeRawBufferPointer(start: start, count: headerCount)
        frame.body = UnsafeRawBufferPointer(
            start: start.map { $0 + headerCount }, count: bytes.count - 8 - headerCount)
        scratch.prepare(headerCount: headerCount)
        switch serialization {
        case .json:
            try JSONHeaderParser.parse(into: &frame, scratch: scratch)
        case .rocketMQ:
            try BinaryHeaderParser.parse(into: &frame, scratch: scratch)
        }
        return frame
    }
}

/// Where an answer goes: kept while a request waits (long polling, flush, replication).
package struct ReturnAddress: Hashable, Sendable {
    /// Of the request.
    package var opaque: Int32
    /// Of the request's header.
    package var serialization: HeaderSerialization
    /// The request expects no response: none is sent.
    package var isOneway: Bool

    package init(opaque: Int32, serialization: HeaderSerialization, isOneway: Bool) {
        self.opaque = opaque
        self.serialization = serialization
        self.isOneway = isOneway
    }
}

extension UnsafeRawBufferPointer {
    @inline(__always)
    func bigEndian<T: FixedWidthInteger>(_: T.Type, at offset: Int) -> T {
        T(bigEndian: loadUnaligned(fromByteOffset: offset, as: T.self))
    }
}
