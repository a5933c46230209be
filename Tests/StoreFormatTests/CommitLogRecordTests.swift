import Foundation
import StoreFormat
import TestTools
import Testing

@Suite struct CommitLogRecordTests {
    /// Mutated and random bytes: the parser answers something, reads nothing outside, and a record it accepts adds up.
    @Test func parserSurvivesAnything() throws {
        let log = (0..<20).map { number in
            RecordBytes.make(
                body: String(repeating: "b", count: number * 9), properties: "TAGS\u{1}t\u{2}", isIPv6: number % 2 == 0)
        }
        for bytes in log {
            let isRecord = bytes.withUnsafeBytes {
                if case .record(let record) = CommitLogRecord.parse($0) { return record.bodyIsIntact }
                return false
            }
            #expect(isRecord)
        }
        let seed =
            ProcessInfo.processInfo.environment["APUS_SEED"].flatMap(UInt64.init) ?? UInt64.random(in: 0...UInt64.max)
        print("CommitLogRecordTests: APUS_SEED=\(seed)")
        var random = SplitMix(state: seed)
        var accepted = 0
        for _ in 0..<60_000 {
            var bytes = log.randomElement(using: &random) ?? []
            switch Int.random(in: 0..<4, using: &random) {
            case 0: bytes = Array(bytes.prefix(Int.random(in: 0...bytes.count, using: &random)))
            case 1:
                for _ in 0..<Int.random(in: 1...4, using: &random) {
                    bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
                }
            case 2:
                // A length field becomes anything.
                let at = [0, 36, 80, 84, 108].randomElement(using: &random) ?? 0
                if at + 4 <= bytes.count {
                    bytes[at..<(at + 4)] = (0..<4).map { _ in UInt8.random(in: 0...255, using: &random) }[...]
                }
            default:
                bytes = (0..<Int.random(in: 0..<200, using: &random)).map { _ in
                    UInt8.random(in: 0...255, using: &random)
                }
            }
            // A copy of exactly that size on the heap: the address sanitizer sees any step outside.
            let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 1)
            defer { buffer.deallocate() }
            buffer.copyBytes(from: bytes)
            switch CommitLogRecord.parse(UnsafeRawBufferPointer(buffer)) {
            case .record(let record):
                accepted += 1
                #expect(record.totalSize <= bytes.count)
                _ = (record.damage(by: .body), record.damage(by: .propCRCIfPresent))
                _ = record.storeHost
                _ = record.property(MessageProperties.keys)
            case .blank(let size): #expect(size >= 8)
            case .incomplete(let needed): #expect(needed > bytes.count)
            case .invalid: break
            }
        }
        #expect(accepted > 1000)
    }
}
