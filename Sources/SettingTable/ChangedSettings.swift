package import FastJSON

/// Settings operators have changed while a worker runs (25 at a broker, 318 at a name server):
/// `{"settings":{"fileReservedTime":{"value":"48","file":"72"}}}`.
///
/// RocketMQ rewrites the file it was started with. Here that file is the operator's and may stand for several workers.
/// So a change is kept beside the worker's tables, with the value of the file at that time (`file`, absent where it had
/// none). A later change of the file comes last: then the file holds.
package struct ChangedSettings: Sendable {
    /// A value in effect in place of the file's.
    package struct Change: Equatable, Sendable {
        /// What is in effect, in the spelling a file has.
        package var value: String
        /// The file's value when the change was made; nil when the file named none.
        package var file: String?
    }

    /// What came of loading.
    package struct Loaded {
        /// Changes that still hold, sorted by key.
        package var held: [(key: String, value: String)] = []
        /// Keys whose value in the file has changed since: the file holds.
        package var outdated: [String] = []
        /// Changes an older release took and the table refuses: not taken, with the reason.
        package var refused: [String] = []
    }

    /// By key: those that hold now.
    package private(set) var changes: [String: Change] = [:]
    /// What the configuration file (or the command line) contains.
    private var file: [String: String]
    /// What holds for a key the file does not name.
    private let standard: [String: String]
    /// Whether there is something to write.
    package private(set) var isDirty = false

    /// - Parameter standard: values of keys the file does not name; going back to one of them is no change any more.
    package init(file: [(String, String)], standard: [(String, String)] = []) {
        self.file = Dictionary(file, uniquingKeysWith: { $1 })
        self.standard = Dictionary(standard, uniquingKeysWith: { $1 })
    }

    /// An operator's change; going back to the file's value, or else the standard one, removes it.
    package mutating func change(_ key: String, to value: String) {
        let change = (file[key] ?? standard[key]) == value ? nil : Change(value: value, file: file[key])
        if changes[key] != change { isDirty = true }
        changes[key] = change
    }

    /// The file was read again: returns the values it has anew. A key the file names no more keeps the value it has
    /// until the next start.
    package mutating func reload(_ settings: [(String, String)]) -> [(String, String)] {
        let news = settings.filter { file[$0.0] != $0.1 }
        for (key, value) in news {
            file[key] = value
            if changes.removeValue(forKey: key) != nil { isDirty = true }
        }
        return news
    }

    /// Takes the changes that still hold.
    package mutating func load(_ json: JSONValue, by reader: Setting.Readers) -> Loaded {
        var loaded = Loaded()
        for member in json["settings"]?.object?.members ?? [] {
            guard let value = member.value["value"]?.string else { continue }
            let change = Change(value: value, file: member.value["file"]?.string)
            if let refusal = SettingTable.refusal(ofChange: member.key, to: value, by: reader, restart: "") {
                loaded.refused.append(refusal)
            } else if change.file == file[member.key] {
                changes[member.key] = change
                continue
            } else {
                loaded.outdated.append(member.key)
            }
            isDirty = true
        }
        loaded.held = changes.sorted { $0.key < $1.key }.map { ($0.key, $0.value.value) }
        return loaded
    }

    /// All changes such a file has, sorted by key, whether they still hold or not.
    package static func listed(_ json: JSONValue) -> [(key: String, change: Change)] {
        (json["settings"]?.object?.members ?? []).compactMap { member in
            member.value["value"]?.string.map { (member.key, Change(value: $0, file: member.value["file"]?.string)) }
        }.sorted { $0.key < $1.key }
    }

    /// The content of the file, in the form above, sorted by key.
    package var json: JSONValue {
        let members = changes.sorted { $0.key < $1.key }.map { key, change in
            (
                key,
                Optional(
                    JSONValue.fields([("value", .string(change.value)), ("file", change.file.map { .string($0) })]))
            )
        }
        return .fields([("settings", .fields(members))])
    }

    /// The state is on disk, or on its way there.
    package mutating func markWritten() { isDirty = false }

    /// Whether a file of this content is one of ours.
    package static func accepts(_ json: JSONValue) -> Bool {
        guard let settings = json["settings"]?.object else { return false }
        return settings.members.allSatisfy {
            $0.value["value"]?.string != nil && ($0.value["file"].map { $0.string != nil } ?? true)
        }
    }
}
