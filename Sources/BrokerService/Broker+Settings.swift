import FastJSON
import Logging
import MessageStore
import RemotingProtocol

/// Settings operators have changed while the broker runs (UPDATE_BROKER_CONFIG, 25), in `config/changedSettings.json`:
/// `{"settings":{"fileReservedTime":{"value":"48","file":"72"}}}`.
///
/// RocketMQ rewrites the file it was started with. Here that file is the operator's and may stand for several brokers, so a change
/// is kept beside the broker's tables, with what the file said at that time (`file`, absent where it said nothing). Who changes the
/// file later is the last to have spoken: then the file holds.
struct ChangedSettings {
    struct Change: Equatable {
        var value: String
        var file: String?
    }

    private(set) var changes: [String: Change] = [:]
    /// What the configuration file (or the command line) says.
    private var file: [String: String]
    private(set) var isDirty = false

    init(file: [(String, String)]) { self.file = Dictionary(file, uniquingKeysWith: { $1 }) }

    mutating func change(_ key: String, to value: String) {
        let change = file[key] == value ? nil : Change(value: value, file: file[key])
        if changes[key] != change { isDirty = true }
        changes[key] = change
    }

    /// The file was read again: returns what it says anew.
    mutating func reload(_ settings: [(String, String)]) -> [(String, String)] {
        let news = settings.filter { file[$0.0] != $0.1 }
        for (key, value) in news {
            file[key] = value
            if changes.removeValue(forKey: key) != nil { isDirty = true }
        }
        return news
    }

    /// Takes the changes that still hold; returns those and the keys of the others.
    mutating func load(_ json: JSONValue) -> (held: [(String, String)], outdated: [String]) {
        var outdated: [String] = []
        for member in json["settings"]?.object?.members ?? [] {
            guard let value = member.value["value"]?.string else { continue }
            let change = Change(value: value, file: member.value["file"]?.string)
            if change.file == file[member.key] {
                changes[member.key] = change
            } else {
                outdated.append(member.key)
                isDirty = true
            }
        }
        return (changes.sorted { $0.key < $1.key }.map { ($0.key, $0.value.value) }, outdated)
    }

    var json: JSONValue {
        let members = changes.sorted { $0.key < $1.key }.map { key, change in
            (
                key,
                Optional(
                    JSONValue.fields([("value", .string(change.value)), ("file", change.file.map { .string($0) })]))
            )
        }
        return .fields([("settings", .fields(members))])
    }

    mutating func markWritten() { isDirty = false }

    static func accepts(_ json: JSONValue) -> Bool {
        guard let settings = json["settings"]?.object else { return false }
        return settings.members.allSatisfy {
            $0.value["value"]?.string != nil && ($0.value["file"].map { $0.string != nil } ?? true)
        }
    }
}

extension Broker {
    /// Settings that are read once, when the broker starts or earlier.
    static let settingsReadAtStart: Set<String> = [
        "allocateAheadBytes", "bindAddress", "brokerClusterName", "brokerId", "brokerIP1", "brokerIP2", "brokerName",
        "brokerTopicEnable", "checkCRCOnRecover", "clusterTopicEnable", "connectionsMax", "connectionsPerAddressMax",
        "enabledAppendPropCRC", "fastListenPort",
        "flushConsumerOffsetInterval", "forceVerifyPropCRC",
        "haHousekeepingInterval", "haListenPort", "haMasterAddress", "haSendHeartbeatInterval", "haTransferBatchSize",
        "listenPort", "mappedFileSizeCommitLog", "mappedFileSizeConsumeQueue", "maxHashSlotNum", "maxIndexNum",
        "messageDelayLevel", "messageIndexEnable", "msgTraceTopicName", "namesrvAddr", "rebalanceLockMaxLiveTime",
        "recallMessageEnable", "recordSumEnable", "regionId", "registerNameServerPeriod", "sendfileBytesMin",
        "serverChannelMaxIdleTimeSeconds", "storePathCommitLog", "storePathRootDir", "storeReplyMessageEnable",
        "timerMaxDelaySec", "traceOn", "traceTopicEnable",
    ]

    /// An operator changes settings (25): they hold at once, and in the next life too.
    /// - Returns: why nothing was changed, or `nil` when all was.
    func change(settings: [(String, String)]) -> String? {
        var next = configuration
        for (key, value) in settings {
            guard !Self.settingsReadAtStart.contains(key) else {
                return "\(key) is read when the broker starts, nothing was changed: set it in the configuration file, "
                    + "then restart the worker (apus restart broker-store)"
            }
            guard next.set(key, value) else { return "\(key)=\(value) is not usable, nothing was changed" }
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
        for (key, value) in settings { changedSettings.change(key, to: value.trimmedBlanks) }
        return nil
    }

    /// The configuration file was read again. What it says as before does not undo what operators changed since.
    package func reload(settings: [(String, String)]) {
        let news = changedSettings.reload(settings)
        let later = news.filter { Self.settingsReadAtStart.contains($0.0) }
        if !later.isEmpty {
            logger.warning(
                "settings that are read when the broker starts take effect with its next start: \(later.map(\.0).joined(separator: " "))"
            )
        }
        apply(news.filter { !Self.settingsReadAtStart.contains($0.0) })
    }

    func load(changedSettings json: JSONValue) {
        let (held, outdated) = changedSettings.load(json)
        if !outdated.isEmpty {
            logger.notice(
                "the configuration file has changed since these were set with updateBrokerConfig; the file holds: \(outdated.joined(separator: " "))"
            )
        }
        apply(held)
    }

    private func apply(_ settings: [(String, String)]) {
        guard !settings.isEmpty else { return }
        for (key, value) in settings {
            do throws(StoreError) {
                try store.change([(key, value)])
                if !configuration.set(key, value) {
                    logger.warning("setting \(key)=\(value) is not usable and was left as it is")
                }
            } catch {
                logger.warning("setting \(key)=\(value) was left as it is: \(error)")
            }
        }
        gate.conditions = AckGate.Conditions(configuration)
        groups.autoCreate = configuration.autoCreateSubscriptionGroup
        topics.autoCreateChanged(configuration)
        transactions.settingsChanged()
        configurationVersion.next(now: now())
        if settings.contains(where: { $0.0 == "brokerPermission" }) { topics.bump(nil) }
    }
}
