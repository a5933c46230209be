internal import Glibc

/// The strings of an IN: an open-addressed hash table, at most half full.
struct StringSet {
    private let slots: UnsafeMutableBufferPointer<Bytes>
    private let owner: Owner

    private final class Owner {
        let slots: UnsafeMutableBufferPointer<Bytes>
        init(_ slots: UnsafeMutableBufferPointer<Bytes>) { self.slots = slots }
        deinit {
            for bytes in slots { bytes.deallocate() }
            slots.deallocate()
        }
    }

    init(_ strings: [[UInt8]]) {
        var size = 4
        while size < strings.count * 2 { size *= 2 }
        slots = .copy([Bytes](repeating: Bytes(start: nil, count: 0), count: size))
        owner = Owner(slots)
        for string in strings {
            let copy = Bytes.copyBytes(string)
            var at = Self.hash(copy) & (size - 1)
            var known = false
            while slots[at].baseAddress != nil {
                if sameBytes(slots[at], copy) { known = true }
                at = (at + 1) & (size - 1)
            }
            if known { copy.deallocate() } else { slots[at] = copy }
        }
    }

    func contains(_ value: Bytes) -> Bool {
        // The length of most texts says no; hashing pays off with many strings only.
        if slots.count <= 16 { return slots.contains { $0.count == value.count && sameBytes($0, value) } }
        let mask = slots.count - 1
        var at = Self.hash(value) & mask
        while slots[at].baseAddress != nil {
            if sameBytes(slots[at], value) { return true }
            at = (at + 1) & mask
        }
        return false
    }

    /// FNV-1a.
    private static func hash(_ bytes: Bytes) -> Int {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        return Int(truncatingIfNeeded: hash ^ hash >> 32)
    }
}

extension UnsafeMutableBufferPointer {
    static func copy(_ elements: [Element]) -> Self {
        let buffer = Self.allocate(capacity: elements.count)
        _ = buffer.initialize(from: elements)
        return buffer
    }
}

extension Bytes {
    /// A copy that is never nil, so that an empty text differs from none.
    static func copyBytes(_ bytes: [UInt8]) -> Bytes {
        let start = UnsafeMutablePointer<UInt8>.allocate(capacity: Swift.max(bytes.count, 1))
        start.initialize(repeating: 0, count: Swift.max(bytes.count, 1))
        for (index, byte) in bytes.enumerated() { start[index] = byte }
        return Bytes(start: start, count: bytes.count)
    }
}

/// Which of a program's properties begins a text: chains of names with the same first byte.
struct NameIndex {
    private static let heads = 256
    /// The first name of each first byte, then the next name of each name; -1: none.
    private let chains: UnsafeMutableBufferPointer<Int16>
    private let owner: Owner

    private final class Owner {
        let chains: UnsafeMutableBufferPointer<Int16>
        init(_ chains: UnsafeMutableBufferPointer<Int16>) { self.chains = chains }
        deinit { chains.deallocate() }
    }

    init(_ names: UnsafeMutableBufferPointer<Bytes>) {
        chains = .copy([Int16](repeating: -1, count: Self.heads + names.count))
        owner = Owner(chains)
        for (place, name) in names.enumerated() where !name.isEmpty {
            chains[Self.heads + place] = chains[Int(name[0])]
            chains[Int(name[0])] = Int16(truncatingIfNeeded: place)
        }
    }

    /// The place of the name that `size` bytes begin with, followed by 0x01 and a byte at least; -1: none.
    @inline(__always)
    func find(_ bytes: UnsafePointer<UInt8>, _ size: Int, in names: UnsafeMutableBufferPointer<Bytes>) -> Int {
        var place = Int(chains[Int(bytes[0])])
        while place >= 0 {
            let name = names[place]
            if size > name.count + 1, bytes[name.count] == 1, let start = name.baseAddress,
                name.count == 1 || memcmp(bytes, start, name.count) == 0
            {
                return place
            }
            place = Int(chains[Self.heads + place])
        }
        return -1
    }
}
