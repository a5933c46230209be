/// Queue entries that were read to be asked about, and are kept to be answered with. All that are kept together are
/// bounded by an `EntryMemory`. Confined to the store's thread.
package final class KeptEntries {
    let bytes: [UInt8]
    private let memory: EntryMemory

    fileprivate init(_ bytes: [UInt8], _ memory: EntryMemory) {
        self.bytes = bytes
        self.memory = memory
        memory.used += bytes.count
    }

    deinit { memory.used -= bytes.count }
}

/// Bounds what is kept of queue entries.
package final class EntryMemory {
    /// Bytes.
    package let maximum: Int
    /// Bytes kept.
    package fileprivate(set) var used = 0

    /// - Parameter maximum: bytes.
    package init(maximum: Int) { self.maximum = maximum }

    /// Nil when there is no room: then they are read once more when they are needed.
    package func keep(_ entries: [UInt8]) -> KeptEntries? {
        entries.count <= maximum - used ? KeptEntries(entries, self) : nil
    }
}
