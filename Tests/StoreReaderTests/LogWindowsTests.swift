import Foundation
import LinuxSystem
import StoreFormat
import StoreReader
import Testing

@Suite struct LogWindowsTests {
    private func windows(_ folder: LogFolder, maximum: Int = 2) -> LogWindows {
        LogWindows(fileSize: Int64(LogFolder.fileSize), windowSize: 8192, maximumWindows: maximum) { base in
            try? RealDisk().open(folder.path + "/" + StoreFileName.of(offset: base.rawValue), .read)
        }
    }

    /// Inside a window, over the end of one, over the end of a file: the same bytes.
    @Test func rangesMayCrossWindowsAndFiles() throws {
        let folder = try LogFolder(files: 3)
        defer { folder.removeAll() }
        let windows = windows(folder)
        let end = 3 * LogFolder.fileSize
        for (offset, size) in [(0, 100), (8000, 400), (65_000, 2000), (0, end), (end - 1, 1), (70_000, 0)] {
            let bytes = try #require(windows.bytes(at: PhysicalOffset(Int64(offset)), size: size))
            #expect(bytes.count == size && LogFolder.isRight(bytes, at: offset))
        }
    }

    @Test func whatDoesNotExistIsNil() throws {
        let folder = try LogFolder(files: 2)
        defer { folder.removeAll() }
        let windows = windows(folder)
        let end = Int64(2 * LogFolder.fileSize)
        #expect(windows.bytes(at: PhysicalOffset(end), size: 1) == nil)
        #expect(windows.bytes(at: PhysicalOffset(end - 10), size: 20) == nil)
        #expect(windows.bytes(at: PhysicalOffset(-1), size: 1) == nil)
        #expect(windows.bytes(at: PhysicalOffset(0), size: -1) == nil)
        // A damaged entry may name any offset, before anything was read and after.
        for _ in 0..<2 {
            for offset in [Int64.min, 1 << 60, Int64.max - 100, Int64.max] {
                #expect(windows.bytes(at: PhysicalOffset(offset), size: 200) == nil)
                #expect(windows.bytes(at: PhysicalOffset(offset), size: .max) == nil)
            }
            #expect(windows.bytes(at: PhysicalOffset(0), size: 10) != nil)
        }
    }

    /// Mapped past its end, a file that is shorter than its name promises would end the process when it is read.
    @Test func aShortFileIsNotReadPastItsEnd() throws {
        let folder = try LogFolder(files: 1)
        defer { folder.removeAll() }
        try folder.write(1, count: 10_000)
        let windows = windows(folder)
        let start = LogFolder.fileSize
        let bytes = try #require(windows.bytes(at: PhysicalOffset(Int64(start)), size: 10_000))
        #expect(LogFolder.isRight(bytes, at: start))
        #expect(windows.bytes(at: PhysicalOffset(Int64(start + 9_990)), size: 11) == nil)
        #expect(windows.bytes(at: PhysicalOffset(Int64(start + 20_000)), size: 1) == nil)
    }

    /// Few windows at a time, however much is read, and all of it once more after they were released.
    @Test func windowsComeAndGo() throws {
        let folder = try LogFolder(files: 3)
        defer { folder.removeAll() }
        let windows = windows(folder)
        for _ in 0..<2 {
            for offset in stride(from: 0, to: 3 * LogFolder.fileSize - 64, by: 1000) {
                let bytes = try #require(windows.bytes(at: PhysicalOffset(Int64(offset)), size: 64))
                #expect(LogFolder.isRight(bytes, at: offset))
            }
            windows.release()
            windows.release()
        }
        windows.reset()
        #expect(windows.bytes(at: PhysicalOffset(5), size: 5).map { LogFolder.isRight($0, at: 5) } == true)
    }
}
