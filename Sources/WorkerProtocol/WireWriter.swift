/// Big-endian fields, appended to a byte array.
struct WireWriter {
    var bytes: [UInt8] = []
    /// What follows `bytes`.
    private(set) var tail: [UInt8] = []

    mutating func integer<T: FixedWidthInteger>(_ value: T) {
        withUnsafeBytes(of: value.bigEndian) { bytes.append(contentsOf: $0) }
    }

    mutating func bool(_ value: Bool) { bytes.append(value ? 1 : 0) }

    mutating func blob(_ value: [UInt8]) {
        integer(UInt32(value.count))
        bytes.append(contentsOf: value)
    }

    /// A blob that is the message's last field.
    mutating func lastBlob(_ value: [UInt8]) {
        integer(UInt32(value.count))
        tail = value
    }

    mutating func string(_ value: String) {
        var value = value
        value.withUTF8 {
            integer(UInt32($0.count))
            bytes.append(contentsOf: $0)
        }
    }

    mutating func settings(_ value: Settings) {
        let pairs = value.sorted
        integer(UInt32(pairs.count))
        for (key, value) in pairs {
            string(key)
            string(value)
        }
    }

    mutating func strings(_ value: [String]) {
        integer(UInt32(value.count))
        for item in value { string(item) }
    }
}

/// Why bytes are not a `WorkerMessage`.
package enum WorkerMessageError: Error, Hashable, Sendable, CustomStringConvertible {
    case truncated
    case trailingBytes(Int)
    case unknownVersion(UInt8)
    case unknownMessage(UInt8)
    case invalidField(String)
    case tooLong(Int)

    package var description: String {
        switch self {
        case .truncated: "the message ends early"
        case .trailingBytes(let count): "\(count) bytes follow the message"
        case .unknownVersion(let version):
            """
            version \(version) instead of \(WorkerMessage.version): programs of different builds are mixed; reinstall \
            and restart
            """
        case .unknownMessage(let tag): "unknown message \(tag)"
        case .invalidField(let name): "invalid \(name)"
        case .tooLong(let bytes): "a message of \(bytes) bytes is longer than allowed"
        }
    }
}

/// Reads what `WireWriter` wrote; never reads outside `bytes`, never allocates more than they can hold.
struct WireReader {
    var bytes: UnsafeRawBufferPointer
    var at = 0

    var remaining: Int { bytes.count - at }

    mutating func integer<T: FixedWidthInteger>(_ type: T.Type = T.self) throws(WorkerMessageError) -> T {
        guard remaining >= MemoryLayout<T>.size else { throw .truncated }
        defer { at += MemoryLayout<T>.size }
        return T(bigEndian: bytes.loadUnaligned(fromByteOffset: at, as: T.self))
    }

    mutating func bool() throws(WorkerMessageError) -> Bool {
        switch try integer(UInt8.self) {
        case 0: return false
        case 1: return true
        default: throw .invalidField("bool")
        }
    }

    /// A count of items of at least `size` bytes each.
    mutating func count(of size: Int) throws(WorkerMessageError) -> Int {
        let count = Int(try integer(UInt32.self))
        guard count * size <= remaining else { throw .truncated }
        return count
    }

    private mutating func piece() throws(WorkerMessageError) -> UnsafeRawBufferPointer {
        let count = try count(of: 1)
        defer { at += count }
        return UnsafeRawBufferPointer(rebasing: bytes[at..<at + count])
    }

    mutating func blob() throws(WorkerMessageError) -> [UInt8] { [UInt8](try piece()) }

    mutating func string() throws(WorkerMessageError) -> String {
        guard let text = String(validating: try piece(), as: UTF8.self) else { throw .invalidField("UTF-8") }
        return text
    }

    mutating func settings() throws(WorkerMessageError) -> Settings {
        let count = try count(of: 8)
        var values = [String: String](minimumCapacity: count)
        for _ in 0..<count {
            let key = try string()
            values[key] = try string()
        }
        return Settings(values)
    }

    mutating func strings() throws(WorkerMessageError) -> [String] {
        let count = try count(of: 4)
        var items: [String] = []
        items.reserveCapacity(count)
        for _ in 0..<count { items.append(try string()) }
        return items
    }

    mutating func kind() throws(WorkerMessageError) -> WorkerKind {
        let name = try string()
        guard (1...WorkerKind.bytesMax).contains(name.utf8.count) else { throw .invalidField("worker kind") }
        return WorkerKind(rawValue: name)
    }
}
