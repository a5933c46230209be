import FastJSON
import Logging
import MessageStore
import RemotingProtocol
import SettingTable

extension Broker {
    /// An operator changes settings (25): they hold at once, and in the next life too.
    /// - Returns: why nothing was changed, or `nil` when all was.
    func change(settings: [(String, String)]) -> String? {
        var next = configuration
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
        guard next.isSlave == configuration.isSlave else {
            return "a broker becomes a slave or a master by its configuration file and a restart; nothing was changed"
        }
        do throws(StoreError) {
            _ = try store.configuration.changed(settings)
        } catch {
            return "\(error); nothing was changed"
        }
        apply(settings)
        // As the table has it: the file's text, which it is compared with, is in that form, too.
        for (key, _) in settings { changedSettings.change(key, to: next.raw(key) ?? "") }
        return nil
    }

    /// The configuration file was read again. What it says as before does not undo what operators changed since.
    package func reload(settings: [(String, String)]) {
        let news = changedSettings.reload(settings)
        let later = news.filter { SettingTable.setting($0.0).map { $0.change == .start } ?? false }
        if !later.isEmpty {
            logger.warning(
                "settings that are read when the broker starts take effect with its next start: \(later.map(\.0).joined(separator: " "))"
            )
        }
        apply(news.filter { SettingTable.setting($0.0)?.change == .running })
    }

    func load(changedSettings json: JSONValue) {
        let loaded = changedSettings.load(json, by: .broker)
        if !loaded.outdated.isEmpty {
            logger.notice(
                "the configuration file has changed since these were set with updateBrokerConfig; the file holds: \(loaded.outdated.joined(separator: " "))"
            )
        }
        for refusal in loaded.refused {
            logger.warning("a setting changed with updateBrokerConfig is given up, the file holds: \(refusal)")
        }
        apply(loaded.held.map { ($0.key, $0.value) })
    }

    private func apply(_ settings: [(String, String)]) {
        guard !settings.isEmpty else { return }
        let couldWrite = configuration.brokerPermission & Permission.write != 0
        for (key, value) in settings {
            do {
                var next = configuration
                try next.set(key, value)
                try store.change([(key, value)])
                configuration = next
            } catch {
                logger.warning("setting \(key) was left as it is: \(error)")
            }
        }
        gate.conditions = AckGate.Conditions(configuration)
        admission.settingsChanged(configuration)
        groups.autoCreate = configuration.autoCreateSubscriptionGroup
        topics.autoCreateChanged(configuration)
        transactions.settingsChanged()
        configurationVersion.next(now: now())
        if settings.contains(where: { $0.0 == "brokerPermission" }) {
            if couldWrite { writeWithdrawnMillis = now() }
            topics.bump(nil)
        }
        if settings.contains(where: { $0.0 == "namesrvAddr" }) { registration.nameServersChanged() }
    }
}
