/// The 64-bit number a consume queue keeps for a message's tags. It is Java's `String.hashCode` of the tags
/// (`s0*31^(n-1) + …` over UTF-16 units, 32-bit wrap-around), sign-extended; 0 for no tags. In `SCHEDULE_TOPIC_XXXX` it
/// is the deliver time instead.
package enum TagsCode {
    /// Of the UTF-8 bytes of a tags property.
    package static func of(_ tags: UnsafeRawBufferPointer) -> Int64 {
        Int64(JavaHash.hash(tags, continuing: 0))
    }

    /// Of a tags property.
    package static func of(_ tags: String) -> Int64 {
        var tags = tags
        return tags.withUTF8 { of(UnsafeRawBufferPointer($0)) }
    }
}

/// Java's `String.hashCode` computed from UTF-8, without making a string.
package enum JavaHash {
    /// Goes on with a hash over more text. Malformed UTF-8 counts as U+FFFD per bad byte, as Java's decoder replaces
    /// it.
    @inlinable
    package static func hash(_ text: UnsafeRawBufferPointer, continuing start: Int32) -> Int32 {
        var hash = start
        var index = 0
        let count = text.count
        while index < count {
            let byte = text[index]
            if byte < 0x80 {
                hash = hash &* 31 &+ Int32(byte)
                index += 1
            } else {
                index += wide(text, index, &hash)
            }
        }
        return hash
    }

    @usableFromInline
    static func wide(_ text: UnsafeRawBufferPointer, _ index: Int, _ hash: inout Int32) -> Int {
        let first = text[index]
        func continuation(_ offset: Int) -> UInt32? {
            let at = index + offset
            guard at < text.count, text[at] & 0xC0 == 0x80 else { return nil }
            return UInt32(text[at] & 0x3F)
        }
        if first >= 0xC2, first < 0xE0, let second = continuation(1) {
            hash = hash &* 31 &+ Int32((UInt32(first & 0x1F) << 6) | second)
            return 2
        }
        if first & 0xF0 == 0xE0, let second = continuation(1), let third = continuation(2) {
            hash = hash &* 31 &+ Int32((UInt32(first & 0x0F) << 12) | (second << 6) | third)
            return 3
        }
        if first >= 0xF0, first < 0xF5, let second = continuation(1), let third = continuation(2),
            let fourth = continuation(3)
        {
            let scalar = ((UInt32(first & 0x07) << 18) | (second << 12) | (third << 6) | fourth) &- 0x10000
            hash = hash &* 31 &+ Int32(0xD800 + (scalar >> 10))
            hash = hash &* 31 &+ Int32(0xDC00 + (scalar & 0x3FF))
            return 4
        }
        hash = hash &* 31 &+ 0xFFFD
        return 1
    }
}
