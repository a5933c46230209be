import MessageStore

/// Replaces a table by one that was read on another thread, in slices of several turns of the event loop. It goes entry
/// by entry; then what the other table does not have goes. Meanwhile some entries are old and others new. Confined to
/// the broker's event loop.
enum TableReplacement {
    /// Entries entered or looked at in one slice.
    static let entriesPerSlice = 1024

    /// What the table to be replaced does.
    struct Target<Entry> {
        var put: (Entry) -> Void
        var count: () -> Int
        /// Removes what stands in a place when the new table does not have it. The last entry may come to that place.
        var removeUnlessKept: (_ place: Int) -> Void
    }

    /// - Parameters:
    ///   - isLatest: `false` ends it: a later one has begun, which replaces everything.
    ///   - then: called when all is done, at once for a table of one slice.
    static func run<Entry>(
        _ entries: [Entry], into target: Target<Entry>, in slices: SlicedWork, while isLatest: @escaping () -> Bool,
        then: @escaping () -> Void
    ) {
        var left = entries[...]
        var next: Int?
        let slice = { () -> Bool in
            guard isLatest() else { return false }
            var budget = entriesPerSlice
            while budget > 0, let entry = left.popFirst() {
                budget -= 1
                target.put(entry)
            }
            // From the end on: a removal moves only what has been looked at.
            var place = min(next ?? target.count(), target.count())
            while left.isEmpty, budget > 0, place > 0 {
                budget -= 1
                place -= 1
                target.removeUnlessKept(place)
            }
            guard left.isEmpty else { return true }
            next = place
            guard place == 0 else { return true }
            then()
            return false
        }
        if slice() { slices.add(slice) }
    }
}
