import MessageModel
import RemotingProtocol
package import RemotingTransport

/// The last heartbeats of clients whose connections go to this broker's next process. That process registers them again
/// at once: they notice nothing and would send it again only with their next heartbeat. Until then a consumer that
/// leaves its subscription to heartbeats (RocketMQ's default) would be refused.
///
/// Layout: `magic`, the count of bytes that follow (8), then the clients. For each client: address (2 bytes of length,
/// text), language (1), version (4), body of its heartbeat (4 bytes of length, JSON). Integers are big-endian. Padded
/// to whole 8 bytes.
package struct ClientHandOver {
    private static let magic: [UInt8] = Array("APUSCL01".utf8)
    private var entries: [UInt8] = []

    package init() {}

    /// To be called while the connection is still open.
    package mutating func add(_ connection: RemotingConnection) {
        guard let said = (connection.context as? ClientContext)?.said else { return }
        let address = Array(connection.remoteAddress.text.utf8)
        append(UInt16(address.count))
        entries += address
        append(said.language.rawValue)
        append(said.version)
        append(UInt32(said.body.count))
        entries += said.body
    }

    /// Nil when there is nothing to hand over.
    package var bytes: [UInt8]? {
        guard !entries.isEmpty else { return nil }
        var all: [UInt8] = []
        // Once and for all: these may be 128 MiB.
        all.reserveCapacity(Self.magic.count + 8 + entries.count + 7)
        all += Self.magic
        withUnsafeBytes(of: UInt64(entries.count).bigEndian) { all += $0 }
        all += entries
        all += [UInt8](repeating: 0, count: (8 - all.count % 8) % 8)
        return all
    }

    private mutating func append(_ value: some FixedWidthInteger) {
        withUnsafeBytes(of: value.bigEndian) { entries += $0 }
    }

    /// By address; empty for bytes of another version.
    static func read(_ bytes: [UInt8]) -> [String: ClientContext.Heartbeat] {
        var rest = bytes[...]
        func take(_ count: Int) -> ArraySlice<UInt8>? {
            guard rest.count >= count else { return nil }
            defer { rest = rest.dropFirst(count) }
            return rest.prefix(count)
        }
        func integer(_ width: Int) -> Int? { take(width)?.reduce(0) { $0 << 8 | Int($1) } }
        guard let magic = take(8), Array(magic) == Self.magic, let count = integer(8), count <= rest.count else {
            return [:]
        }
        rest = rest.prefix(count)
        var found: [String: ClientContext.Heartbeat] = [:]
        while let length = integer(2), let address = take(length), let language = integer(1), let version = integer(4),
            let bodyLength = integer(4), let body = take(bodyLength)
        {
            found[String(decoding: address, as: UTF8.self)] = ClientContext.Heartbeat(
                language: LanguageCode(rawValue: UInt8(language)) ?? .other,
                version: Int32(truncatingIfNeeded: version), body: Array(body))
        }
        return found
    }
}

extension ClientContext.Heartbeat {
    /// As `data`; any thread.
    var parsed: Result<HeartbeatData, RemotingDecodeError> {
        Result { () throws(RemotingDecodeError) in try data }
    }

    var data: HeartbeatData {
        get throws(RemotingDecodeError) {
            // The parser takes bytes where they lie; it throws only what it declares.
            let result = body.withUnsafeBytes { bytes in
                Result { () throws(RemotingDecodeError) in try HeartbeatData(body: bytes) }
            }
            return try result.get()
        }
    }
}
