import CZlib

/// Why a zlib stream cannot be inflated.
package enum ZlibError: Error, Equatable, Sendable, CustomStringConvertible {
    case corrupt
    case truncated
    case tooLarge(bytesMax: Int)

    package var description: String {
        switch self {
        case .corrupt: "the zlib stream is corrupt"
        case .truncated: "the zlib stream ends early"
        case .tooLarge(let bytesMax): "the zlib stream inflates to more than \(bytesMax) bytes"
        }
    }
}

/// What Java's `Deflater`, `Inflater` and `CRC32` do.
package enum Zlib {
    /// Compresses with zlib header, `Deflater.BEST_COMPRESSION` unless `level` names another.
    package static func deflate(_ bytes: [UInt8], level: Int32 = 9) -> [UInt8] {
        var count = compressBound(uLong(bytes.count))
        var output = [UInt8](repeating: 0, count: Int(count))
        let result = compress2(&output, &count, bytes, uLong(bytes.count), level)
        precondition(result == Z_OK, "compress2 failed (\(result)) although the output has room")
        output.removeLast(output.count - Int(count))
        return output
    }

    /// Inflates a whole stream; bytes after its end are skipped. `bytesMax` bounds the result.
    /// - Throws: `corrupt`; `truncated` when the stream has no end; `tooLarge` above `bytesMax`.
    package static func inflate(_ bytes: UnsafeRawBufferPointer, bytesMax: Int) throws(ZlibError) -> [UInt8] {
        var stream = z_stream()
        let version = inflateInit_(&stream, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size))
        precondition(version == Z_OK, "inflateInit failed (\(version))")
        defer { inflateEnd(&stream) }
        stream.next_in = UnsafeMutablePointer(
            mutating: bytes.baseAddress?.assumingMemoryBound(to: UInt8.self))
        stream.avail_in = UInt32(bytes.count)
        var output: [UInt8] = []
        while true {
            var result: Int32 = Z_OK
            let room = 64 << 10
            let chunk = [UInt8](unsafeUninitializedCapacity: room) { memory, count in
                stream.next_out = memory.baseAddress
                stream.avail_out = UInt32(room)
                result = CZlib.inflate(&stream, Z_NO_FLUSH)
                count = room - Int(stream.avail_out)
            }
            output.append(contentsOf: chunk)
            guard output.count <= bytesMax else { throw .tooLarge(bytesMax: bytesMax) }
            switch result {
            case Z_STREAM_END: return output
            case Z_OK where stream.avail_in > 0 || stream.avail_out == 0: continue
            case Z_OK, Z_BUF_ERROR: throw .truncated
            default: throw .corrupt
            }
        }
    }

    /// `UtilAll.crc32`: CRC-32 without its sign bit.
    package static func crc32(_ bytes: UnsafeRawBufferPointer) -> Int32 {
        let value = CZlib.crc32_z(
            0, bytes.baseAddress?.assumingMemoryBound(to: UInt8.self), bytes.count)
        return Int32(truncatingIfNeeded: value & 0x7fff_ffff)
    }
}
