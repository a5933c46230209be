import LinuxSystem
import MessageModel
import StoreFormat
import TestDisk

@testable import MessageStore

/// Random messages of every shape the format knows, so that reads of the store meet them all: batches,
/// IPv6 hosts, properties up to the limit, topics of every length, prepared and rolled back messages, delays, records
/// that end a file to the byte.
struct StoreWriter {
    var random: SeededGenerator
    /// Every accepted message's place.
    private(set) var places: [Int64] = []

    init(random: SeededGenerator) {
        self.random = random
    }

    private let topics = [
        "T", "Ünïcode", String(repeating: "long", count: 31) + "end", "SCHEDULE_TOPIC_XXXX", "%RETRY%group",
    ]

    mutating func write(_ harness: Harness, messages: Int) throws {
        var written = 0
        while written < messages {
            for _ in 0..<Int.random(in: 1...9, using: &random) { written += one(harness) }
            try harness.store.commitTick()
            harness.clock.advance(Int64.random(in: 0...900, using: &random))
            if random.chance(20) { harness.store.runMaintenance() }
            if random.chance(30) { harness.settle() }
        }
    }

    private mutating func bytes(_ count: Int) -> [UInt8] {
        (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
    }

    private mutating func host() -> HostAddress {
        random.chance(40)
            ? HostAddress(ipv6High: random.next(), low: random.next(), port: 65_535)
            : HostAddress(ipv4: UInt32(truncatingIfNeeded: random.next()), port: 10_911)
    }

    private mutating func properties() -> [UInt8] {
        if random.chance(3) {
            // Exactly the limit, with the separator and the suffix counted.
            let name = Array("P\u{1}".utf8)
            return name + Array(repeating: 120, count: Int(Int16.max) - name.count)
        }
        var text = ""
        if random.chance(70) { text += "UNIQ_KEY\u{1}\(random.next())\u{2}" }
        if random.chance(50) { text += "KEYS\u{1}k\(random.next() % 9) häß  \(random.next() % 4)\u{2}" }
        if random.chance(50) { text += "TAGS\u{1}\(["TagA", "Тег", "🚀", "Aa"][Int(random.next() % 4)])\u{2}" }
        if random.chance(30) { text += "DELAY\u{1}\(random.next() % 25)\u{2}" }
        if random.chance(10) { text += "\u{1}x\u{2}y\u{1}\u{2}\u{2}" }
        return Array((random.chance(50) ? String(text.dropLast()) : text).utf8)
    }

    /// Messages it made.
    private mutating func one(_ harness: Harness) -> Int {
        let topic = Array((topics.randomElement(using: &random) ?? "T").utf8)
        let isBatch = random.chance(15)
        var body = bytes(
            random.chance(10) ? Int.random(in: 0...9000, using: &random) : Int.random(in: 0...300, using: &random))
        var properties = properties()
        let store = harness.store
        if random.chance(6) { body = fill(store, topic.count, properties.count) ?? body }
        var count = 1
        if isBatch {
            count = Int.random(in: 1...6, using: &random)
            body = []
            for _ in 0..<count { appendBatched(&body) }
            properties = random.chance(50) ? [] : Array("CLUSTER\u{1}c".utf8)
        }
        let outcome = topic.withUnsafeBytes { topic in
            body.withUnsafeBytes { body in
                properties.withUnsafeBytes { properties in
                    var draft = MessageDraft(
                        topic: topic, queueID: Int32.random(in: 0...3, using: &random), bornHost: host(),
                        storeHost: host(), body: body)
                    draft.properties = properties
                    draft.flag = Int32(truncatingIfNeeded: random.next())
                    draft.bornTimestamp = harness.clock.now - 3
                    draft.reconsumeTimes = Int32(random.next() % 16)
                    draft.preparedTransactionOffset = Int64(random.next() >> 1)
                    if isBatch {
                        var offsets: [PhysicalOffset] = []
                        return store.appendBatch(draft, physicalOffsets: &offsets)
                    }
                    draft.sysFlag =
                        Int32(random.next() % 100 < 85 ? 0 : 4 * (random.next() % 4)) | Int32(random.next() % 2)
                    return store.append(draft)
                }
            }
        }
        guard case .appended(let result) = outcome else { return 0 }
        places.append(result.physicalOffset.rawValue)
        return count
    }

    private mutating func appendBatched(_ batch: inout [UInt8]) {
        func put(_ value: Int, _ count: Int, _ batch: inout [UInt8]) {
            for shift in (0..<count).reversed() { batch.append(UInt8(truncatingIfNeeded: value >> (8 * shift))) }
        }
        let body = bytes(Int.random(in: 0...200, using: &random))
        let properties = Array("UNIQ_KEY\u{1}b\(random.next())\u{2}TAGS\u{1}batch".utf8)
        for value in [0, 0, 0, 7] { put(value, 4, &batch) }
        put(body.count, 4, &batch)
        batch += body
        put(properties.count, 2, &batch)
        batch += properties
    }

    /// A body that ends the file around the last byte a record may have: 8 are kept for the blank.
    private mutating func fill(_ store: MessageStore, _ topic: Int, _ properties: Int) -> [UInt8]? {
        let left = Int(store.logFiles.fileSize - store.log.end.rawValue % store.logFiles.fileSize)
        // Hosts are of unknown family here, so this is not always exact; often enough it is.
        let rest = left - CommitLogRecord.fixedSize - 16 - topic - properties - CommitLogRecord.blankSize
        let size = rest + Int.random(in: -2...2, using: &random)
        return (0...20_000).contains(size) ? bytes(size) : nil
    }
}
