/// A record as a broker sends it.
enum TestRecord {
    private static let magic: UInt32 = 0xDAA3_20A7

    static func bytes(
        topic: String = "T", queueID: Int32 = 0, offset: Int64 = 0, attempts: Int32 = 0, body: String = "",
        stored: Int64 = 0, properties: [String: String] = [:]
    ) -> [UInt8] {
        var bytes: [UInt8] = []
        func put(_ value: some FixedWidthInteger) { withUnsafeBytes(of: value.bigEndian) { bytes += $0 } }
        let list = Array(properties.map { "\($0)\u{1}\($1)" }.joined(separator: "\u{2}").utf8)
        put(Int32(91 + body.utf8.count + topic.utf8.count + list.count))
        put(magic)
        put(Int32(0))
        put(queueID)
        put(Int32(0))
        put(offset)
        // Physical offset, system flag, when and where it was made and stored.
        put(Int64(0))
        put(Int32(0))
        for value in [0, 0, stored, 0] { put(value) }
        put(attempts)
        put(Int64(0))
        put(Int32(body.utf8.count))
        bytes += Array(body.utf8)
        put(UInt8(topic.utf8.count))
        bytes += Array(topic.utf8)
        put(Int16(list.count))
        return bytes + list
    }
}
