/// What concerns many pairs of topic and group at once.
extension ConsumerOffsetManager {
    /// Pairs of a deleted topic or group that leave in one slice.
    static let leavingPerSlice = 512

    /// What is to be made a text of; at once for a table of ordinary size.
    func copied(in slices: SlicedWork, then: @escaping ([Copy?]) -> Void) {
        TableCopy.make(in: slices, table: { self.tables }, Self.copy, then: then)
    }

    /// Offsets of the topic count no more at once, and leave the table in slices.
    func remove(topic: String, in slices: SlicedWork) { remove(forget(topic: topic), in: slices) }

    /// The same for a group.
    func remove(group: String, in slices: SlicedWork) { remove(forget(group: group), in: slices) }

    private func remove(_ gone: [Table], in slices: SlicedWork) {
        var left = gone[...]
        let slice = { [self] () -> Bool in
            for table in left.prefix(Self.leavingPerSlice) { remove(table) }
            left = left.dropFirst(Self.leavingPerSlice)
            return !left.isEmpty
        }
        if slice() { slices.add(slice) }
    }

    /// Replaces the whole table by its master's, as a slave does, in slices.
    func replace(by read: Entries, in slices: SlicedWork, then: @escaping () -> Void) {
        replacements += 1
        let mine = replacements
        let target = TableReplacement.Target<Entry>(
            put: { [self] entry in set(entry) },
            count: { [self] in tables.count },
            removeUnlessKept: { [self] place in
                let table = tables.value(at: place)
                if !read.keys.contains(table.topic + Self.separator + table.group) { remove(table) }
            })
        TableReplacement.run(
            read.entries, into: target, in: slices, while: { [self] in replacements == mine }
        ) { [self] in
            markChanged()
            then()
        }
    }
}
