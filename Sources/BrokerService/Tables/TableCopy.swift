import FastJSON
import RemotingProtocol

/// Copies a large table in slices of several turns of the event loop: what another thread makes a text of. What changes
/// while it is copied may be in the copy or not; the one that must not miss it copies again. Entries keep their place
/// until one is removed: then the copy begins anew, and after a few attempts is made in one go.
enum TableCopy {
    /// Entries copied in one slice.
    static let entriesPerSlice = 4096
    private static let attemptsMax = 4

    /// - Parameter then: called at once when the table fits into one slice.
    static func make<Value, Copy>(
        in slices: SlicedWork, table: @escaping () -> BytesKeyedTable<Value>, _ copy: @escaping (Value) -> Copy,
        then: @escaping ([Copy]) -> Void
    ) {
        var copies: [Copy] = []
        var removals = table().removals
        var attempts = 1
        func slice() -> Bool {
            let table = table()
            if table.removals != removals {
                removals = table.removals
                copies.removeAll(keepingCapacity: true)
                attempts += 1
            }
            let end = attempts < attemptsMax ? copies.count + entriesPerSlice : table.count
            for value in table.values(in: copies.count..<max(end, copies.count)) { copies.append(copy(value)) }
            guard copies.count < table.count else {
                then(copies)
                return false
            }
            return true
        }
        if slice() { slices.add(slice) }
    }
}
