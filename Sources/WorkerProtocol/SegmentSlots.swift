/// The slots of 8 bytes in the segment `watermarks`. Written by broker-store alone, read by replication and filter.
/// `ready` is stored last after a start and set to 0 first on the way down; the event `watermarks` is signalled at the end of a
/// tick in which `written` moved while a slave is connected, and when `ready` changes.
package enum WatermarkSlot {
    package static let magic = 0
    /// Starts of broker-store so far.
    package static let generation = 1
    /// End of what may be read of the commit log: a physical offset. Final below it.
    package static let written = 2
    /// End of what survives power loss.
    package static let flushed = 3
    /// Physical offset of the first byte that is kept.
    package static let minimum = 4
    /// `mappedFileSizeCommitLog`: bytes of a commit log file.
    package static let fileSize = 5
    /// 1 while the store is open (recovered) and the slots above are true.
    package static let ready = 6
    package static let count = 8
    /// "APUSWMK1"
    package static let magicValue: UInt64 = 0x4150_5553_574D_4B31
}

/// The slots of the segment `replication`. Written by replication alone, read by broker-store, which is woken by the
/// event `replication` when a slot changed.
package enum ReplicationSlot {
    package static let magic = 0
    /// While it is 0 nobody waits for the log: broker-store does not signal that `written` moved. Whoever raises it looks at
    /// `written` after a fence (`SharedSegment.fence`), as broker-store looks here after it has stored `written`.
    package static let connectedSlaves = 1
    /// The most any slave has said it has: a physical offset. Never goes back while a replication worker lives.
    package static let slaveAckOffset = 2
    /// Milliseconds since 1970 of the last report of any slave.
    package static let lastAckMilliseconds = 3
    package static let count = 8
    /// "APUSREP1"
    package static let magicValue: UInt64 = 0x4150_5553_5245_5031
}
