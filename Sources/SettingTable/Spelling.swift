/// The known name that an unknown one was meant to be.
package enum Spelling {
    /// Bytes of a word for which a name is looked for: the search costs their product with all names.
    package static let bytesMax = 64

    /// The name that has the same letters in other case, or at most two of them wrong, missing or too many. Of several
    /// such names it is the nearest. It is nil when none is near, or when the word has more than `bytesMax` bytes.
    package static func nearest(
        to word: String, among names: some Sequence<String>, bytesMax: Int = Self.bytesMax
    ) -> String? {
        guard word.utf8.count <= bytesMax else { return nil }
        let letters = Array(word.lowercased().utf8)
        let near = names.compactMap { name -> (String, Int)? in
            let other = Array(name.lowercased().utf8)
            // So many letters are missing or too many.
            guard abs(other.count - letters.count) <= wrongMax else { return nil }
            return (name, distance(letters, other))
        }.min { ($0.1, $0.0) < ($1.1, $1.0) }
        // Of short words nearly everything is near.
        guard let (name, wrong) = near, wrong <= min(wrongMax, letters.count / 3) else { return nil }
        return name
    }

    private static let wrongMax = 2

    /// Letters to change, add or leave out; two that changed places count as one (Damerau).
    private static func distance(_ one: [UInt8], _ other: [UInt8]) -> Int {
        var before: [Int] = []
        var last = Array(0...other.count)
        for (place, letter) in one.enumerated() {
            var row = [place + 1]
            for index in other.indices {
                var cost = min(last[index] + (letter == other[index] ? 0 : 1), last[index + 1] + 1, row[index] + 1)
                if place > 0, index > 0, letter == other[index - 1], one[place - 1] == other[index] {
                    cost = min(cost, before[index - 1] + 1)
                }
                row.append(cost)
            }
            (before, last) = (last, row)
        }
        return last[other.count]
    }
}
