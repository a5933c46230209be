import FastJSON
import MessageModel
import MessageStore
import StoreFormat

/// What was done to a message, from its chain of versions. Each leads to the one before it, as far as the log goes
/// back.
struct MessageEdits {
    /// Versions looked at: each is a look into the log.
    static let versionsMax = 64

    /// One edit.
    struct Step {
        let note: EditNote
        /// What differs from the version before; empty where that is not known.
        let changed: [String]

        var json: JSONValue {
            .fields([
                ("version", .integer(note.version)), ("action", .string(note.action.rawValue)),
                ("at", .integer(note.at)), ("by", .string(note.by)), ("deleted", .bool(note.deletes)),
                ("changed", .array(changed.map { .string($0) })),
            ])
        }
    }

    /// Oldest first.
    private(set) var steps: [Step] = []

    init(of message: StoredMessage, in store: MessageStore) {
        var newer = message
        for _ in 0..<Self.versionsMax {
            guard let note = newer.note else { break }
            // What a copy that was delivered elsewhere took along is one step.
            let older = newer.previous < newer.physicalOffset ? store.storedMessage(at: newer.previous) : nil
            let isChain = older?.uniqueKey == newer.uniqueKey
            if let older, isChain, older.note == note {
                newer = older
                continue
            }
            steps.append(Step(note: note, changed: older.flatMap { isChain ? Self.changes($0, newer) : nil } ?? []))
            guard let older, isChain else { break }
            newer = older
        }
        steps.reverse()
    }

    /// Begin the names of what waiting and delivery add.
    private static let added = [PropertyName.timerPrefix, PropertyName.realPrefix, PropertyName.apusPrefix].map {
        "\($0)"
    }
    private static let labels = ["\(PropertyName.tags)": "tags", "\(PropertyName.keys)": "keys"]

    /// Names of what differs, as `edited by` lists them.
    private static func changes(_ older: StoredMessage, _ newer: StoredMessage) -> [String] {
        guard newer.note?.deletes != true else { return [] }
        var changed: [String] = []
        if older.bodyHash != newer.bodyHash { changed.append("body") }
        if older.reconsumeTimes != newer.reconsumeTimes { changed.append("retries") }
        let names = Set(older.parts.keys).union(newer.parts.keys).subtracting(["\(PropertyName.edit)"])
        // What waiting and delivery add is no change.
        let others = names.filter { name in
            name != "\(PropertyName.delayLevel)" && !Self.added.contains { name.hasPrefix($0) }
        }
        for name in others.sorted() where older.parts[name] != newer.parts[name] {
            changed.append(Self.labels[name] ?? name)
        }
        return changed
    }
}
