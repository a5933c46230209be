package import StoreFormat

/// Something besides consumers that needs messages of the log: messages that wait for their time or their outcome.
/// Retention keeps the log file with the oldest of them and all files after it, whatever the pressure.
package struct RetentionHold {
    /// Of what, in the plural, for the journal: `delayed messages`.
    package let name: String
    /// Until when they are kept, and what operators can do; for the journal and for senders that are refused because
    /// the disk is full.
    package let until: String
    /// The oldest record still needed; nil when there is none. Asked on the store's thread before a file is deleted.
    package let neededFrom: () -> PhysicalOffset?
    /// Whether `neededFrom` has an answer; false: it is being looked for, in later turns of the store's thread, and
    /// nothing is deleted meanwhile. Asked before it.
    package let isKnown: () -> Bool
    /// The disk is so full that the log before an offset must go. What can be stored again is stored again, and needs
    /// its old record no more. Nil when nothing can be done. Called on the store's thread.
    package let makeRoom: ((PhysicalOffset) -> Void)?

    /// A hold of that name; see the fields.
    package init(
        _ name: String, until: String = "they have been delivered or given up",
        isKnown: @escaping () -> Bool = { true }, neededFrom: @escaping () -> PhysicalOffset?,
        makeRoom: ((PhysicalOffset) -> Void)? = nil
    ) {
        self.name = name
        self.until = until
        self.isKnown = isKnown
        self.neededFrom = neededFrom
        self.makeRoom = makeRoom
    }
}
