import FastJSON
import MessageStore
import RemotingProtocol
import SettingTable
import StoreFormat

/// A table of the broker that has a file of its own (`ConfigurationFile`). Confined to the broker's event loop.
protocol PersistentTable: AnyObject {
    /// It has changed since `markWritten`.
    var isDirty: Bool { get }
    /// Entries it has, as far as they make its text long.
    var entryCount: Int { get }
    /// Replaces the contents by those of the file, without those entries that cannot be used.
    /// - Throws: it is not this table at all.
    func load(file json: JSONValue) throws -> [RefusedEntry]
    /// The contents of the file as they are now.
    var fileJSON: JSONValue { get }
    /// What is asked for now is being written.
    func markWritten()
    /// Hands over what makes the text, on any thread; a large table is copied in slices first.
    func copied(in slices: SlicedWork, _ then: @escaping (@escaping @Sendable () -> JSONValue) -> Void)
}

extension PersistentTable {
    var entryCount: Int { 0 }

    func copied(in slices: SlicedWork, _ then: @escaping (@escaping @Sendable () -> JSONValue) -> Void) {
        let json = fileJSON
        then { json }
    }
}

extension TopicConfigManager: PersistentTable {
    var entryCount: Int { count }
    var fileJSON: JSONValue { json }
    func load(file json: JSONValue) throws -> [RefusedEntry] { try load(json) }
    func copied(in slices: SlicedWork, _ then: @escaping (@escaping @Sendable () -> JSONValue) -> Void) {
        copied(in: slices) { table in then { table.json } }
    }
}

extension SubscriptionGroupManager: PersistentTable {
    var entryCount: Int { count }
    var fileJSON: JSONValue { json }
    func load(file json: JSONValue) throws -> [RefusedEntry] { try load(json) }
    func copied(in slices: SlicedWork, _ then: @escaping (@escaping @Sendable () -> JSONValue) -> Void) {
        copied(in: slices) { table in then { table.json } }
    }
}

extension ConsumerOffsetManager: PersistentTable {
    var entryCount: Int { count }
    var fileJSON: JSONValue { json }
    func load(file json: JSONValue) throws -> [RefusedEntry] {
        let refused = try load(json)
        markWritten()
        return refused
    }
    func copied(in slices: SlicedWork, _ then: @escaping (@escaping @Sendable () -> JSONValue) -> Void) {
        copied(in: slices) { table in then { Self.json(table) } }
    }
}

/// The names of topics that clients' messages have made, in `config/autoCreatedTopics.json`: a list of texts.
final class AutoCreatedTopics: PersistentTable {
    private(set) var names: Set<String> = []
    private(set) var isDirty = false

    func insert(_ name: String) { if names.insert(name).inserted { isDirty = true } }
    func remove(_ name: String) { if names.remove(name) != nil { isDirty = true } }

    var fileJSON: JSONValue { .array(names.sorted().map { .string($0) }) }
    func load(file json: JSONValue) -> [RefusedEntry] {
        names = Set((json.array ?? []).compactMap(\.string))
        return []
    }
    func markWritten() { isDirty = false }
}
