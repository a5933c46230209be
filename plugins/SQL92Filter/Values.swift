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
        case unread, isNone, isScaled, isDouble
    }

    /// Nil: no such property.
    var start: UnsafePointer<UInt8>?
    var count: Int32 = 0
    /// The text as a number, read when it is first wanted.
    var reading = Reading.unread
    /// Of `mantissa`, a whole number with 0.
    var decimals: UInt8 = 0
    var mantissa: Int64 = 0
    var double = 0.0

    /// `count` is a former message's when there is no such property.
    var text: Bytes { Bytes(start: start, count: start == nil ? 0 : Int(count)) }
}

/// The names of a program's properties, and the values that the messages of a block have for them. Its memory is made
/// once.
struct Values {
    /// A name; a short one is ready to be compared with eight bytes of a message at once.
    private struct Name {
        let text: Bytes
        /// Bytes of the name and the 0x01 after it.
        let size: Int
        /// These bytes, the first one lowest, and which bits of them count; 0 for a name of more than seven.
        var head: UInt64 = 0
        var mask: UInt64 = 0
        /// The next short name with the same first byte, or one of the ends below.
        var next: Int32 = Values.none
    }

    private static let none: Int32 = -1
    /// There is a long name with this first byte.
    private static let long: Int32 = -2

    /// One message's values, in the order of the names.
    typealias Row = UnsafeMutablePointer<Value>

    /// Messages of a block, one for each bit of a word.
    static let blockSize = 64
    private static let bytes = 256

    private let names: UnsafeMutableBufferPointer<Name>
    /// The first short name of each first byte, or one of the ends.
    private let first: UnsafeMutablePointer<Int32>
    private let slots: UnsafeMutableBufferPointer<Value>

    init(names texts: [String]) {
        first = .allocate(capacity: Self.bytes)
        first.initialize(repeating: Self.none, count: Self.bytes)
        let all = texts.map { Array($0.utf8) }
        for text in all where text.count >= 8 { first[Int(text[0])] = Self.long }
        var names: [Name] = []
        for text in all {
            var name = Name(text: .copyBytes(text), size: text.count + 1)
            if let byte = text.first, text.count < 8 {
                for (place, byte) in (text + [1]).enumerated() {
                    name.head |= UInt64(byte) << UInt64(8 * place)
                    name.mask |= 0xFF << UInt64(8 * place)
                }
                name.next = first[Int(byte)]
                first[Int(byte)] = Int32(names.count)
            }
            names.append(name)
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

    /// Finds the values of a block of messages. As in RocketMQ's own decoder, an empty value is none, and the last of
    /// several properties with one name counts.
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
                // No name begins with 0x02: an empty property is none of them.
                let place = first[Int(start[at])]
                if place != Self.none { find(place, row, start, at, stop, size) }
                at = stop &+ 1
            }
            from &+= 64
        }
        // The last property may do without its 0x02.
        if at < size { find(first[Int(start[at])], row, start, at, size, size) }
    }

    /// The property `at ..< stop` of a message whose properties are `size` bytes; `first` is the first name it may
    /// have.
    @inline(__always)
    private func find(_ first: Int32, _ row: Row, _ start: UnsafePointer<UInt8>, _ at: Int, _ stop: Int, _ size: Int) {
        let names = names.baseAddress.unsafelyUnwrapped
        // Eight bytes at once, the last eight moved down where fewer are left.
        let last = size &- 8
        let head =
            at <= last
            ? Self.head(start + at)
            : last >= 0 ? Self.head(start + last) &>> UInt64(truncatingIfNeeded: 8 &* (at &- last)) : 0
        var place = first
        while place >= 0 {
            let name = names + Int(place)
            let value = at &+ name.pointee.size
            if (head ^ name.pointee.head) & name.pointee.mask == 0, value < stop {
                row[Int(place)].start = start + value
                row[Int(place)].count = Int32(truncatingIfNeeded: stop &- value)
                break
            }
            place = name.pointee.next
        }
        if place == Self.long || last < 0 { take(row, start, at, stop) }
    }

    @inline(__always)
    private static func head(_ bytes: UnsafePointer<UInt8>) -> UInt64 {
        UInt64(littleEndian: UnsafeRawPointer(bytes).loadUnaligned(as: UInt64.self))
    }

    /// The property `at ..< stop` of a message, whatever its name.
    @inline(never)
    private func take(_ row: Row, _ start: UnsafePointer<UInt8>, _ at: Int, _ stop: Int) {
        for (place, name) in names.enumerated() {
            let value = at + name.size
            if value < stop, start[value - 1] == 1, let text = name.text.baseAddress,
                memcmp(start + at, text, name.text.count) == 0
            {
                row[place].start = start + value
                row[place].count = Int32(truncatingIfNeeded: stop - value)
                return
            }
        }
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
            if let scaled = Number.short(start, count, floor) {
                pointee.mantissa = scaled.mantissa
                pointee.decimals = scaled.decimals
                reading = .isScaled
            } else {
                reading = readGeneral(start, count)
            }
        }
        pointee.reading = reading
        return reading
    }

    @inline(never)
    private func readGeneral(_ start: UnsafePointer<UInt8>, _ count: Int) -> Value.Reading {
        switch Number(UnsafeRawBufferPointer(start: start, count: count)) {
        case .integer(let whole)?:
            pointee.mantissa = whole
            pointee.decimals = 0
            return .isScaled
        case .double(let double)?:
            pointee.double = double
            return .isDouble
        case nil: return .isNone
        }
    }

    func number(_ floor: UnsafePointer<UInt8>?) -> Number? {
        switch reading(floor) {
        case .isScaled: Number.Scaled(mantissa: pointee.mantissa, decimals: pointee.decimals).number
        case .isDouble: .double(pointee.double)
        case .isNone, .unread: nil
        }
    }
}
