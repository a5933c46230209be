import MessageModel

/// What a newer version of a message states of itself, in its property `APUS_EDIT`:
///
///     KIND,VERSION,ACTION,TIME,BY        v,2,edit,1700000000000,alice
///
/// KIND is `v`, a version that is delivered, or `d`, a mark that the message is deleted. VERSION counts from 2, the
/// message as it was sent being 1. TIME is in milliseconds since 1970. BY is the rest, and may contain commas.
///
/// Such a record names topic, queue and queue offset of the message it stands for. Its transaction type is rollback:
/// RocketMQ enters such records into no queue and no index, and so serves the message as it was first sent. Its
/// prepared transaction offset is the physical offset of the version it replaced, back to the first.
package struct EditNote: Equatable, Sendable {
    /// Bytes of `by` at most.
    package static let byMax = 64
    /// Bytes of a note at most, with its name and separators.
    package static let sizeMax = 160

    /// What was done to the message.
    package enum Action: String, Sendable, CaseIterable {
        /// Body, tags, keys or properties were changed.
        case edit
        /// A message that waited was withdrawn.
        case cancel
        /// It was given another time to be delivered at.
        case reschedule
        /// It was given another number of deliveries.
        case retries
        case delete
    }

    /// From 2 on.
    package var version: Int64
    /// The message is not delivered any more.
    package var deletes: Bool
    /// What was done.
    package var action: Action
    /// Milliseconds since 1970.
    package var at: Int64
    /// Who asked for it: visible characters, at most `byMax` bytes.
    package var by: String

    /// A note of these.
    package init(version: Int64, deletes: Bool, action: Action, at: Int64, by: String) {
        self.version = version
        self.deletes = deletes
        self.action = action
        self.at = at
        self.by = by
    }

    /// Reads the property's value; nil when it is no note.
    package init?(_ value: UnsafeRawBufferPointer) {
        guard let deletes = Self.deletes(value), value.count <= Self.sizeMax else { return nil }
        let parts = String(decoding: value, as: UTF8.self).split(
            separator: ",", maxSplits: 4, omittingEmptySubsequences: false)
        guard parts.count == 5, let version = Int64(parts[1]), version >= 2,
            let action = Action(rawValue: String(parts[2])),
            let at = Int64(parts[3])
        else { return nil }
        self.init(version: version, deletes: deletes, action: action, at: at, by: String(parts[4]))
    }

    /// The property's value.
    package var text: String { "\(deletes ? "d" : "v"),\(version),\(action.rawValue),\(at),\(by)" }

    /// Whether a value marks the message as deleted; nil when it is no note. Looks at its first bytes only.
    package static func deletes(_ value: UnsafeRawBufferPointer) -> Bool? {
        guard value.count > 2, value[1] == UInt8(ascii: ",") else { return nil }
        switch value[0] {
        case UInt8(ascii: "v"): return false
        case UInt8(ascii: "d"): return true
        default: return nil
        }
    }
}

extension CommitLogRecordView {
    /// Whether the record is a newer version of a message, or the mark that one is deleted. A record with the property
    /// alone is none: it is a copy that was delivered elsewhere.
    package var isEdit: Bool { deletesMessage != nil }

    /// True for the mark that a message is deleted, false for a newer version; nil for all other records.
    package var deletesMessage: Bool? {
        guard SysFlag.transactionValue(sysFlag) == SysFlag.transactionRollbackType else { return nil }
        return property(PropertyName.edit).flatMap { EditNote.deletes($0) }
    }

    /// What the newest edit of the message states, also of a copy that was delivered elsewhere; nil when it was sent
    /// like this.
    package var editNote: EditNote? { property(PropertyName.edit).flatMap { EditNote($0) } }
}
