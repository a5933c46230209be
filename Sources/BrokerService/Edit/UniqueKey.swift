import Glibc

/// An ID as RocketMQ's producers make them (`MessageClientIDSetter`): 16 bytes in hexadecimal. Tools read the time out
/// of it, milliseconds since the month began.
enum UniqueKey {
    /// - Parameter now: milliseconds since 1970.
    static func make(at now: Int64) -> String {
        var seconds = time_t(now / 1000)
        var local = tm()
        localtime_r(&seconds, &local)
        let days = Int64(local.tm_mday) - 1
        let minutes = Int64(local.tm_hour) * 60 + Int64(local.tm_min)
        let sinceMonth: Int64 = ((days * 1440 + minutes) * 60 + Int64(local.tm_sec)) * 1000 + now % 1000
        var bytes: [UInt8] = []
        func put(_ value: some FixedWidthInteger) { withUnsafeBytes(of: value.bigEndian) { bytes += $0 } }
        // In place of address, process and class loader: no other ID begins like this. Bytes 4 to 7 are where the ID of
        // a position has a port. Tools tell the two apart by that, so they are no port.
        put(UInt64.random(in: 0 ... .max) | 1 << 31)
        put(UInt16.random(in: 0 ... .max))
        put(UInt32(truncatingIfNeeded: sinceMonth))
        put(UInt16.random(in: 0 ... .max))
        let digits = Array("0123456789ABCDEF".utf8)
        var text: [UInt8] = []
        for byte in bytes {
            text.append(digits[Int(byte >> 4)])
            text.append(digits[Int(byte & 15)])
        }
        return String(decoding: text, as: UTF8.self)
    }
}
