/// The `checkpoint` file (`StoreCheckpoint`): 4096 bytes, three times in milliseconds, big-endian, the rest zero.
package struct StoreCheckpointLayout: Equatable, Sendable {
    /// Bytes.
    package static let fileSize = 4096

    /// Messages stored up to here are on disk in the commit log.
    package var physicMsgTimestamp: Int64 = 0
    /// … in the consume queues.
    package var logicsMsgTimestamp: Int64 = 0
    /// … in the index files.
    package var indexMsgTimestamp: Int64 = 0

    /// Covers nothing.
    package init() {}

    /// Nil when the bytes are too few.
    package init?(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count >= 24, let base = bytes.baseAddress else { return nil }
        physicMsgTimestamp = BigEndian.load(base, 0, as: Int64.self)
        logicsMsgTimestamp = BigEndian.load(base, 8, as: Int64.self)
        indexMsgTimestamp = BigEndian.load(base, 16, as: Int64.self)
    }

    /// The whole file, `fileSize` bytes.
    package func encoded() -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.fileSize)
        bytes.withUnsafeMutableBytes { buffer in
            guard let base = buffer.baseAddress else { return }
            BigEndian.store(physicMsgTimestamp, base, 0)
            BigEndian.store(logicsMsgTimestamp, base, 8)
            BigEndian.store(indexMsgTimestamp, base, 16)
        }
        return bytes
    }

    /// RocketMQ's recovery starts at the last file whose first message is not newer than this (3 s of slack).
    package var minTimestamp: Int64 {
        max(3000, min(physicMsgTimestamp, logicsMsgTimestamp)) - 3000
    }
}
