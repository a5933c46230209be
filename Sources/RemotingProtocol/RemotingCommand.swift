package import FastJSON
package import NIOCore

/// A request or response as an owned value: for clients, for requests a broker sends to its clients, and for tests.
/// The hot paths of a broker use `RemotingFrame` and `ResponseEncoder` instead.
package struct RemotingCommand: Equatable, Sendable {
    /// A `RequestCode`, or a `ResponseCode` in a response; others are kept as they are.
    package var code: Int32
    /// What the sender's program is written in.
    package var language: LanguageCode
    /// Version of RocketMQ the sender claims (`MQVersion`, an ordinal).
    package var version: Int32
    /// Pairs a response with its request; a client sets it when it sends.
    package var opaque: Int32
    /// Bit 0: response; bit 1: one-way.
    package var flag: Int32
    /// Text for people; in a refusal the reason.
    package var remark: String?
    /// Header fields by name. Numbers and flags are text.
    package var extFields: [String: String]
    /// At most what `RemotingLimits.frameBytes` leaves beside the header.
    package var body: [UInt8]

    /// A request.
    package init(_ code: RequestCode, extFields: [String: String] = [:], body: [UInt8] = []) {
        self.init(code: code.rawValue, extFields: extFields, body: body)
    }

    package init(
        code: Int32, language: LanguageCode = .other, version: Int32 = RemotingVersion.current, opaque: Int32 = 0,
        flag: Int32 = 0, remark: String? = nil, extFields: [String: String] = [:], body: [UInt8] = []
    ) {
        self.code = code
        self.language = language
        self.version = version
        self.opaque = opaque
        self.flag = flag
        self.remark = remark
        self.extFields = extFields
        self.body = body
    }

    /// An answer to an inbound request.
    package static func response(
        _ code: ResponseCode, remark: String? = nil, extFields: [String: String] = [:], body: [UInt8] = []
    ) -> RemotingCommand {
        RemotingCommand(
            code: code.rawValue, flag: RemotingFrame.responseFlag, remark: remark, extFields: extFields, body: body)
    }

    /// Copies all of a frame.
    package init(_ frame: RemotingFrame) {
        code = frame.code
        language = frame.language
        version = frame.version
        opaque = frame.opaque
        flag = frame.flag
        remark = frame.remark
        extFields = frame.extFields.dictionary()
        body = [UInt8](frame.body)
    }

    /// Decodes one whole frame, its length word included.
    /// - Throws: as `RemotingFrame.parse`.
    package init(
        decoding bytes: UnsafeRawBufferPointer, scratch: HeaderScratch = HeaderScratch()
    ) throws(RemotingDecodeError) {
        self.init(try RemotingFrame.parse(bytes, scratch: scratch))
    }

    /// Writes the whole frame.
    package func encode(into buffer: inout ByteBuffer, serialization: HeaderSerialization = .json) {
        encodeFrame(
            into: &buffer, serialization, code: code, flag: flag, opaque: opaque,
            language: language, version: version, remark: remark,
            fields: extFields.lazy.map { ($0.key, $0.value) }, bodyCount: body.count)
        buffer.writeBytes(body)
    }

    /// Bit 0 of `flag`.
    package var isResponse: Bool { flag & RemotingFrame.responseFlag != 0 }
    /// Bit 1 of `flag`: no response is expected.
    package var isOneway: Bool { flag & RemotingFrame.onewayFlag != 0 }
    /// nil for a code this library does not know. Meaningful in responses only.
    package var responseCode: ResponseCode? { ResponseCode(rawValue: code) }
    /// nil for a code this library does not know. Meaningful in requests only.
    package var requestCode: RequestCode? { RequestCode(rawValue: code) }

    /// The body as JSON.
    /// - Throws: `badBody`: the body is no JSON.
    package func json() throws(RemotingDecodeError) -> JSONValue {
        do {
            return try JSONValue(parsing: body)
        } catch {
            throw .badBody(error.description)
        }
    }

    /// - Throws: `missingField`.
    package func field(_ name: String) throws(RemotingDecodeError) -> String {
        guard let value = extFields[name] else { throw .missingField(name) }
        return value
    }

    /// - Throws: `missingField`; `badField` when it is no number.
    package func integer(_ name: String) throws(RemotingDecodeError) -> Int64 {
        guard let value = Int64(try field(name)) else { throw .badField(name) }
        return value
    }
}

extension RemotingFrame {
    /// The body as JSON.
    /// - Throws: `badBody`: the body is no JSON.
    package func json() throws(RemotingDecodeError) -> JSONValue {
        do {
            return try JSONValue(parsing: body)
        } catch {
            throw .badBody(error.description)
        }
    }
}
