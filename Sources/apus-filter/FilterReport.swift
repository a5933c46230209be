import FastJSON
import FilterEngine
import LinuxSystem
import WorkerProtocol

/// What a filter worker knows of its plugins, as one line of JSON for `apus plugin status`.
enum FilterReport {
    /// Longer reports lose their expressions, then plugins: the supervisor answers with all of them in one message, and
    /// a control message has an end. A folder may hold thousands of libraries, each with a reason why it is no plugin.
    private static let bytesMax = WorkerMessage.reportBytesMax
    private static let expressionsMax = 20
    /// Of the reason why a file was refused, which its own code may have worded.
    private static let refusalBytesMax = 512

    static func json(
        role: FilterRole, folders: PluginFolders, catalogue: FilterCatalogue, service: FilterService
    ) -> String {
        let expressions = service.expressions
        let all = plugins(role, folders, catalogue)
        func write(_ most: Int, _ plugins: some Collection<JSONValue>) -> String {
            JSONValue.fields([
                ("role", .string(role.title)),
                ("plugins", .array(Array(plugins))), ("pluginsLeftOut", .integer(all.count - plugins.count)),
                (
                    "expressions",
                    .array(
                        expressions.prefix(most).map { item in
                            .fields([
                                ("type", .string(item.type)),
                                ("expression", .string(String(item.expression.prefix(200)))),
                                ("plugins", .strings(item.plugins)), ("brokers", .integer(item.uses)),
                            ])
                        })
                ), ("expressionCount", .integer(expressions.count)),
            ]).text()
        }
        let full = write(expressionsMax, all)
        if full.utf8.count <= bytesMax { return full }
        var left = bytesMax - write(0, []).utf8.count
        let fitting = all.prefix { plugin in
            left -= plugin.text().utf8.count + 1
            return left >= 0
        }
        return write(0, fitting)
    }

    /// In steps of 10: each second would be another report, which goes to the supervisor.
    private static func seconds(_ milliseconds: Int64) -> JSONValue {
        let rounded = (milliseconds + 9_999) / 10_000 * 10
        return .integer(rounded)
    }

    private static func plugins(
        _ role: FilterRole, _ folders: PluginFolders, _ catalogue: FilterCatalogue
    ) -> [JSONValue] {
        // Those that are loaded first: the end of a long list may be cut off.
        let entries = folders.entries
        let known = (entries.filter { $0.plugin != nil } + entries.filter { $0.plugin == nil }).map { entry in
            JSONValue.fields([
                ("path", .string(entry.path)), ("name", entry.plugin.map { .string($0.name) }),
                ("type", entry.plugin.map { .string($0.type) }), ("release", entry.plugin.map { .string($0.release) }),
                ("refusal", entry.refusal.map { .string(PlainText.escaped($0, bytesMax: refusalBytesMax)) }),
                ("history", entry.history.map { .string($0) }),
                ("pauseSeconds", entry.pause.map { seconds($0) }),
                ("failing", entry.plugin?.failing.map { .string($0) }), ("pending", .bool(entry.isPending)),
                ("mine", .bool(entry.isMine)), ("modified", .integer(entry.modified)),
            ])
        }
        let builtIns = catalogue.plugins.filter { plugin in
            PluginPlaces.builtIns.contains { plugin.path.hasSuffix("/\($0)") }
        }.map { plugin in
            JSONValue.fields([
                ("path", .string(plugin.path)), ("name", .string(plugin.name)), ("type", .string(plugin.type)),
                ("release", .string(plugin.release)), ("builtIn", .bool(true)), ("mine", .bool(role == .builtIns)),
            ])
        }
        return builtIns + known
    }
}
