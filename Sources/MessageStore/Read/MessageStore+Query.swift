import LinuxSystem
import Logging
import MessageModel
import StoreFormat

/// A search for messages by key that is done in slices: the index's chain, then the messages its entries lead to. Some
/// of these must be read and checked from one end to the other.
package struct KeyQuery {
    fileprivate var topic: String
    fileprivate var key: String
    fileprivate let limit: Int
    fileprivate let bytesMax: Int
    fileprivate let begin: Int64
    fileprivate let end: Int64
    fileprivate let allVersions: Bool
    fileprivate var search: IndexSearch?
    fileprivate var nextCandidate = 0
    /// Candidates that were former versions of messages, or deleted ones, since the search was made or extended.
    fileprivate var superseded = 0
    fileprivate var found: [LogRange] = []
    fileprivate var bytes = 0
    /// Nothing more is to be looked for.
    package fileprivate(set) var isDone = false

    /// `topic#key` as the index hashes it.
    fileprivate mutating func hash() -> Int32 {
        topic.withUTF8 { topicBytes in
            key.withUTF8 { keyBytes in
                JavaHash.hash(
                    UnsafeRawBufferPointer(keyBytes),
                    continuing: JavaHash.hash(UnsafeRawBufferPointer(topicBytes), continuing: 0) &* 31 &+ 35)
            }
        }
    }
}

extension MessageStore {
    /// Messages with a key or a unique key, in the order of the log; the newest when there are too many.
    package func queryMessage(topic: String, key: String, maxCount: Int, begin: Int64, end: Int64) -> QueryResult {
        var query = beginQuery(topic: topic, key: key, maxCount: maxCount, begin: begin, end: end)
        while !query.isDone { advance(&query, steps: .max, bytes: .max) }
        return result(of: query)
    }

    /// The same in slices: `advance` until it is done.
    /// - Parameter bytesMax: of all messages found; no more are looked for when one would exceed it, unless it is the
    ///   first.
    /// - Parameter allVersions: also what edited messages were before, and deleted ones; else only what is delivered.
    package func beginQuery(
        topic: String, key: String, maxCount: Int, bytesMax: Int = .max, begin: Int64, end: Int64,
        allVersions: Bool = false
    ) -> KeyQuery {
        let limit = min(maxCount, configuration.maxMsgsNumBatch)
        var query = KeyQuery(
            topic: topic, key: key, limit: limit, bytesMax: bytesMax, begin: begin, end: end, allVersions: allVersions)
        guard let index, limit > 0 else {
            query.isDone = true
            return query
        }
        let hash = query.hash()
        // Entries keep whole seconds: the window is widened by one, the message's own time decides. Colliding hashes
        // count too, so ask for more than wanted.
        let from = begin < 1000 ? 0 : begin - 1000
        query.search = index.search(javaHash: hash, maxCount: limit * 2 + 64, begin: from, end: end)
        return query
    }

    /// One slice.
    /// - Parameters:
    ///   - steps: entries of the index, or candidates, it looks at.
    ///   - bytes: of messages it looks at before it stops.
    package func advance(_ query: inout KeyQuery, steps: Int, bytes: Int) {
        guard !query.isDone, let search = query.search else { return }
        guard search.isDone else {
            do throws(SystemError) {
                try query.search?.advance(steps: steps)
            } catch {
                logger.error("searching the index failed, the answer may lack messages: \(error)")
                query.isDone = true
            }
            return
        }
        var stepsLeft = steps
        var bytesLeft = bytes
        while query.nextCandidate < search.found.count, query.found.count < query.limit {
            guard stepsLeft > 0, bytesLeft > 0 else { return }
            stepsLeft -= 1
            let offset = search.found[query.nextCandidate]
            query.nextCandidate += 1
            guard let range = lookMessage(at: offset) else { continue }
            bytesLeft -= range.length
            guard !query.found.contains(where: { $0.start == range.start }), holds(range, &query) else { continue }
            guard query.found.isEmpty || query.bytes + range.length <= query.bytesMax else {
                query.isDone = true
                return
            }
            query.found.append(range)
            query.bytes += range.length
        }
        // A message that was edited often must not hide others that have its key.
        if query.nextCandidate >= search.found.count, query.found.count < query.limit, query.superseded > 0 {
            query.superseded = 0
            if query.search?.extend(by: search.found.count) == true { return }
        }
        query.isDone = true
    }

    /// What was found.
    package func result(of query: KeyQuery) -> QueryResult {
        var answer = QueryResult()
        guard let index else { return answer }
        // What retention has deleted since it was found is not there any more.
        let first = logStart
        answer.records = query.found.filter { $0.start >= first }.sorted { $0.start < $1.start }
        answer.indexLastUpdateTimestamp = index.lastUpdate.timestamp
        answer.indexLastUpdatePhyoffset = index.lastUpdate.physicalOffset
        return answer
    }

    /// Entries of the index that `findMessage` looks at: a chain holds all keys of one slot, and strangers choose keys.
    package static let findSteps = 4096
    /// Bytes of messages after which `findMessage` stops.
    package static let findBytes = 4 << 20

    /// Whether there is a message of a key or unique key that meets a condition. It is looked for in one turn of the
    /// loop; `.unknown` when that would take more than `findSteps` entries of the index or `findBytes` of messages.
    /// - Parameters:
    ///   - atMost: messages looked at, newest first.
    ///   - isIt: gets ranges of whole records.
    package func findMessage(
        topic: String, key: String, atMost: Int, where isIt: (LogRange) -> Bool
    ) -> MessageSearch {
        guard let index else { return .unknown }
        var query = KeyQuery(
            topic: topic, key: key, limit: atMost, bytesMax: .max, begin: 0, end: .max, allVersions: true)
        do throws(SystemError) {
            var search = index.search(javaHash: query.hash(), maxCount: atMost, begin: 0, end: .max)
            try search.advance(steps: Self.findSteps)
            var bytes = 0
            var last: PhysicalOffset?
            // A key that a message repeats has an entry for each time.
            for offset in search.found where offset != last {
                last = offset
                guard let range = lookMessage(at: offset) else { continue }
                guard bytes <= Self.findBytes else { return .unknown }
                bytes += range.length
                if holds(range, &query), isIt(range) { return .found }
            }
            return search.isDone && search.found.count < atMost ? .none : .unknown
        } catch {
            logger.error(
                "searching the index failed, outcomes of transactions given up are refused until it works: \(error)")
            return .unknown
        }
    }

    private func holds(_ range: LogRange, _ query: inout KeyQuery) -> Bool {
        let (begin, end, allVersions) = (query.begin, query.end, query.allVersions)
        var isSuperseded = false
        defer { if isSuperseded { query.superseded += 1 } }
        return query.topic.withUTF8 { topic in
            query.key.withUTF8 { key in
                let key = UnsafeRawBufferPointer(key)
                return windows.withBytes(at: range.start, size: range.length) { bytes in
                    guard case .record(let record) = CommitLogRecord.parse(bytes),
                        MessageProperties.equal(record.topic, UnsafeRawBufferPointer(topic)),
                        record.storeTimestamp >= begin, record.storeTimestamp <= end
                    else { return false }
                    guard allVersions || standsForItself(record) else {
                        isSuperseded = true
                        return false
                    }
                    if let unique = record.property(PropertyName.uniqueKey), MessageProperties.equal(unique, key) {
                        return true
                    }
                    var isAmong = false
                    if let keys = record.property(PropertyName.keys) {
                        MessageProperties.forEachKey(in: keys) {
                            if MessageProperties.equal($0, key) { isAmong = true }
                        }
                    }
                    return isAmong
                } ?? false
            }
        }
    }
}
