import Glibc
import Testing

@testable import LinuxSystem

/// Some file systems keep any 64-bit time; the filter worker trapped on a plugin with one beyond the year 2262, each
/// time it looked.
@Suite struct FileTimeTests {
    @Test func anyTimeOfAFileHasAPlace() throws {
        var status = stat()
        for (seconds, expected) in [
            (0, 5), (1_700_000_000, 1_700_000_000_000_000_005), (Int.max, Int64.max), (Int.min, .min),
            (1 << 40, .max), (-1 << 40, .min),
        ] as [(Int, Int64)] {
            status.st_mtim = timespec(tv_sec: seconds, tv_nsec: 5)
            #expect(FileTime.modified(status, perSecond: 1_000_000_000) == expected, "\(seconds)")
            #expect(FrozenFile.Identity(status).modified == expected)
        }
        status.st_mtim = timespec(tv_sec: 1_700_000_000, tv_nsec: 7_999_999)
        #expect(FileTime.modified(status, perSecond: 1000) == 1_700_000_000_007)
        status.st_mtim = timespec(tv_sec: .max, tv_nsec: 999_999_999)
        #expect(FileTime.modified(status, perSecond: 1000) == .max)
    }
}
