import Foundation
import StoreFormat
import TestFolders

/// A folder of log files of 64 KiB. Byte `n` of the log is `n / 7` cut to 8 bits, so no two windows look alike.
struct LogFolder {
    static let fileSize = 64 * 1024
    let url: URL

    init(files: Int) throws {
        url = try TestFolder.make("reader")
        for number in 0..<files { try write(number, count: Self.fileSize) }
    }

    var path: String { url.path }

    static func byte(_ offset: Int) -> UInt8 { UInt8(truncatingIfNeeded: offset / 7) }

    func file(_ number: Int) -> URL {
        url.appendingPathComponent(StoreFileName.of(offset: Int64(number * Self.fileSize)))
    }

    func write(_ number: Int, count: Int) throws {
        let start = number * Self.fileSize
        try Data((start..<(start + count)).map { Self.byte($0) }).write(to: file(number))
    }

    func remove(_ number: Int) throws { try FileManager.default.removeItem(at: file(number)) }

    func removeAll() { try? FileManager.default.removeItem(at: url) }

    static func isRight(_ bytes: UnsafeRawBufferPointer, at offset: Int) -> Bool {
        bytes.enumerated().allSatisfy { $0.element == byte(offset + $0.offset) }
    }
}
