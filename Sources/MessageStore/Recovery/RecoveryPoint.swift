import Glibc
import LinuxSystem
import StoreFormat

/// From where a recovery has to read the log again, so that its time does not depend on the store's size. Lies in the
/// consume queues' folder (`.apus-recovery`), where RocketMQ looks at folders only. Deleting that folder deletes this
/// file too, and all is built anew.
struct RecoveryPoint: Equatable {
    /// In the consume queues' folder.
    static let fileName = ".apus-recovery"

    /// Which start of the machine wrote it: written pages survive the process, but not the machine.
    var boot: [UInt8] = Array(repeating: 0, count: 16)
    /// Queues and index on disk hold everything below.
    var dispatched = PhysicalOffset(0)
    /// Queues there were, and the sum of their ends: fewer found means that some were deleted.
    var queues: Int64 = 0
    var entries: Int64 = 0
    /// The newest index file's name as a number, 0 for none, and its header.
    var indexName: Int64 = 0
    var indexHeader = IndexHeader()
    var sequence: Int64 = 0
    var trust = Trust.full
    /// The log was synchronized below: that holds whatever became of the process and the machine. 0 when an older
    /// release wrote the point.
    var flushed = PhysicalOffset(0)
    /// Of the file of edits that was written last (`EditFile`), or `EditFile.noFile`. It is 0 when the log may hold
    /// edits no file names: an older release wrote the point.
    var edits: Int32 = 0

    /// How far a process that finds this point as the newest one may trust pages that were written and not
    /// synchronized.
    enum Trust: UInt8 {
        case full = 0
        /// A synchronization has failed: pages the kernel calls clean may never have reached the disk, so written pages
        /// prove nothing.
        case synchronizationFailed = 1
        /// A checkpoint was under way and may have failed without being noticed. The same holds for queues and index.
        /// (The log is written again after every kill.)
        case checkpointUnderWay = 2
    }

    static let size = 128
    /// Sequences lie below it: no broker has written so many points.
    private static let sequenceLimit: Int64 = 1 << 60
    private static let magic: UInt64 = 0x4150_5553_5243_5632  // "APUSRCV2"

    init() {}

    init?(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count >= Self.size, let base = bytes.baseAddress,
            BigEndian.load(base, 0, as: UInt64.self) == Self.magic,
            BigEndian.load(base, Self.size - 4, as: Int32.self)
                == CommitLogRecord.bodyCRC(UnsafeRawBufferPointer(start: base, count: Self.size - 4)),
            let header = IndexHeader(UnsafeRawBufferPointer(start: base + 72, count: 40)),
            0..<Self.sequenceLimit ~= BigEndian.load(base, 8, as: Int64.self)
        else { return nil }
        sequence = BigEndian.load(base, 8, as: Int64.self)
        boot = Array(bytes[16..<32])
        dispatched = PhysicalOffset(BigEndian.load(base, 32, as: Int64.self))
        queues = BigEndian.load(base, 40, as: Int64.self)
        entries = BigEndian.load(base, 48, as: Int64.self)
        indexName = BigEndian.load(base, 56, as: Int64.self)
        indexHeader = header
        trust = Trust(rawValue: bytes[112]) ?? .synchronizationFailed
        // An older release left zeros there.
        edits = Int32(bytes[113]) << 16 | Int32(bytes[114]) << 8 | Int32(bytes[115])
        flushed = PhysicalOffset(BigEndian.load(base, 116, as: Int64.self))
    }

    func encoded() -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.size)
        bytes.withUnsafeMutableBytes { buffer in
            guard let base = buffer.baseAddress else { return }
            BigEndian.store(Self.magic, base, 0)
            BigEndian.store(sequence, base, 8)
            for (index, byte) in boot.prefix(16).enumerated() { buffer[16 + index] = byte }
            BigEndian.store(dispatched.rawValue, base, 32)
            BigEndian.store(queues, base, 40)
            BigEndian.store(entries, base, 48)
            BigEndian.store(indexName, base, 56)
            indexHeader.encode(base + 72)
            buffer[112] = trust.rawValue
            for (index, shift) in [16, 8, 0].enumerated() {
                buffer[113 + index] = UInt8(truncatingIfNeeded: edits >> Int32(shift))
            }
            BigEndian.store(flushed.rawValue, base, 116)
            BigEndian.store(
                CommitLogRecord.bodyCRC(UnsafeRawBufferPointer(start: base, count: Self.size - 4)), base, Self.size - 4)
        }
        return bytes
    }

    /// The kernel's name for this start of the machine; zeros when it does not report one.
    static func currentBoot() -> [UInt8] {
        var identity = [UInt8](repeating: 0, count: 16)
        guard let file = fopen("/proc/sys/kernel/random/boot_id", "r") else { return identity }
        defer { fclose(file) }
        var text = [UInt8](repeating: 0, count: 36)
        let count = fread(&text, 1, text.count, file)
        let digits = text[0..<count].compactMap { Character(UnicodeScalar($0)).hexDigitValue }
        for index in 0..<min(16, digits.count / 2) {
            identity[index] = UInt8(digits[2 * index] << 4 | digits[2 * index + 1])
        }
        return identity
    }
}

extension RecoveryPoint {
    /// When the machine started, milliseconds since 1970 by the clock as it stands now; 0 when the kernel does not
    /// report it.
    static func machineStart() -> Int64 {
        var now = timespec()
        var running = timespec()
        guard clock_gettime(CLOCK_REALTIME, &now) == 0, clock_gettime(CLOCK_BOOTTIME, &running) == 0 else { return 0 }
        return Int64(now.tv_sec - running.tv_sec) * 1000 + Int64(now.tv_nsec - running.tv_nsec) / 1_000_000
    }
}
