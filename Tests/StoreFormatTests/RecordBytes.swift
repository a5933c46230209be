import StoreFormat

/// A record as RocketMQ writes it, built from the format's description with none of the store's code but the CRC.
enum RecordBytes {
    static func make(
        topic: String = "Topic", body: String, properties: String, queueID: Int = 0, queueOffset: Int = 0,
        physicalOffset: Int = 0, isIPv6: Bool = false
    ) -> [UInt8] {
        var bytes: [UInt8] = []
        func put(_ value: Int, _ count: Int) {
            for shift in (0..<count).reversed() { bytes.append(UInt8(truncatingIfNeeded: value >> (8 * shift))) }
        }
        func putHost() {
            if isIPv6 {
                put(0x2001_0db8_0000_0000, 8)
                put(7, 8)
            } else {
                put(0x7F00_0001, 4)
            }
            put(10_911, 4)
        }
        let content = Array(body.utf8)
        put(0, 4)
        put(-626_843_481, 4)
        put(Int(content.withUnsafeBytes { CommitLogRecord.bodyCRC($0) }), 4)
        put(queueID, 4)
        put(7, 4)
        put(queueOffset, 8)
        put(physicalOffset, 8)
        put(isIPv6 ? 0x30 : 0, 4)
        put(1_800_000_000_000, 8)
        putHost()
        put(1_800_000_000_005, 8)
        putHost()
        put(0, 4)
        put(0, 8)
        put(content.count, 4)
        bytes += content
        put(topic.utf8.count, 1)
        bytes += Array(topic.utf8)
        put(properties.utf8.count, 2)
        bytes += Array(properties.utf8)
        let total = bytes.count
        for index in 0..<4 { bytes[index] = UInt8(truncatingIfNeeded: total >> (8 * (3 - index))) }
        return bytes
    }
}
