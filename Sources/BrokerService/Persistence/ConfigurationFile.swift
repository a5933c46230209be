/// Files under `storePathRootDir/config`, by RocketMQ's names, in the order in which they are loaded.
enum ConfigurationFile: String, CaseIterable {
    /// Apus's own, and the first to be loaded: the others may depend on it.
    case changedSettings = "changedSettings.json"
    case topics = "topics.json"
    case subscriptionGroups = "subscriptionGroup.json"
    case consumerOffsets = "consumerOffset.json"
    case delayOffsets = "delayOffset.json"
    case timerMetrics = "timermetrics"
    case messageRequestModes = "messageRequestMode.json"
    /// Apus's own.
    case autoCreatedTopics = "autoCreatedTopics.json"

    /// Changes all the time and is written by a timer; the others are written because they have changed.
    var isPeriodic: Bool {
        switch self {
        case .consumerOffsets, .delayOffsets, .timerMetrics: true
        case .changedSettings, .topics, .subscriptionGroups, .autoCreatedTopics, .messageRequestModes: false
        }
    }
}
