/// Where settings stand in a TOML file. The parser knows only where its errors are; this looks for the lines that begin
/// with a key, and is for messages alone.
package enum TOMLLines {
    /// By `RawConfiguration.path(of:in:)`, from 1 on.
    /// - Parameter kinds: which tables there are.
    package static func lines(of text: String, kinds: WorkerTable = .standard) -> [String: Int] {
        let named = Dictionary(uniqueKeysWithValues: kinds.tables.map { ($0, RawConfiguration.Table.named($0)) })
        var lines: [String: Int] = [:]
        var table = RawConfiguration.Table.common
        var prefix = ""
        var brokers = 0
        for (number, raw) in text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline).enumerated() {
            let line = raw.drop { $0 == " " || $0 == "\t" }
            if line.hasPrefix("[") {
                let name = line.drop { $0 == "[" || $0 == " " }.prefix { $0 != "]" && $0 != " " }
                (table, prefix) = (.common, "")
                switch name {
                case _ where named[String(name)] != nil: table = .named(String(name))
                case "broker":
                    table = .broker(brokers)
                    brokers += 1
                case _ where name == "limits" || name.hasPrefix("limits."):
                    table = .limits
                    prefix = name == "limits" ? "" : name.dropFirst("limits.".count) + "."
                default: break
                }
                continue
            }
            guard let equals = line.firstIndex(of: "="), !line.hasPrefix("#") else { continue }
            let key = line[..<equals].filter { $0 != " " && $0 != "\t" && $0 != "\"" && $0 != "'" }
            guard !key.isEmpty else { continue }
            // `filter.count = 2` outside any table.
            if table == .common, let dot = key.firstIndex(of: "."),
                let other = key[..<dot] == "limits" ? .limits : named[String(key[..<dot])]
            {
                lines[RawConfiguration.path(of: String(key[key.index(after: dot)...]), in: other)] = number + 1
            } else {
                lines[RawConfiguration.path(of: prefix + key, in: table)] = number + 1
            }
        }
        return lines
    }
}
