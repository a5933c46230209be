/// One setting: everything that file, command line, requests 25 and 318, workers, `apus config` and apus.toml(5) need
/// to know of it.
package struct Setting: Sendable {
    /// Processes that read a setting.
    package struct Readers: OptionSet, Sendable {
        package let rawValue: Int
        package init(rawValue: Int) { self.rawValue = rawValue }

        /// The supervisor: the platform as a whole. Such a setting stands above all tables.
        package static let platform = Readers(rawValue: 1)
        /// Broker-store and replication workers.
        package static let broker = Readers(rawValue: 2)
        /// Name server workers.
        package static let nameserver = Readers(rawValue: 4)
        /// Filter workers.
        package static let filter = Readers(rawValue: 8)
        /// Gateway workers.
        package static let gateway = Readers(rawValue: 16)
    }

    /// When a new value takes effect.
    package enum Change: Sendable {
        /// At once: by updateBrokerConfig or updateNamesrvConfig, and by a reload.
        case running
        /// With the worker's next start.
        case start
    }

    /// What the setting does in Apus.
    package enum Effect: Sendable {
        case holds
        /// Taken so that a RocketMQ file starts, and why it changes nothing.
        case none(String)
    }

    /// Sections of apus.toml(5), in their order.
    package enum Section: String, CaseIterable, Sendable {
        case platform = "The platform"
        case network = "Addresses and ports"
        case identity = "Broker: identity and role"
        case topics = "Broker: topics and groups"
        case store = "Broker: store and flushing"
        case retention = "Broker: retention and full disks"
        case replication = "Broker: replication"
        case messages = "Broker: messages and pulls"
        case filter = "Filter workers, in [filter] or for all"
        case nameserver = "Name server, in [nameserver]"
        case gateway = "Gateway for HTTP, in [gateway]"
    }

    /// RocketMQ's name where RocketMQ has the setting.
    package let name: String
    /// Where apus.toml(5) has it.
    package let section: Section
    /// The processes that read it; several of them for some settings.
    package let readers: Readers
    /// Which values it takes, and in which spelling.
    package let type: SettingType
    /// The value when the setting is not given, as one writes it; empty: none.
    package let standard: String
    /// When a new value takes effect.
    package let change: Change
    /// What it does in Apus, or why nothing.
    package let effect: Effect
    /// One line, without a full stop.
    package let meaning: String

    init(
        _ name: String, _ section: Section, _ readers: Readers, _ type: SettingType, _ standard: String,
        _ change: Change, _ meaning: String, _ effect: Effect = .holds
    ) {
        self.name = name
        self.section = section
        self.readers = readers
        self.type = type
        self.standard = standard
        self.change = change
        self.effect = effect
        self.meaning = meaning
    }

    /// The value as workers take it (`True` is `true`, ` 48 ` is `48`).
    /// - Throws: what is wrong with it, as a text for an operator.
    package func canonical(_ text: String) throws(SettingRefusal) -> String {
        do {
            return try type.canonical(text)
        } catch {
            throw SettingRefusal(name: name, value: text, reason: error.description)
        }
    }
}

/// Why a value is not usable. The text names the key, the value, what is expected and, where known, what was meant.
package struct SettingRefusal: Error, Hashable, Sendable, CustomStringConvertible {
    /// Key of the setting, as a file has it.
    package var name: String
    /// The refused value, as it was given: unbounded and unescaped.
    package var value: String
    /// What is expected instead.
    package var reason: String

    package init(name: String, value: String, reason: String) {
        self.name = name
        self.value = value
        self.reason = reason
    }

    package var description: String {
        "\(name) = \(SettingRefusal.shown(value)) is not what this setting takes: \(reason)"
    }

    /// At most 80 characters, without line ends and escape sequences: the text may be a stranger's.
    package static func shown(_ value: String) -> String {
        var text = ""
        for scalar in value.unicodeScalars.prefix(81) {
            let isControl = scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value)
            text += isControl ? "\\u{\(String(scalar.value, radix: 16))}" : String(Character(scalar))
        }
        return value.unicodeScalars.count > 80 ? String(text.prefix(80)) + "…" : text
    }
}
