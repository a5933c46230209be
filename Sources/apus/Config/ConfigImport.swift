import Glibc
import Supervision

/// A RocketMQ file taken over.
struct ImportedFile {
    enum Kind { case broker, nameserver }

    let path: String
    let kind: Kind
    /// Settings with a meaning here, in the file's own spelling.
    var carried: [(key: String, value: String)] = []
    /// Settings without one, and why.
    var dropped: [(key: String, value: String, reason: String)] = []
    /// What an operator should know.
    var notes: [String] = []

    /// - Parameters:
    ///   - home: stands for Java's `${user.home}`; nil: nobody knows it, and a file that names it is refused.
    init(text: String, path: String, home: String?) throws(ConfigurationError) {
        self.path = path
        let values: [String: String]
        do {
            values = try PropertiesFile.parse(text)
        } catch {
            throw ConfigurationError("\(path): \(error)")
        }
        kind = Self.kind(values, path)
        let known = Set(KnownKeys.integers + KnownKeys.booleans + KnownKeys.texts)
        for (key, raw) in values.sorted(by: { $0.key < $1.key }) {
            guard let value = Self.resolved(raw, home) else {
                throw ConfigurationError(
                    "\(path): \(key) = \(raw) names the home folder, and nobody knows it: HOME is not set and the system's "
                        + "list of users has none; set HOME, or write the path")
            }
            if value.contains("${") {
                dropped.append((key, raw, "Java replaces the part in ${…} when it starts; write what it becomes"))
            } else if kind == .nameserver ? Self.nameserverKeys.contains(key) : known.contains(key) {
                carried.append((key, value))
            } else {
                dropped.append(
                    (
                        key, raw,
                        ForeignSettings.reason(key) ?? "RocketMQ 4.9.8 has no such setting; is it spelled right?"
                    ))
            }
        }
    }

    subscript(key: String) -> String? { carried.last { $0.key == key }?.value }

    private static let nameserverKeys: Set<String> = [
        "listenPort", "bindAddress", "kvConfigPath", "orderMessageEnable", "clusterTest", "productEnvName",
        "configBlackList", "serverChannelMaxIdleTimeSeconds",
    ]

    /// A file is a name server's when it has settings only those have, or nothing but what both have and such a name.
    private static func kind(_ values: [String: String], _ path: String) -> Kind {
        let brokers = ["brokerName", "brokerClusterName", "brokerRole", "brokerId", "storePathRootDir", "namesrvAddr"]
        if brokers.contains(where: { values[$0] != nil }) { return .broker }
        let own = ["kvConfigPath", "configStorePath", "orderMessageEnable", "clusterTest", "productEnvName"]
        if own.contains(where: { values[$0] != nil }) { return .nameserver }
        let name = path.split(separator: "/").last ?? ""
        return name.contains("namesrv") || name.contains("nameserver") ? .nameserver : .broker
    }

    /// nil when the value names the home folder and that is not known.
    private static func resolved(_ value: String, _ home: String?) -> String? {
        let isTilde = value == "~" || value.hasPrefix("~/")
        guard isTilde || value.contains("${user.home}") || value.contains("$HOME") else { return value }
        guard let home else { return nil }
        let text = value.replacing("${user.home}", with: home).replacing("$HOME", with: home)
        return isTilde ? home + text.dropFirst() : text
    }
}

/// The apus.toml made of RocketMQ's files.
struct ImportedConfiguration {
    let files: [ImportedFile]
    /// Stands in the heading.
    let date: String

    /// - Throws: when the files cannot be of one platform.
    init(files: [ImportedFile], date: String) throws {
        self.files = files
        self.date = date
        guard files.count(where: { $0.kind == .nameserver }) <= 1 else {
            throw CommandFailure("a platform has one name server: give one namesrv.conf")
        }
    }

    private var brokers: [ImportedFile] { files.filter { $0.kind == .broker } }
    private var nameserver: ImportedFile? { files.first { $0.kind == .nameserver } }

    var toml: String {
        var lines = [
            "# Settings of Apus, taken over from \(files.map(\.path).joined(separator: ", "))",
            "# by `apus config import` on \(date). The keys are RocketMQ's; apus.toml(5) has them all.",
            "",
            "# RocketMQ listens on every address of the machine; without this line Apus would only on 127.0.0.1.",
            "bindAddress = \"0.0.0.0\"",
        ]
        if let addresses = foreignNameServers {
            lines += [
                "", "# The brokers register with \(addresses) as before: no name server of Apus's own runs here.",
                "nameserver = false",
            ]
        } else if nameserver != nil, brokers.isEmpty {
            lines += ["", "# Taken over from a name server alone: no broker runs here.", "broker = false"]
        }
        if let only = brokers.first, brokers.count == 1 {
            lines += body(of: only)
        }
        if let nameserver {
            lines += ["", "[nameserver]"]
            lines += body(of: nameserver)
        }
        if brokers.count > 1 {
            for broker in brokers {
                lines += ["", "[[broker]]"]
                lines += body(of: broker)
            }
        }
        return lines.joined(separator: "\n") + "\n"
    }

    private func body(of file: ImportedFile) -> [String] {
        var lines: [String] = []
        if files.count > 1 { lines.append("# From \(file.path)") }
        for table in SettingDescription.Table.allCases {
            let settings = file.carried.filter { (SettingDescription.of($0.key)?.table ?? .messages) == table }
            guard !settings.isEmpty else { continue }
            lines += ["", "# \(table.rawValue)"]
            for (key, value) in settings { lines.append("\(key) = \(Self.literal(key, value))") }
        }
        if file.kind == .broker { lines += storeNote(file) }
        if !file.dropped.isEmpty {
            lines += ["", "# Not taken over:"]
            for (key, value, reason) in file.dropped {
                lines.append("#   \(key) = \(value.split(whereSeparator: \.isNewline).joined(separator: " "))")
                lines.append("#       \(reason)")
            }
        }
        return lines
    }

    private func storeNote(_ file: ImportedFile) -> [String] {
        guard file["storePathRootDir"] == nil else {
            return [
                "# The service's user (apus) must own that folder, and systemd must let it write there: a drop-in like",
                "# /usr/share/doc/apus/examples/data-disk.conf.",
            ]
        }
        return [
            "",
            "# The file names no store: RocketMQ used the folder store in the home of whoever started it. Apus keeps its own",
            "# below /var/lib/apus; to go on with RocketMQ's, stop it and name the folder here:",
            "# storePathRootDir = \"/home/…/store\"",
        ]
    }

    /// Name servers on other machines, when no name server's file is taken over: those go on. One on this machine at the
    /// usual port is replaced by Apus's own.
    private var foreignNameServers: String? {
        guard nameserver == nil else { return nil }
        let addresses = Set(brokers.compactMap { $0["namesrvAddr"] }.flatMap { $0.split { ";,".contains($0) } })
        let others = addresses.filter { !["127.0.0.1:9876", "localhost:9876", "[::1]:9876"].contains($0) }
        return others.isEmpty ? nil : others.sorted().joined(separator: ";")
    }

    /// Numbers and true/false bare where the setting is one; texts in quotes.
    static func literal(_ key: String, _ value: String) -> String {
        if KnownKeys.integers.contains(key), Int64(value) != nil { return value }
        if KnownKeys.booleans.contains(key), value == "true" || value == "false" { return value }
        var text = "\""
        for scalar in value.unicodeScalars {
            switch scalar {
            case "\"": text += "\\\""
            case "\\": text += "\\\\"
            case "\n": text += "\\n"
            case "\t": text += "\\t"
            case "\r": text += "\\r"
            case _ where scalar.value < 0x20 || scalar.value == 0x7F:
                let digits = String(scalar.value, radix: 16)
                text += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: text.unicodeScalars.append(scalar)
            }
        }
        return text + "\""
    }
}
