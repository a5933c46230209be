import FastJSON
import Logging
import MessageStore
import RemotingProtocol
import SettingTable

/// The settings operators change while the broker runs, kept in `config/changed.json`. Confined to the broker's event
/// loop.
final class BrokerSettings {
    private let environment: BrokerEnvironment
    private let tables: BrokerTables
    private let storage: StoreAccess
    private let transactions: TransactionalMessageService
    private let registration: NameserverRegistration
    /// Counts changes of the settings (25).
    private(set) var version: DataVersion
    private(set) var changed: ChangedSettings

    init(
        _ environment: BrokerEnvironment, _ tables: BrokerTables, _ storage: StoreAccess,
        _ transactions: TransactionalMessageService, _ registration: NameserverRegistration
    ) {
        self.environment = environment
        self.tables = tables
        self.storage = storage
        self.transactions = transactions
        self.registration = registration
        version = DataVersion(timestamp: environment.now(), counter: 0)
        let configuration = environment.configuration
        changed = ChangedSettings(
            file: configuration.pairs.map { ($0.key, $0.value) },
            standard: (configuration.listing + storage.store.configuration.listing).map { ($0.key, $0.value) })
    }

    /// An operator changes settings (25): they hold at once, and after a restart too.
    /// - Returns: why nothing was changed, or `nil` when all was.
    func change(settings: [(String, String)]) -> String? {
        var next = environment.configuration
        for (key, value) in settings {
            let refusal = SettingTable.refusal(
                ofChange: key, to: value, by: .broker, restart: "apus restart broker-store")
            if let refusal { return "\(refusal); nothing was changed" }
            do throws(SettingRefusal) {
                try next.set(key, value)
            } catch {
                return "\(error); nothing was changed"
            }
        }
        guard next.isSlave == environment.configuration.isSlave else {
            return "a broker becomes a slave or a master by its configuration file and a restart; nothing was changed"
        }
        do throws(StoreError) {
            _ = try storage.store.configuration.changed(settings)
        } catch {
            return "\(error); nothing was changed"
        }
        apply(settings)
        // As the table has it: the file's text, which it is compared with, is in that form, too.
        for (key, _) in settings { changed.change(key, to: next.raw(key) ?? "") }
        return nil
    }

    /// The configuration file was read again. Values it contains as before do not undo what operators changed since.
    func reload(settings: [(String, String)]) {
        let news = changed.reload(settings)
        let later = news.filter { SettingTable.setting($0.0).map { $0.change == .start } ?? false }
        if !later.isEmpty {
            environment.logger.warning(
                """
                settings that are read when the broker starts take effect with its next start: \
                \(later.map(\.0).joined(separator: " "))
                """
            )
        }
        apply(news.filter { SettingTable.setting($0.0)?.change == .running })
    }

    private func load(_ json: JSONValue) {
        let loaded = changed.load(json, by: .broker)
        if !loaded.outdated.isEmpty {
            environment.logger.notice(
                """
                the configuration file has changed since these were set with updateBrokerConfig; the file's values are \
                used: \(loaded.outdated.joined(separator: " "))
                """
            )
        }
        for refusal in loaded.refused {
            environment.logger.warning(
                """
                a setting changed with updateBrokerConfig is given up, the configuration file's value is used: \
                \(refusal)
                """
            )
        }
        apply(loaded.held.map { ($0.key, $0.value) })
    }

    private func apply(_ settings: [(String, String)]) {
        guard !settings.isEmpty else { return }
        let couldWrite = environment.configuration.brokerPermission & Permission.write != 0
        for (key, value) in settings {
            do {
                var next = environment.configuration
                try next.set(key, value)
                try storage.store.change([(key, value)])
                environment.configuration = next
            } catch {
                environment.logger.warning("setting \(key) keeps its former value: \(error)")
            }
        }
        let configuration = environment.configuration
        storage.gate.conditions = AckGate.Conditions(configuration)
        storage.admission.settingsChanged(configuration)
        tables.groups.autoCreate = configuration.autoCreateSubscriptionGroup
        tables.topics.autoCreateChanged(configuration)
        transactions.settingsChanged()
        version.next(now: environment.now())
        if settings.contains(where: { $0.0 == "brokerPermission" }) {
            if couldWrite { storage.admission.writeWithdrawnMilliseconds = environment.now() }
            tables.topics.bump(nil)
        }
        if settings.contains(where: { $0.0 == "namesrvAddr" }) { registration.nameServersChanged() }
        environment.scheduleTick()
    }
}

extension BrokerSettings: PersistentTable {
    var isDirty: Bool { changed.isDirty }
    var fileJSON: JSONValue { changed.json }
    func markWritten() { changed.markWritten() }
    func load(file json: JSONValue) -> [RefusedEntry] {
        load(json)
        return []
    }
}
