import LinuxSystem
import StoreFormat

/// A search in the index that can stop anywhere and go on later. The chain of a popular key may have millions of
/// entries, of which a narrow time window wants none. Files that are deleted meanwhile stay readable for it.
struct IndexSearch {
    /// Candidates, newest first.
    private(set) var found: [PhysicalOffset] = []
    private(set) var isDone = false
    /// The oldest first: the next to be searched is the last.
    private var files: [IndexFile]
    private var nextEntry: Int32?
    private let keyHash: Int32
    private var maxCount: Int
    /// It ended because there were enough, and can go on.
    private var isCut = false
    private let begin: Int64
    private let end: Int64

    init(files: [IndexFile], keyHash: Int32, maxCount: Int, begin: Int64, end: Int64) {
        self.files = files
        self.keyHash = keyHash
        self.maxCount = maxCount
        self.begin = begin
        self.end = end
    }

    /// Looks at no more than so many entries, and at one file at least.
    mutating func advance(steps: Int) throws(SystemError) {
        var steps = steps
        while let file = files.last {
            if file.header.overlaps(begin: begin, end: end) {
                try file.select(
                    keyHash: keyHash, begin: begin, end: end, maxCount: maxCount, at: &nextEntry, steps: &steps,
                    into: &found)
                if nextEntry != nil {
                    isCut = found.count >= maxCount
                    isDone = isCut
                    return
                }
            }
            files.removeLast()
            if file.header.beginTimestamp < begin { break }
            if found.count >= maxCount {
                isCut = !files.isEmpty
                break
            }
            if steps <= 0, !files.isEmpty { return }
        }
        isDone = true
    }

    /// Candidates were found that do not count: looks for as many more.
    /// - Returns: false when there are none.
    mutating func extend(by count: Int) -> Bool {
        guard isCut, count > 0 else { return false }
        isCut = false
        isDone = false
        maxCount += count
        return true
    }
}
