import RemotingProtocol
import StoreFormat

/// The body of a batch as it arrived. The official C++ client compresses the encoded batch as if it were one message's
/// body (from 4 KiB on) and sets the system flag. RocketMQ's other clients send batches as they are. A compressed batch
/// is taken apart here, so that every client can read its messages.
enum BatchBody {
    /// The frame's bytes are the encoded messages.
    case plain
    /// These are; the messages in it are not compressed.
    case inflated([UInt8])
    /// Nothing in it can be read; why, as a text for the sender.
    case refused(String)

    private static let lz4Magic: [UInt8] = [0x04, 0x22, 0x4D, 0x18]
    private static let zstdMagic: [UInt8] = [0x28, 0xB5, 0x2F, 0xFD]

    /// - Parameter bytesMax: what the batch may hold when it is inflated; more is refused as soon as it is seen.
    init(_ body: UnsafeRawBufferPointer, sysFlag: Int32, bytesMax: Int) {
        guard sysFlag & SysFlag.compressed != 0 else {
            self = .plain
            return
        }
        for (name, magic) in [("LZ4", Self.lz4Magic), ("ZSTD", Self.zstdMagic)] where body.starts(with: magic) {
            self = .refused("it is compressed with \(name); send batches as they are, or compressed with ZLIB")
            return
        }
        // A plain batch begins with the size of its first message, which no zlib header looks like. Its bodies may be
        // compressed one by one; then the flag is theirs.
        guard Self.isZlib(body) else {
            self = .plain
            return
        }
        do throws(ZlibError) {
            self = .inflated(try Zlib.inflate(body, bytesMax: bytesMax))
        } catch {
            self = .refused("\(error)")
        }
    }

    /// RFC 1950: the method is 8 (deflate), and the first two bytes are a multiple of 31.
    private static func isZlib(_ body: UnsafeRawBufferPointer) -> Bool {
        guard body.count >= 2, body[0] & 0x0F == 8 else { return false }
        return (Int(body[0]) << 8 | Int(body[1])) % 31 == 0
    }
}
