import FastJSON

/// An entry of a table that is none: a name no topic can have, a number out of its bounds. The table is used without
/// it.
struct RefusedEntry: Sendable {
    let key: String
    let value: JSONValue
    let reason: String
}

/// What a table, or an entry of it, has instead of what it should.
struct TableError: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}

/// The entries of a table that was read from a file or came from a master, the good ones apart from the others.
///
/// One entry is one client's request, or one flipped bit: it may cost itself, and never the rest of the table or the
/// start.
struct TableEntries<Entry> {
    private(set) var entries: [Entry] = []
    private(set) var refused: [RefusedEntry] = []

    /// - Parameters:
    ///   - name: the member of `json` that holds the table.
    ///   - read: makes an entry of a member, or throws what is wrong with it.
    /// - Throws: there is no such table.
    init(
        _ json: JSONValue, _ name: String, _ read: (JSONObject.Member) throws -> Entry
    ) throws(TableError) {
        guard let table = json[name]?.object else { throw TableError("there is no \(name) in it") }
        entries.reserveCapacity(table.count)
        for member in table.members {
            do {
                entries.append(try read(member))
            } catch {
                refused.append(RefusedEntry(key: member.key, value: member.value, reason: "\(error)"))
            }
        }
    }
}

extension [RefusedEntry] {
    /// The first ones with their reasons, for a line of the log. Both are foreign: shortened, on one line.
    var summary: String {
        prefix(3).map { entry in
            "\"\(Self.shown(entry.key, 64))\" (\(Self.shown(entry.reason, 256)))"
        }.joined(separator: ", ") + (count > 3 ? " and \(count - 3) more" : "")
    }

    /// A reason may have another name in it.
    private static func shown(_ text: String, _ count: Int) -> String {
        text.unicodeScalars.prefix(count).map { $0.escaped(asASCII: false) }.joined()
    }

    /// All of them as they were, for an operator.
    var json: JSONValue {
        .array(
            map { .fields([("key", .string($0.key)), ("reason", .string($0.reason)), ("value", $0.value)]) })
    }
}
