import LinuxSystem
import StoreFormat

/// How far delayed messages have been delivered, as exactly as the log itself. It is written (not synchronized) after
/// every commit that delivered something, so that after `kill -9` nothing is delivered twice. `delayOffset.json`, which
/// RocketMQ reads, is written every few seconds as RocketMQ does.
///
/// `apus-timer/progress`, 512 bytes, big-endian, replaced in place by one write:
///
///     magic 4 "APDP" | CRC of all that follows 4 | log end 8 | timer ingested 8 | timer watermark due 8, sequence 8
///     | levels 4 | offset of each level 8 …
///
/// `log end` is the commit log's end at that moment. After power loss the log may have come back shorter than that:
/// then deliveries this file counts are lost, and it does not count.
struct DeliveryProgress: Equatable {
    /// In the folder of the timer's files.
    static let fileName = "progress"
    static let magic: UInt32 = 0x4150_4450
    static let size = 512
    static let headerSize = 44
    static let levelsMax = (size - headerSize) / 8

    var logEnd: Int64
    var timer: TimerWheel.Progress
    /// Per delay level the queue offset to deliver next.
    var levels: [Int64]

    func encode(into buffer: UnsafeMutableRawBufferPointer) {
        precondition(buffer.count >= Self.size, "the progress record has 512 bytes")
        guard let base = buffer.baseAddress else { return }
        base.initializeMemory(as: UInt8.self, repeating: 0, count: Self.size)
        BigEndian.store(Self.magic, base, 0)
        BigEndian.store(logEnd, base, 8)
        BigEndian.store(timer.ingested, base, 16)
        BigEndian.store(timer.watermark.due, base, 24)
        BigEndian.store(timer.watermark.sequence, base, 32)
        let count = min(levels.count, Self.levelsMax)
        BigEndian.store(UInt32(count), base, 40)
        for index in 0..<count { BigEndian.store(levels[index], base, Self.headerSize + index * 8) }
        let covered = UnsafeRawBufferPointer(start: base + 8, count: Self.size - 8)
        BigEndian.store(UInt32(bitPattern: CommitLogRecord.bodyCRC(covered)), base, 4)
    }

    init(logEnd: Int64, timer: TimerWheel.Progress, levels: [Int64]) {
        self.logEnd = logEnd
        self.timer = timer
        self.levels = levels
    }

    /// `nil` when the bytes are no such record, or a torn one.
    init?(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count >= Self.size, let base = bytes.baseAddress,
            BigEndian.load(base, 0, as: UInt32.self) == Self.magic
        else { return nil }
        let covered = UnsafeRawBufferPointer(start: base + 8, count: Self.size - 8)
        guard BigEndian.load(base, 4, as: UInt32.self) == UInt32(bitPattern: CommitLogRecord.bodyCRC(covered)) else {
            return nil
        }
        logEnd = BigEndian.load(base, 8, as: Int64.self)
        timer = TimerWheel.Progress(
            ingested: BigEndian.load(base, 16, as: Int64.self),
            watermark: TimerKey(
                due: BigEndian.load(base, 24, as: Int64.self), sequence: BigEndian.load(base, 32, as: Int64.self)))
        let count = min(Int(BigEndian.load(base, 40, as: UInt32.self)), Self.levelsMax)
        levels = (0..<count).map { BigEndian.load(base, Self.headerSize + $0 * 8, as: Int64.self) }
    }
}

/// The file of `DeliveryProgress`, kept open.
final class DeliveryProgressFile {
    private let file: any DiskFile
    private var buffer = [UInt8](repeating: 0, count: DeliveryProgress.size)

    init(disk: any Disk, storePath: String) throws(SystemError) {
        let directory = storePath + "/" + TimerFiles.folder
        try disk.createDirectory(directory)
        file = try disk.open("\(directory)/\(DeliveryProgress.fileName)", .create)
    }

    /// - Parameter logEnd: where the recovered log ends; a record from beyond it does not count.
    func load(logEnd: Int64) throws(SystemError) -> DeliveryProgress? {
        let count = try file.read(into: &buffer)
        guard count == DeliveryProgress.size else { return nil }
        let progress = buffer.withUnsafeBytes { DeliveryProgress($0) }
        guard let progress, progress.logEnd <= logEnd else { return nil }
        return progress
    }

    func save(_ progress: DeliveryProgress) throws(SystemError) {
        buffer.withUnsafeMutableBytes { progress.encode(into: $0) }
        try file.write(all: buffer)
    }
}

extension DiskFile {
    /// Fills the array from the file's start as far as the file goes.
    fileprivate func read(into bytes: inout [UInt8]) throws(SystemError) -> Int {
        let result: Result<Int, SystemError> = bytes.withUnsafeMutableBytes { buffer in
            do throws(SystemError) {
                return .success(try read(into: buffer, at: 0))
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }

    fileprivate func write(all bytes: [UInt8]) throws(SystemError) {
        let result: Result<Void, SystemError> = bytes.withUnsafeBytes { buffer in
            do throws(SystemError) {
                return .success(try write(buffer, at: 0))
            } catch {
                return .failure(error)
            }
        }
        try result.get()
    }
}
