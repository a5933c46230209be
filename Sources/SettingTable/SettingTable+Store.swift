/// Rows of the table: name, section, readers, type, default, when a change holds, and what it means.
extension SettingTable {
    static let store: [Setting] = [
        Setting(
            "storePathRootDir", .store, [.broker, .filter], .path, "store", .start,
            "the store's folder, below the data directory"),
        Setting(
            "storePathCommitLog", .store, [.broker, .filter], .oneFolder, "commitlog", .start,
            "the log's folder, below storePathRootDir; one folder, not RocketMQ's list of several"),
        Setting(
            "mappedFileSizeCommitLog", .store, .broker, .integer(4096...2_147_483_647), "1073741824", .start,
            "bytes of a log file; fixed with the store"),
        Setting(
            "mappedFileSizeConsumeQueue", .store, .broker, .integer(20...2_147_483_647), "6000000", .start,
            "bytes of a queue file; fixed as well"),
        Setting(
            "flushDiskType", .store, .broker, .choice(["ASYNC_FLUSH", "SYNC_FLUSH"]), "ASYNC_FLUSH", .running,
            "SYNC_FLUSH answers when the disk has it"),
        Setting(
            "syncFlushTimeout", .store, .broker, .integer(1...3_600_000), "5000", .running,
            "milliseconds to wait for that"),
        Setting(
            "flushIntervalCommitLog", .store, .broker, .integer(1...3_600_000), "500", .running,
            "milliseconds between asynchronous flushes"),
        Setting(
            "flushCommitLogLeastPages", .store, .broker, .integer(0...1_000_000), "4", .running,
            "pages of 4 KiB worth a flush"),
        Setting(
            "flushCommitLogThoroughInterval", .store, .broker, .integer(1...3_600_000), "10000", .running,
            "a flush however little waits"),
        Setting(
            "flushIntervalConsumeQueue", .store, .broker, .integer(1...3_600_000), "1000", .running,
            "milliseconds between writes of queues"),
        Setting(
            "flushConsumeQueueThoroughInterval", .store, .broker, .integer(1...3_600_000), "60000", .running,
            "milliseconds between checkpoints"),
        Setting("messageIndexEnable", .store, .broker, .boolean, "true", .start, "messages can be found by key"),
        Setting(
            "recordSumEnable", .store, .broker, .boolean, "true", .start,
            "a sum of each whole message beside the log, so that no flipped bit is delivered (Apus)"),
        Setting(
            "maxHashSlotNum", .store, .broker, .integer(1...536_870_911), "5000000", .start, "slots of an index file"),
        Setting(
            "maxIndexNum", .store, .broker, .integer(2...107_374_182), "20000000", .start, "entries of an index file"),
        Setting(
            "maxMsgsNumBatch", .store, .broker, .integer(1...100_000), "64", .running,
            "most messages a key query returns"),
        Setting("checkCRCOnRecover", .store, .broker, .boolean, "true", .start, "recovery checks message bodies"),
        Setting(
            "enabledAppendPropCRC", .store, .broker, .boolean, "false", .start,
            "records carry a checksum of every field, 20 bytes (5.x)"),
        Setting(
            "forceVerifyPropCRC", .store, .broker, .boolean, "false", .start,
            "records without one are not delivered (5.x)"),
        Setting(
            "allocateAheadBytes", .store, .broker, .integer(0...2_147_483_647), "67108864", .start,
            "bytes of the log prepared ahead (Apus)"),
        Setting(
            "backgroundCheckBytesPerSecond", .store, .broker, .integer(0...2_147_483_647), "67108864", .running,
            "bytes of the log looked at per second by the check after a start; 0 for no check (Apus)"),
    ]

    static let retention: [Setting] = [
        Setting(
            "fileReservedTime", .retention, .broker, .integer(0...1_000_000), "72", .running, "hours a log file is kept"
        ),
        Setting(
            "deleteWhen", .retention, .broker, .hours, "04", .running,
            "hours of the day at which old files go"),
        Setting(
            "diskMaxUsedSpaceRatio", .retention, .broker, .integer(0...100), "75", .running,
            "per cent used above which the oldest files go"),
        Setting(
            "cleanFileForciblyEnable", .retention, .broker, .boolean, "true", .running,
            "on a nearly full disk: true deletes the oldest messages, consumed or not; false refuses new ones"),
        Setting(
            "cleanResourceInterval", .retention, .broker, .integer(10...3_600_000), "10000", .running,
            "milliseconds between looks"),
        Setting(
            "diskReservedBytes", .retention, .broker, .integer(0...Int64.max), "67108864", .running,
            "bytes never filled with messages (Apus)"),
    ]
}
