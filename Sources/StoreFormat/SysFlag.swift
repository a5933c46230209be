/// Bits of a record's system flag, named as in RocketMQ's `MessageSysFlag`. Public for the reason `BigEndian` is.
public enum SysFlag {
    /// The body is compressed, by `compressionTypeMask`.
    @inlinable package static var compressed: Int32 { 0x1 }
    /// The message has several tags, separated by `||` (topics with the filter type MULTI_TAG).
    @inlinable package static var multiTags: Int32 { 0x2 }
    /// Two bits: an ordinary message, …
    @inlinable package static var transactionNotType: Int32 { 0 }
    /// … a half message, …
    @inlinable package static var transactionPreparedType: Int32 { 0x4 }
    /// … one whose transaction was committed, …
    @inlinable package static var transactionCommitType: Int32 { 0x8 }
    /// … or rolled back. Also the mask of the two.
    @inlinable package static var transactionRollbackType: Int32 { 0xC }
    /// The born host has 20 bytes instead of 8.
    @inlinable public static var bornHostV6: Int32 { 0x10 }
    /// The store host has 20 bytes instead of 8.
    @inlinable public static var storeHostAddressV6: Int32 { 0x20 }
    /// RocketMQ 5: the record is part of an inner batch and is to be unwrapped.
    @inlinable package static var needUnwrap: Int32 { 0x40 }
    /// RocketMQ 5: the body holds a batch as one record.
    @inlinable package static var innerBatch: Int32 { 0x80 }
    /// 0: zlib, as all 4.x clients; 0x100 LZ4, 0x200 ZSTD, 0x300 zlib (RocketMQ 5's `CompressionType`).
    @inlinable package static var compressionTypeMask: Int32 { 0x700 }

    /// The two transaction bits.
    @inlinable package static func transactionValue(_ flag: Int32) -> Int32 {
        flag & transactionRollbackType
    }

    /// Prepared and rolled back messages enter the log but no consume queue and take no queue offset.
    @inlinable package static func entersConsumeQueue(_ flag: Int32) -> Bool {
        let type = transactionValue(flag)
        return type == transactionNotType || type == transactionCommitType
    }
}
