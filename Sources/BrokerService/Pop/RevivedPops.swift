import FastJSON
import MessageModel

/// Pops RocketMQ has noted in its revive log, and which of their messages were acknowledged. The log has a record `ck`
/// for each pop of a queue, `ack` and `bAck` for acknowledgements. They come in any order, some of them twice. All of
/// it comes from outside. Pure.
struct RevivedPops {
    /// Messages of one pop: RocketMQ counts them in a signed byte.
    static let messagesMax: Int64 = 127
    /// Bounds of offsets and times.
    static let bounds: ClosedRange<Int64> = 0...QueueLimits.offsets.upperBound

    /// A queue as a group reads it.
    struct Queue: Hashable {
        let group: String
        let topic: String
        let queueID: Int32
    }

    /// A message that was handed out and not acknowledged. Times are milliseconds since 1970.
    struct Message: Equatable {
        let offset: Int64
        let popTime: Int64
        /// When it is to be handed out again.
        let until: Int64
    }

    /// What is left of a queue.
    struct Left: Equatable {
        /// By offset, ascending.
        var messages: [Message] = []
        /// Behind all messages that were handed out, acknowledged or not.
        var end: Int64 = 0
    }

    /// What an acknowledgement names of its pop.
    private struct Key: Hashable {
        let queue: Queue
        let start: Int64
        let popTime: Int64
        let broker: String
    }

    private struct Pop {
        var offsets: Set<Int64> = []
        var until: Int64 = 0
    }

    /// Why a record is none.
    struct Unreadable: Error, CustomStringConvertible {
        let description: String
        init(_ description: String) { self.description = description }
    }

    private let brokerName: String
    private var pops: [Key: Pop] = [:]
    private var acknowledged: [Key: Set<Int64>] = [:]
    /// Records that were read.
    private(set) var count = 0

    /// - Parameter brokerName: of records that name none.
    init(brokerName: String) { self.brokerName = brokerName }

    // MARK: - Records

    /// Takes a record in.
    /// - Parameter tag: its TAGS.
    /// - Throws: it is none of the three.
    mutating func add(tag: String, _ body: UnsafeRawBufferPointer) throws(Unreadable) {
        let json: JSONValue
        do {
            json = try JSONValue(parsing: body)
        } catch {
            throw Unreadable("it is no JSON: \(error)")
        }
        let key = try key(json)
        switch tag {
        case "ck": try addPop(json, key)
        case "ack": acknowledged[key, default: []].insert(try Self.number(json, "ao"))
        case "bAck":
            guard let list = json["aol"]?.array else { throw Unreadable("it has no list aol") }
            for value in list { acknowledged[key, default: []].insert(try Self.checked(value, "aol")) }
        default: throw Unreadable("its tag is \(tag.debugDescription)")
        }
        count += 1
    }

    private func key(_ json: JSONValue) throws(Unreadable) -> Key {
        guard let topic = json["t"]?.string, let group = json["c"]?.string, !topic.isEmpty, !group.isEmpty else {
            throw Unreadable("it names no topic (t) or no group (c)")
        }
        guard let queueID = Int32(exactly: try Self.number(json, "q")) else { throw Unreadable("there is no queue q") }
        let broker = json["bn"]?.string ?? ""
        return Key(
            queue: Queue(group: group, topic: topic, queueID: queueID), start: try Self.number(json, "so"),
            popTime: try Self.number(json, "pt"), broker: broker.isEmpty ? brokerName : broker)
    }

    private mutating func addPop(_ json: JSONValue, _ key: Key) throws(Unreadable) {
        let count = try Self.number(json, "n")
        guard count <= Self.messagesMax else { throw Unreadable("n is \(count), more than \(Self.messagesMax)") }
        let differences = json["d"]?.array ?? []
        guard differences.isEmpty || differences.count >= count else {
            throw Unreadable("n is \(count), but d has \(differences.count)")
        }
        guard let bits = json["bm"].map({ $0.integer }) ?? 0 else { throw Unreadable("bm is no number") }
        let until = key.popTime +| (try Self.number(json, "it"))
        var offsets: Set<Int64> = []
        var done: Set<Int64> = []
        for index in 0..<count {
            let difference = differences.isEmpty ? index : try Self.checked(differences[Int(index)], "d")
            let offset = key.start +| difference
            offsets.insert(offset)
            if index < 32, bits >> index & 1 != 0 { done.insert(offset) }
        }
        // The same pop may be noted twice: in the timer's queue and in the revive log, or again for one message.
        var pop = pops[key] ?? Pop()
        pop.offsets.formUnion(offsets)
        pop.until = max(pop.until, until)
        pops[key] = pop
        if !done.isEmpty { acknowledged[key, default: []].formUnion(done) }
    }

    /// A member that is 0 when it is not there, as Java reads it.
    private static func number(_ json: JSONValue, _ name: String) throws(Unreadable) -> Int64 {
        guard let value = json[name] else { return 0 }
        return try checked(value, name)
    }

    private static func checked(_ value: JSONValue, _ name: String) throws(Unreadable) -> Int64 {
        guard let number = value.integer, bounds.contains(number) else {
            throw Unreadable("\(name) is no number of \(bounds.lowerBound) to \(bounds.upperBound)")
        }
        return number
    }

    // MARK: - What is left

    /// All acknowledgements have been read: what was not acknowledged, by queue. Of a message that was handed out
    /// several times the last delivery counts.
    func left() -> [Queue: Left] {
        var latest: [Queue: [Int64: Message]] = [:]
        var left: [Queue: Left] = [:]
        for (key, pop) in pops {
            let done = acknowledged[key] ?? []
            let end = (pop.offsets.max() ?? key.start - 1) + 1
            left[key.queue, default: Left()].end = max(left[key.queue]?.end ?? 0, end)
            for offset in pop.offsets where !done.contains(offset) {
                let message = Message(offset: offset, popTime: key.popTime, until: pop.until)
                let known = latest[key.queue]?[offset]
                if let known, (known.popTime, known.until) >= (message.popTime, message.until) { continue }
                latest[key.queue, default: [:]][offset] = message
            }
        }
        for (queue, messages) in latest {
            left[queue]?.messages = messages.values.sorted { $0.offset < $1.offset }
        }
        return left
    }
}
