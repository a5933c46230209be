/// Bits of a record's system flag, named as in RocketMQ's `MessageSysFlag`.
package enum SysFlag {
    package static let compressed: Int32 = 0x1
    package static let multiTags: Int32 = 0x2
    package static let transactionNotType: Int32 = 0
    package static let transactionPreparedType: Int32 = 0x4
    package static let transactionCommitType: Int32 = 0x8
    package static let transactionRollbackType: Int32 = 0xC
    package static let bornHostV6: Int32 = 0x10
    package static let storeHostAddressV6: Int32 = 0x20
    package static let needUnwrap: Int32 = 0x40
    package static let innerBatch: Int32 = 0x80
    package static let compressionTypeMask: Int32 = 0x700

    /// The two transaction bits.
    @inlinable
    package static func transactionValue(_ flag: Int32) -> Int32 {
        flag & transactionRollbackType
    }

    /// Prepared and rolled back messages enter the log but no consume queue and take no queue offset.
    @inlinable
    package static func entersConsumeQueue(_ flag: Int32) -> Bool {
        let type = transactionValue(flag)
        return type == transactionNotType || type == transactionCommitType
    }
}
