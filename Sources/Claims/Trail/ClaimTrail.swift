package import MessageModel

/// Something that happened to a message of a group.
package struct TrailEvent: Equatable, Sendable {
    /// What happened, as the journals have it.
    package enum Kind: Equatable, Sendable {
        /// Into a client's hands; `until` is when that ends without an acknowledgement.
        case delivered
        /// Once more to the client whose answer was lost (ordered groups); no attempt of its own.
        case deliveredAgain
        /// The delivery before was taken back: its answer could not leave, or its client gave the message back.
        case takenBack
        /// The client has set when the message comes again: `until`. It needs longer, or gives it back.
        case rescheduled
        /// The client has reported a failure: the message comes again at `until`, by the strategy of its topic.
        case failed
        /// The client's time was over.
        case timedOut
        /// Consumed.
        case acknowledged
        /// Finished without a client: it went to the dead letters, or cannot be read any more.
        case withdrawn
        /// It was not finished when its file was deleted: it is not delivered any more.
        case expired
        /// The group's filter does not want it.
        case filtered
        /// The group's offset was set past the message: it is not delivered.
        case skipped
        /// The group's offset was set back: the message is delivered as if it never was.
        case reset
    }

    /// Decides whether `until` has a meaning.
    package let kind: Kind
    /// Milliseconds since 1970; acknowledgements to the tick.
    package let at: Int64
    /// Milliseconds since 1970; nil where it has no meaning.
    package let until: Int64?
    /// The client's name; empty when it is not known.
    package let client: String

    /// - Parameters: as of the properties.
    package init(_ kind: Kind, at: Int64, until: Int64? = nil, client: String = "") {
        self.kind = kind
        self.at = at
        self.until = until
        self.client = client
    }
}

/// What the journals have about one message, for each group.
package struct ClaimTrail: Equatable, Sendable {
    /// What the journals have for one group.
    package struct Part: Equatable, Sendable {
        /// The group whose claim table it is.
        package let group: GroupName
        /// In the order of their times; of very many the first and the last.
        package let events: [TrailEvent]
        /// Events that are left out, in the middle.
        package let leftOut: Int
    }

    /// One for each group that has a claim table of the queue, in the order of names; some without events.
    package let groups: [Part]
    /// Where the oldest journal begins, milliseconds since 1970: nothing older is known. Nil without any journal.
    package let begins: Int64?
    /// Why not all of it could be read; nil when it could.
    package let failure: String?
}

extension ClaimStore {
    /// What happened to a message since the oldest journal that is kept.
    ///
    /// - Parameters:
    ///   - groups: whose.
    ///   - offset: in the queue.
    ///   - wall: milliseconds since 1970, now: what is over by then has timed out.
    /// - Returns: the work that reads it, for a thread that may block: 10 ns for each byte of journals, half a second
    ///   for 64 MiB. It refers to nothing of the store that the loop uses.
    package func trail(
        of topic: String, groups: [String], queueID: Int32, offset: Int64, at wall: Int64
    ) -> @Sendable () -> ClaimTrail {
        var numbers: [UInt32: GroupName] = [:]
        for group in groups {
            guard let table = table(group: group, topic: topic, queueID: queueID) else { continue }
            numbers[table.number] = table.group
        }
        return { [folder, disk, numbers] in
            var reader = TrailReader(groups: numbers, offset: offset)
            reader.read(TrailFiles(folder, disk))
            return reader.trail(at: wall)
        }
    }
}
