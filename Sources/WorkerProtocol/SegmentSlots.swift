/// The slots of 8 bytes in the segment `watermarks`. Written by broker-store alone, read by replication and filter.
/// `ready` is stored last after a start and set to 0 first on the way down. The event `watermarks` is signalled when
/// `ready` changes, and at the end of a tick in which `written` moved while a slave is connected.
package enum WatermarkSlot {
    /// `magicValue`, once the segment is laid out.
    @inlinable package static var magic: Int { 0 }
    /// Starts of broker-store so far.
    @inlinable package static var generation: Int { 1 }
    /// End of what may be read of the commit log: a physical offset. Final below it.
    @inlinable package static var written: Int { 2 }
    /// End of what survives power loss.
    @inlinable package static var flushed: Int { 3 }
    /// Physical offset of the first byte that is kept.
    @inlinable package static var minimum: Int { 4 }
    /// `mappedFileSizeCommitLog`: bytes of a commit log file.
    @inlinable package static var fileSize: Int { 5 }
    /// 1 while the store is open (recovered) and the slots above are true.
    @inlinable package static var ready: Int { 6 }
    /// Slots of the segment; the last one is spare.
    @inlinable package static var count: Int { 8 }
    /// "APUSWMK1"
    package static let magicValue: UInt64 = 0x4150_5553_574D_4B31
}

/// The slots of the segment `replication`. Written by replication alone, read by broker-store, which is woken by the
/// event `replication` when a slot changed.
package enum ReplicationSlot {
    /// `magicValue`, once the segment is laid out.
    @inlinable package static var magic: Int { 0 }
    /// Slaves that have reported what fits the log. While it is 0 none waits for the log: broker-store does not signal
    /// that `written` moved. The replication worker that raises it looks at `written` after a fence
    /// (`SharedSegment.fence`), as broker-store looks here after it has stored `written`.
    @inlinable package static var connectedSlaves: Int { 1 }
    /// The most any slave has reported it has: a physical offset. Goes back only when broker-store or replication has
    /// started again: the log may be shorter. Until that was looked at it is 0, or 2^63-1: it is not known.
    @inlinable package static var slaveAckOffset: Int { 2 }
    /// Milliseconds since 1970 of the last report of any slave.
    @inlinable package static var lastAckMilliseconds: Int { 3 }
    /// Slots of the segment; those from 4 on are spare.
    @inlinable package static var count: Int { 8 }
    /// "APUSREP1"
    package static let magicValue: UInt64 = 0x4150_5553_5245_5031
}
