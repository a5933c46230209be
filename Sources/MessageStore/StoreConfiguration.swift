import SettingTable
import StoreFormat

/// The store's settings under RocketMQ's own keys, meanings and defaults (`MessageStoreConfig`), and a few of Apus'
/// own.
package struct StoreConfiguration: Sendable {
    /// When a message is acknowledged.
    package enum FlushDiskType: Sendable {
        /// Acknowledged when the kernel has it: survives the process.
        case asyncFlush
        /// Acknowledged after `fdatasync`: survives power loss.
        case syncFlush
    }

    /// The store's folder, without `/` at its end; made if it is not there.
    package var storePathRootDir: String
    /// Nil: `commitlog` in the root folder.
    package var storePathCommitLog: String?
    /// Bytes.
    package var mappedFileSizeCommitLog = 1024 * 1024 * 1024
    /// Bytes; rounded up to whole entries.
    package var mappedFileSizeConsumeQueue = 300_000 * 20
    /// Whether messages are indexed by their keys.
    package var messageIndexEnable = true
    /// Slots of an index file (`IndexLayout`).
    package var maxHashSlotNum = 5_000_000
    /// Entries of an index file.
    package var maxIndexNum = 20_000_000
    /// Most records a key query returns.
    package var maxMsgsNumBatch = 64

    /// What an acknowledgement waits for.
    package var flushDiskType = FlushDiskType.asyncFlush
    /// Milliseconds between asynchronous flushes.
    package var flushIntervalCommitLog = 500
    /// Pages of 4 KiB that must be waiting before an asynchronous flush is worth it …
    package var flushCommitLogLeastPages = 4
    /// … unless this many milliseconds have passed.
    package var flushCommitLogThoroughInterval = 10_000
    /// Milliseconds between writes of the consume queues' tails.
    package var flushIntervalConsumeQueue = 1000
    /// Milliseconds between checkpoints: queues, index and log synchronized, recovery starts there.
    package var flushConsumeQueueThoroughInterval = 60_000

    /// Bytes of body.
    package var maxMessageSize = 4 * 1024 * 1024
    /// Whether recovery looks at bodies, not only at the records' shape.
    package var checkCRCOnRecover = true
    /// Each record ends with a checksum of all of it (`PropCRC`), and those that have one are judged by it. RocketMQ
    /// 5's key.
    package var enabledAppendPropCRC = false
    /// A record without such a checksum is reported and not delivered. RocketMQ 5's key.
    package var forceVerifyPropCRC = false
    /// Bytes of one read that lie in memory.
    package var maxTransferBytesOnMessageInMemory = 256 * 1024
    /// Messages of one read that lie in memory.
    package var maxTransferCountOnMessageInMemory = 32
    /// Bytes of one read that lie on disk.
    package var maxTransferBytesOnMessageInDisk = 64 * 1024
    /// Messages of one read that lie on disk.
    package var maxTransferCountOnMessageInDisk = 8
    /// Per cent of the machine's memory behind the log's end that counts as "in memory".
    package var accessMessageInMemoryMaxRatio = 40
    /// `messageDelayLevel`: the delay of each level from 1 on.
    package var delayLevels = DelayLevels.standard
    /// A slave does not correct a consumer's offset (`nextOffsetCorrection`) …
    package var isSlave = false
    /// … unless this is set.
    package var offsetCheckInSlave = false

    /// Hours a commit log file is kept after its last change.
    package var fileReservedTime = 72
    /// Hours of the day at which expired files go, two digits each, separated by `;`.
    package var deleteWhen = "04"
    /// Per cent used above which the oldest files go before their time.
    package var diskMaxUsedSpaceRatio = 75
    /// Whether the oldest files go before their time when the disk is fuller than `diskSpaceCleanForciblyRatio`.
    package var cleanFileForciblyEnable = true
    /// `rocketmq.broker.diskSpaceCleanForciblyRatio`.
    package var diskSpaceCleanForciblyRatio = 0.85
    /// `rocketmq.broker.diskSpaceWarningLevelRatio`: above it nothing is accepted.
    package var diskSpaceWarningLevelRatio = 0.90
    /// Milliseconds between looks at the disk.
    package var cleanResourceInterval = 10_000
    /// Apus: bytes that must stay free whatever the ratios are.
    package var diskReservedBytes: Int64 = 64 * 1024 * 1024
    /// Apus: blocks are reserved this many bytes ahead of the log's end, so that a full disk is met before a message
    /// is.
    package var allocateAheadBytes = 64 * 1024 * 1024

    /// Apus: whether each record gets a checksum of all of it beside the log (`RecordChecksum`).
    package var recordSumEnable = true
    /// Apus: how much of the log the check after a start looks at per second, bytes; 0 for no check.
    package var backgroundCheckBytesPerSecond = 64 * 1024 * 1024

    /// RocketMQ's defaults for a store in that folder.
    package init(storePathRootDir: String) {
        self.storePathRootDir = storePathRootDir
    }

    /// Folders of the parts, and the one of the broker's tables.
    package var commitLogPath: String { storePathCommitLog ?? storePathRootDir + "/commitlog" }
    /// Of the consume queues.
    package var consumeQueuePath: String { storePathRootDir + "/consumequeue" }
    /// Of the index files.
    package var indexPath: String { storePathRootDir + "/index" }
    /// Of the record checksums; a folder of ours.
    package var recordChecksumPath: String { storePathRootDir + "/recordsums" }
    /// Of the broker's tables.
    package var configPath: String { storePathRootDir + "/config" }

    /// What is asked of a record that was found on the disk before it is delivered.
    var recordCheck: RecordCheck {
        forceVerifyPropCRC ? .propCRC : enabledAppendPropCRC ? .propCRCIfPresent : .body
    }
    /// The same for recovery. RocketMQ cuts the log off at the first record without a checksum it asks for. Here queues
    /// and index keep such records, so that nothing is lost by the key having been set too early.
    var recordCheckOnRecover: RecordCheck { recordCheck == .propCRC ? .propCRCIfPresent : recordCheck }

    /// Entries a consume queue file holds.
    package var entriesPerConsumeQueueFile: Int { max(1, (mappedFileSizeConsumeQueue + 19) / 20) }

    /// Takes over the keys of a `broker.conf`; keys it does not know are left to others.
    /// - Parameter value: the setting's text, or nil when it is not set.
    /// - Throws: the first key whose value is not understood.
    package init(storePathRootDir: String, value: (String) -> String?) throws(StoreError) {
        self.init(storePathRootDir: storePathRootDir)
        try take(value)
    }

    /// This configuration with other values for some of the keys that can change while the store is open; other keys
    /// are left alone.
    /// - Throws: the first key whose value is not understood.
    package func changed(_ settings: [(String, String)]) throws(StoreError) -> StoreConfiguration {
        var next = self
        try next.take { key in
            SettingTable.setting(key)?.change == .running ? settings.last { $0.0 == key }?.1 : nil
        }
        return next
    }

    private mutating func take(_ value: (String) -> String?) throws(StoreError) {
        func text(_ key: String) throws(StoreError) -> String? {
            guard let text = value(key) else { return nil }
            do throws(SettingRefusal) {
                let canonical = try SettingTable.canonical(key, text)
                return canonical.isEmpty ? nil : canonical
            } catch {
                throw .configuration(error)
            }
        }
        func integer(_ key: String, _ target: inout Int) throws(StoreError) {
            if let number = try text(key).flatMap({ SettingType.integer($0) }) { target = Int(number) }
        }
        func flag(_ key: String, _ target: inout Bool) throws(StoreError) {
            if let flag = try text(key).flatMap({ SettingType.boolean($0) }) { target = flag }
        }
        if let path = try text("storePathCommitLog") { storePathCommitLog = path }
        try integer("mappedFileSizeCommitLog", &mappedFileSizeCommitLog)
        try integer("mappedFileSizeConsumeQueue", &mappedFileSizeConsumeQueue)
        try flag("messageIndexEnable", &messageIndexEnable)
        try flag("recordSumEnable", &recordSumEnable)
        try integer("maxHashSlotNum", &maxHashSlotNum)
        try integer("maxIndexNum", &maxIndexNum)
        try integer("maxMsgsNumBatch", &maxMsgsNumBatch)
        if let type = try text("flushDiskType") { flushDiskType = type == "SYNC_FLUSH" ? .syncFlush : .asyncFlush }
        try integer("flushIntervalCommitLog", &flushIntervalCommitLog)
        try integer("flushCommitLogLeastPages", &flushCommitLogLeastPages)
        try integer("flushCommitLogThoroughInterval", &flushCommitLogThoroughInterval)
        try integer("flushIntervalConsumeQueue", &flushIntervalConsumeQueue)
        try integer("flushConsumeQueueThoroughInterval", &flushConsumeQueueThoroughInterval)
        try integer("maxMessageSize", &maxMessageSize)
        try flag("checkCRCOnRecover", &checkCRCOnRecover)
        try flag("enabledAppendPropCRC", &enabledAppendPropCRC)
        try flag("forceVerifyPropCRC", &forceVerifyPropCRC)
        try integer("maxTransferBytesOnMessageInMemory", &maxTransferBytesOnMessageInMemory)
        try integer("maxTransferCountOnMessageInMemory", &maxTransferCountOnMessageInMemory)
        try integer("maxTransferBytesOnMessageInDisk", &maxTransferBytesOnMessageInDisk)
        try integer("maxTransferCountOnMessageInDisk", &maxTransferCountOnMessageInDisk)
        try integer("accessMessageInMemoryMaxRatio", &accessMessageInMemoryMaxRatio)
        if let levels = try text("messageDelayLevel") {
            guard let parsed = DelayLevels(levels) else {
                throw .configuration(SettingRefusal(name: "messageDelayLevel", value: levels, reason: DelayLevels.form))
            }
            delayLevels = parsed
        }
        if let role = try text("brokerRole") { isSlave = role == "SLAVE" }
        try flag("offsetCheckInSlave", &offsetCheckInSlave)
        try integer("fileReservedTime", &fileReservedTime)
        if let hours = try text("deleteWhen") { deleteWhen = hours }
        try integer("diskMaxUsedSpaceRatio", &diskMaxUsedSpaceRatio)
        try flag("cleanFileForciblyEnable", &cleanFileForciblyEnable)
        try integer("cleanResourceInterval", &cleanResourceInterval)
        var reserved = Int(diskReservedBytes)
        try integer("diskReservedBytes", &reserved)
        diskReservedBytes = Int64(reserved)
        try integer("backgroundCheckBytesPerSecond", &backgroundCheckBytesPerSecond)
        try integer("allocateAheadBytes", &allocateAheadBytes)
    }
}
