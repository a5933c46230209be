import SettingTable

/// Raw settings as an operator wrote them, before defaults: RocketMQ's key names everywhere.
package struct RawConfiguration: Hashable, Sendable {
    /// Keys outside any table; they hold for every broker.
    package var common: [String: String] = [:]
    /// The keys of `[nameserver]` and the like, by the table's name.
    package var tables: [String: [String: String]] = [:]
    /// One per broker-store, on top of `common`. Empty: one without anything of its own.
    package var brokers: [[String: String]] = []
    /// Tables in whose place stands `NAME = false`: this platform does without their kinds.
    package var absent: Set<String> = []
    /// Folders, one disk each; a broker for each of them. nil: not set.
    package var disks: [String]?
    /// Settings that promise what Apus does not have, and that it starts without all the same.
    package var startWithout: [String] = []
    /// What workers may use: `KIND.memory` and so on, for `limits.KIND.memory`.
    package var limits: [String: String] = [:]
    /// Came from a RocketMQ `broker.conf`.
    package var isProperties = false
    /// The file these came from, for `lines`; nil: none.
    package var path: String?
    /// Where settings stand in the file, by `path(of:in:)`, from 1 on. Those of the command line have no line.
    package var lines: [String: Int] = [:]
    /// What was wrong while reading; what could be read is there all the same.
    package var problems: [ConfigurationProblem] = []

    package init() {}

    /// Where a key stands: outside any table, in `[limits]`, in the table of a kind of worker, or in one of the
    /// `[[broker]]` tables.
    package enum Table: Hashable, Sendable {
        case common, limits
        case named(String)
        case broker(Int)

        /// As one writes it; nil for none.
        package var title: String? {
            switch self {
            case .common: nil
            case .named(let name): "[\(name)]"
            case .limits: "[limits]"
            case .broker: "[[broker]]"
            }
        }
    }

    /// The key with its table, as `lines` has it: `nameserver.KEY`, `broker#0.KEY`.
    package static func path(of key: String, in table: Table) -> String {
        switch table {
        case .common: key
        case .named(let name): "\(name).\(key)"
        case .limits: "limits.\(key)"
        case .broker(let number): "broker#\(number).\(key)"
        }
    }

    /// The line of the file the key is on, from 1 on; nil: it is not in the file.
    package func line(of key: String, in table: Table) -> Int? { lines[Self.path(of: key, in: table)] }

    /// Takes the settings that are no worker's out of `common`: lists are separated by `,` there.
    package mutating func sortOut() {
        func list(_ text: String) -> [String] {
            text.split { $0 == "," || $0 == ";" || $0 == " " }.map(String.init)
        }
        if let text = common.removeValue(forKey: "disks") { disks = list(text) }
        if let text = common.removeValue(forKey: "startWithout") { startWithout += list(text) }
        for (key, value) in common where key.hasPrefix("limits.") {
            limits[String(key.dropFirst("limits.".count))] = value
            common[key] = nil
        }
    }

    /// Reads RocketMQ's properties into the keys outside any table; one malformed line is a problem and the end of the
    /// reading.
    package mutating func read(properties text: String) {
        isProperties = true
        do throws(JavaProperties.Malformed) {
            for entry in try JavaProperties.parse(text) {
                common[entry.key] = entry.value
                lines[entry.key] = entry.line
            }
        } catch {
            problems.append(ConfigurationProblem(error.reason, line: error.line))
        }
    }
}

/// One thing that is wrong with a configuration.
package struct ConfigurationProblem: Hashable, Sendable, CustomStringConvertible {
    /// Names the key, the cause and the remedy.
    package var text: String
    /// Of the file, from 1 on; nil: the command line, or no line alone.
    package var line: Int?
    /// The file it is about; nil: unknown.
    package var file: String?

    package init(_ text: String, line: Int? = nil) {
        self.text = text
        self.line = line
    }

    package var description: String {
        (file.map { "\($0): " } ?? "") + (line.map { "line \($0): " } ?? "") + text
    }
}

/// Why a configuration cannot be used: everything that is wrong, in the order of the file.
package struct ConfigurationError: Error, Hashable, Sendable, CustomStringConvertible {
    /// At least one.
    package private(set) var problems: [ConfigurationProblem]

    package init(_ description: String) { problems = [ConfigurationProblem(description)] }

    /// Each problem once.
    package init(_ problems: [ConfigurationProblem]) {
        var seen: Set<ConfigurationProblem> = []
        self.problems = problems.filter { seen.insert($0).inserted }.enumerated()
            .sorted { ($0.element.line ?? .max, $0.offset) < ($1.element.line ?? .max, $1.offset) }.map(\.element)
    }

    /// The same, with the file's name.
    package func located(in file: String?) -> ConfigurationError {
        var located = self
        for index in problems.indices where problems[index].file == nil { located.problems[index].file = file }
        return located
    }

    /// One line for each problem.
    package var description: String { problems.map(\.description).joined(separator: "\n") }
}

/// RocketMQ's `broker.conf` as a table, for callers that need neither lines nor order.
package enum PropertiesFile {
    /// - Throws: the first line that is malformed.
    package static func parse(_ text: String) throws(ConfigurationError) -> [String: String] {
        do throws(JavaProperties.Malformed) {
            return try JavaProperties.table(text)
        } catch {
            throw ConfigurationError("\(error)")
        }
    }
}
