import Glibc
import SettingTable
import Supervision
import WorkerProtocol

/// A RocketMQ file taken over.
struct ImportedFile {
    enum Kind { case broker, nameserver }

    let path: String
    let kind: Kind
    /// Why it is taken for that.
    let kindReason: String
    /// Settings with a meaning here, in the file's own spelling, and those that keep the platform from starting.
    var carried: [(key: String, value: String)] = []
    /// Settings without one, and why.
    var dropped: [(key: String, value: String, reason: String)] = []
    /// What would be lost, or is different: reported on the terminal.
    var notes: [String] = []
    /// Of `carried`: what promises something Apus does not have, and why.
    var promises: [(key: String, reason: String)] = []

    /// - Parameters:
    ///   - home: stands for Java's `${user.home}`; nil: not known, and a file that names it is refused.
    ///   - asked: whose file it is; nil: its keys decide, then its name.
    /// - Throws: everything in it that is not usable, and when it is no file of RocketMQ's.
    init(text: String, path: String, home: String?, kind asked: Kind? = nil) throws(ConfigurationError) {
        self.path = path
        let entries: [JavaProperties.Entry]
        do throws(JavaProperties.Malformed) {
            entries = try JavaProperties.parse(text)
        } catch {
            throw ConfigurationError([ConfigurationProblem(error.reason, line: error.line)]).located(in: path)
        }
        // Of several values the last counts; lines stay with them.
        let last = Dictionary(entries.map { ($0.key, $0) }, uniquingKeysWith: { $1 })
        try Self.refuseStrangers(entries, path)
        (kind, kindReason) = Self.kind(last.mapValues(\.value), path, asked)
        let readers: Setting.Readers = kind == .nameserver ? .nameserver : [.broker, .platform, .filter]
        var problems: [ConfigurationProblem] = []
        for entry in last.values.sorted(by: { $0.key < $1.key }) {
            do throws(ConfigurationError) {
                try take(entry, readers, home)
            } catch {
                problems += error.problems
            }
        }
        guard problems.isEmpty else { throw ConfigurationError(problems).located(in: path) }
        if kind == .broker { noteStore() }
    }

    subscript(key: String) -> String? { carried.last { $0.key == key }?.value }

    private mutating func take(
        _ entry: JavaProperties.Entry, _ readers: Setting.Readers, _ home: String?
    ) throws(ConfigurationError) {
        let (key, raw) = (entry.key, entry.value)
        func refuse(_ text: String) -> ConfigurationError {
            ConfigurationError([ConfigurationProblem(text, line: entry.line)])
        }
        guard let value = Self.resolved(raw, home) else {
            throw refuse(
                "\(key) = \(SettingRefusal.shown(raw)) names the home folder, which is not known: HOME is not "
                    + "set and the system's list of users has none; set HOME, or write the path")
        }
        if value.contains("${") {
            dropped.append((key, raw, "Java replaces the part in ${…} when it starts; write what it becomes"))
            notes.append(
                """
                ACT NOW: \(key) = \(SettingRefusal.shown(raw)): Java replaces the part in ${…} when it starts; write \
                what it becomes
                """
            )
            return
        }
        guard let setting = SettingTable.setting(key) else { return takeForeign(key, value) }
        guard !setting.readers.isDisjoint(with: readers) else {
            let whose = setting.readers.contains(.nameserver) ? "a name server's" : "a broker's"
            dropped.append((key, raw, "it is a setting of \(whose) file"))
            if key == "kvConfigPath" { notes.append(Self.keyValueNote(value)) }
            return
        }
        do throws(SettingRefusal) {
            // As it stands there, but for blanks: an operator finds it again.
            _ = try setting.canonical(value)
        } catch {
            throw refuse("\(error)")
        }
        if case .none(let reason) = setting.effect {
            dropped.append((key, raw, reason))
            return
        }
        if key == "kvConfigPath" { notes.append(Self.keyValueNote(value)) }
        carried.append((key, value))
    }

    private mutating func takeForeign(_ key: String, _ value: String) {
        guard let verdict = RocketMQSettings.verdict(key, value) else {
            let meant = SettingTable.meant(by: key).map { "is \($0) meant?" } ?? "is it spelled right?"
            return dropped.append((key, value, "RocketMQ has no such setting; \(meant)"))
        }
        switch verdict.consequence {
        case .harmless: dropped.append((key, value, verdict.reason))
        case .act:
            dropped.append((key, value, verdict.reason))
            notes.append("ACT NOW: \(key) = \(SettingRefusal.shown(value)): \(verdict.reason)")
        case .refused:
            // It stays, so that check and start refuse it until the operator decides.
            carried.append((key, value))
            promises.append((key, verdict.reason))
            notes.append("ACT NOW: \(key) = \(SettingRefusal.shown(value)): \(verdict.reason)")
            if key == "enableDLegerCommitLog" {
                notes.append(
                    """
                    ACT NOW: the messages in DLedger's log are not read by Apus: let consumers finish them with \
                    RocketMQ first
                    """
                )
            }
        }
    }

    /// What happens to the store.
    private mutating func noteStore() {
        if self["storePathRootDir"] == nil {
            notes.append(
                "ACT NOW: the file names no store (storePathRootDir): Apus begins with an empty one. RocketMQ's own is "
                    + "the folder store in the home of the user that started it; to go on with its messages, stop "
                    + "RocketMQ and name that folder")
        }
    }

    private static func keyValueNote(_ path: String) -> String {
        "ACT NOW: kvConfigPath = \(SettingRefusal.shown(path)): the order configuration (updateOrderConf) lies in that "
            + "file; let the service's user (apus) read and write it, or copy it to DATA/config/kvConfig.json and "
            + "remove the line"
    }

    /// For the terminal.
    var report: [String] {
        let whose = kind == .nameserver ? "a name server's file" : "a broker's file"
        return [
            """
            \(path): read as \(whose) (\(kindReason)): \(counted(carried.count, "setting")) taken over, \
            \(dropped.count) not
            """
        ] + notes.map { "  \($0)" } + dropped.map { "  \(SettingRefusal.shown($0.key)): \($0.reason)" }
    }

    /// A file almost none of whose keys RocketMQ or Apus knows is something else.
    private static func refuseStrangers(
        _ entries: [JavaProperties.Entry], _ path: String
    ) throws(ConfigurationError) {
        let keys = Set(entries.map(\.key))
        let known = keys.filter { RocketMQSettings.isKnown($0) }
        guard known.isEmpty || known.count * 2 < keys.count else { return }
        let what =
            keys.isEmpty ? "it has no settings" : "\(known.count) of its \(keys.count) keys are settings of RocketMQ's"
        throw ConfigurationError("this is no broker.conf or namesrv.conf: \(what)").located(in: path)
    }

    /// A file is a name server's when it has settings only those have, or none of a broker's and the name or port of
    /// one.
    private static func kind(_ values: [String: String], _ path: String, _ asked: Kind?) -> (Kind, String) {
        if let asked { return (asked, "as asked") }
        let ofBrokers = values.keys.filter { key in
            guard let setting = SettingTable.setting(key) else { return false }
            return setting.readers.contains(.broker) && !setting.readers.contains(.nameserver)
        }.sorted()
        let own = values.keys.filter { RocketMQSettings.ofNameServers.contains($0) }.sorted()
        // A broker's file may have a line of a name server's by mistake, and the other way round.
        if let first = own.first, own.count >= ofBrokers.count { return (.nameserver, "it has \(first)") }
        if let first = ofBrokers.first { return (.broker, "it has \(first)") }
        let name = path.split(separator: "/").last?.lowercased() ?? ""
        if name.contains("namesrv") || name.contains("nameserver") { return (.nameserver, "by its name") }
        if values["listenPort"] == "9876" { return (.nameserver, "it listens on port 9876") }
        return (.broker, "nothing in it is a name server's alone; if it is one's, say --namesrv \(path)")
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
        for section in Setting.Section.allCases {
            let settings = file.carried.filter { SettingTable.setting($0.key)?.section == section }
            guard !settings.isEmpty else { continue }
            lines += ["", "# \(section.rawValue)"]
            for (key, value) in settings { lines.append("\(key) = \(Self.literal(key, value))") }
        }
        lines += promises(of: file)
        if file.kind == .broker { lines += storeNote(file) }
        if !file.dropped.isEmpty {
            lines += ["", "# Not taken over:"]
            for (key, value, reason) in file.dropped {
                lines.append(
                    """
                    #   \(SettingRefusal.shown(key)) = \
                    \(value.split(whereSeparator: \.isNewline).joined(separator: " "))
                    """
                )
                lines.append("#       \(reason)")
            }
        }
        return lines
    }

    private func promises(of file: ImportedFile) -> [String] {
        guard !file.promises.isEmpty else { return [] }
        var lines = [
            "", "# Promised by RocketMQ and not here; nothing starts until each is removed or named in startWithout.",
        ]
        for (key, reason) in file.promises {
            lines += ["# \(reason)", "\(Self.key(key)) = \(Self.literal(key, file[key] ?? ""))"]
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
            """
            # The file names no store: RocketMQ used the folder store in the home of the user that started it. Apus \
            keeps
            """,
            "# its own below /var/lib/apus; to go on with RocketMQ's, stop it and name the folder here:",
            "# storePathRootDir = \"/home/…/store\"",
        ]
    }

    /// Name servers on other machines, when no name server's file is taken over: those go on. One on this machine at
    /// the usual port is replaced by Apus's own.
    private var foreignNameServers: String? {
        guard nameserver == nil else { return nil }
        let addresses = Set(brokers.compactMap { $0["namesrvAddr"] }.flatMap { $0.split { ";,".contains($0) } })
        let others = addresses.filter { !["127.0.0.1:9876", "localhost:9876", "[::1]:9876"].contains($0) }
        return others.isEmpty ? nil : others.sorted().joined(separator: ";")
    }

    /// Numbers and true/false bare where the setting is one; texts in quotes.
    static func literal(_ key: String, _ value: String) -> String {
        switch SettingTable.setting(key)?.type {
        case .integer: if let number = SettingType.integer(value) { return String(number) }
        case .boolean: if let flag = SettingType.boolean(value) { return String(flag) }
        default: break
        }
        return quoted(value)
    }

    /// A key with dots (`tls.server.mode`) in quotes, or TOML would take it for a table.
    static func key(_ key: String) -> String { key.contains(".") ? quoted(key) : key }

    private static func quoted(_ value: String) -> String {
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
