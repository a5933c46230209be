internal import CFilterPlugin
internal import Glibc

/// Bytes somewhere in a message or in a program.
typealias Bytes = UnsafeBufferPointer<UInt8>

@inline(__always)
func sameBytes(_ left: Bytes, _ right: Bytes) -> Bool {
    guard left.count == right.count, let a = left.baseAddress, let b = right.baseAddress else { return false }
    // Most texts of an expression are shorter than the way to memcmp.
    guard left.count <= 8 else { return memcmp(a, b, left.count) == 0 }
    for index in 0..<left.count where a[index] != b[index] { return false }
    return true
}

/// What a message has under one name of a program.
struct Value {
    enum Reading: UInt8 {
        case unread, isNone, isWhole, isDouble
    }

    /// Nil: no such property.
    var start: UnsafePointer<UInt8>?
    var count: Int32 = 0
    /// The text as a number, read when it is first wanted.
    var reading = Reading.unread
    var whole: Int64 = 0
    var double = 0.0

    /// `count` is a former message's when there is no such property.
    var text: Bytes { Bytes(start: start, count: start == nil ? 0 : Int(count)) }
}

/// The names of a program's properties, and the values that the messages of a block have for them. Its memory is made once.
struct Values {
    /// A name, ready to be compared with eight bytes of a message at once.
    private struct Name {
        /// The first eight bytes of the name and the 0x01 behind it, and which bits of them count.
        let head: UInt64
        let mask: UInt64
        let text: Bytes
        /// The next name with the same first byte; -1: none.
        var next: Int32
    }

    /// One message's values, in the order of the names.
    typealias Row = UnsafeMutablePointer<Value>

    /// Messages of a block, one for each bit of a word.
    static let blockSize = 64
    private static let bytes = 256

    private let names: UnsafeMutableBufferPointer<Name>
    /// The first name of each first byte; -1: none.
    private let first: UnsafeMutablePointer<Int32>
    private let slots: UnsafeMutableBufferPointer<Value>

    init(names texts: [String]) {
        first = .allocate(capacity: Self.bytes)
        first.initialize(repeating: -1, count: Self.bytes)
        var names: [Name] = []
        for text in texts {
            let bytes = Array(text.utf8)
            var head: UInt64 = 0
            var mask: UInt64 = 0
            for (place, byte) in (bytes + [1]).prefix(8).enumerated() {
                head |= UInt64(byte) << UInt64(8 * place)
                mask |= 0xFF << UInt64(8 * place)
            }
            var next: Int32 = -1
            if let byte = bytes.first {
                next = first[Int(byte)]
                first[Int(byte)] = Int32(names.count)
            }
            names.append(Name(head: head, mask: mask, text: .copyBytes(bytes), next: next))
        }
        self.names = .copy(names)
        slots = .copy([Value](repeating: Value(), count: max(texts.count, 1) * Self.blockSize))
    }

    func deallocate() {
        for name in names { name.text.deallocate() }
        names.deallocate()
        first.deallocate()
        slots.deallocate()
    }

    /// The values of message `index` of the block.
    @inline(__always)
    func row(_ index: Int) -> Row { slots.baseAddress.unsafelyUnwrapped + index &* names.count }

    /// The distance from a row to the next.
    var stride: Int { names.count }

    /// Finds the values of a block of messages. As in RocketMQ's own decoder, an empty value is none, and the last of several
    /// properties with one name counts.
    @inline(never)
    func gather(_ units: UnsafePointer<apus_filter_unit>, _ count: Int) {
        // By its own copy of the pointers: they stay in registers.
        let values = self
        var row = values.row(0)
        for index in 0..<count {
            values.gather(row, units + index)
            row += values.stride
        }
    }

    @inline(__always)
    private func gather(_ row: Row, _ unit: UnsafePointer<apus_filter_unit>) {
        for place in 0..<names.count {
            row[place].start = nil
            row[place].reading = .unread
        }
        guard let start = unit.pointee.properties else { return }
        let size = Int(unit.pointee.properties_size)
        var at = 0
        var from = 0
        while from < size {
            var marks = apus_filter_marks(start, size, from, 2)
            while marks != 0 {
                let stop = from &+ marks.trailingZeroBitCount
                marks &= marks &- 1
                take(row, start, at, stop, size)
                at = stop &+ 1
            }
            from &+= 64
        }
        if at < size { take(row, start, at, size, size) }
    }

    /// The property `at ..< stop` of a message of `size` bytes.
    @inline(__always)
    private func take(_ row: Row, _ start: UnsafePointer<UInt8>, _ at: Int, _ stop: Int, _ size: Int) {
        guard at < stop else { return }
        var place = first[Int(start[at])]
        guard place >= 0 else { return }
        let head = Self.head(start, at, size)
        repeat {
            let name = names.baseAddress.unsafelyUnwrapped + Int(place)
            let value = at &+ name.pointee.text.count &+ 1
            if (head ^ name.pointee.head) & name.pointee.mask == 0, value < stop,
                name.pointee.text.count < 8 || Self.holds(name.pointee.text, start + at)
            {
                row[Int(place)].start = start + value
                row[Int(place)].count = Int32(truncatingIfNeeded: stop &- value)
                return
            }
            place = name.pointee.next
        } while place >= 0
    }

    private static func holds(_ name: Bytes, _ bytes: UnsafePointer<UInt8>) -> Bool {
        guard let text = name.baseAddress else { return false }
        return bytes[name.count] == 1 && memcmp(bytes, text, name.count) == 0
    }

    /// Eight bytes from `at` on, the first one lowest; zeros for those behind the end.
    @inline(__always)
    private static func head(_ start: UnsafePointer<UInt8>, _ at: Int, _ size: Int) -> UInt64 {
        let bytes = UnsafeRawPointer(start)
        if at &+ 8 <= size { return UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: at, as: UInt64.self)) }
        if size >= 8 {
            let last = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: size &- 8, as: UInt64.self))
            return last &>> UInt64(truncatingIfNeeded: 8 &* (at &+ 8 &- size))
        }
        var head: UInt64 = 0
        for place in at..<size { head |= UInt64(start[place]) &<< UInt64(truncatingIfNeeded: 8 &* (place &- at)) }
        return head
    }
}

extension UnsafeMutablePointer<Value> {
    /// Whether the value is a number, and which kind; `floor` is where its message's properties begin.
    @inline(__always)
    func reading(_ floor: UnsafePointer<UInt8>?) -> Value.Reading {
        let known = pointee.reading
        return known != .unread ? known : read(floor)
    }

    @inline(__always)
    private func read(_ floor: UnsafePointer<UInt8>?) -> Value.Reading {
        var reading = Value.Reading.isNone
        if let start = pointee.start, let floor {
            let count = Int(pointee.count)
            switch Number.short(start, count, floor) ?? Number(UnsafeRawBufferPointer(start: start, count: count)) {
            case .integer(let whole)?:
                pointee.whole = whole
                reading = .isWhole
            case .double(let double)?:
                pointee.double = double
                reading = .isDouble
            case nil: break
            }
        }
        pointee.reading = reading
        return reading
    }

    func number(_ floor: UnsafePointer<UInt8>?) -> Number? {
        switch reading(floor) {
        case .isWhole: .integer(pointee.whole)
        case .isDouble: .double(pointee.double)
        case .isNone, .unread: nil
        }
    }
}
