/// Reads a ROCKETMQ header (`RocketMQSerializable`), big-endian:
///
///     | code 2 | language 1 | version 2 | opaque 4 | flag 4 | remark length 4 | remark | ext length 4 | ext |
///     ext = (name length 2 | name | value length 4 | value)*
enum BinaryHeaderParser {
    static let fixedBytes = 21

    static func parse(into frame: inout RemotingFrame, scratch: HeaderScratch) throws(RemotingDecodeError) {
        let header = frame.header
        guard header.count >= Self.fixedBytes, let start = header.baseAddress else { throw .badHeader(offset: 0) }
        frame.code = Int32(header.bigEndian(Int16.self, at: 0))
        frame.language = LanguageCode(rawValue: header[2]) ?? .other
        frame.version = Int32(header.bigEndian(Int16.self, at: 3))
        frame.opaque = header.bigEndian(Int32.self, at: 5)
        frame.flag = header.bigEndian(Int32.self, at: 9)
        let remarkCount = Int(header.bigEndian(Int32.self, at: 13))
        guard remarkCount >= 0, remarkCount <= header.count - Self.fixedBytes else { throw .badHeader(offset: 13) }
        if remarkCount > 0 {
            frame.remarkBytes = UnsafeRawBufferPointer(start: start + 17, count: remarkCount)
        }
        var offset = 17 + remarkCount
        let extCount = Int(header.bigEndian(Int32.self, at: offset))
        guard extCount >= 0, extCount <= header.count - offset - 4 else { throw .badHeader(offset: offset) }
        offset += 4
        let end = offset + extCount
        var fields = FieldCollector(scratch)
        while offset < end {
            guard offset + 6 <= end else { throw .badHeader(offset: offset) }
            let nameCount = Int(header.bigEndian(Int16.self, at: offset))
            guard nameCount >= 0, nameCount <= end - offset - 6 else { throw .badHeader(offset: offset) }
            let valueCount = Int(header.bigEndian(Int32.self, at: offset + 2 + nameCount))
            guard valueCount >= 0, valueCount <= end - offset - 6 - nameCount else { throw .badHeader(offset: offset) }
            try fields.append(start + offset + 2, nameCount, start + offset + 6 + nameCount, valueCount)
            offset += 6 + nameCount + valueCount
        }
        frame.extFields = fields.result
    }
}
