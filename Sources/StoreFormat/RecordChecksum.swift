import CLinux

/// Checksums of whole records beside the log, ours alone: RocketMQ's CRC covers the body only.
///
/// A file `recordsums/<name of the log file>` is a table. It has a slot of 4 bytes, big-endian, for each 64 bytes of
/// its log file. The slot is the CRC-32 of the record that begins in them, 1 when that is 0; it is 0 for none or
/// unknown. No two records begin in the same 64 bytes, because the smallest is larger. The file ends after the last
/// checksum.
package enum RecordChecksum {
    /// Bytes of the log that share a slot.
    @inlinable package static var stride: Int64 { 64 }
    /// Bytes of a checksum.
    @inlinable package static var size: Int { 4 }

    /// Of a whole record; never 0.
    @inline(__always)
    package static func of(_ record: UnsafeRawBufferPointer) -> UInt32 {
        let crc = apus_crc32(record.baseAddress, record.count)
        return crc == 0 ? 1 : crc
    }

    /// Where the checksum of the record that begins at `offset` of its log file lies in the table, bytes.
    @inline(__always)
    package static func position(_ offset: Int64) -> Int64 { offset / stride * Int64(size) }
}
