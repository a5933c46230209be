import Foundation
import LinuxSystem
import StoreFormat
import StoreReader
import Testing

@Suite struct CommitLogViewTests {
    private func view(_ folder: LogFolder) -> CommitLogView {
        CommitLogView(directory: folder.path, fileSize: LogFolder.fileSize, disk: RealDisk())
    }

    @Test func bytesAndFilesAreFound() throws {
        let folder = try LogFolder(files: 2)
        defer { folder.removeAll() }
        let view = view(folder)
        let isRight = view.withBytes(at: PhysicalOffset(65_000), size: 1000) { LogFolder.isRight($0, at: 65_000) }
        #expect(isRight == true)
        let file = try #require(view.file(at: PhysicalOffset(70_000)))
        #expect(file.fileOffset == 70_000 - 65_536 && file.available == 2 * 65_536 - 70_000)
        var byte: UInt8 = 0
        #expect(pread(file.descriptor, &byte, 1, off_t(file.fileOffset)) == 1 && byte == LogFolder.byte(70_000))
        #expect(view.file(at: PhysicalOffset(2 * 65_536)) == nil)
        #expect(view.withBytes(at: PhysicalOffset(2 * 65_536), size: 1) { _ in true } == nil)
    }

    /// A file that retention has deleted stays open only until the next `release`; one that is made later is found.
    @Test func filesComeAndGo() throws {
        let folder = try LogFolder(files: 2)
        defer { folder.removeAll() }
        let view = view(folder)
        #expect(view.withBytes(at: PhysicalOffset(0), size: 10) { _ in true } == true)
        try folder.remove(0)
        view.release()
        #expect(view.withBytes(at: PhysicalOffset(0), size: 10) { _ in true } == nil)
        #expect(view.withBytes(at: PhysicalOffset(65_536), size: 10) { LogFolder.isRight($0, at: 65_536) } == true)
        #expect(view.withBytes(at: PhysicalOffset(2 * 65_536), size: 10) { _ in true } == nil)
        try folder.write(2, count: LogFolder.fileSize)
        #expect(
            view.withBytes(at: PhysicalOffset(2 * 65_536), size: 10) { LogFolder.isRight($0, at: 2 * 65_536) } == true)
    }

    /// Only what is not absent is an error.
    @Test func failedReadsAreReported() throws {
        let folder = try LogFolder(files: 0)
        defer { folder.removeAll() }
        try FileManager.default.createDirectory(at: folder.file(0), withIntermediateDirectories: false)
        let view = view(folder)
        var failures = 0
        view.readFailed = { _ in failures += 1 }
        #expect(view.withBytes(at: PhysicalOffset(0), size: 10) { _ in true } == nil && failures > 0)
        let before = failures
        #expect(view.withBytes(at: PhysicalOffset(65_536), size: 10) { _ in true } == nil && failures == before)
    }
}
