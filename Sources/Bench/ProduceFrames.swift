import MessageModel

/// The send requests of a run, one for each combination of queue and size, ready to be copied.
///
/// Each message carries a unique key like a real client's (the broker indexes it). A body of 16 bytes or more begins
/// with the intended send time and a stamp. From these the consuming side computes the whole way's latency.
final class ProduceFrames {
    /// Marks a body that starts with an intended send time of this clock.
    static let stamp: UInt64 = 0x4150_5553_424E_4348

    private struct Entry {
        let template: FrameTemplate
        let bornPosition: Int
        let keyPositions: [Int]
        let bodyPositions: [Int]
    }

    private var entries: [Entry] = []
    private var nextKey: UInt64
    let averageBody: Int

    /// - Parameter queues: the queues of one broker.
    init(plan: BenchPlan, queues: [BenchQueue], firstKey: UInt64) {
        nextKey = firstKey
        averageBody = plan.sizes.reduce(0, +) / plan.sizes.count
        for size in plan.sizes {
            for queue in queues {
                entries.append(plan.batch == 1 ? Self.single(plan, queue, size) : Self.batch(plan, queue, size))
            }
        }
    }

    /// - Parameter turn: counts up; chooses queue and size in turn.
    func append(turn: Int, opaque: UInt32, intended: UInt64, to connection: WireConnection) {
        let entry = entries[turn % entries.count]
        let frame = entry.template.bytes.withUnsafeBytes { connection.append($0) }
        entry.template.patchOpaque(frame, opaque)
        writeDigits(frame, at: entry.bornPosition, width: 13, wallMilliseconds())
        for position in entry.keyPositions {
            writeHex(frame, at: position, width: 16, nextKey)
            nextKey &+= 1
        }
        for position in entry.bodyPositions {
            frame.storeBytes(of: intended, toByteOffset: position, as: UInt64.self)
            frame.storeBytes(of: Self.stamp, toByteOffset: position + 8, as: UInt64.self)
        }
    }

    private static let keyToPatch = "41505553424E4348" + "0000000000000000"

    private static func properties(_ plan: BenchPlan) -> String {
        "\(PropertyName.uniqueKey)\u{1}\(keyToPatch)\u{2}\(SendFields.waits)"
            + (plan.tag.map { "\u{2}\(PropertyName.tags)\u{1}\($0)" } ?? "")
    }

    private static func body(_ size: Int) -> [UInt8] {
        (0..<size).map { 0x61 + UInt8($0 % 26) }
    }

    private static func single(_ plan: BenchPlan, _ queue: BenchQueue, _ size: Int) -> Entry {
        let template = FrameTemplate(
            code: 310, form: plan.form,
            fields: SendFields.make(
                plan: plan, queueID: queue.queueID, brokerName: queue.brokerName, properties: properties(plan),
                isBatch: false),
            body: body(size))
        return Entry(
            template: template,
            bornPosition: template.fieldPositions["g"] ?? 0,
            keyPositions: positions(of: keyToPatch, in: template.bytes).map { $0 + 16 },
            bodyPositions: size >= 16 ? [template.bodyPosition] : [])
    }

    /// Each message of a batch: total size 4 · magic 4 · CRC 4 · flag 4 · body length 4 · body · properties length 2 ·
    /// properties
    private static func batch(_ plan: BenchPlan, _ queue: BenchQueue, _ size: Int) -> Entry {
        let properties = Array(properties(plan).utf8)
        let one = body(size)
        var encoded: [UInt8] = []
        var bodies: [Int] = []
        for _ in 0..<plan.batch {
            appendBigEndian(UInt32(22 + size + properties.count), to: &encoded)
            for _ in 0..<3 { appendBigEndian(UInt32(0), to: &encoded) }
            appendBigEndian(UInt32(size), to: &encoded)
            bodies.append(encoded.count)
            encoded += one
            appendBigEndian(UInt16(properties.count), to: &encoded)
            encoded += properties
        }
        let template = FrameTemplate(
            code: 320, form: plan.form,
            fields: SendFields.make(
                plan: plan, queueID: queue.queueID, brokerName: queue.brokerName, properties: SendFields.waits,
                isBatch: true),
            body: encoded)
        return Entry(
            template: template,
            bornPosition: template.fieldPositions["g"] ?? 0,
            keyPositions: positions(of: keyToPatch, in: template.bytes).map { $0 + 16 },
            bodyPositions: size >= 16 ? bodies.map { template.bodyPosition + $0 } : [])
    }

    private static func positions(of text: String, in bytes: [UInt8]) -> [Int] {
        let needle = Array(text.utf8)
        var found: [Int] = []
        var index = 0
        while index + needle.count <= bytes.count {
            if bytes[index] == needle[0], bytes[index..<(index + needle.count)].elementsEqual(needle) {
                found.append(index)
                index += needle.count
            } else {
                index += 1
            }
        }
        return found
    }
}
