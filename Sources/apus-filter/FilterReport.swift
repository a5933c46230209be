import FastJSON
import FilterEngine
import WorkerProtocol

/// What a filter worker knows of its plugins, as one line of JSON for `apus plugin status`.
enum FilterReport {
    private static let expressionsMax = 20

    static func json(
        role: FilterRole, folders: PluginFolders, catalogue: FilterCatalogue, service: FilterService
    ) -> String {
        let expressions = service.expressions
        func write(_ most: Int) -> String {
            JSONValue.fields([
                ("role", .string(role.words)),
                ("plugins", .array(plugins(role, folders, catalogue))),
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
        let full = write(expressionsMax)
        // Longer reports lose their expressions.
        return full.utf8.count <= WorkerMessage.reportBytesMax ? full : write(0)
    }

    private static func seconds(_ milliseconds: Int64) -> JSONValue {
        let seconds = (milliseconds + 999) / 1000
        return .integer(seconds)
    }

    private static func plugins(
        _ role: FilterRole, _ folders: PluginFolders, _ catalogue: FilterCatalogue
    ) -> [JSONValue] {
        let known = folders.entries.map { entry in
            JSONValue.fields([
                ("path", .string(entry.path)), ("name", entry.plugin.map { .string($0.name) }),
                ("type", entry.plugin.map { .string($0.type) }), ("release", entry.plugin.map { .string($0.release) }),
                ("refusal", entry.refusal.map { .string($0) }), ("history", entry.history.map { .string($0) }),
                // In steps, so that a report is not another one each second.
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
