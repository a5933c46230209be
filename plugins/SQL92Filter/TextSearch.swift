internal import Glibc

/// Whether a text lies in another one. A search takes about as many steps as both have bytes, also for texts made to be
/// slow. An expression or a message that took longer would use up the time of every filter.
enum TextSearch {
    /// Bytes of a searched text that is compared place by place.
    private static let shortBytes = 16

    /// For each beginning of a text, the length of the longest other beginning that it ends with (Knuth, Morris and
    /// Pratt). Where a comparison fails, the search goes on from there, and never back in the value. Empty for a short
    /// text.
    static func borders(of search: [UInt8]) -> [Int32] {
        guard search.count > shortBytes else { return [] }
        var borders = [Int32](repeating: 0, count: search.count)
        var matched = 0
        for place in 1..<search.count {
            while matched > 0, search[place] != search[matched] { matched = Int(borders[matched - 1]) }
            if search[place] == search[matched] { matched += 1 }
            borders[place] = Int32(matched)
        }
        return borders
    }

    /// - Parameters:
    ///   - search: not empty.
    ///   - borders: of `search`.
    static func contains(_ value: Bytes, _ search: Bytes, _ borders: UnsafeBufferPointer<Int32>) -> Bool {
        guard let wanted = search.baseAddress, let start = value.baseAddress, value.count >= search.count else {
            return false
        }
        return borders.isEmpty
            ? placeByPlace(start, value.count, wanted, search.count)
            : onward(start, value.count, wanted, search.count, borders)
    }

    private static func placeByPlace(
        _ start: UnsafePointer<UInt8>, _ count: Int, _ wanted: UnsafePointer<UInt8>, _ size: Int
    ) -> Bool {
        var at = start
        let last = start + (count - size)
        while at <= last, let hit = memchr(at, Int32(wanted[0]), last - at + 1) {
            let place = UnsafePointer(hit.assumingMemoryBound(to: UInt8.self))
            if memcmp(place, wanted, size) == 0 { return true }
            at = place + 1
        }
        return false
    }

    private static func onward(
        _ start: UnsafePointer<UInt8>, _ count: Int, _ wanted: UnsafePointer<UInt8>, _ size: Int,
        _ borders: UnsafeBufferPointer<Int32>
    ) -> Bool {
        var at = 0
        var matched = 0
        while count - at >= size - matched {
            if matched == 0 {
                guard let hit = memchr(start + at, Int32(wanted[0]), count - at) else { return false }
                at = UnsafePointer(hit.assumingMemoryBound(to: UInt8.self)) - start + 1
                matched = 1
            } else if start[at] == wanted[matched] {
                at += 1
                matched += 1
                if matched == size { return true }
            } else {
                matched = Int(borders[matched - 1])
            }
        }
        return false
    }
}
