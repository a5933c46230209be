package import FastJSON
package import NIOCore

/// A request or response as an owned value: for clients, for requests a broker sends to its clients, and for tests.
/// The hot paths of a broker use `RemotingFrame` and `ResponseEncoder` instead.
package struct RemotingCommand: Equatable, Sendable {
    package var code: Int32
    package var language: LanguageCode
    package var version: Int32
    /// Pairs a response with its request; a client sets it when it sends.
    package var opaque: Int32
    package var flag: Int32
    package var remark: String?
    package var extFields: [String: String]
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
        self.code = frame.code
        self.language = frame.language
        self.version = frame.version
        self.opaque = frame.opaque
        self.flag = frame.flag
        self.remark = frame.remark
        self.extFields = frame.extFields.dictionary()
        self.body = [UInt8](frame.body)
    }

    /// Decodes one whole frame, its length word included.
    package init(
        decoding bytes: UnsafeRawBufferPointer, scratch: HeaderScratch = HeaderScratch()
    ) throws(RemotingDecodeError) {
        self.init(try RemotingFrame.parse(bytes, scratch: scratch))
    }

    /// Writes the whole frame.
    package func encode(into buffer: inout ByteBuffer, serialization: HeaderSerialization = .json) {
        encodeFrame(
            into: &buffer, serialization, code: self.code, flag: self.flag, opaque: self.opaque,
            language: self.language, version: self.version, remark: self.remark,
            fields: self.extFields.lazy.map { ($0.key, $0.value) }, bodyCount: self.body.count)
        buffer.writeBytes(self.body)
    }

    package var isResponse: Bool { self.flag & RemotingFrame.responseFlag != 0 }
    package var isOneway: Bool { self.flag & RemotingFrame.onewayFlag != 0 }
    package var responseCode: ResponseCode? { ResponseCode(rawValue: self.code) }
    package var requestCode: RequestCode? { RequestCode(rawValue: self.code) }

    /// The body as JSON.
    package func json() throws(RemotingDecodeError) -> JSONValue {
        do {
            return try JSONValue(parsing: self.body)
        } catch {
            throw .badBody(error.description)
        }
    }

    package func field(_ name: String) throws(RemotingDecodeError) -> String {
        guard let value = self.extFields[name] else { throw .missingField(name) }
        return value
    }

    package func integer(_ name: String) throws(RemotingDecodeError) -> Int64 {
        guard let value = Int64(try self.field(name)) else { throw .badField(name) }
        return value
    }
}

extension RemotingFrame {
    /// The body as JSON.
    package func json() throws(RemotingDecodeError) -> JSONValue {
        do {
            return try JSONValue(parsing: self.body)
        } catch {
            throw .badBody(error.description)
        }
    }
}
