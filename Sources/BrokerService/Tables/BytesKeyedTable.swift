import Glibc
import MessageModel

/// A hash table keyed by bytes and looked up with borrowed bytes. So a topic or a group is found by the name in a
/// request without a `String`. Open addressing, linear probing. The hash is seeded per table because names come from
/// the network.
struct BytesKeyedTable<Value> {
    private struct Entry {
        var hash: UInt64
        var key: [UInt8]
        var value: Value
    }

    private var entries: [Entry] = []
    /// Index of an entry plus one; 0 is free. Always a power of two and at least twice as long as `entries`.
    private var slots: [Int32]
    private let hashing = BytesHash()
    /// Counts removals: each moves an entry to another place.
    private(set) var removals = 0

    /// Small: there is one in each of what may be ten thousand groups.
    private static var initialSlots: Int { 4 }

    init() {
        slots = [Int32](repeating: 0, count: Self.initialSlots)
    }

    var count: Int { entries.count }
    var values: [Value] { entries.map(\.value) }

    /// The values in some of the places `0..<count`; they stay in place until one is removed.
    func values(in places: Range<Int>) -> [Value] {
        entries[places.clamped(to: entries.indices)].map(\.value)
    }

    /// The value in one of the places `0..<count`.
    func value(at place: Int) -> Value { entries[place].value }

    private func hash(_ key: UnsafeRawBufferPointer) -> UInt64 { hashing.hash(key) }

    private func find(_ key: UnsafeRawBufferPointer, _ hash: UInt64) -> Int? {
        let mask = slots.count - 1
        var slot = Int(truncatingIfNeeded: hash) & mask
        while slots[slot] != 0 {
            let index = Int(slots[slot]) - 1
            if entries[index].hash == hash, entries[index].key.count == key.count {
                let same = entries[index].key.withUnsafeBytes { stored in
                    guard let left = stored.baseAddress, let right = key.baseAddress else { return true }
                    return memcmp(left, right, key.count) == 0
                }
                if same { return index }
            }
            slot = (slot + 1) & mask
        }
        return nil
    }

    subscript(key: UnsafeRawBufferPointer) -> Value? {
        guard let index = find(key, hash(key)) else { return nil }
        return entries[index].value
    }

    subscript(key: String) -> Value? {
        get {
            var key = key
            return key.withUTF8 { self[UnsafeRawBufferPointer($0)] }
        }
        set {
            let bytes = Array(key.utf8)
            let hash = bytes.withUnsafeBytes { self.hash($0) }
            let found = bytes.withUnsafeBytes { find($0, hash) }
            switch (found, newValue) {
            case (let index?, let value?): entries[index].value = value
            case (let index?, nil): remove(index)
            case (nil, let value?):
                entries.append(Entry(hash: hash, key: bytes, value: value))
                if entries.count * 2 > slots.count {
                    rebuild(slots.count * 2)
                } else {
                    place(entries.count - 1)
                }
            case (nil, nil): break
            }
        }
    }

    mutating func removeAll() {
        removals += 1
        entries.removeAll()
        rebuild(Self.initialSlots)
    }

    /// The slot that holds an entry's index.
    private func slot(of index: Int) -> Int {
        let mask = slots.count - 1
        var slot = Int(truncatingIfNeeded: entries[index].hash) & mask
        while slots[slot] != Int32(index + 1) { slot = (slot + 1) & mask }
        return slot
    }

    private mutating func remove(_ index: Int) {
        removals += 1
        let mask = slots.count - 1
        var free = slot(of: index)
        let last = entries.count - 1
        if index < last {
            slots[slot(of: last)] = Int32(index + 1)
            entries.swapAt(index, last)
        }
        entries.removeLast()
        // Entries after the gap that a search would no longer reach move into it.
        var slot = (free + 1) & mask
        while slots[slot] != 0 {
            let home = Int(truncatingIfNeeded: entries[Int(slots[slot]) - 1].hash) & mask
            if (slot - home) & mask >= (slot - free) & mask {
                slots[free] = slots[slot]
                free = slot
            }
            slot = (slot + 1) & mask
        }
        slots[free] = 0
    }

    private mutating func place(_ index: Int) {
        let mask = slots.count - 1
        var slot = Int(truncatingIfNeeded: entries[index].hash) & mask
        while slots[slot] != 0 { slot = (slot + 1) & mask }
        slots[slot] = Int32(index + 1)
    }

    private mutating func rebuild(_ size: Int) {
        slots = [Int32](repeating: 0, count: size)
        for index in entries.indices { place(index) }
    }
}
