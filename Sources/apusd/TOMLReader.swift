import Supervision
import TOMLKit

/// Takes an apus.toml apart, and notes everything that is not of the form it must have.
struct TOMLReader {
    private(set) var raw = RawConfiguration()
    private let kinds = WorkerTable.standard

    init(lines: [String: Int]) { raw.lines = lines }

    mutating func read(_ table: TOMLTable) {
        for (key, value) in table {
            switch (key, value.type) {
            case (_, .table) where kinds.tables.contains(key): raw.tables[key] = scalars(value.table, .named(key))
            case (_, .bool) where kinds.row(table: key)?.isOptional == true:
                if value.bool == false { raw.absent.insert(key) }
            case ("limits", .table): raw.limits = limits(value.table)
            case ("disks", .array): raw.disks = texts(value.array, key)
            case ("startWithout", .array): raw.startWithout = texts(value.array, key)
            case ("broker", .table): raw.brokers = [scalars(value.table, .broker(0))]
            case ("broker", .array):
                raw.brokers = (value.array.map { Array($0) } ?? []).enumerated().map { number, table in
                    scalars(table.table, .broker(number))
                }
            case ("tls", .table): flatten(value.table, "tls")
            case (_, .table):
                let known = kinds.tables.map { "[\($0)]" }.joined(separator: ", ")
                problem(
                    "there is no table [\(key)]: there are \(known), [limits.KIND], "
                        + "and [[broker]] for each of several brokers", key)
            default: raw.common[key] = scalar(value, key, .common)
            }
        }
    }

    /// `tls.server.mode = …` is one of RocketMQ's keys, and to TOML a table.
    private mutating func flatten(_ table: TOMLTable?, _ prefix: String) {
        for (key, value) in table ?? TOMLTable() {
            let name = "\(prefix).\(key)"
            if value.type == .table {
                flatten(value.table, name)
            } else {
                raw.common[name] = scalar(value, name, .common)
            }
        }
    }

    /// `[limits.filter]` and `limits.filter.memory = …`, as `filter.memory`.
    private mutating func limits(_ table: TOMLTable?) -> [String: String] {
        var limits: [String: String] = [:]
        for (kind, values) in table ?? TOMLTable() {
            guard let table = values.table else {
                problem("limits.\(kind) must be a table: limits.\(kind).memory = \"256M\", for one", kind, .limits)
                continue
            }
            for (key, value) in table { limits["\(kind).\(key)"] = scalar(value, "\(kind).\(key)", .limits) }
        }
        return limits
    }

    private mutating func texts(_ array: TOMLArray?, _ key: String) -> [String] {
        var texts: [String] = []
        for value in array.map({ Array($0) }) ?? [] {
            if let text = scalar(value, key, .common) { texts.append(text) }
        }
        return texts
    }

    private mutating func scalars(_ table: TOMLTable?, _ place: RawConfiguration.Table) -> [String: String] {
        guard let table else {
            problem("\(place.title ?? "") must be a table", "")
            return [:]
        }
        var values: [String: String] = [:]
        for (key, value) in table { values[key] = scalar(value, key, place) }
        return values
    }

    private mutating func scalar(
        _ value: any TOMLValueConvertible, _ key: String, _ place: RawConfiguration.Table
    ) -> String? {
        if let text = value.string { return text }
        if let number = value.int { return String(number) }
        if let flag = value.bool { return String(flag) }
        if let number = value.double { return String(number) }
        let isList = key == "disks" || key == "startWithout"
        problem(
            (place.title.map { "\($0) " } ?? "") + "\(key) "
                + (isList && place != .common
                    ? "is the whole platform's: write it above all tables" : "must be a text, a number or true/false"),
            key, place)
        return nil
    }

    private mutating func problem(_ text: String, _ key: String, _ place: RawConfiguration.Table = .common) {
        raw.problems.append(ConfigurationProblem(text, line: raw.line(of: key, in: place)))
    }
}
