package import MessageModel

/// A stored message as a consumer sees it, decoded from the commit log record a pull brings (`MessageDecoder`):
///
///     | size 4 | magic 4 | body CRC 4 | queue id 4 | flag 4 | queue offset 8 | physical offset 8 | sys flag 4 |
///     | born timestamp 8 | born host 8 or 20 | store timestamp 8 | store host 8 or 20 | reconsume times 4 |
///     | prepared transaction offset 8 | body length 4 | body | topic length 1 (2) | topic | properties length 2 | … |
package struct MessageExt: Equatable, Sendable {
    /// Where it is stored. In a retry topic property `RETRY_TOPIC` names the topic it was sent to.
    package var topic = ""
    /// Inflated when it was stored with zlib.
    package var body: [UInt8] = []
    /// By RocketMQ's names (`PropertyName`).
    package var properties: [String: String] = [:]
    /// From 0.
    package var queueID: Int32 = 0
    /// The producer's own; brokers only keep it.
    package var flag: Int32 = 0
    /// Entries from the queue's beginning.
    package var queueOffset: Int64 = 0
    /// Bytes from the commit log's beginning.
    package var physicalOffset: Int64 = 0
    /// `MessageSysFlag`: compression, transaction state and the two bits for IPv6 hosts.
    package var sysFlag: Int32 = 0
    /// Milliseconds since 1970, by the producer's clock.
    package var bornTimestamp: Int64 = 0
    /// The producer's address, as the broker saw it.
    package var bornHost = HostAddress(ipv4: 0, port: 0)
    /// Milliseconds since 1970, by the broker's clock.
    package var storeTimestamp: Int64 = 0
    /// The broker's address; part of the offset message id.
    package var storeHost = HostAddress(ipv4: 0, port: 0)
    /// How often a group has sent it back.
    package var reconsumeTimes: Int32 = 0
    /// Of a transaction's message, the physical offset of its half message; else 0.
    package var preparedTransactionOffset: Int64 = 0
    /// CRC32 of the body as it was stored, that is before it is inflated. Not checked here.
    package var bodyCRC: Int32 = 0
    /// Bytes of the record.
    package var storeSize: Int32 = 0

    /// Topic length in one byte (`MESSAGE_MAGIC_CODE`).
    package static let magic: UInt32 = 0xdaa3_20a7
    /// 5.x: topic length in two bytes.
    package static let magicV2: UInt32 = 0xdaa3_20ab
    /// Bit of `sysFlag`: the body is compressed.
    package static let compressedFlag: Int32 = 1
    /// Bit of `sysFlag`: the born host has 20 bytes, not 8.
    package static let bornHostV6Flag: Int32 = 1 << 4
    /// Bit of `sysFlag`: the store host has 20 bytes, not 8.
    package static let storeHostV6Flag: Int32 = 1 << 5
    /// A body that inflates to more is refused.
    package static let inflatedBytesMax = 64 << 20

    package init() {}

    /// The producer's id (`UNIQ_KEY`); the offset message id when it gave none.
    package var messageID: String { properties["\(PropertyName.uniqueKey)"] ?? offsetMessageID }
    /// The broker's id: store host and physical offset (`OffsetMessageID`).
    package var offsetMessageID: String {
        OffsetMessageID.text(host: storeHost, physicalOffset: physicalOffset)
    }
    /// Property `TAGS`. nil when the producer set none.
    package var tags: String? { properties["\(PropertyName.tags)"] }
    /// Property `KEYS`: keys for the index, separated by blanks. nil when the producer set none.
    package var keys: String? { properties["\(PropertyName.keys)"] }

    /// The messages of a pull's body.
    /// - Throws: `badBody` at the first record that is not whole.
    package static func decodeAll(_ bytes: UnsafeRawBufferPointer) throws(RemotingDecodeError) -> [MessageExt] {
        var messages: [MessageExt] = []
        var offset = 0
        while offset < bytes.count {
            guard bytes.count - offset >= 8 else { throw .badBody("a message of fewer than 8 bytes") }
            let size = Int(bytes.bigEndian(Int32.self, at: offset))
            guard size >= 8, size <= bytes.count - offset else { throw .badBody("a message of \(size) bytes") }
            messages.append(
                try MessageExt(record: UnsafeRawBufferPointer(rebasing: bytes[offset..<(offset + size)])))
            offset += size
        }
        return messages
    }

    /// - Throws: `badBody` at the first record that is not whole.
    package static func decodeAll(_ bytes: [UInt8]) throws(RemotingDecodeError) -> [MessageExt] {
        let result = bytes.withUnsafeBytes { raw in
            Result { () throws(RemotingDecodeError) in try Self.decodeAll(raw) }
        }
        return try result.get()
    }

    /// One whole record. A zlib body is inflated and its flag cleared; LZ4 and ZSTD bodies are left as they are.
    /// - Throws: `badBody`: the record is too short, has a wrong magic code, or its body does not inflate.
    package init(record bytes: UnsafeRawBufferPointer) throws(RemotingDecodeError) {
        var reader = RecordReader(bytes: bytes)
        storeSize = try reader.integer()
        let magic: UInt32 = try reader.integer()
        guard magic == Self.magic || magic == Self.magicV2 else { throw .badBody("a message with a wrong magic code") }
        bodyCRC = try reader.integer()
        queueID = try reader.integer()
        flag = try reader.integer()
        queueOffset = try reader.integer()
        physicalOffset = try reader.integer()
        sysFlag = try reader.integer()
        bornTimestamp = try reader.integer()
        bornHost = try reader.host(isIPv6: sysFlag & Self.bornHostV6Flag != 0)
        storeTimestamp = try reader.integer()
        storeHost = try reader.host(isIPv6: sysFlag & Self.storeHostV6Flag != 0)
        reconsumeTimes = try reader.integer()
        preparedTransactionOffset = try reader.integer()
        let bodyCount: Int32 = try reader.integer()
        let body = try reader.bytes(Int(bodyCount))
        // Bits 8 to 10 name the compression: 0 (before 5.0) and 3 are zlib.
        let compression = sysFlag >> 8 & 7
        if sysFlag & Self.compressedFlag != 0, compression == 0 || compression == 3 {
            do {
                self.body = try Zlib.inflate(body, bytesMax: Self.inflatedBytesMax)
            } catch {
                throw .badBody(error.description)
            }
            sysFlag &= ~Self.compressedFlag
        } else {
            self.body = [UInt8](body)
        }
        let topicCount: Int
        if magic == Self.magicV2 {
            topicCount = Int(try reader.integer() as UInt16)
        } else {
            topicCount = Int(try reader.integer() as UInt8)
        }
        topic = String(decoding: try reader.bytes(topicCount), as: UTF8.self)
        let propertiesCount: UInt16 = try reader.integer()
        properties = MessageProperties.decode(try reader.bytes(Int(propertiesCount)))
    }
}

/// Reads big-endian fields one after the other.
private struct RecordReader {
    let bytes: UnsafeRawBufferPointer
    var offset = 0

    mutating func integer<T: FixedWidthInteger>() throws(RemotingDecodeError) -> T {
        guard bytes.count - offset >= MemoryLayout<T>.size else { throw .badBody("a message ends early") }
        defer { offset += MemoryLayout<T>.size }
        return bytes.bigEndian(T.self, at: offset)
    }

    mutating func bytes(_ count: Int) throws(RemotingDecodeError) -> UnsafeRawBufferPointer {
        guard count >= 0, count <= bytes.count - offset else { throw .badBody("a message ends early") }
        defer { offset += count }
        return UnsafeRawBufferPointer(rebasing: bytes[offset..<(offset + count)])
    }

    mutating func host(isIPv6: Bool) throws(RemotingDecodeError) -> HostAddress {
        guard let host = HostAddress(bytes: try bytes(isIPv6 ? 20 : 8)) else {
            throw .badBody("a host of a wrong size")
        }
        return host
    }
}

/// The body of a batch send (320): for each message
///
///     | size 4 | magic 4 (0) | body CRC 4 (0) | flag 4 | body length 4 | body | properties length 2 | properties |
package enum MessageBatch {
    /// Adds one message. `properties` are in the form of the commit log, at most 65,535 bytes.
    package static func append(
        body: [UInt8], properties: [UInt8], flag: Int32 = 0, to bytes: inout [UInt8]
    ) {
        func integer<T: FixedWidthInteger>(_ value: T) {
            withUnsafeBytes(of: value.bigEndian) { bytes.append(contentsOf: $0) }
        }
        integer(Int32(truncatingIfNeeded: 22 + body.count + properties.count))
        integer(Int32(0))
        integer(Int32(0))
        integer(flag)
        integer(Int32(truncatingIfNeeded: body.count))
        bytes.append(contentsOf: body)
        integer(UInt16(truncatingIfNeeded: properties.count))
        bytes.append(contentsOf: properties)
    }
}
