import StoreFormat

/// What a plugin may see of a record: `CommitLogRecord.parse` for a caller that knows where the record ends, without
/// what is not needed. Points into the bytes it was made from.
struct RecordParts {
    let sysFlag: Int32
    /// Milliseconds since 1970.
    let bornTimestamp: Int64
    let storeTimestamp: Int64
    let body: UnsafeRawBufferPointer
    let properties: UnsafeRawBufferPointer

    /// Nil: `bytes` are not exactly one record. Never reads past them.
    @inline(__always)
    init?(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count >= CommitLogRecord.minimumSize, let base = bytes.baseAddress,
            Int(BigEndian.load(base, 0, as: Int32.self)) == bytes.count
        else { return nil }
        let magic = BigEndian.load(base, CommitLogRecord.magicPosition, as: Int32.self)
        guard magic == CommitLogRecord.magicV1 || magic == CommitLogRecord.magicV2 else { return nil }
        sysFlag = BigEndian.load(base, CommitLogRecord.sysFlagPosition, as: Int32.self)
        bornTimestamp = BigEndian.load(base, CommitLogRecord.bornTimestampPosition, as: Int64.self)
        let storeTime = CommitLogRecord.bornHostPosition + (sysFlag & SysFlag.bornHostV6 == 0 ? 8 : 20)
        storeTimestamp = BigEndian.load(base, storeTime, as: Int64.self)
        // Every read below is checked first: lengths in a damaged record may be anything.
        var position = storeTime + 8 + (sysFlag & SysFlag.storeHostAddressV6 == 0 ? 8 : 20) + 12
        guard position + 4 <= bytes.count else { return nil }
        let bodyLength = Int(BigEndian.load(base, position, as: Int32.self))
        position += 4
        guard bodyLength >= 0, bodyLength <= bytes.count - position else { return nil }
        body = UnsafeRawBufferPointer(start: base + position, count: bodyLength)
        position += bodyLength
        let lengthSize = magic == CommitLogRecord.magicV2 ? 2 : 1
        guard position + lengthSize <= bytes.count else { return nil }
        let topicLength =
            lengthSize == 2
            ? Int(BigEndian.load(base, position, as: Int16.self)) : Int(BigEndian.load(base, position, as: Int8.self))
        position += lengthSize
        guard topicLength >= 0, position + topicLength + 2 <= bytes.count else { return nil }
        position += topicLength
        let propertiesLength = Int(BigEndian.load(base, position, as: Int16.self))
        position += 2
        guard propertiesLength >= 0, position + propertiesLength == bytes.count else { return nil }
        properties = UnsafeRawBufferPointer(start: base + position, count: propertiesLength)
    }
}
