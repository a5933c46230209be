import Foundation
import StoreFormat
import Testing

@testable import MessageStore

@Suite struct FormatTests {
    /// Values computed by Java's String.hashCode.
    @Test func tagsCodesAreJavaHashes() {
        #expect(TagsCode.of("") == 0)
        #expect(TagsCode.of("Aa") == 2112 && TagsCode.of("BB") == 2112)
        #expect(TagsCode.of("TagA") == 2_598_919)
        #expect(TagsCode.of("polygenelubricants") == Int64(Int32.min))
        #expect(TagsCode.of("你好") == 652_829)
        #expect(TagsCode.of("🚀") == 1_773_027)
        #expect(IndexLayout.keyHash(Int32.min) == 0 && IndexLayout.keyHash(-5) == 5)
    }

    @Test func fileNames() {
        #expect(StoreFileName.of(offset: 0) == "00000000000000000000")
        #expect(StoreFileName.of(offset: 1 << 40) == "00000001099511627776")
        #expect(StoreFileName.offset(of: "00000001099511627776") == 1 << 40)
        #expect(StoreFileName.offset(of: "0000000109951162777x") == nil && StoreFileName.offset(of: "1") == nil)
    }

    /// Found by fuzzing: a damaged checkpoint ended the broker at its start.
    @Test func anyCheckpointIsRead() {
        var layout = StoreCheckpointLayout()
        layout.physicMsgTimestamp = .min
        #expect(layout.minTimestamp == 0)
        layout.physicMsgTimestamp = 10_000
        layout.logicsMsgTimestamp = 5000
        #expect(layout.minTimestamp == 2000)
    }

    @Test func propertiesAreFound() {
        func value(_ name: StaticString, _ text: String) -> String? {
            Array(text.utf8).withUnsafeBytes { bytes in
                MessageProperties.value(of: name, in: bytes).map { String(decoding: $0, as: UTF8.self) }
            }
        }
        #expect(value("TAGS", "KEYS\u{1}a b\u{2}TAGS\u{1}t") == "t")
        #expect(value("TAGS", "TAGS\u{1}one\u{2}TAGS\u{1}two\u{2}") == "two")
        #expect(value("TAGS", "TAGS\u{1}\u{2}\u{1}x\u{2}TAGS") == nil)
        #expect(value("TAGS", "xTAGS\u{1}t") == nil && value("TAGS", "") == nil)
        #expect(value("a", "a\u{1}b\u{1}c") == "b\u{1}c")
    }

    /// Mutated and random bytes: the parser answers something, reads nothing outside, and a record it accepts adds up.
    @Test func parserSurvivesAnything() throws {
        let folder = try TemporaryFolder()
        let harness = Harness(.small(folder.path + "/store"))
        try harness.store.open()
        for number in 0..<20 {
            harness.send("Topic", body: String(repeating: "b", count: number * 9), tags: "t", ipv6: number % 2 == 0)
        }
        try harness.store.commitTick()
        let seeds = harness.records("Topic").count
        #expect(seeds == 20)
        var log: [[UInt8]] = []
        for record in harness.records("Topic") {
            let range = LogRange(start: PhysicalOffset(Int64(record.physicalOffset)), length: record.total, count: 1)
            if let bytes = harness.store.withBytes(range, { Array($0) }) { log.append(bytes) }
        }
        try harness.store.close()
        var random = SeededGenerator(seed: CrashTests.seed)
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
                _ = (record.damage(by: .body), record.damage(by: .checksumIfPresent))
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
